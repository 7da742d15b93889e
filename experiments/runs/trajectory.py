"""How a run went: tidy tables of its money, machines and best score over time, and of its segments.

Imports sim.control.journal, sim.model.billing, sim.model and numpy; pandas inside the functions that need it.
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
from elastune.sim.model.job import loss_of
from elastune.sim.model.price_series import combined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import pandas as pd

    from elastune.sim.control.journal import Entry
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import InstanceId, SegmentId
    from elastune.sim.model.job import Direction
    from elastune.sim.model.price_series import Price
    from elastune.sim.model.prices import PriceBook


@dataclass(frozen=True, eq=False)
class Recording:
    """What the tables are made from.

    Attributes:
        entries: the journal.
        scores: (trials, iterations) float; the curves of the seed's draw.
    """

    entries: Sequence[Entry]
    scores: np.ndarray
    price_book: PriceBook
    direction: Direction


def segments_table(recording: Recording) -> pd.DataFrame:
    """One row per segment, in the order in which they ended.

    Columns: trial, segment, instances (list of numbers), gpus, start_s, end_s, from_iteration, iteration, outcome,
    launch_s, train_s, checkpoint_s.
    """
    import pandas as pd

    columns = ["trial", "segment", "instances", "gpus", "start_s", "end_s", "from_iteration", "iteration", "outcome"]
    rows = []
    for order, started_at_s, ended in _segments(recording.entries):
        placed = [number for number, _ in order.placement]
        gpus = sum(count for _, count in order.placement)
        spent = (ended.launch_s, ended.train_s, ended.checkpoint_s)
        reached = (order.from_iteration, ended.iteration, str(ended.outcome))
        rows.append((ended.trial, ended.segment, placed, gpus, started_at_s, ended.at_s, *reached, *spent))
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
    """The state after each event, and after each iteration that was the best so far."""
    walk = _Walk(recording.price_book)
    durable = _BestSoFar(recording)
    improvements = deque(_improvements(recording))
    for entry in recording.entries:
        if walk.is_finished:
            return
        event = entry.event
        while improvements and improvements[0][0] <= event.at_s:
            at_s, walk.best_score = improvements.popleft()
            yield walk.row(at_s)
        if isinstance(event, SegmentEnded) and entry.status != "stale":
            durable.offer(event.trial, event.checkpoint_iteration)
            walk.durable_score = durable.score
        walk.take(entry)
        if any(isinstance(action, FinishRun) for action in entry.actions):
            # What the end of the run cut short tells what it had saved only now.
            for drained in _drained_ends(recording.entries):
                durable.offer(drained.trial, drained.checkpoint_iteration)
            walk.durable_score = durable.score
        yield walk.row(event.at_s)


def _drained_ends(entries: Iterable[Entry]) -> Iterator[SegmentEnded]:
    for entry in entries:
        if entry.status == "drained" and isinstance(entry.event, SegmentEnded):
            yield entry.event


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
    for order, started_at_s, ended in _segments(recording.entries):
        done = ended.iteration - order.from_iteration
        for nth in range(1, done + 1):
            at_s = started_at_s + ended.launch_s + ended.train_s * nth / done
            ends.append((min(at_s, ended.at_s), order.trial, order.from_iteration + nth))
    best = _BestSoFar(recording)
    for at_s, trial, iteration in sorted(ends):
        if best.offer(trial, iteration):
            yield at_s, best.score


def _segments(entries: Iterable[Entry]) -> Iterator[tuple[StartSegment, float, SegmentEnded]]:
    """Each segment's order, the time of it, and its end."""
    started: dict[SegmentId, tuple[StartSegment, float]] = {}
    for entry in entries:
        if isinstance(entry.event, SegmentEnded) and entry.status != "stale":
            yield (*started.pop(entry.event.segment), entry.event)
        for command in entry.commands:
            if isinstance(command, StartSegment):
                started[command.segment] = (command, entry.event.at_s)


class _Walk:
    """Machines and money, entry by entry."""

    def __init__(self, price_book: PriceBook) -> None:
        self.best_score = math.nan
        self.durable_score = math.nan
        self.is_finished = False
        self._price_book = price_book
        self._bill = Bill.of(price_book)
        self._bills_instances = price_book.billing.model == "per-instance"
        self._types: dict[InstanceId, tuple[str, str]] = {}
        self._launched: set[InstanceId] = set()
        self._ready: dict[InstanceId, int] = {}
        self._held: dict[SegmentId, int] = {}

    def row(self, at_s: float) -> tuple[float, ...]:
        """The columns of the table at this time."""
        machines = (sum(self._held.values()), sum(self._ready.values()), len(self._launched), len(self._held))
        return (at_s, self._bill.spent_usd(at_s), self.best_score, self.durable_score, *machines)

    def take(self, entry: Entry) -> None:
        """What the event and the orders on it change."""
        at_s = entry.event.at_s
        if entry.status == "handled":
            self._fold(entry.event)
        for command in entry.commands:
            match command:
                case ProvisionInstance(instance, instance_type, market):
                    self._types[instance] = (instance_type, market)
                    self._bill.requested(instance, self._price_book.price(instance_type, market), at_s)
                case ReleaseInstance(instance):
                    self._ready.pop(instance, None)
                    self._bill.released(instance, at_s)
                case StartSegment():
                    self._start(command, at_s)
        if any(isinstance(action, FinishRun) for action in entry.actions):
            self._bill.stop_all(at_s)
            self._launched.clear()
            self._ready.clear()
            self._held.clear()
            self.is_finished = True

    def _start(self, order: StartSegment, at_s: float) -> None:
        self._held[order.segment] = sum(count for _, count in order.placement)
        if not self._bills_instances:
            shares = ((self._price(number), count / self._gpus(number)) for number, count in order.placement)
            self._bill.ask(order.segment, combined(shares))
            self._bill.start(order.segment, at_s)

    def _fold(self, event: Event) -> None:
        match event:
            case SegmentEnded():
                del self._held[event.segment]
                if not self._bills_instances:
                    self._bill.stop(event.segment, event.at_s)
            case InstanceLaunched():
                self._launched.add(event.instance)
                self._bill.launched(event.instance, event.at_s)
            case InstanceBooted():
                self._bill.booted(event.instance, event.at_s)
            case InstanceReady():
                self._ready[event.instance] = self._gpus(event.instance)
                self._bill.ready(event.instance, event.at_s)
            case InstanceRefused():
                self._bill.refused(event.instance)
            case InstanceGone():
                self._launched.discard(event.instance)
                self._ready.pop(event.instance, None)
                self._bill.gone(event.instance, event.at_s, is_reclaimed=event.cause is GoneCause.RECLAIMED)
            case _:
                pass

    def _gpus(self, instance: InstanceId) -> int:
        return self._price_book.type_named(self._types[instance][0]).gpus_per_instance

    def _price(self, instance: InstanceId) -> Price:
        return self._price_book.price(*self._types[instance])
