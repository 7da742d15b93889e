"""Promises of every policy, as checks that anybody can run on their own code; the entrance to both contract suites.

`check_policy` plays a policy in a handful of worlds; `check_backend` gives commands to a backend, simulated or real, and reads
its events. Each promise is a function that returns if it is kept and raises `BrokenPromiseError` if it is not.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from elastune.experiments.contracts.backends import (
    BACKEND_PROMISES,
    MOST_EVENTS,
    BackendUnderTest,
    BrokenPromiseError,
    Dialogue,
    check_backend,
)
from elastune.experiments.contracts.worlds import ContractWorld, plain_world, worlds
from elastune.experiments.own_code import raised_at
from elastune.policies.rules.margin import most_usd
from elastune.sim.control.journal import Entry, JournalWriter, replay
from elastune.sim.control.runner import run
from elastune.sim.model.actions import RunTrial
from elastune.sim.model.errors import InfeasibleJobError, InvalidActionError, ReplayError, StalledRunError
from elastune.sim.model.events import Event, SegmentEnded
from elastune.sim.model.ids import TrialId

if TYPE_CHECKING:
    from elastune.sim.control.controller import Controller
    from elastune.sim.model.actions import Action
    from elastune.sim.model.commands import Command
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import Backend, Policy, PolicyFactory, RunView

__all__ = [
    "BACKEND_PROMISES",
    "POLICY_PROMISES",
    "BackendUnderTest",
    "BrokenPromiseError",
    "Case",
    "ContractWorld",
    "Dialogue",
    "Finding",
    "PlayedRun",
    "check_backend",
    "check_policy",
    "plain_world",
    "record",
    "snapshot",
    "worlds",
]


# One run, watched.


@dataclass
class PlayedRun:
    """One run of a policy in a world.

    Attributes:
        journal: as bytes.
        entries: the same, as objects.
        mutations: (time, what) of each change a policy made to what it was shown.
        most_committed: (USD, time) when the committed bill was highest.
        error: what ended the run early, or None.
    """

    controller: Controller
    journal: bytes = b""
    entries: list[Entry] = field(default_factory=list)
    mutations: list[tuple[float, str]] = field(default_factory=list)
    most_committed: tuple[float, float] = (0.0, 0.0)
    error: Exception | None = None

    def note_committed(self, usd: float, at_s: float) -> None:
        """Keep the highest committed bill."""
        self.most_committed = max(self.most_committed, (usd, at_s), key=lambda pair: pair[0])

    @property
    def at_s(self) -> float:
        """When it ended."""
        return self.controller.state.now_s


def record(name: str, factory: PolicyFactory, world: ContractWorld, *, is_watched: bool = False) -> PlayedRun:
    """Play a policy in a world; errors of the run are recorded, not raised.

    Args:
        name: of the policy.
        factory: builds it.
        world: where it is played.
        is_watched: look at view, bill and invariants around each event.

    Raises:
        InfeasibleJobError: the policy cannot do the job.
    """
    stream = io.BytesIO()
    recording = PlayedRun(world.controller(name, factory))
    sink = _Tee(recording.entries, JournalWriter(stream))

    def watched(job: TuningJob, profile: Profile, price_book: PriceBook, rng: object) -> Policy:
        return _Watched(factory(job, profile, price_book, rng), recording)  # type: ignore[arg-type]  # rng is passed on

    recording.controller = world.controller(name, watched if is_watched else factory, sink)
    driver = _Checked(recording.controller, recording) if is_watched else recording.controller
    try:
        run(driver, _Bounded(world.backend()))  # type: ignore[arg-type]  # _Checked has what `run` uses of a controller
    except Exception as error:
        recording.error = error
    recording.journal = stream.getvalue()
    return recording


class _Tee:
    def __init__(self, entries: list[Entry], writer: JournalWriter) -> None:
        self._entries, self._writer = entries, writer

    def write(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._writer.write(entry)


class _Bounded:
    """A backend that stops runs which would never end."""

    def __init__(self, backend: Backend) -> None:
        self.perform, self.close, self._next_event = backend.perform, backend.close, backend.next_event
        self._events = 0

    def next_event(self) -> Event | None:
        self._events += 1
        if self._events > MOST_EVENTS:
            raise StalledRunError(f"the run has not ended after {MOST_EVENTS} events")
        return self._next_event()


class _Checked:
    """A controller whose state is checked after every event."""

    def __init__(self, controller: Controller, recording: PlayedRun) -> None:
        self._controller, self._recording = controller, recording
        self.story, self.name = controller.story, controller.name

    @property
    def is_stalled(self) -> bool:
        return self._controller.is_stalled

    @property
    def is_closed(self) -> bool:
        return self._controller.is_closed

    def handle(self, event: Event) -> list[Command]:
        commands = self._controller.handle(event)
        state = self._controller.state
        state.check_invariants()
        if not self._controller.is_finished:
            self._recording.note_committed(state.bill.committed_usd(state.now_s), state.now_s)
        return commands


class _Watched:
    """A policy whose view is compared before and after it decides."""

    def __init__(self, policy: Policy, recording: PlayedRun) -> None:
        self._policy, self._recording = policy, recording

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        self._recording.note_committed(view.committed_usd, view.now_s)
        before = snapshot(view)
        actions = self._policy.on_event(event, view)
        after = snapshot(view)
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        if changed:
            self._recording.mutations.append((view.now_s, ", ".join(sorted(changed))))
        return actions


def snapshot(view: RunView) -> dict[str, object]:
    """Everything that can be read through a view, by name."""
    shown: dict[str, object] = {
        name: getattr(view, name)
        for name in (
            "now_s",
            "free_gpus",
            "ready_gpus",
            "target_instances",
            "running_trials",
            "spent_usd",
            "committed_usd",
        )
    }
    shown["job"] = msgspec.structs.asdict(view.job)
    shown["started_trials"] = tuple(view.started_trials())
    for number, instance in view.instances.items():
        shown[f"instance {number}"] = _public(instance)
    for trial in range(view.job.trials):
        shown[f"trial {trial}"] = _public(view.trial(TrialId(trial)))
    return shown


def _public(shown: object) -> dict[str, object]:
    """Values of all public attributes, those beyond the protocol included."""
    values = ((name, getattr(shown, name)) for name in dir(shown) if not name.startswith("_"))
    return {name: value for name, value in values if not callable(value)}


# The promises.


class Case:
    """A policy in a world; runs are made when a promise first asks for them."""

    def __init__(self, name: str, factory: PolicyFactory, world: ContractWorld) -> None:
        self.name, self.factory, self.world = name, factory, world

    @cached_property
    def watched(self) -> PlayedRun:
        """A run under observation."""
        return record(self.name, self.factory, self.world, is_watched=True)

    @cached_property
    def again(self) -> PlayedRun:
        """The same run, unobserved."""
        return record(self.name, self.factory, self.world)

    def broken(self, promise: str, at_s: float, problem: str) -> BrokenPromiseError:
        """The error that says so."""
        return BrokenPromiseError(f"{self.name} {promise}", self.world.name, at_s, problem)


def actions_are_possible(case: Case) -> None:
    """No action is an `InvalidActionError`."""
    error = case.watched.error
    if isinstance(error, InvalidActionError):
        raise case.broken("actions only for what is possible", case.watched.at_s, str(error)) from error


def finishes(case: Case) -> None:
    """The run ends with FinishRun, whatever fails or is lost on the way."""
    recording = case.watched
    if recording.error is not None and not isinstance(recording.error, InvalidActionError):
        error = recording.error
        raise case.broken("finishes", recording.at_s, f"{type(error).__name__}: {error}{raised_at(error)}") from error
    if recording.error is None and not recording.controller.is_finished:
        raise case.broken("finishes", recording.at_s, "the backend has nothing more to tell")


def leaves_the_view_alone(case: Case) -> None:
    """Deciding changes nothing that can be seen through the view."""
    if case.watched.mutations:
        at_s, what = case.watched.mutations[0]
        raise case.broken("only reads its view", at_s, f"on_event has changed {what}")


def is_deterministic(case: Case) -> None:
    """Equal seeds give equal journals, byte for byte."""
    first, again = case.watched, case.again
    if first.journal == again.journal:
        return
    for entry, other in zip(first.entries, again.entries, strict=False):
        if entry != other:
            problem = f"a second run with the same seed differs:\n  first {entry}\n  then {other}"
            raise case.broken("is deterministic", entry.event.at_s, problem)
    problem = f"two runs with the same seed have {len(first.entries)} and {len(again.entries)} entries"
    raise case.broken("is deterministic", min(first.at_s, again.at_s), problem)


def replays(case: Case) -> None:
    """A fresh policy that is given the recorded events decides the same, entry by entry."""
    decode = msgspec.json.Decoder(Entry).decode
    recorded = (decode(line) for line in case.watched.journal.splitlines())
    try:
        replay(recorded, lambda sink: case.world.controller(case.name, case.factory, sink))
    except ReplayError as error:
        raise case.broken("replays", case.watched.at_s, str(error)) from error


def keeps_the_deadline(case: Case) -> None:
    """FinishRun comes by T."""
    deadline_s, recording = case.world.job.deadline_s, case.watched
    if deadline_s is not None and recording.controller.finished_at_s > deadline_s:
        raise case.broken(
            "keeps the deadline", recording.controller.finished_at_s, f"the deadline was {deadline_s:g} s"
        )


def keeps_the_budget(case: Case) -> None:
    """At no event does the committed bill exceed B, and neither does the final one."""
    budget_usd, recording = case.world.job.budget_usd, case.watched
    if budget_usd is None:
        return
    final_usd = recording.controller.state.bill.spent_usd(recording.controller.finished_at_s)
    recording.note_committed(final_usd, recording.controller.finished_at_s)
    usd, at_s = recording.most_committed
    if usd > most_usd(budget_usd):
        raise case.broken("keeps the budget", at_s, f"{usd:.6f} USD are committed, the budget is {budget_usd:g} USD")


def answers_durably(case: Case) -> None:
    """The run names a winner, and its checkpoint was written before the run ended."""
    controller = case.watched.controller
    if not controller.is_finished:
        return
    finished_at_s = controller.finished_at_s
    ended = (e.event for e in case.watched.entries if isinstance(e.event, SegmentEnded) and e.status == "handled")
    durable = {event.trial for event in ended if event.checkpoint_iteration and event.at_s <= finished_at_s}
    if controller.best is None:
        if durable:
            problem = f"FinishRun names no trial, though {len(durable)} have a durable checkpoint"
        else:
            was_trained = any(
                isinstance(action, RunTrial) for entry in case.watched.entries for action in entry.actions
            )
            problem = "the policy ended the run without an answer, and "
            problem += "no checkpoint was durable yet" if was_trained else "nothing was ever trained"
        raise case.broken("answers with a durable winner", finished_at_s, problem)
    if controller.best not in durable:
        problem = f"trial {controller.best} had no durable checkpoint yet"
        raise case.broken("answers with a durable winner", finished_at_s, problem)


PolicyPromise: TypeAlias = Callable[[Case], None]
POLICY_PROMISES: tuple[PolicyPromise, ...] = (
    actions_are_possible,
    finishes,
    leaves_the_view_alone,
    is_deterministic,
    replays,
    keeps_the_deadline,
    keeps_the_budget,
    answers_durably,
)
"""All of them. A check of a policy that does not promise to keep T and B leaves those two out."""


@dataclass(frozen=True)
class Finding:
    """What came of one promise in one world.

    Attributes:
        status: "infeasible" where the policy said that its rule cannot do the job; `promise` is then "is feasible".
        problem: what happened, in which world and when.
        cause: what happened, which may be the same in many worlds.
    """

    promise: str
    world: str
    status: Literal["kept", "broken", "infeasible"]
    problem: str = ""
    cause: str = ""


def check_policy(
    name: str,
    factory: PolicyFactory,
    *,
    promises: Iterable[PolicyPromise] = POLICY_PROMISES,
    where: Iterable[ContractWorld] | None = None,
) -> list[Finding]:
    """Every promise in every world; nothing is raised for a broken one.

    Args:
        name: of the policy, for messages.
        factory: builds it, its parameters bound.
        promises: those to check.
        where: the worlds; None for `worlds()`.
    """
    findings = []
    for world in worlds() if where is None else where:
        case = Case(name, factory, world)
        try:
            _ = case.watched
        except InfeasibleJobError as error:
            status: Literal["broken", "infeasible"] = "infeasible" if world.may_be_infeasible else "broken"
            findings.append(Finding("is feasible", world.name, status, str(error), str(error)))
            continue
        findings += [_judged(promise, case) for promise in promises]
    return findings


def _judged(promise: PolicyPromise, case: Case) -> Finding:
    try:
        promise(case)
    except BrokenPromiseError as error:
        return Finding(promise.__name__, case.world.name, "broken", str(error), error.problem)
    return Finding(promise.__name__, case.world.name, "kept")
