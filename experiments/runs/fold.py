"""The one fold of a journal: a table of leases, a table of segments, and the order in which their rows changed.

Ledger, placement account, trajectory and timeline are read from these tables. `Tables` takes entries one at a time, so it is a
sink during the run and reads a recorded journal as well. Imports `sim.model`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from elastune.sim.model.actions import FinishRun
from elastune.sim.model.commands import Command, ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.events import (
    Event,
    GoneCause,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    ProgressReported,
    SegmentEnded,
    TimerFired,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from elastune.sim.control.journal import Entry
    from elastune.sim.model.ids import InstanceId, Placement, SegmentId, TrialId
    from elastune.sim.model.price_series import Price
    from elastune.sim.model.prices import PriceBook


@dataclass(slots=True, eq=False)
class Lease:
    """One instance that was requested. A time is NaN where the run ended first.

    Attributes:
        price: USD per hour.
        cause: why it is gone; None before.
    """

    instance: InstanceId
    instance_type: str
    market: str
    gpus: int
    price: Price
    requested_s: float
    launched_s: float = math.nan
    ready_s: float = math.nan
    ended_s: float = math.nan
    cause: GoneCause | None = None


class Segment(msgspec.Struct, eq=False, gc=False):
    """One segment that was started.

    Attributes:
        command: that started it.
        held: (lease, GPUs) of its placement; one object for all segments with that placement.
        gpus: in all.
        ended: how it ended, also if that was reported after the end of the run; None if nobody reported it.
    """

    command: StartSegment
    held: Held
    gpus: int
    started_s: float
    ended: SegmentEnded | None = None

    @property
    def trial(self) -> TrialId:
        """What it trains."""
        return self.command.trial


Held: TypeAlias = tuple[tuple[Lease, int], ...]
"""(lease, GPUs) of a gang."""

Change: TypeAlias = tuple[int, float, Event | Command | FinishRun, Lease | Segment | None]
"""(number of the entry, seconds, what changed a row, the row). Timers, `EndSegment` and the end of the run have no row."""


class Reader(Protocol):
    """What counts changes while a run goes on."""

    def read(self, changes: Sequence[Change]) -> None:
        """Take the next changes, whole entries at a time."""


_OF_LEASES = (InstanceLaunched, InstanceBooted, InstanceReady, InstanceRefused, InstanceGone)

MOST_HELD = 4096
"""Changes that wait for a reader."""


class Tables:
    """The leases and segments of a run; a sink for `sim.control.controller.Controller`.

    With a reader, changes are handed to it some thousands at a time, and neither they nor their segments are kept: a run of a
    million trials would take a gigabyte for them. Whoever has finished the run hands on what is left.

    Attributes:
        leases: in the order of their requests; those that were refused are in it.
        segments: in the order of their starts.
        changes: in the order of the journal. Events of superseded segments are left out, and so are instances after the end.
        finished_s: when the run ended; infinite before.
        best: the trial that the run named.
    """

    def __init__(self, price_book: PriceBook, reader: Reader | None = None) -> None:
        self.price_book = price_book
        self._reader, self._most_held = reader, math.inf if reader is None else MOST_HELD
        self.leases: list[Lease] = []
        self.segments: list[Segment] = []
        self.changes: list[Change] = []
        self.finished_s = math.inf
        self.best: TrialId | None = None
        self._number = 0
        self._held: dict[InstanceId, Lease] = {}
        self._running: dict[SegmentId, Segment] = {}
        self._gangs: dict[Placement, tuple[Held, int]] = {}

    @classmethod
    def of(cls, entries: Iterable[Entry], price_book: PriceBook) -> Tables:
        """The tables of these entries."""
        tables = cls(price_book)
        for entry in entries:
            tables.write(entry)
        return tables

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended."""
        return self.finished_s < math.inf

    def ended(self) -> Iterator[Segment]:
        """The segments whose end was reported, in that order."""
        return (row for _, _, what, row in self.changes if type(what) is SegmentEnded and isinstance(row, Segment))

    def write(self, entry: Entry) -> None:
        """Take one entry."""
        status = entry.status
        if status == "stale":
            return
        changes, event = self.changes, entry.event
        if len(changes) > self._most_held:
            self._hand_on()
        at_s = event.at_s
        number = self._number = self._number + 1
        # Nearly all entries of a long run are these, so they come first. A report changes no row.
        if type(event) is SegmentEnded:
            segment = self._running.pop(event.segment)
            segment.ended = event
            changes.append((number, at_s, event, segment))
        elif type(event) is not ProgressReported and status == "handled":
            self._take(event, at_s)
        for command in entry.commands:
            if type(command) is StartSegment:
                held, gpus = self._gangs.get(command.placement) or self._gang(command.placement)
                segment = self._running[command.segment] = Segment(command, held, gpus, at_s)
                self.segments.append(segment)
                changes.append((number, at_s, command, segment))
            else:
                self._command(command, at_s)
        for action in entry.actions:
            if type(action) is FinishRun and not self.is_complete:
                self.finished_s, self.best = at_s, action.best
                changes.append((number, at_s, action, None))

    def _hand_on(self) -> None:
        assert self._reader is not None  # without one, any number is held
        self._reader.read(self.changes)
        self.changes.clear()
        self.segments.clear()

    def _gang(self, placement: Placement) -> tuple[Held, int]:
        held = tuple([(self._held[instance], gpus) for instance, gpus in placement])
        gang = self._gangs[placement] = held, sum(gpus for _, gpus in placement)
        return gang

    def _command(self, command: Command, at_s: float) -> None:
        if isinstance(command, ProvisionInstance):
            self.changes.append((self._number, at_s, command, self._request(command, at_s)))
        elif isinstance(command, ReleaseInstance):
            self.changes.append((self._number, at_s, command, self._held[command.instance]))
        else:
            self.changes.append((self._number, at_s, command, None))

    def _request(self, command: ProvisionInstance, at_s: float) -> Lease:
        book, kind = self.price_book, command.instance_type
        gpus = book.type_named(kind).gpus_per_instance
        lease = Lease(command.instance, kind, command.market, gpus, book.price(kind, command.market), at_s)
        self._held[command.instance] = lease
        self.leases.append(lease)
        return lease

    def _take(self, event: Event, at_s: float) -> None:
        if isinstance(event, TimerFired):
            self.changes.append((self._number, at_s, event, None))
            return
        if not isinstance(event, _OF_LEASES):
            return
        lease = self._held[event.instance]
        if isinstance(event, InstanceLaunched):
            lease.launched_s = at_s
        elif isinstance(event, InstanceReady):
            lease.ready_s = at_s
        elif isinstance(event, InstanceGone):
            lease.ended_s, lease.cause = at_s, event.cause
        self.changes.append((self._number, at_s, event, lease))
