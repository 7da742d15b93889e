"""How a run went: tidy tables of its money, machines and best score over time, and of its segments.

Imports experiments.runs.fold, sim.model and numpy; pandas inside the functions that need it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.sim.model.actions import FinishRun
from elastune.sim.model.billing import Bill
from elastune.sim.model.commands import ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.events import (
    GoneCause,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    SegmentEnded,
)
from elastune.sim.model.job import Direction, loss_of
from elastune.sim.model.price_series import combined

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd

    from elastune.experiments.runs.fold import Change, Lease, Segment, Tables
    from elastune.sim.model.ids import InstanceId, SegmentId
    from elastune.sim.model.prices import PriceBook


@dataclass(frozen=True, eq=False)
class Recording:
    """What the tables are made from.

    Attributes:
        tables: the leases and segments.
        scores: (trials, iterations) float; the curves of the seed's draw.
    """

    tables: Tables
    scores: np.ndarray
    direction: Direction


def segments_table(recording: Recording) -> pd.DataFrame:
    """One row per segment, in the order in which they ended.

    Columns: trial, segment, instances (list of numbers), gpus, start_s, end_s, from_iteration, iteration, outcome,
    launch_s, train_s, checkpoint_s.
    """
    import pandas as pd

    columns = ["trial", "segment", "instances", "gpus", "start_s", "end_s", "from_iteration", "iteration", "outcome"]
    rows = []
    for segment in recording.tables.ended():
        ended = segment.ended
        assert ended is not None
        placed = [lease.instance for lease, _ in segment.held]
        spent = (ended.launch_s, ended.train_s, ended.checkpoint_s)
        reached = (segment.command.from_iteration, ended.iteration, str(ended.outcome))
        rows.append((ended.trial, ended.segment, placed, segment.gpus, segment.started_s, ended.at_s, *reached, *spent))
    return pd.DataFrame(rows, columns=[*columns, "launch_s", "train_s", "checkpoint_s"])


_COLUMNS = (
    "at_s",
    "spent_usd",
    "best_score",
    "durable_score",
    "gpus_held",
    "gpus_ready",
    "instances",
    "running_trials",
)


def trajectory_table(recording: Recording) -> pd.DataFrame:
    """A step function of time, one row per change; the last row is the end of the run, its bill included.

    Columns: at_s, spent_usd, best_score, durable_score (both best so far, NaN before the first), gpus_held (by gangs),
    gpus_ready (of machines that can train), instances (launched and not gone), running_trials.

    `best_score` counts every completed iteration, however often the policy asked to hear; the ends of the iterations within
    a segment lie evenly over its seconds of training.
    """
    import pandas as pd

    frame = pd.DataFrame(list(_rows(recording)), columns=list(_COLUMNS))
    # What happens at one moment is one change.
    frame = frame.drop_duplicates("at_s", keep="last")
    told = frame[list(_COLUMNS[2:])].fillna(math.inf)
    changed = told.ne(told.shift()).any(axis=1)
    changed.iloc[-1:] = True
    return frame[changed].reset_index(drop=True)


def _rows(recording: Recording) -> Iterator[tuple[float, ...]]:
    """The state after each change, and after each iteration that was the best so far."""
    tables = recording.tables
    walk = _Walk(tables.price_book)
    durable = _BestSoFar(recording)
    improvements = deque(_improvements(recording))
    for change in tables.changes:
        _, at_s, what, _ = change
        while improvements and improvements[0][0] <= at_s:
            improved_s, walk.best_score = improvements.popleft()
            yield walk.row(improved_s)
        if isinstance(what, SegmentEnded):
            durable.offer(what.trial, what.checkpoint_iteration)
        elif isinstance(what, FinishRun):
            # What the end of the run cut short tells what it had saved only now.
            for segment in tables.ended():
                if segment.ended is not None:
                    durable.offer(segment.trial, segment.ended.checkpoint_iteration)
        walk.durable_score = durable.score
        walk.take(change)
        yield walk.row(at_s)
        if isinstance(what, FinishRun):
            return


class _BestSoFar:
    """The best of the recorded scores offered so far; NaN where all were diverged."""

    def __init__(self, recording: Recording) -> None:
        self._scores = recording.scores
        self._direction = recording.direction
        self._loss = math.inf
        self.score = math.nan

    def offer(self, trial: int, iteration: int) -> bool:
        """Whether the trial's score after this many iterations is the best now."""
        if iteration < 1:
            return False
        score = self._scores.item(trial, iteration - 1)
        loss = loss_of(score, self._direction)
        if loss >= self._loss:
            return False
        self._loss, self.score = loss, score
        return True


