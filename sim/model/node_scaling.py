"""Scalings that depend on the number of nodes a gang is on. Imports only the standard library and numpy."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from elastune.sim.model.errors import InputError
from elastune.sim.model.scaling import LinearScaling, Scaling, ScalingKind, check_gang


def _check_nodes(scaling: object, gpus: int, nodes: int) -> None:
    if not 1 <= nodes <= gpus:
        raise InputError(
            f"{type(scaling).__name__}: {gpus} GPUs asked for on {nodes} nodes, but they fit on 1 to {gpus}"
        )


@dataclass(frozen=True)
class PlacedTableScaling:
    """Measured speed-ups by GPUs and nodes.

    Gangs that were not measured are interpolated. For a measured number of GPUs the speed-up is linear between two measured
    numbers of nodes, and constant beyond the fewest and the most. For other numbers of GPUs it is linear between the next
    smaller and the next larger measured gang, each on the same number of nodes. `is_measured` tells whether a gang was
    measured, and a run counts the GPU-seconds on gangs that were not (`unmeasured_gpu_s`).

    Attributes:
        points: speed-up over one GPU by (GPUs, nodes); (1, 1): 1.0 is required.
        kind: how the batch was held when it was measured.
    """

    points: Mapping[tuple[int, int], float]
    kind: ScalingKind = "unstated"
    _gpus: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _known: dict[tuple[int, int], float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not math.isclose(self.points.get((1, 1), math.nan), 1.0, rel_tol=1e-6):
            raise InputError("scaling by GPUs and nodes: a table of speed-ups starts with 1 GPU on 1 node at 1.0")
        for (gpus, nodes), speedup in self.points.items():
            _check_nodes(self, gpus, nodes)
            if not (math.isfinite(speedup) and speedup > 0):
                raise InputError(
                    f"scaling: the speed-up of {gpus} GPUs on {nodes} nodes is {speedup}, but must be positive"
                )
        object.__setattr__(self, "_gpus", tuple(sorted({gpus for gpus, _ in self.points})))
        object.__setattr__(self, "_known", {pair: float(speedup) for pair, speedup in self.points.items()})

    @property
    def max_gpus(self) -> int:
        """The largest gang the table covers."""
        return self._gpus[-1]

    def is_measured(self, gpus: int, nodes: int) -> bool:
        """Whether exactly this gang was measured."""
        return (gpus, nodes) in self.points

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; see `sim.model.scaling.Scaling`.

        Raises:
            InputError: the table does not cover so many GPUs, or there are more nodes than GPUs.
        """
        known = self._known.get((gpus, nodes))
        if known is None:
            check_gang(self, gpus, self.max_gpus)
            _check_nodes(self, gpus, nodes)
            known = self._known[gpus, nodes] = self._estimate(gpus, nodes)
        return known

    def _estimate(self, gpus: int, nodes: int) -> float:
        at = bisect_left(self._gpus, gpus)
        right = self._gpus[at]
        if right == gpus:
            return self._on_nodes(gpus, nodes)
        left = self._gpus[at - 1]
        share = (gpus - left) / (right - left)
        slower = self._on_nodes(left, nodes)
        return slower + share * (self._on_nodes(right, nodes) - slower)

    def _on_nodes(self, gpus: int, nodes: int) -> float:
        measured = sorted((m, speedup) for (count, m), speedup in self.points.items() if count == gpus)
        return float(np.interp(nodes, [m for m, _ in measured], [speedup for _, speedup in measured]))


