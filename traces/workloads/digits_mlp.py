"""digits-mlp: a multilayer perceptron on scikit-learn's digits. Imports torch only when a trial is built."""

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

    return Classifier(networks.mlp, datasets.digits(), configuration, seed, score="error", seat=seat)


DIGITS_MLP = Workload(
    name="digits-mlp",
    family="digits-mlp",
    description="A multilayer perceptron of 1 to 3 hidden layers on 8 x 8 digits; some 10 ms an epoch.",
    direction="minimize",
    iteration="one epoch over 600 images",
    score="validation error, fraction of 600 images",
    test_score_text="test error, fraction of 597 images",
    search_space=SearchSpace(
        {
            "optimizer": Categorical(("sgd", "adam")),
            "learning_rate": LogUniform(2e-4, 3.0),
            "momentum": Uniform(0.0, 0.99),  # beta 1 of Adam
            "weight_decay": LogUniform(1e-6, 1e-1),
            "batch_size": Categorical((16, 32, 64, 128)),
            "hidden_layers": Integer(1, 3),
            "width": Integer(8, 256, log=True),
            "dropout": Uniform(0.0, 0.7),
            "init_scale": LogUniform(0.3, 10.0),
        }
    ),
    max_iterations=81,
    trainable=_build,
    data_bytes=datasets.digits_bytes,
    source="Optical Recognition of Handwritten Digits (UCI, E. Alpaydin and C. Kaynak), as shipped in scikit-learn",
    licence="CC BY 4.0 (UCI); scikit-learn BSD-3-Clause",
    adaptable=("learning_rate", "momentum", "weight_decay", "batch_size", "dropout"),
)
