"""What placement cost a run, as a fold over its journal. Imports sim.control.journal, sim.model and traces.

A gang is spread if it is on more machines than it needs. A gang never waits for GPUs of one machine, so fragmentation shows as
spreading, and as idle GPUs of machines that cannot be given back, which are in the ledger. A trial migrates if it goes on from
its checkpoint on other machines than before; it pays the same launch as one that goes on in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elastune.sim.model.commands import StartSegment
from elastune.sim.model.events import SegmentEnded
from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.traces.bundles.terms import EvaluatedScaling

if TYPE_CHECKING:
    from elastune.sim.control.journal import Entry
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


@dataclass(frozen=True, slots=True)
class _Gang:
    trial: TrialId
    gpus: int
    nodes: int
    is_migrated: bool


@dataclass
class PlacementAccount:
    """Takes a run's entries in order; a sink for `sim.control.controller.Controller`, and for journals that are read back.

    Attributes:
        scaling: the true one.
        gpus_per_machine: of the largest machines, on which a gang could have been.
    """

    scaling: Scaling
    gpus_per_machine: int
    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    _gangs: dict[SegmentId, _Gang] = field(default_factory=dict)
    _last_machines: dict[TrialId, frozenset[InstanceId]] = field(default_factory=dict)

    def sums(self) -> dict[str, float]:
        """Counts and GPU-seconds, in the order of `PARTS`; complete when the run has ended."""
        return dict(self._sums)

    def write(self, entry: Entry) -> None:
        """Take one entry."""
        event = entry.event
        if entry.status != "stale" and isinstance(event, SegmentEnded):
            self._end(event)
        for command in entry.commands:
            if isinstance(command, StartSegment):
                self._start(command)

    def _start(self, order: StartSegment) -> None:
        machines = frozenset(instance for instance, _ in order.placement)
        is_resumed = order.restore_from is not None
        is_migrated = is_resumed and machines != self._last_machines.get(order.trial)
        gpus = sum(count for _, count in order.placement)
        self._last_machines[order.trial] = machines
        self._gangs[order.segment] = _Gang(order.trial, gpus, len(machines), is_migrated)
        sums = self._sums
        sums["segments"] += 1
        sums["resumed"] += is_resumed
        sums["migrations"] += is_migrated
        sums["spread_segments"] += len(machines) > self._needed(gpus)

    def _needed(self, gpus: int) -> int:
        return -(-gpus // self.gpus_per_machine)

    def _end(self, event: SegmentEnded) -> None:
        gang = self._gangs.pop(event.segment)
        sums, scaling = self._sums, self.scaling
        training = scaling.training if isinstance(scaling, EvaluatedScaling) else scaling
        trained_gpu_s = event.train_s * gang.gpus
        if gang.is_migrated:
            sums["migration_gpu_s"] += event.launch_s * gang.gpus
        if isinstance(training, PlacedTableScaling) and not training.is_measured(gang.gpus, gang.nodes):
            sums["unmeasured_gpu_s"] += trained_gpu_s
        needed = self._needed(gang.gpus)
        if gang.nodes > needed:
            sums["spread_gpu_s"] += trained_gpu_s
            slowed = scaling.speedup(gang.gpus, gang.nodes) / scaling.speedup(gang.gpus, needed)
            sums["spread_lost_gpu_s"] += trained_gpu_s * (1 - slowed)
