"""Journals as tables to draw: one run's machines and segments over time, and the trajectories of a sweep's runs.

Imports sim.model, the run spec, what reads journals, and the store; pandas inside the functions that need it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.journals import entries_of, header_of, journal_of, spec_of
from elastune.experiments.runs.trajectory import Recording, trajectory_table
from elastune.experiments.runs.world import World
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.commands import ReleaseInstance, StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import SegmentEnded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from elastune.sim.model.ids import InstanceId, SegmentId


@dataclass(frozen=True)
class Timeline:
    """One run as tables; what `figures.gantt` draws.

    Attributes:
        segments: one row per segment and GPU it held, in the order of their starts: trial, segment, instance, lane (0 for the
            machine's first GPU), start_s, end_s (no later than the end of the run), launch_s, train_s, checkpoint_s,
            from_iteration, until_iteration (that it was started for), iteration (that it reached), outcome (`cut` where it was
            cut by the release of its machine or the end of the run).
        leases: one row per machine that was launched, in the order of their numbers: instance, instance_type, market, gpus,
            requested_s, launched_s, ready_s (NaN where it never was), end_s (when it was gone, or the end of the run), cause
            (`released`, `reclaimed`, `lost`, or `finished` for the end of the run).
        policy: as the command line takes it.
        end_s: when the run was finished.
        deadline_s: None without one.
        best_trial: the run's answer; None where nothing was trained.
    """

    segments: pd.DataFrame
    leases: pd.DataFrame
    policy: str
    end_s: float
    deadline_s: float | None
    best_trial: int | None


def timeline_of(path: str | Path) -> Timeline:
    """The timeline of a journal, as a run writes it or compressed as a sweep keeps it.

    Raises:
        InputError: the file is not a journal or a damaged one, or it ends before its run did.
    """
    path = Path(path)
    spec = spec_of(path)
    return timeline_in(Tables.of(entries_of(path, is_whole=True), spec.price_book()), spec)


def timeline_in(tables: Tables, spec: RunSpec) -> Timeline:
    """The timeline of a run that has ended, from its tables."""
    return Timeline(
        segments_by_gpu(tables),
        leases_table(tables),
        policy=spec.policy.label,
        end_s=tables.finished_s,
        deadline_s=spec.job.deadline_s,
        best_trial=tables.best,
    )


def segments_by_gpu(tables: Tables) -> pd.DataFrame:
    """See `Timeline.segments`."""
    import pandas as pd

    return pd.DataFrame(list(_segment_rows(tables)), columns=list(_SEGMENT_COLUMNS))


def leases_table(tables: Tables) -> pd.DataFrame:
    """See `Timeline.leases`."""
    import pandas as pd

    return pd.DataFrame(list(_lease_rows(tables)), columns=list(_LEASE_COLUMNS))


_SEGMENT_COLUMNS = (
    "trial", "segment", "instance", "lane", "start_s", "end_s", "launch_s", "train_s", "checkpoint_s", "from_iteration",
    "until_iteration", "iteration", "outcome",
)  # fmt: skip
_LEASE_COLUMNS = (
    "instance",
    "instance_type",
    "market",
    "gpus",
    "requested_s",
    "launched_s",
    "ready_s",
    "end_s",
    "cause",
)


def _lease_rows(tables: Tables) -> Iterator[tuple[object, ...]]:
    """See `Timeline.leases`."""
    for lease in sorted(tables.leases, key=lambda lease: lease.instance):
        if not math.isnan(lease.launched_s):
            end_s, cause = (tables.finished_s, "finished") if lease.cause is None else (lease.ended_s, str(lease.cause))
            times = (lease.requested_s, lease.launched_s, lease.ready_s, end_s)
            yield (lease.instance, lease.instance_type, lease.market, lease.gpus, *times, cause)


def _segment_rows(tables: Tables) -> Iterator[tuple[object, ...]]:
    """See `Timeline.segments`."""
    lanes = _Lanes(tables)
    for segment in tables.segments:
        command, ended = segment.command, segment.ended
        if ended is None:
            told: tuple[object, ...] = (math.nan, math.nan, math.nan)
            reached, outcome = command.from_iteration, "cut"
        else:
            told = (ended.launch_s, ended.train_s, ended.checkpoint_s)
            reached, outcome = ended.iteration, str(ended.outcome)
        spread = (command.from_iteration, command.until_iteration, reached, outcome)
        end_s = min(lanes.ended_s.get(command.segment, math.inf), tables.finished_s)
        for instance, lane in lanes.of[command.segment]:
            yield (command.trial, command.segment, instance, lane, segment.started_s, end_s, *told, *spread)


class _Lanes:
    """Which GPUs of its machines each segment held: the lowest that were free.

    Attributes:
        of: (instance, lane) by segment.
        ended_s: when a segment gave them back, by segment; one that the end of the run cut is missing.
    """

    def __init__(self, tables: Tables) -> None:
        self.of: dict[SegmentId, list[tuple[InstanceId, int]]] = {}
        self.ended_s: dict[SegmentId, float] = {}
        self._free = {lease.instance: list(range(lease.gpus)) for lease in tables.leases}
        for _, at_s, what, _ in tables.changes:
            if isinstance(what, StartSegment):
                self._take(what)
            elif isinstance(what, SegmentEnded):
                self._give_back(what.segment, at_s)
            elif isinstance(what, ReleaseInstance):
                # A machine that is given back cuts the gangs on it.
                held = [segment for segment, lanes in self.of.items() if what.instance in dict(lanes)]
                for segment in held:
                    self._give_back(segment, at_s)

    def _take(self, command: StartSegment) -> None:
        lanes = []
        for instance, count in command.placement:
            free = self._free[instance]
            lanes += [(instance, lane) for lane in free[:count]]
            del free[:count]
        self.of[command.segment] = lanes

    def _give_back(self, segment: SegmentId, at_s: float) -> None:
        if segment in self.ended_s:
            return
        self.ended_s[segment] = at_s
        for instance, lane in self.of[segment]:
            self._free[instance].append(lane)
            self._free[instance].sort()


def trajectories_of(folder: str | Path, results: pd.DataFrame, *, keep: Sequence[str] = ()) -> pd.DataFrame:
    """The trajectories of runs of a sweep, from the journals that it kept.

    Args:
        folder: the results folder; its sweep ran with `--journals`.
        results: its rows, such as `read_results(folder)`, or a part of them; those that are not done have no trajectory.
        keep: further columns of the rows that each row of a run's trajectory shall have, such as what tells runs of one policy
            and seed apart.

    Returns:
        For each run the columns of `experiments.runs.trajectory.trajectory_table`, and policy, seed, direction, deadline_s,
        budget_usd and those of `keep`: what `figures.best_so_far`, `gpus_over_time` and `score_over_time_and_cost` take.

    Raises:
        InputError: a run that is done has no journal, its journal does not fit the bundle, or two of these runs are of one
            policy and seed (and equal in `keep`), which nobody could tell apart.
    """
    import pandas as pd

    done = results[results["status"] == "done"]
    doubled = done[done.duplicated(["policy", "seed", *keep])]
    if len(doubled):
        policy, seed = doubled.iloc[0][["policy", "seed"]]
        raise InputError(
            f"{folder}: several runs of {policy}, seed {seed}: ask for a part of the rows, or keep what differs"
        )
    tables = []
    for row in done.to_dict("records"):
        path = journal_of(Path(folder) / "journals", str(row["digest"]))
        if not path.is_file():
            raise InputError(f"{path}: is not there; `elastune sweep FILE -o {folder} --journals` keeps journals")
        kept = {column: row[column] for column in ("policy", "seed", "direction", *keep)}
        limits = {"deadline_s": row["job.deadline_s"], "budget_usd": row["job.budget_usd"]}
        tables.append(trajectory_table(_recording(path)).assign(**limits, **kept))
    if not tables:
        raise InputError(f"{folder}: none of the {len(results)} rows asked for is a run that is done")
    return pd.concat(tables, ignore_index=True)


def _recording(path: Path) -> Recording:
    header = header_of(path)
    world = World.of(RunSpec.recorded(header.spec))
    recorded = header.data_sha256.get(world.bundle.name)
    if recorded != world.bundle.sha256:
        raise InputError(f"{path}: bundle {world.bundle.name} is not the one that the journal was recorded with")
    tables = Tables.of(entries_of(path), world.price_book)
    return Recording(tables, world.recorded_scores, world.job.direction)
