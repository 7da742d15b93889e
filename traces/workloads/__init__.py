"""What is really trained: the workloads that ship, by name, and what they are made of (`traces.training`).

May import the pure core and `traces.training`; torch, scikit-learn and mlxtend only when a trial is built.
"""

from __future__ import annotations

from elastune.sim.model.errors import unknown
from elastune.traces.training.search_space import (
    Categorical,
    Dimension,
    Integer,
    LogUniform,
    SearchSpace,
    Uniform,
)
from elastune.traces.training.workload import BatchMode, ScoredTrainable, Seat, Workload, training_seed
from elastune.traces.workloads.deepmoe.workload import DEEPMOE_FMNIST, DEEPMOE_MNIST5K
from elastune.traces.workloads.digits_mlp import DIGITS_MLP
from elastune.traces.workloads.mnist5k_cnn import MNIST5K_CNN

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
