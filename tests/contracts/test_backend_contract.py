from __future__ import annotations

import msgspec
import pytest

from elastune.experiments.contracts.policies import (
    BACKEND_PROMISES,
    BackendUnderTest,
    BrokenPromiseError,
    check_backend,
)
from elastune.sim.model.commands import EndSegment, StartTimer
from elastune.sim.model.events import InstanceGone, Outcome, SegmentEnded
from elastune.sim.model.profile import CloudTruth, Stragglers
from elastune.sim.simulated import SimulatedBackend


@pytest.fixture
def simulated(world):
    """Simulated backends of several kinds; iterations take 10 s, checkpoints 4 s."""

    def build(kind="plain", wrap=lambda backend: backend):
        described = {
            "plain": {},
            "without checkpoints": {"timings": (0.0, 0.0, 0.0)},
            "with stragglers": {"stragglers": Stragglers(0.3, 0.2)},
            "with slow machines": {"startup": (30.0, 60.0), "release_s": 20.0},
        }[kind]
        keywords = {"trials": 3, "iterations": 20, "timings": (2.0, 4.0, 7.0), **described}
        calm, lossy = world(**keywords), world(**keywords, losses={0: 100.0})

        def of(one):
            return lambda: wrap(SimulatedBackend(one.truth, one.cloud, one.streams))

        return BackendUnderTest(kind, of(calm), "m", iterations=20, moment_s=3.0, build_losing=of(lossy))

    return build


@pytest.mark.parametrize("promise", BACKEND_PROMISES)
@pytest.mark.parametrize("kind", ["plain", "without checkpoints", "with stragglers", "with slow machines"])
def test_the_simulated_backend_keeps_its_promises(simulated, kind, promise):
    check_backend(simulated(kind), promise)


def test_a_backend_that_cannot_lose_machines_is_not_asked_to(world):
    calm = world(trials=3)
    under_test = BackendUnderTest(
        "calm", lambda: SimulatedBackend(calm.truth, CloudTruth(), calm.streams), "m", iterations=9, moment_s=3.0
    )
    check_backend(under_test, "a lost machine ends its gangs first")


class Wrapped:
    """A backend with one bad habit."""

    def __init__(self, backend):
        self.backend = backend
        self.events = []

    def perform(self, command):
        self.backend.perform(command)

    def next_event(self):
        return self.backend.next_event()

    def close(self):
        self.backend.close()


class Repeating(Wrapped):
    """Tells each end of a segment twice."""

    def next_event(self):
        if self.events:
            return self.events.pop()
        event = super().next_event()
        if isinstance(event, SegmentEnded):
            self.events.append(event)
        return event


class Hasty(Wrapped):
    """Tells that a machine is gone before the ends of its gangs."""

    def next_event(self):
        if self.events:
            return self.events.pop(0)
        event = super().next_event()
        if isinstance(event, SegmentEnded) and event.checkpoint_iteration == 0:
            while not isinstance(event, InstanceGone):
                self.events.append(event)
                event = super().next_event()
        return event


class Deaf(Wrapped):
    """Ignores EndSegment, and timers that are set again."""

    def __init__(self, backend):
        super().__init__(backend)
        self.tags = set()

    def perform(self, command):
        if isinstance(command, EndSegment) or (isinstance(command, StartTimer) and command.tag in self.tags):
            return
        if isinstance(command, StartTimer):
            self.tags.add(command.tag)
        super().perform(command)


class Early(Wrapped):
    """Keeps the earliest time of a timer that is set again."""

    def __init__(self, backend):
        super().__init__(backend)
        self.at_s = {}

    def perform(self, command):
        if isinstance(command, StartTimer):
            earliest_s = min(command.at_s, self.at_s.setdefault(command.tag, command.at_s))
            self.at_s[command.tag] = earliest_s
            command = msgspec.structs.replace(command, at_s=earliest_s)
        super().perform(command)


class Impatient(Wrapped):
    """Tells that a segment failed when its end was asked for twice."""

    def __init__(self, backend):
        super().__init__(backend)
        self.asked = 0

    def perform(self, command):
        self.asked += isinstance(command, EndSegment)
        super().perform(command)

    def next_event(self):
        event = super().next_event()
        if isinstance(event, SegmentEnded) and self.asked > 1:
            return msgspec.structs.replace(event, outcome=Outcome.FAILED)
        return event


class Mute(Wrapped):
    """Never starts."""

    def next_event(self):
        return None


@pytest.mark.parametrize(
    ("habit", "promise", "problem"),
    [
        (
            Mute,
            "the first event is RunStarted",
            r"world 'plain', at 0\.000 s: the first event is not RunStarted at 0 s",
        ),
        (
            Repeating,
            "each command is answered once",
            r"expected \['RunStarted', .*'InstanceGone'\]; told: \[RunStarted",
        ),
        (Hasty, "ReleaseInstance cuts gangs", r"InstanceGone came before the ends of its gangs"),
        (Hasty, "a lost machine ends its gangs first", r"its gangs did not end first"),
        (Deaf, "EndSegment ends at a safe point", r"the outcome is not `ended`"),
        (Deaf, "a timer moves when set again", r"fired as \['well before the first time', 'moved', 'well after it'\]"),
        (Early, "a timer moves when set again", r"it fired at 12\.0 s instead of 24\.0 s"),
        (Impatient, "a second EndSegment changes nothing", r"the outcome is not `ended`"),
    ],
)
def test_a_bad_habit_of_a_backend_is_found(simulated, habit, promise, problem):
    with pytest.raises(BrokenPromiseError, match=problem):
        check_backend(simulated(wrap=habit), promise)
