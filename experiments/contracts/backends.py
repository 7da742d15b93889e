"""Promises of every backend, simulated or real: it is given commands, and its events are read.

Each promise is a function that returns if it is kept and raises `BrokenPromiseError` if it is not. All of them also require
events in order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from elastune.sim.model.commands import (
    EndSegment,
    ProvisionInstance,
    ReleaseInstance,
    StartSegment,
    StartTimer,
)
from elastune.sim.model.errors import TuningError
from elastune.sim.model.events import (
    Event,
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    ProgressReported,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
from elastune.sim.model.prices import ON_DEMAND

if TYPE_CHECKING:
    from elastune.sim.model.protocols import Backend

MOST_EVENTS = 5_000
"""A run in one of these small worlds that is longer than this will never end; policies that ship have up to 310 events."""


class BrokenPromiseError(TuningError):
    """A policy or backend does not do what all of them promise; names promise, world and time."""

    def __init__(self, promise: str, world: str, at_s: float, problem: str) -> None:
        self.promise, self.world, self.at_s, self.problem = promise, world, at_s, problem
        super().__init__(f"{promise}, world {world!r}, at {at_s:.3f} s: {problem}")


@dataclass(frozen=True)
class BackendUnderTest:
    """A way to build a backend, and what the checks need to know of it.

    Attributes:
        build: a fresh backend each time, whose workload has at least three trials.
        instance_type: a type it can rent, with at least two GPUs.
        iterations: a segment of so many takes far longer than `moment_s`.
        moment_s: a wait that is shorter than an iteration.
        build_losing: a fresh backend whose machines are lost while the first segment on them runs; None if there is none.
        is_repeatable: equal commands give equal events. A real machine is now faster and now slower, so its runs are not
            compared with each other.
    """

    name: str
    build: Callable[[], Backend]
    instance_type: str
    iterations: int
    moment_s: float
    market: str = ON_DEMAND
    build_losing: Callable[[], Backend] | None = None
    is_repeatable: bool = True


class Dialogue:
    """Commands to a backend, and all its events so far."""

    def __init__(self, under_test: BackendUnderTest, promise: str, backend: Backend | None = None) -> None:
        self.under_test, self._promise = under_test, promise
        self.backend = backend or under_test.build()
        self.events: list[Event] = []

    @property
    def now_s(self) -> float:
        """Time of the last event."""
        return self.events[-1].at_s if self.events else 0.0

    def require(self, holds: bool, problem: str) -> None:
        """Raise BrokenPromiseError unless it holds."""
        if not holds:
            raise BrokenPromiseError(self._promise, self.under_test.name, self.now_s, f"{problem}; told: {self.events}")

    def hear(self) -> Event | None:
        """The next event, which is no earlier than the one before."""
        event = self.backend.next_event()
        if event is not None:
            self.require(event.at_s >= self.now_s, f"{event} came after a later event")
            self.events.append(event)
        return event

    def hear_until(self, is_it: Callable[[Event], bool]) -> Event:
        """The next event that is looked for."""
        for _ in range(MOST_EVENTS):
            event = self.hear()
            if event is None:
                break
            if is_it(event):
                return event
        raise BrokenPromiseError(
            self._promise, self.under_test.name, self.now_s, f"an event is missing; told: {self.events}"
        )

    def wait(self, tag: str, seconds: float) -> None:
        """Hear everything of so many seconds."""
        self.backend.perform(StartTimer(tag, self.now_s + seconds))
        self.hear_until(lambda event: isinstance(event, TimerFired) and event.tag == tag)

    def rent(self, number: int) -> None:
        """One machine, ready."""
        instance = InstanceId(number)
        self.backend.perform(ProvisionInstance(instance, self.under_test.instance_type, self.under_test.market))
        self.hear_until(lambda event: isinstance(event, InstanceReady) and event.instance == instance)

    def start(
        self, segment: int, trial: int, instance: int = 0, *, iterations: int | None = None, report_every: int = 0
    ) -> None:
        """A trial from its beginning, on one GPU."""
        until = self.under_test.iterations if iterations is None else iterations
        placement = ((InstanceId(instance), 1),)
        self.backend.perform(StartSegment(SegmentId(segment), TrialId(trial), placement, 0, until, report_every))

    def end_of(self, segment: int) -> SegmentEnded:
        """The end of a segment, already received or awaited."""
        for event in self.events:
            if isinstance(event, SegmentEnded) and event.segment == segment:
                return event
        event = self.hear_until(lambda event: isinstance(event, SegmentEnded) and event.segment == segment)
        assert isinstance(event, SegmentEnded)  # hear_until has looked for one
        return event

    def ends(self) -> list[SegmentEnded]:
        """All ends of segments so far."""
        return [event for event in self.events if isinstance(event, SegmentEnded)]


def starts_with_run_started(talk: Dialogue) -> None:
    """The first event is RunStarted, at 0 s."""
    talk.require(talk.hear() == RunStarted(0.0), "the first event is not RunStarted at 0 s")


def answers_each_command_once(talk: Dialogue) -> None:
    """A machine is launched, then ready, then gone; a segment ends; a timer fires: each exactly once."""
    talk.hear()
    talk.rent(0)
    for number in range(2):
        talk.start(number, number, iterations=1)
    talk.end_of(0)
    talk.end_of(1)
    talk.wait("once", talk.under_test.moment_s)
    talk.backend.perform(ReleaseInstance(InstanceId(0)))
    talk.hear_until(lambda event: isinstance(event, InstanceGone))
    talk.wait("guard", talk.under_test.moment_s)
    told = [type(event) for event in talk.events if not isinstance(event, TimerFired | TrialSampled)]
    expected = [RunStarted, InstanceLaunched, InstanceReady, SegmentEnded, SegmentEnded, InstanceGone]
    talk.require(told == expected, f"expected {[kind.__name__ for kind in expected]}")
    completed = [(end.outcome, end.iteration, end.checkpoint_iteration) for end in talk.ends()]
    talk.require(completed == [(Outcome.COMPLETED, 1, 1)] * 2, "a segment of one iteration ends completed and durable")
    tags = [event.tag for event in talk.events if isinstance(event, TimerFired)]
    talk.require(tags == ["once", "guard"], "each timer fires once")


def samples_before_it_trains(talk: Dialogue) -> None:
    """A backend that hands out configurations sends each once, before any other event of its trial; others send none."""
    talk.hear()
    talk.rent(0)
    talk.start(0, 0, iterations=2, report_every=1)
    talk.start(1, 1, iterations=1)
    talk.end_of(0)
    talk.end_of(1)
    talk.start(2, 0, iterations=3)
    talk.end_of(2)
    sampled = [event.trial for event in talk.events if isinstance(event, TrialSampled)]
    talk.require(sampled in ([], [0, 1]), "a configuration was sent more than once, or not for every trial")
    for trial in sampled:
        of_trial = [event for event in talk.events if getattr(event, "trial", None) == trial]
        talk.require(isinstance(of_trial[0], TrialSampled), f"an event of trial {trial} came before its configuration")


def reports_only_on_request(talk: Dialogue) -> None:
    """ProgressReported comes at each multiple of report_every, and never for the last iteration."""
    talk.hear()
    talk.rent(0)
    talk.start(0, 0, iterations=5, report_every=2)
    talk.start(1, 1, iterations=3)
    talk.end_of(0)
    talk.end_of(1)
    told = [(event.segment, event.iteration) for event in talk.events if isinstance(event, ProgressReported)]
    talk.require(told == [(0, 2), (0, 4)], "expected reports of segment 0 after iterations 2 and 4, and no others")


def ends_at_a_safe_point(talk: Dialogue) -> None:
    """EndSegment ends a segment between two iterations, with a checkpoint of all it has done."""
    talk.hear()
    talk.rent(0)
    talk.start(0, 0, report_every=1)
    talk.hear_until(lambda event: isinstance(event, ProgressReported))
    talk.backend.perform(EndSegment(SegmentId(0)))
    end = talk.end_of(0)
    talk.require(end.outcome is Outcome.ENDED, "the outcome is not `ended`")
    talk.require(1 <= end.iteration < talk.under_test.iterations, "it did not end early")
    talk.require(end.checkpoint_iteration == end.iteration, "what it has done is not durable")


def a_second_end_changes_nothing(talk: Dialogue) -> None:
    """A segment that is told to end twice ends once, durable, at the same iteration as if told once."""
    ends = []
    for waits in (None, 0.25, 0.5, 1.0, 2.0):
        again = Dialogue(talk.under_test, "a second EndSegment changes nothing", None)
        again.hear()
        again.rent(0)
        again.start(0, 0, report_every=1)
        again.hear_until(lambda event: isinstance(event, ProgressReported))
        again.backend.perform(EndSegment(SegmentId(0)))
        if waits is not None:
            again.wait("before the second", waits * talk.under_test.moment_s)
            again.backend.perform(EndSegment(SegmentId(0)))
        again.end_of(0)
        again.wait("after the end", 4 * talk.under_test.moment_s)
        again.require(len(again.ends()) == 1, "the segment ended more than once")
        end = again.ends()[0]
        again.require(end.outcome is Outcome.ENDED, "the outcome is not `ended`")
        again.require(end.checkpoint_iteration == end.iteration, "what it has done is not durable")
        ends.append(end.iteration)
        again.backend.close()
    is_same = len(set(ends)) == 1 or not talk.under_test.is_repeatable
    talk.require(is_same, f"with and without a second EndSegment it ended after {ends}")


def release_cuts_gangs(talk: Dialogue) -> None:
    """ReleaseInstance ends what runs on the machine; the machine is gone after the last of them."""
    talk.hear()
    talk.rent(0)
    talk.start(0, 0)
    talk.start(1, 1)
    talk.wait("a moment", talk.under_test.moment_s)
    talk.backend.perform(ReleaseInstance(InstanceId(0)))
    talk.hear_until(lambda event: isinstance(event, InstanceGone))
    talk.require({end.segment for end in talk.ends()} == {0, 1}, "InstanceGone came before the ends of its gangs")
    gone = talk.events[-1]
    talk.require(isinstance(gone, InstanceGone) and gone.cause is GoneCause.RELEASED, "the cause is not `released`")


def a_request_can_be_cancelled(talk: Dialogue) -> None:
    """ReleaseInstance right after ProvisionInstance: gone, and never ready."""
    talk.hear()
    instance = InstanceId(0)
    talk.backend.perform(ProvisionInstance(instance, talk.under_test.instance_type, talk.under_test.market))
    talk.backend.perform(ReleaseInstance(instance))
    talk.hear_until(lambda event: isinstance(event, InstanceGone | InstanceRefused))
    talk.rent(1)
    ready = [event.instance for event in talk.events if isinstance(event, InstanceReady)]
    talk.require(ready == [1], "a machine became ready after its request was cancelled")


def a_timer_moves(talk: Dialogue) -> None:
    """A timer that is set again fires at the new time only."""
    talk.hear()
    start_s, unit_s = talk.now_s, 4 * talk.under_test.moment_s
    for units in (6, 1, 2):
        talk.backend.perform(StartTimer("moved", start_s + units * unit_s))
    talk.wait("well before the first time", 5 * unit_s)
    talk.wait("well after it", 3 * unit_s)
    fired = [event for event in talk.events if isinstance(event, TimerFired)]
    told = [event.tag for event in fired]
    # A real clock fires late by what the host needs. The order of timers does not depend on that.
    talk.require(told == ["moved", "well before the first time", "well after it"], f"the timers fired as {told}")
    due_s = start_s + 2 * unit_s
    talk.require(fired[0].at_s >= due_s * (1 - 1e-9), f"it fired at {fired[0].at_s} s instead of {due_s} s")


def a_start_on_a_dead_machine_ends(talk: Dialogue) -> None:
    """StartSegment on a machine that is gone is answered by SegmentEnded(instance_gone), with nothing done."""
    talk.hear()
    talk.rent(0)
    talk.backend.perform(ReleaseInstance(InstanceId(0)))
    talk.hear_until(lambda event: isinstance(event, InstanceGone))
    talk.start(0, 0)
    end = talk.end_of(0)
    talk.require(end.outcome is Outcome.INSTANCE_GONE and end.iteration == 0, "it did not end with `instance_gone`")


def a_lost_machine_ends_its_gangs_first(talk: Dialogue) -> None:
    """A machine that dies ends its segments with `instance_gone`; its own InstanceGone(lost) comes after them."""
    if talk.under_test.build_losing is None:
        return
    talk.backend.close()
    talk.backend = talk.under_test.build_losing()
    talk.hear()
    talk.rent(0)
    talk.start(0, 0)
    talk.start(1, 1)
    gone = talk.hear_until(lambda event: isinstance(event, InstanceGone))
    talk.require(isinstance(gone, InstanceGone) and gone.cause is not GoneCause.RELEASED, "the cause is `released`")
    outcomes = {end.segment: end.outcome for end in talk.ends()}
    talk.require(
        outcomes == dict.fromkeys((0, 1), Outcome.INSTANCE_GONE), "its gangs did not end first, with `instance_gone`"
    )


BackendPromise: TypeAlias = Callable[[Dialogue], None]
BACKEND_PROMISES: Mapping[str, BackendPromise] = {
    "the first event is RunStarted": starts_with_run_started,
    "each command is answered once": answers_each_command_once,
    "configurations are told first": samples_before_it_trains,
    "progress is reported on request only": reports_only_on_request,
    "EndSegment ends at a safe point": ends_at_a_safe_point,
    "a second EndSegment changes nothing": a_second_end_changes_nothing,
    "ReleaseInstance cuts gangs": release_cuts_gangs,
    "a request can be cancelled": a_request_can_be_cancelled,
    "a timer moves when set again": a_timer_moves,
    "a start on a dead machine ends": a_start_on_a_dead_machine_ends,
    "a lost machine ends its gangs first": a_lost_machine_ends_its_gangs_first,
}


def check_backend(under_test: BackendUnderTest, promise: str) -> None:
    """Put one promise to a fresh backend.

    Raises:
        BrokenPromiseError: it is not kept.
    """
    talk = Dialogue(under_test, promise)
    try:
        BACKEND_PROMISES[promise](talk)
    finally:
        talk.backend.close()