def _improvements(recording: Recording) -> Iterator[tuple[float, float]]:
    """(seconds, score) of each iteration that was the best so far, in order of time."""
    ends = []
    for segment in recording.tables.ended():
        ended, first = segment.ended, segment.command.from_iteration
        assert ended is not None
        done = ended.iteration - first
        for nth in range(1, done + 1):
            at_s = segment.started_s + ended.launch_s + ended.train_s * nth / done
            ends.append((min(at_s, ended.at_s), segment.trial, first + nth))
    best = _BestSoFar(recording)
    for at_s, trial, iteration in sorted(ends):
        if best.offer(trial, iteration):
            yield at_s, best.score


class _Walk:
    """Machines and money, change by change."""

    def __init__(self, price_book: PriceBook) -> None:
        self.best_score = math.nan
        self.durable_score = math.nan
        self._bill = Bill.of(price_book)
        self._bills_instances = price_book.billing.model == "per-instance"
        self._launched: set[InstanceId] = set()
        self._ready: dict[InstanceId, int] = {}
        self._held: dict[SegmentId, int] = {}

    def row(self, at_s: float) -> tuple[float, ...]:
        """The columns of the table at this time."""
        machines = (sum(self._held.values()), sum(self._ready.values()), len(self._launched), len(self._held))
        return (at_s, self._bill.spent_usd(at_s), self.best_score, self.durable_score, *machines)

    def take(self, change: Change) -> None:
        """What changes with it."""
        _, at_s, what, row = change
        if isinstance(what, StartSegment):
            self._start(row, at_s)  # type: ignore[arg-type]  # a segment's row
        elif isinstance(what, SegmentEnded):
            del self._held[what.segment]
            if not self._bills_instances:
                self._bill.stop(what.segment, at_s)
        elif isinstance(what, FinishRun):
            self._bill.stop_all(at_s)
            self._launched.clear()
            self._ready.clear()
            self._held.clear()
        elif row is not None:
            self._take(what, row, at_s)  # type: ignore[arg-type]  # a lease's row

    def _start(self, segment: Segment, at_s: float) -> None:
        number = segment.command.segment
        self._held[number] = segment.gpus
        if not self._bills_instances:
            self._bill.ask(number, combined((lease.price, count / lease.gpus) for lease, count in segment.held))
            self._bill.start(number, at_s)

    def _take(self, what: object, lease: Lease, at_s: float) -> None:
        instance = lease.instance
        match what:
            case ProvisionInstance():
                self._bill.requested(instance, lease.price, at_s)
            case ReleaseInstance():
                self._ready.pop(instance, None)
                self._bill.released(instance, at_s)
            case InstanceLaunched():
                self._launched.add(instance)
                self._bill.launched(instance, at_s)
            case InstanceBooted():
                self._bill.booted(instance, at_s)
            case InstanceReady():
                self._ready[instance] = lease.gpus
                self._bill.ready(instance, at_s)
            case InstanceRefused():
                self._bill.refused(instance)
            case InstanceGone():
                self._launched.discard(instance)
                self._ready.pop(instance, None)
                self._bill.gone(instance, at_s, is_reclaimed=lease.cause is GoneCause.RECLAIMED)
