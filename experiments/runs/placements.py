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
    from elastune.experiments.runs.fold import Held, Segment, Tables
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
    training = scaling.training if isinstance(scaling, EvaluatedScaling) else scaling
    last_held: dict[TrialId, Held] = {}
    migrated = set()
    resumed = spread = 0
    for segment in tables.segments:
        command, held = segment.command, segment.held
        if command.restore_from is not None:
            resumed += 1
            before = last_held.get(command.trial)
            # One object for each placement: nearly always that says it.
            if before is not held and (before is None or _machines(before) != _machines(held)):
                migrated.add(command.segment)
        last_held[command.trial] = held
        spread += len(held) > -(-segment.gpus // gpus_per_machine)
    sums |= {
        "segments": len(tables.segments),
        "resumed": resumed,
        "migrations": len(migrated),
        "spread_segments": spread,
    }
    if not (migrated or spread or isinstance(training, PlacedTableScaling)):
        return sums
    for segment in tables.ended():
        assert segment.ended is not None
        trained_gpu_s = segment.ended.train_s * segment.gpus
        if isinstance(training, PlacedTableScaling) and not training.is_measured(segment.gpus, len(segment.held)):
            sums["unmeasured_gpu_s"] += trained_gpu_s
        _add_spread(sums, segment, trained_gpu_s, scaling, -(-segment.gpus // gpus_per_machine))
        if segment.command.segment in migrated:
            sums["migration_gpu_s"] += segment.ended.launch_s * segment.gpus
    return sums


def _machines(held: Held) -> frozenset[InstanceId]:
    return frozenset(lease.instance for lease, _ in held)


def _add_spread(sums: dict[str, float], segment: Segment, trained_gpu_s: float, scaling: Scaling, needed: int) -> None:
    """GPU-seconds of a segment that is spread over more machines than needed."""
    gpus, nodes = segment.gpus, len(segment.held)
    if nodes > needed:
        sums["spread_gpu_s"] += trained_gpu_s
        slowed = scaling.speedup(gpus, nodes) / scaling.speedup(gpus, needed)
        sums["spread_lost_gpu_s"] += trained_gpu_s * (1 - slowed)
