"""The families that can be fitted, as functions of their parameters. Imports sim.model and numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import AllReduceScaling, Link
from elastune.sim.model.scaling import AmdahlScaling, LinearScaling, PowerScaling, Scaling, ScalingKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Gang = tuple[int, int]

FITTED_FAMILIES = ("linear", "amdahl", "power", "allreduce")
"""By their number of parameters."""


@dataclass(frozen=True, eq=False)
class Law:
    """A family whose parameters are to be found.

    Attributes:
        names: of the parameters, each at least 0.
        upper: the largest value of each.
        start: where a search begins.
        build: the scaling at some parameters.
        notes: what was assumed because it was not measured.
    """

    family: str
    names: tuple[str, ...]
    upper: tuple[float, ...]
    start: tuple[float, ...]
    build: Callable[[np.ndarray], Scaling]
    notes: tuple[str, ...] = ()

    def slope(self, at: np.ndarray, gang: Gang, step: float) -> np.ndarray:
        """(parameters,) how the logarithm of a gang's speed-up changes with each parameter."""
        here = self.build(at).speedup(*gang)
        slopes = np.empty(len(at))
        for index in range(len(at)):
            # Away from the upper bound, which is where a law of no parallelism at all would be.
            signed = -step if at[index] + step > self.upper[index] else step
            moved = at.copy()
            moved[index] += signed
            slopes[index] = math.log(self.build(moved).speedup(*gang) / here) / signed
        return slopes


def law_of(family: str, gangs: Sequence[Gang], kind: ScalingKind, max_gpus: int) -> Law:
    """A family with those parameters that measurements of these gangs, of more than 1 GPU, determine.

    Raises:
        InputError: an all-reduce model does not know what was held.
    """
    match family:
        case "linear":
            return Law("linear", (), (), (), lambda _: LinearScaling(max_gpus))
        case "amdahl":
            return Law("amdahl", ("serial",), (1.0,), (0.1,), lambda at: AmdahlScaling(float(at[0]), max_gpus, kind))
        case "power":
            return Law("power", ("exponent",), (1.0,), (0.8,), lambda at: PowerScaling(float(at[0]), max_gpus, kind))
        case _:
            return _allreduce(gangs, kind, max_gpus)


def _allreduce(gangs: Sequence[Gang], kind: ScalingKind, max_gpus: int) -> Law:
    """Links are in units of one step on 1 GPU; latency and transfer are told apart by gangs of different sizes."""
    if kind == "unstated":
        raise InputError(
            "allreduce must know whether the batch of each GPU (weak) or of the gang (strong) was held: say --kind, or add"
            " a column kind"
        )
    sizes = {
        "intra": {gpus for gpus, nodes in gangs if nodes == 1},
        "inter": {gpus for gpus, nodes in gangs if nodes > 1},
    }
    names: list[str] = []
    notes: list[str] = []
    for link, seen in sizes.items():
        if len(seen) > 1:
            names.append(f"{link}_latency")
        if seen:
            names.append(f"{link}_transfer")
        if len(seen) == 1:
            notes.append(f"allreduce: one size of gang measured the {link}-node link, so its latency is taken as 0")
    if not sizes["inter"]:
        notes.append("allreduce: no gang on several nodes was measured, so they are taken to be as fast as one node")
    elif not sizes["intra"]:
        notes.append("allreduce: no gang on one node was measured, so one is taken to be no faster than several")

    def build(at: np.ndarray) -> Scaling:
        found = dict(zip(names, at.tolist(), strict=True))
        links = {
            link: Link(found.get(f"{link}_latency", 0.0), found.get(f"{link}_transfer", 0.0))
            for link, seen in sizes.items()
            if seen
        }
        intra = links.get("intra") or links["inter"]
        return AllReduceScaling(1.0, intra, links.get("inter") or intra, kind, max_gpus=max_gpus)

    return Law("allreduce", tuple(names), (math.inf,) * len(names), (0.05,) * len(names), build, tuple(notes))