@dataclass(frozen=True)
class Link:
    """What connects the GPUs of a gang.

    Attributes:
        latency_s: of one message.
        transfer_s: one copy of the gradients over the link: their bytes over its bytes per second.
    """

    latency_s: float = 0.0
    transfer_s: float = 0.0

    def __post_init__(self) -> None:
        for name, seconds in (("latency_s", self.latency_s), ("transfer_s", self.transfer_s)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise InputError(f"scaling: {name} of a link is {seconds}, but must be a number >= 0")

    def allreduce_s(self, gpus: int) -> float:
        """A ring all-reduce among so many GPUs: 2 (p - 1) messages, each a p-th of the gradients."""
        return 2 * (gpus - 1) * (self.latency_s + self.transfer_s / gpus)


@dataclass(frozen=True)
class AllReduceScaling:
    """A step is computing, then a ring all-reduce of the gradients [ours; the textbook cost of a ring].

    Seconds of a step on p GPUs: compute_s / p (strong) or compute_s (weak), + serial_s, + 2 (p - 1) (latency_s +
    transfer_s / p) of `intra` where the gang is on one node and of `inter` where it is on several, because the slowest
    link paces a ring. Pollux (OSDI 2021, section 3) has the same parts, a term for one node and one for several, with a
    synchronisation that is linear in p; here it is the ring's.

    Deviations: computing and synchronisation do not overlap; how many nodes there are beyond two does not matter.

    Attributes:
        compute_s: computing in a step on one GPU, the part that is divided.
        intra: link within a node.
        inter: link between nodes.
        kind: whether the gang's batch (strong) or that of each GPU (weak) is fixed.
        serial_s: the part of a step that is not divided.
    """

    compute_s: float
    intra: Link
    inter: Link
    kind: ScalingKind
    serial_s: float = 0.0
    max_gpus: int = 64

    def __post_init__(self) -> None:
        if self.kind not in ("weak", "strong"):
            raise InputError(
                "scaling allreduce: kind is missing; it is weak (batch of each GPU fixed) or strong (whole)"
            )
        if not (math.isfinite(self.compute_s) and self.compute_s > 0):
            raise InputError(f"scaling allreduce: compute_s is {self.compute_s}, but must be a positive number")
        if not (math.isfinite(self.serial_s) and self.serial_s >= 0):
            raise InputError(f"scaling allreduce: serial_s is {self.serial_s}, but must be a number >= 0")

    def step_s(self, gpus: int, nodes: int = 1) -> float:
        """Seconds of one step."""
        link = self.intra if nodes == 1 else self.inter
        divided_s = self.compute_s / gpus if self.kind == "strong" else self.compute_s
        return divided_s + self.serial_s + link.allreduce_s(gpus)

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU, of the same number of samples; see `sim.model.scaling.Scaling`.

        Raises:
            InputError: `gpus` is not between 1 and `max_gpus`, or there are more nodes than GPUs.
        """
        check_gang(self, gpus, self.max_gpus)
        _check_nodes(self, gpus, nodes)
        samples = 1 if self.kind == "strong" else gpus
        return samples * self.step_s(1) / self.step_s(gpus, nodes)


@dataclass(frozen=True)
class OnMachines:
    """A scaling on machines of a known size: every gang is on at least as many nodes as it needs.

    Policies ask for `speedup(gpus)` without a number of nodes; on these machines that means the fewest possible.
    """

    scaling: Scaling
    gpus_per_machine: int

    @property
    def max_gpus(self) -> int:
        """The largest gang the scaling is known for."""
        return self.scaling.max_gpus

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; see `sim.model.scaling.Scaling`."""
        return self.scaling.speedup(gpus, max(nodes, -(-gpus // self.gpus_per_machine)))


def knows_nodes(scaling: Scaling) -> bool:
    """Whether a gang's speed depends on how many nodes it is on."""
    return isinstance(scaling, PlacedTableScaling | AllReduceScaling)


def unstated_gangs(scaling: Scaling, gpus_per_machine: int, most_gpus: int) -> tuple[int, ...]:
    """Gangs of whole machines that train faster than one machine, although nothing says what the network between them costs.

    None where the scaling knows of nodes, or is `linear`, which says that the network costs nothing.

    Args:
        scaling: by GPUs.
        gpus_per_machine: of the machines that are rented.
        most_gpus: of the quota.
    """
    largest = min(scaling.max_gpus, most_gpus)
    if knows_nodes(scaling) or isinstance(scaling, LinearScaling) or largest <= gpus_per_machine:
        return ()
    fastest, sizes = scaling.speedup(gpus_per_machine), []
    for gpus in range(2 * gpus_per_machine, largest + 1, gpus_per_machine):
        if scaling.speedup(gpus) > fastest:
            fastest = scaling.speedup(gpus)
            sizes.append(gpus)
    return tuple(sizes)
