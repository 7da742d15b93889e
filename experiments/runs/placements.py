"""What placement cost a run, read from its segments. Imports experiments.runs.fold, sim.model and traces.

A gang is spread if it is on more machines than it needs. A gang never waits for GPUs of one machine, so fragmentation shows as
spreading, and as idle GPUs of machines that cannot be given back, which are in the ledger. A trial migrates if it goes on from
its checkpoint on other machines than before; it pays the same launch as one that goes on in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.traces.bundles.terms import EvaluatedScaling

if TYPE_CHECKING:
    from elastune.experiments.runs.fold import Segment, Tables
    from elastune.sim.model.ids import InstanceId, TrialId
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


def placement_account(tables: Tables, scaling: Scaling, gpus_per_machine: int) -> dict[str, float]:
    """Counts and GPU-seconds, in the order of `PARTS`; complete when the run has ended.

    Args:
        tables: of the run.
        scaling: the true one.
        gpus_per_machine: of the largest machines, on which a gang could have been.
    """
    sums: dict[str, float] = dict.fromkeys(PARTS, 0)
    last_machines: dict[TrialId, frozenset[InstanceId]] = {}
    migrated = set()
    for segment in tables.segments:
        machines = frozenset([lease.instance for lease, _ in segment.held])
        is_resumed = segment.command.restore_from is not None
        is_migrated = is_resumed and machines != last_machines.get(segment.trial)
        last_machines[segment.trial] = machines
        if is_migrated:
            migrated.add(segment.command.segment)
        sums["segments"] += 1
        sums["resumed"] += is_resumed
        sums["migrations"] += is_migrated
        sums["spread_segments"] += len(machines) > -(-segment.gpus // gpus_per_machine)
    for segment in tables.ended():
        _add_end(sums, segment, scaling, -(-segment.gpus // gpus_per_machine))
        if segment.command.segment in migrated and segment.ended is not None:
            sums["migration_gpu_s"] += segment.ended.launch_s * segment.gpus
    return sums


def _add_end(sums: dict[str, float], segment: Segment, scaling: Scaling, needed: int) -> None:
    """GPU-seconds that a segment trained without measurement, or spread over more machines than needed."""
    assert segment.ended is not None
    gpus, nodes = segment.gpus, len(segment.held)
    training = scaling.training if isinstance(scaling, EvaluatedScaling) else scaling
    trained_gpu_s = segment.ended.train_s * gpus
    if isinstance(training, PlacedTableScaling) and not training.is_measured(gpus, nodes):
        sums["unmeasured_gpu_s"] += trained_gpu_s
    if nodes > needed:
        sums["spread_gpu_s"] += trained_gpu_s
        slowed = scaling.speedup(gpus, nodes) / scaling.speedup(gpus, needed)
        sums["spread_lost_gpu_s"] += trained_gpu_s * (1 - slowed)
