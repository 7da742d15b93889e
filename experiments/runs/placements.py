"""What placement cost a run, read from its segments. Imports experiments.runs.fold, sim.model and traces.

A gang is spread if it is on more machines than it needs. A gang never waits for GPUs of one machine, so fragmentation shows as
spreading, and as idle GPUs of machines that cannot be given back, which are in the ledger. A trial migrates if it goes on from
its checkpoint on other machines than before; it pays the same launch as one that goes on in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.sim.model.commands import StartSegment
from elastune.sim.model.events import SegmentEnded
from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.traces.bundles.terms import EvaluatedScaling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.runs.fold import Change, Held, Segment
    from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
    from elastune.sim.model.scaling import Scaling

PARTS = (
    *("segments", "spread_segments", "spread_gpu_s", "spread_lost_gpu_s", "unmeasured_gpu_s"),
    *("resumed", "migrations", "migration_gpu_s"),
)
"""segments: started. spread_segments: of them on more machines than needed. spread_gpu_s: GPU-seconds those trained.
spread_lost_gpu_s: GPU-seconds that packed gangs would have saved; negative where the table says spreading is faster.
unmeasured_gpu_s: GPU-seconds trained by gangs that a table by GPUs and nodes did not measure, and read off others.
resumed: segments that go on from a checkpoint. migrations: of them on other machines. migration_gpu_s: GPU-seconds they spent
on launching and restoring."""


class PlacementCount:
    """Goes through the changes of a run once; a reader for `experiments.runs.fold.Tables`.

    Args:
        scaling: the true one.
        gpus_per_machine: of the largest machines, on which a gang could have been.
    """

    def __init__(self, scaling: Scaling, gpus_per_machine: int) -> None:
        self._scaling = scaling
        self._gpus_per_machine = gpus_per_machine
        training = scaling.training if isinstance(scaling, EvaluatedScaling) else scaling
        self._placed = training if isinstance(training, PlacedTableScaling) else None
        self._sums: dict[str, float] = dict.fromkeys(PARTS, 0)
        self._last_held: dict[TrialId, Held] = {}
        self._migrating: set[SegmentId] = set()

    @property
    def account(self) -> dict[str, float]:
        """Counts and GPU-seconds, in the order of `PARTS`; complete when the run has ended."""
        return self._sums

    def read(self, changes: Sequence[Change]) -> None:
        """Count the next changes."""
        sums, last_held = self._sums, self._last_held
        for _, _, what, row in changes:
            if type(what) is StartSegment:
                held = row.held  # type: ignore[union-attr]  # a segment's row
                sums["segments"] += 1
                if what.restore_from is not None:
                    sums["resumed"] += 1
                    before = last_held.get(what.trial)
                    # One object for each placement: nearly always that says it.
                    if before is not held and (before is None or _machines(before) != _machines(held)):
                        sums["migrations"] += 1
                        self._migrating.add(what.segment)
                last_held[what.trial] = held
                if len(held) > 1 and len(held) > self._needed(row):  # type: ignore[arg-type]
                    sums["spread_segments"] += 1
            elif type(what) is SegmentEnded:
                self._end(row, what)  # type: ignore[arg-type]

    def _needed(self, segment: Segment) -> int:
        """Machines that the gang needs."""
        return -(-segment.gpus // self._gpus_per_machine)

    def _end(self, segment: Segment, ended: SegmentEnded) -> None:
        sums, gpus, nodes = self._sums, segment.gpus, len(segment.held)
        if self._placed is not None and not self._placed.is_measured(gpus, nodes):
            sums["unmeasured_gpu_s"] += ended.train_s * gpus
        if nodes > 1 and nodes > (needed := self._needed(segment)):
            trained_gpu_s = ended.train_s * gpus
            sums["spread_gpu_s"] += trained_gpu_s
            slowed = self._scaling.speedup(gpus, nodes) / self._scaling.speedup(gpus, needed)
            sums["spread_lost_gpu_s"] += trained_gpu_s * (1 - slowed)
        if ended.segment in self._migrating:
            self._migrating.remove(ended.segment)
            sums["migration_gpu_s"] += ended.launch_s * gpus


def _machines(held: Held) -> frozenset[InstanceId]:
    return frozenset(lease.instance for lease, _ in held)
