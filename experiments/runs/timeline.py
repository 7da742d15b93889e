"""Journals as tables to draw: one run's machines and segments over time, and the trajectories of a sweep's runs.

Imports sim.model, the run spec, what reads journals, and the store; pandas inside the functions that need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.experiments.runs.journals import entries_of, header_of, journal_of, spec_of
from elastune.experiments.runs.trajectory import Recording, trajectory_table
from elastune.experiments.runs.world import World
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.actions import FinishRun
from elastune.sim.model.commands import ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import (
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    SegmentEnded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from elastune.sim.control.journal import Entry
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import InstanceId, SegmentId
    from elastune.sim.model.prices import PriceBook


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
    import pandas as pd

    path = Path(path)
    spec = spec_of(path)
    walk = _Walk(spec.price_book())
    for entry in entries_of(path, is_whole=True):
        walk.take(entry)
    assert walk.finished is not None  # the journal is whole
    return Timeline(
        pd.DataFrame(list(walk.segment_rows()), columns=list(_SEGMENT_COLUMNS)),
        pd.DataFrame(list(walk.lease_rows()), columns=list(_LEASE_COLUMNS)),
        policy=spec.policy.label,
        end_s=walk.finished[0],
        deadline_s=spec.job.deadline_s,
        best_trial=walk.finished[1],
    )


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


@dataclass(slots=True)
class _Lease:
    """One machine; NaN is not yet. `free` are the lanes that no gang holds, ascending."""

    instance_type: str
    market: str
    gpus: int
    requested_s: float
    free: list[int]
    launched_s: float = float("nan")
    ready_s: float = float("nan")
    end_s: float | None = None
    cause: str = "finished"


@dataclass(slots=True)
class _Gang:
    """One segment, the lanes it holds as (instance, lane), and how it ended."""

    order: StartSegment
    start_s: float
    lanes: list[tuple[InstanceId, int]]
    end_s: float | None = None
    ended: SegmentEnded | None = None


@dataclass
class _Walk:
    """Machines and segments, entry by entry.

    Attributes:
        finished: when the run was, and its answer.
    """

    price_book: PriceBook
    finished: tuple[float, int | None] | None = None
    _leases: dict[InstanceId, _Lease] = field(default_factory=dict)
    _gangs: dict[SegmentId, _Gang] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Fold one entry."""
        at_s = entry.event.at_s
        self._fold(entry.event)
        for command in entry.commands:
            match command:
                case ProvisionInstance(instance, instance_type, market):
                    gpus = self.price_book.type_named(instance_type).gpus_per_instance
                    self._leases[instance] = _Lease(instance_type, market, gpus, at_s, list(range(gpus)))
                case ReleaseInstance(instance):
                    self._cut(instance, at_s)
                case StartSegment():
                    self._start(command, at_s)
        for action in entry.actions:
            if isinstance(action, FinishRun) and self.finished is None:
                self.finished = at_s, action.best

    def _fold(self, event: Event) -> None:
        match event:
            case SegmentEnded() if event.segment in self._gangs:
                self._end(self._gangs[event.segment], event.at_s)
                self._gangs[event.segment].ended = event
            case InstanceLaunched(at_s, instance):
                self._leases[instance].launched_s = at_s
            case InstanceReady(at_s, instance):
                self._leases[instance].ready_s = at_s
            case InstanceRefused():
                del self._leases[event.instance]
            case InstanceGone(at_s, instance, cause) if self.finished is None:
                self._leases[instance].end_s, self._leases[instance].cause = at_s, str(cause)
            case _:
                pass

    def _start(self, order: StartSegment, at_s: float) -> None:
        """The gang takes the lowest free lanes of each of its machines."""
        lanes = []
        for instance, count in order.placement:
            free = self._leases[instance].free
            lanes += [(instance, lane) for lane in free[:count]]
            del free[:count]
        self._gangs[order.segment] = _Gang(order, at_s, lanes)

    def _cut(self, instance: InstanceId, at_s: float) -> None:
        """A machine that is given back cuts the gangs on it."""
        for gang in self._gangs.values():
            if gang.end_s is None and any(held == instance for held, _ in gang.lanes):
                self._end(gang, at_s)

    def _end(self, gang: _Gang, at_s: float) -> None:
        if gang.end_s is not None:
            return
        gang.end_s = at_s
        for instance, lane in gang.lanes:
            if instance in self._leases:
                free = self._leases[instance].free
                free.append(lane)
                free.sort()

    def segment_rows(self) -> Iterator[tuple[object, ...]]:
        """See `Timeline.segments`."""
        assert self.finished is not None
        finished_s = self.finished[0]
        for gang in self._gangs.values():
            end_s = finished_s if gang.end_s is None else min(gang.end_s, finished_s)
            order, ended = gang.order, gang.ended
            if ended is None:
                told: tuple[object, ...] = (float("nan"), float("nan"), float("nan"))
                reached, outcome = order.from_iteration, "cut"
            else:
                told = (ended.launch_s, ended.train_s, ended.checkpoint_s)
                reached, outcome = ended.iteration, str(ended.outcome)
            spread = (order.from_iteration, order.until_iteration, reached, outcome)
            for instance, lane in gang.lanes:
                yield (order.trial, order.segment, instance, lane, gang.start_s, end_s, *told, *spread)

    def lease_rows(self) -> Iterator[tuple[object, ...]]:
        """See `Timeline.leases`."""
        assert self.finished is not None
        for instance, lease in sorted(self._leases.items()):
            if lease.launched_s == lease.launched_s:
                end_s = self.finished[0] if lease.end_s is None else lease.end_s
                times = (lease.requested_s, lease.launched_s, lease.ready_s, end_s)
                yield (instance, lease.instance_type, lease.market, lease.gpus, *times, lease.cause)


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
    world = World.of(RunSpec.of(**header.spec))
    recorded = header.data_sha256.get(world.bundle.name)
    if recorded != world.bundle.sha256:
        raise InputError(f"{path}: bundle {world.bundle.name} is not the one that the journal was recorded with")
    return Recording(list(entries_of(path)), world.recorded_scores, world.price_book, world.job.direction)
