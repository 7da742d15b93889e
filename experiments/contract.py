"""What every policy and every backend promises, as checks that anybody can run on their own.

`check_policy` plays a policy in a handful of worlds; `check_backend` gives orders to a backend, simulated or real, and reads
its facts. Each promise is a function that returns where it is kept and raises `BrokenPromiseError` where it is not.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from sim.controller import Controller
from sim.journal import Entry, JournalWriter, replay
from sim.model.commands import EndSegment, ProvisionInstance, ReleaseInstance, StartSegment, StartTimer
from sim.model.errors import InfeasibleJobError, InvalidActionError, ReplayError, StalledRunError, TuningError
from sim.model.events import (
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
)
from sim.model.ids import InstanceId, SegmentId, TrialId
from sim.model.job import TuningJob
from sim.model.prices import ON_DEMAND, BillingRule, InstanceType, PriceBook
from sim.model.profile import CloudTruth, Delay, Faults, GroundTruth, Profile, Startup, Stragglers, Timings
from sim.model.scaling import PowerScaling
from sim.runner import run
from sim.simulated import SimulatedBackend
from sim.streams import Streams
from traces import ProfileErrors, synthetic_bundle

if TYPE_CHECKING:
    from sim.journal import Sink
    from sim.model.actions import Action
    from sim.model.commands import Command
    from sim.model.events import Event
    from sim.model.protocols import Backend, Policy, PolicyFactory, RunView

MOST_FACTS = 20_000
"""A run in one of these small worlds that has not ended after so many facts never will."""
_USD_TOLERANCE = 1e-9


class BrokenPromiseError(TuningError):
    """A policy or backend does not do what all of them promise; names promise, world and time."""

    def __init__(self, promise: str, world: str, at_s: float, problem: str) -> None:
        self.promise, self.world, self.at_s = promise, world, at_s
        super().__init__(f"{promise}, world {world!r}, at {at_s:.3f} s: {problem}")


# Policies: the worlds they are played in.


@dataclass(frozen=True)
class World:
    """Everything around a policy.

    Attributes:
        may_be_infeasible: some rules cannot do the job at all here, and may say so.
    """

    name: str
    job: TuningJob
    truth: GroundTruth
    cloud: CloudTruth
    profile: Profile
    price_book: PriceBook
    seed: int = 0
    may_be_infeasible: bool = False

    def controller(self, name: str, factory: PolicyFactory, sink: Sink | None = None) -> Controller:
        """A fresh controller with a fresh policy.

        Raises:
            InfeasibleJobError: the policy cannot do the job.
        """
        policy = factory(self.job, self.profile, self.price_book, Streams(self.seed).rng("policy"))
        return Controller(policy, self.job, self.price_book, name=name, sink=sink)

    def backend(self) -> SimulatedBackend:
        """A fresh backend."""
        return SimulatedBackend(self.truth, self.cloud, Streams(self.seed))


def plain_world() -> World:
    """Twelve configurations, R = 9, nothing random, all beliefs right, time and money to spare."""
    bundle = synthetic_bundle(12, 9, seed=3, iteration_s=60.0, scaling=PowerScaling(0.8, max_gpus=8))
    job = TuningJob(trials=12, min_iterations=1, max_iterations=9, deadline_s=3600.0, budget_usd=20.0)
    terms = replace(bundle.terms(), timings=Timings(launch_s=10.0, checkpoint_s=5.0, rescale_s=15.0), sync_s=2.0)
    startup = Startup(queue=Delay(20.0), init=Delay(40.0))
    return World(
        "plain",
        job,
        bundle.truth_of(terms, job, seed=0),
        CloudTruth(startup=startup),
        bundle.profile_of(terms, startup),
        PriceBook((InstanceType("p3.8xlarge", 4, {ON_DEMAND: 12.0}),), max_instances=8),
    )


def worlds() -> tuple[World, ...]:
    """The worlds every policy is played in; the plain one first."""
    plain = plain_world()
    families = (_rough_worlds, _misjudged_worlds, _limited_worlds, _priced_worlds, _harsh_worlds)
    return (plain, *(world for family in families for world in family(plain)))


def _rough_worlds(plain: World) -> Iterator[World]:
    stragglers = Stragglers(persistent_cv=0.3, per_iteration_cv=0.2)
    yield replace(
        plain,
        name="stragglers",
        truth=replace(plain.truth, stragglers=stragglers),
        profile=replace(plain.profile, stragglers=stragglers),
    )
    yield _with_cloud(plain, "failing segments", faults=Faults(segment_failure_per_hour=6.0))
    yield _with_cloud(plain, "lost instances", faults=Faults(instance_loss_per_hour=4.0))
    every_third = replace(
        _with_cloud(plain, "failing segments, checkpoints within", faults=Faults(segment_failure_per_hour=12.0)),
        job=msgspec.structs.replace(plain.job, checkpoint_every=1),
    )
    yield every_third
    yield replace(
        _with_cloud(plain, "no capacity beyond two small machines", capacity_instances=2),
        job=msgspec.structs.replace(plain.job, deadline_s=1000.0),
        price_book=msgspec.structs.replace(
            plain.price_book, instance_types=(InstanceType("p3.2xlarge", 1, {ON_DEMAND: 3.0}),)
        ),
    )
    yield replace(
        _with_cloud(plain, "slow start and release", release_s=30.0),
        price_book=msgspec.structs.replace(plain.price_book, release_s=30.0),
    )
    scores = plain.truth.scores.copy()
    scores[::3, 2:] = math.nan
    job = msgspec.structs.replace(plain.job, direction="maximize")
    yield replace(plain, name="accuracy with diverged runs", job=job, truth=replace(plain.truth, scores=1.0 - scores))


def _misjudged_worlds(plain: World) -> Iterator[World]:
    for error in (-0.5, 0.5):
        errors = ProfileErrors(scaling_error=error)
        scaling = errors.scaling_believed(plain.truth.scaling)
        yield replace(plain, name=f"scaling believed {error:+.0%}", profile=replace(plain.profile, scaling=scaling))
        iteration_s = plain.profile.iteration_s * (1.0 + error)
        profile = replace(plain.profile, iteration_s=iteration_s)
        yield replace(plain, name=f"seconds per iteration believed {error:+.0%}", profile=profile)


def _limited_worlds(plain: World) -> Iterator[World]:
    for name, deadline_s, budget_usd in (
        ("tight deadline", 400.0, 20.0),
        ("tight budget", 3600.0, 1.5),
        ("tight deadline and budget", 600.0, 2.2),
        ("deadline only", 3600.0, None),
        ("budget only", None, 20.0),
    ):
        job = msgspec.structs.replace(plain.job, deadline_s=deadline_s, budget_usd=budget_usd)
        yield replace(plain, name=name, job=job, may_be_infeasible=True)


def _priced_worlds(plain: World) -> Iterator[World]:
    for name, billing in (
        ("per-function billing", BillingRule(model="per-function")),
        ("per-function billing by the minute", BillingRule(granularity_s=60.0, minimum_s=60.0, model="per-function")),
        ("hourly billing", BillingRule(granularity_s=3600.0, minimum_s=60.0)),
        ("ten minutes at least, boot free of charge", BillingRule(minimum_s=600.0, bills_startup=False)),
    ):
        price_book = msgspec.structs.replace(plain.price_book, billing=billing)
        yield replace(plain, name=name, price_book=price_book)


def _harsh_worlds(plain: World) -> Iterator[World]:
    """Several troubles at once, each of them about the budget."""
    tight = replace(
        plain,
        job=msgspec.structs.replace(plain.job, trials=9, deadline_s=7200.0, budget_usd=2.5),
        may_be_infeasible=True,
    )
    yield replace(
        tight,
        name="three times slower than believed, on a tight budget",
        truth=replace(plain.truth, iteration_s=plain.truth.iteration_s * 3.0),
    )
    by_the_minute = BillingRule(granularity_s=60.0, minimum_s=60.0, model="per-function")
    yield replace(
        _with_cloud(
            tight, "failing functions, by the minute, on a tight budget", faults=Faults(segment_failure_per_hour=60.0)
        ),
        price_book=msgspec.structs.replace(plain.price_book, billing=by_the_minute),
    )
    slow_queue = Startup(queue=Delay(300.0), init=Delay(40.0))
    yield replace(
        _with_cloud(
            tight,
            "lost machines, slow to be replaced, on a tight budget",
            startup=slow_queue,
            faults=Faults(instance_loss_per_hour=12.0),
            release_s=30.0,
        ),
        profile=replace(plain.profile, startup=slow_queue),
        price_book=msgspec.structs.replace(
            plain.price_book,
            instance_types=(InstanceType("p3.2xlarge", 1, {ON_DEMAND: 3.0}),),
            billing=BillingRule(minimum_s=300.0),
            release_s=30.0,
        ),
    )


def _with_cloud(world: World, name: str, **changes: object) -> World:
    return replace(world, name=name, cloud=replace(world.cloud, **changes))  # type: ignore[arg-type]  # field names of CloudTruth


# Policies: one run, watched.


@dataclass
class Recording:
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
        """Remember the highest committed bill."""
        self.most_committed = max(self.most_committed, (usd, at_s), key=lambda pair: pair[0])

    @property
    def at_s(self) -> float:
        """When it ended."""
        return self.controller.state.now_s


def record(name: str, factory: PolicyFactory, world: World, *, is_watched: bool = False) -> Recording:
    """Play a policy in a world; errors of the run are recorded, not raised.

    Args:
        name: of the policy.
        factory: builds it.
        world: where it is played.
        is_watched: look at view, bill and invariants around each fact.

    Raises:
        InfeasibleJobError: the policy cannot do the job.
    """
    stream = io.BytesIO()
    recording = Recording(world.controller(name, factory))
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
    """A backend that ends runs which never end."""

    def __init__(self, backend: Backend) -> None:
        self.perform, self.close, self._next_event = backend.perform, backend.close, backend.next_event
        self._facts = 0

    def next_event(self) -> Event | None:
        self._facts += 1
        if self._facts > MOST_FACTS:
            raise StalledRunError(f"the run has not ended after {MOST_FACTS} facts")
        return self._next_event()


class _Checked:
    """A controller whose state is checked after every fact."""

    def __init__(self, controller: Controller, recording: Recording) -> None:
        self._controller, self._recording = controller, recording
        self.story = controller.story

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

    def __init__(self, policy: Policy, recording: Recording) -> None:
        self._policy, self._recording = policy, recording

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        self._recording.note_committed(view.committed_usd, view.now_s)
        before = snapshot(view)
        wishes = self._policy.on_event(event, view)
        after = snapshot(view)
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        if changed:
            self._recording.mutations.append((view.now_s, ", ".join(sorted(changed))))
        return wishes


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


# Policies: the promises.


class Case:
    """A policy in a world; runs are made when a promise first asks for them."""

    def __init__(self, name: str, factory: PolicyFactory, world: World) -> None:
        self.name, self.factory, self.world = name, factory, world

    @cached_property
    def watched(self) -> Recording:
        """A run under observation."""
        return record(self.name, self.factory, self.world, is_watched=True)

    @cached_property
    def again(self) -> Recording:
        """The same run, unobserved."""
        return record(self.name, self.factory, self.world)

    def broken(self, promise: str, at_s: float, problem: str) -> BrokenPromiseError:
        """The error that says so."""
        return BrokenPromiseError(f"{self.name} {promise}", self.world.name, at_s, problem)


def wishes_are_possible(case: Case) -> None:
    """No wish is an `InvalidActionError`."""
    error = case.watched.error
    if isinstance(error, InvalidActionError):
        raise case.broken("wishes only for what is possible", case.watched.at_s, str(error)) from error


def finishes(case: Case) -> None:
    """The run ends with FinishRun, whatever fails or is lost on the way."""
    recording = case.watched
    if recording.error is not None and not isinstance(recording.error, InvalidActionError):
        error = recording.error
        raise case.broken("finishes", recording.at_s, f"{type(error).__name__}: {error}") from error
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
    """A fresh policy that is fed the recorded facts wishes for the same, order by order."""
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
    """At no fact does the committed bill exceed B, and neither does the final one."""
    budget_usd, recording = case.world.job.budget_usd, case.watched
    if budget_usd is None:
        return
    final_usd = recording.controller.state.bill.spent_usd(recording.controller.finished_at_s)
    recording.note_committed(final_usd, recording.controller.finished_at_s)
    usd, at_s = recording.most_committed
    if usd > budget_usd * (1 + _USD_TOLERANCE):
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
        problem = f"FinishRun names no trial, though {len(durable)} have a durable checkpoint"
        raise case.broken("answers with a durable winner", finished_at_s, problem)
    if controller.best not in durable:
        problem = f"trial {controller.best} had no durable checkpoint yet"
        raise case.broken("answers with a durable winner", finished_at_s, problem)


PolicyPromise: TypeAlias = Callable[[Case], None]
POLICY_PROMISES: tuple[PolicyPromise, ...] = (
    wishes_are_possible,
    finishes,
    leaves_the_view_alone,
    is_deterministic,
    replays,
    keeps_the_deadline,
    keeps_the_budget,
    answers_durably,
)
"""Whoever checks a policy that does not promise to keep T and B leaves those two out."""


@dataclass(frozen=True)
class Finding:
    """How one promise fared in one world.

    Attributes:
        status: "infeasible" where the policy said that its rule cannot do the job; `promise` is then "is feasible".
    """

    promise: str
    world: str
    status: Literal["kept", "broken", "infeasible"]
    problem: str = ""


def check_policy(
    name: str,
    factory: PolicyFactory,
    *,
    promises: Iterable[PolicyPromise] = POLICY_PROMISES,
    where: Iterable[World] | None = None,
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
            findings.append(Finding("is feasible", world.name, status, str(error)))
            continue
        findings += [_judged(promise, case) for promise in promises]
    return findings


def _judged(promise: PolicyPromise, case: Case) -> Finding:
    try:
        promise(case)
    except BrokenPromiseError as error:
        return Finding(promise.__name__, case.world.name, "broken", str(error))
    return Finding(promise.__name__, case.world.name, "kept")


# Backends.


@dataclass(frozen=True)
class BackendUnderTest:
    """A way to build a backend, and what it needs to know of it.

    Attributes:
        build: a fresh backend each time, whose workload has at least three trials.
        instance_type: a type it can rent, with at least two GPUs.
        iterations: a segment of so many takes far longer than `moment_s`.
        moment_s: a wait that is shorter than an iteration.
        build_losing: a fresh backend whose machines are lost while the first segment on them runs; None where it cannot.
    """

    name: str
    build: Callable[[], Backend]
    instance_type: str
    iterations: int
    moment_s: float
    market: str = ON_DEMAND
    build_losing: Callable[[], Backend] | None = None


class Dialogue:
    """Orders to a backend, and all it has told so far."""

    def __init__(self, under_test: BackendUnderTest, promise: str, backend: Backend | None = None) -> None:
        self.under_test, self._promise = under_test, promise
        self.backend = backend or under_test.build()
        self.facts: list[Event] = []

    @property
    def now_s(self) -> float:
        """Time of the last fact."""
        return self.facts[-1].at_s if self.facts else 0.0

    def require(self, holds: bool, problem: str) -> None:
        """Raise BrokenPromiseError unless it holds."""
        if not holds:
            raise BrokenPromiseError(self._promise, self.under_test.name, self.now_s, f"{problem}; told: {self.facts}")

    def hear(self) -> Event | None:
        """The next fact, which is no earlier than the one before."""
        fact = self.backend.next_event()
        if fact is not None:
            self.require(fact.at_s >= self.now_s, f"{fact} came after a later fact")
            self.facts.append(fact)
        return fact

    def hear_until(self, is_it: Callable[[Event], bool]) -> Event:
        """The next fact that is looked for."""
        for _ in range(MOST_FACTS):
            fact = self.hear()
            if fact is None:
                break
            if is_it(fact):
                return fact
        raise BrokenPromiseError(
            self._promise, self.under_test.name, self.now_s, f"a fact is missing; told: {self.facts}"
        )

    def wait(self, tag: str, seconds: float) -> None:
        """Hear everything of so many seconds."""
        self.backend.perform(StartTimer(tag, self.now_s + seconds))
        self.hear_until(lambda fact: isinstance(fact, TimerFired) and fact.tag == tag)

    def rent(self, number: int) -> None:
        """One machine, ready."""
        instance = InstanceId(number)
        self.backend.perform(ProvisionInstance(instance, self.under_test.instance_type, self.under_test.market))
        self.hear_until(lambda fact: isinstance(fact, InstanceReady) and fact.instance == instance)

    def start(
        self, segment: int, trial: int, instance: int = 0, *, iterations: int | None = None, report_every: int = 0
    ) -> None:
        """A trial from its beginning, on one GPU."""
        until = self.under_test.iterations if iterations is None else iterations
        placement = ((InstanceId(instance), 1),)
        self.backend.perform(StartSegment(SegmentId(segment), TrialId(trial), placement, 0, until, report_every))

    def end_of(self, segment: int) -> SegmentEnded:
        """The end of a segment, told already or awaited."""
        for fact in self.facts:
            if isinstance(fact, SegmentEnded) and fact.segment == segment:
                return fact
        fact = self.hear_until(lambda fact: isinstance(fact, SegmentEnded) and fact.segment == segment)
        assert isinstance(fact, SegmentEnded)  # hear_until has looked for one
        return fact

    def ends(self) -> list[SegmentEnded]:
        """All ends of segments so far."""
        return [fact for fact in self.facts if isinstance(fact, SegmentEnded)]


def starts_with_run_started(talk: Dialogue) -> None:
    """The first fact is RunStarted, at 0 s."""
    talk.require(talk.hear() == RunStarted(0.0), "the first fact is not RunStarted at 0 s")


def answers_each_order_once(talk: Dialogue) -> None:
    """A machine is launched, then ready, then gone; a segment ends; a timer fires: each exactly once."""
    talk.hear()
    talk.rent(0)
    for number in range(2):
        talk.start(number, number, iterations=1)
    talk.end_of(0)
    talk.end_of(1)
    talk.wait("once", talk.under_test.moment_s)
    talk.backend.perform(ReleaseInstance(InstanceId(0)))
    talk.hear_until(lambda fact: isinstance(fact, InstanceGone))
    talk.wait("guard", talk.under_test.moment_s)
    told = [type(fact) for fact in talk.facts if not isinstance(fact, TimerFired)]
    expected = [RunStarted, InstanceLaunched, InstanceReady, SegmentEnded, SegmentEnded, InstanceGone]
    talk.require(told == expected, f"expected {[kind.__name__ for kind in expected]}")
    completed = [(end.outcome, end.iteration, end.checkpoint_iteration) for end in talk.ends()]
    talk.require(completed == [(Outcome.COMPLETED, 1, 1)] * 2, "a segment of one iteration ends completed and durable")
    tags = [fact.tag for fact in talk.facts if isinstance(fact, TimerFired)]
    talk.require(tags == ["once", "guard"], "each timer fires once")


def reports_only_on_request(talk: Dialogue) -> None:
    """ProgressReported comes at each multiple of report_every, and never for the last iteration."""
    talk.hear()
    talk.rent(0)
    talk.start(0, 0, iterations=5, report_every=2)
    talk.start(1, 1, iterations=3)
    talk.end_of(0)
    talk.end_of(1)
    told = [(fact.segment, fact.iteration) for fact in talk.facts if isinstance(fact, ProgressReported)]
    talk.require(told == [(0, 2), (0, 4)], "expected reports of segment 0 after iterations 2 and 4, and no others")


def ends_at_a_safe_point(talk: Dialogue) -> None:
    """EndSegment ends a segment between two iterations, with a checkpoint of all it has done."""
    talk.hear()
    talk.rent(0)
    talk.start(0, 0, report_every=1)
    talk.hear_until(lambda fact: isinstance(fact, ProgressReported))
    talk.backend.perform(EndSegment(SegmentId(0)))
    end = talk.end_of(0)
    talk.require(end.outcome is Outcome.ENDED, "the outcome is not `ended`")
    talk.require(1 <= end.iteration < talk.under_test.iterations, "it did not end early")
    talk.require(end.checkpoint_iteration == end.iteration, "what it has done is not durable")


def a_second_end_changes_nothing(talk: Dialogue) -> None:
    """A segment that is told to end twice ends once, where it was going to."""
    ends = []
    for waits in (None, 0.25, 0.5, 1.0, 2.0):
        again = Dialogue(talk.under_test, "a second EndSegment changes nothing", None)
        again.hear()
        again.rent(0)
        again.start(0, 0, report_every=1)
        again.hear_until(lambda fact: isinstance(fact, ProgressReported))
        again.backend.perform(EndSegment(SegmentId(0)))
        if waits is not None:
            again.wait("before the second", waits * talk.under_test.moment_s)
            again.backend.perform(EndSegment(SegmentId(0)))
        again.end_of(0)
        again.wait("after the end", 4 * talk.under_test.moment_s)
        again.require(len(again.ends()) == 1, "the segment ended more than once")
        ends.append((again.ends()[0].iteration, again.ends()[0].checkpoint_iteration))
        again.backend.close()
    talk.require(len(set(ends)) == 1, f"with and without a second EndSegment it ended after {ends}")


def release_cuts_gangs(talk: Dialogue) -> None:
    """ReleaseInstance ends what runs on the machine; the machine is gone after the last of them."""
    talk.hear()
    talk.rent(0)
    talk.start(0, 0)
    talk.start(1, 1)
    talk.wait("a moment", talk.under_test.moment_s)
    talk.backend.perform(ReleaseInstance(InstanceId(0)))
    talk.hear_until(lambda fact: isinstance(fact, InstanceGone))
    talk.require({end.segment for end in talk.ends()} == {0, 1}, "InstanceGone came before the ends of its gangs")
    gone = talk.facts[-1]
    talk.require(isinstance(gone, InstanceGone) and gone.cause is GoneCause.RELEASED, "the cause is not `released`")


def a_request_can_be_cancelled(talk: Dialogue) -> None:
    """ReleaseInstance right after ProvisionInstance: gone, and never ready."""
    talk.hear()
    instance = InstanceId(0)
    talk.backend.perform(ProvisionInstance(instance, talk.under_test.instance_type, talk.under_test.market))
    talk.backend.perform(ReleaseInstance(instance))
    talk.hear_until(lambda fact: isinstance(fact, InstanceGone | InstanceRefused))
    talk.rent(1)
    ready = [fact.instance for fact in talk.facts if isinstance(fact, InstanceReady)]
    talk.require(ready == [1], "a machine became ready after its request was cancelled")


def a_timer_moves(talk: Dialogue) -> None:
    """A timer that is set again fires at the new time only."""
    talk.hear()
    moment_s = talk.under_test.moment_s
    for at_s in (6 * moment_s, moment_s, 2 * moment_s):
        talk.backend.perform(StartTimer("moved", at_s))
    # Real clocks are late by what the host needs, so the upper limit is generous.
    talk.wait("well before the first time", 5 * moment_s)
    talk.wait("well after it", 3 * moment_s)
    fired_s = [fact.at_s for fact in talk.facts if isinstance(fact, TimerFired) and fact.tag == "moved"]
    talk.require(len(fired_s) == 1, f"it fired at {fired_s}")
    is_in_time = 2 * moment_s * (1 - 1e-9) <= fired_s[0] <= 5 * moment_s
    talk.require(is_in_time, f"it fired at {fired_s[0]} s instead of {2 * moment_s} s")


def a_start_on_a_dead_machine_ends(talk: Dialogue) -> None:
    """StartSegment on a machine that is gone is answered by SegmentEnded(instance_gone), with nothing done."""
    talk.hear()
    talk.rent(0)
    talk.backend.perform(ReleaseInstance(InstanceId(0)))
    talk.hear_until(lambda fact: isinstance(fact, InstanceGone))
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
    gone = talk.hear_until(lambda fact: isinstance(fact, InstanceGone))
    talk.require(isinstance(gone, InstanceGone) and gone.cause is not GoneCause.RELEASED, "the cause is `released`")
    outcomes = {end.segment: end.outcome for end in talk.ends()}
    talk.require(
        outcomes == dict.fromkeys((0, 1), Outcome.INSTANCE_GONE), "its gangs did not end first, with `instance_gone`"
    )


BackendPromise: TypeAlias = Callable[[Dialogue], None]
BACKEND_PROMISES: Mapping[str, BackendPromise] = {
    "the first fact is RunStarted": starts_with_run_started,
    "each order is answered once": answers_each_order_once,
    "progress is reported on request only": reports_only_on_request,
    "EndSegment ends at a safe point": ends_at_a_safe_point,
    "a second EndSegment changes nothing": a_second_end_changes_nothing,
    "ReleaseInstance cuts gangs": release_cuts_gangs,
    "a request can be cancelled": a_request_can_be_cancelled,
    "a timer moves when set again": a_timer_moves,
    "a start on a dead machine ends": a_start_on_a_dead_machine_ends,
    "a lost machine ends its gangs first": a_lost_machine_ends_its_gangs_first,
}
"""All of them also ask for facts in order of time."""


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
