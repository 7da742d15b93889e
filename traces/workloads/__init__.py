"""What is really trained: search spaces and trainables.

May import the pure core; torch, scikit-learn and mlxtend are imported when a trial is built, never before.
"""

from __future__ import annotations

from elastune.sim.model.errors import unknown
from elastune.traces.workloads.deepmoe.workload import DEEPMOE_FMNIST, DEEPMOE_MNIST5K
from elastune.traces.workloads.digits_mlp import DIGITS_MLP
from elastune.traces.workloads.mnist5k_cnn import MNIST5K_CNN
from elastune.traces.workloads.search_space import (
    Categorical,
    Dimension,
    Integer,
    LogUniform,
    SearchSpace,
    Uniform,
)
from elastune.traces.workloads.workload import BatchMode, ScoredTrainable, Seat, Workload, training_seed

__all__ = [
    "WORKLOAD_NAMES",
    "BatchMode",
    "Categorical",
    "Dimension",
    "Integer",
    "LogUniform",
    "ScoredTrainable",
    "SearchSpace",
    "Seat",
    "Uniform",
    "Workload",
    "training_seed",
    "workload_named",
]

_WORKLOADS = {workload.name: workload for workload in (DIGITS_MLP, MNIST5K_CNN, DEEPMOE_MNIST5K, DEEPMOE_FMNIST)}

WORKLOAD_NAMES: tuple[str, ...] = tuple(_WORKLOADS)
"""The workloads that ship with the project."""


def workload_named(name: str) -> Workload:
    """The workload of this name.

    Raises:
        InputError: there is none; the message names the nearest known one.
    """
    if name not in _WORKLOADS:
        raise unknown("workload", name, WORKLOAD_NAMES)
    return _WORKLOADS[name]
