"""Checks that the entries of a journal can follow each other, so that a damaged file is refused at the line of the damage.

A run writes only sequences that its backend promises and its controller makes: numbers without gaps, one end for each machine
and segment, times that never go back. Imports only `sim.model`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elastune.sim.model.actions import Action, CloneTrial, FinishRun, ScaleTo
from elastune.sim.model.commands import (
    Command,
    EndSegment,
    ProvisionInstance,
    ReleaseInstance,
    StartSegment,
    StartTimer,
)
from elastune.sim.model.errors import InputError, InvalidJournalError
from elastune.sim.model.events import (
    Event,
    GoneCause,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)

if TYPE_CHECKING:
    from pathlib import Path

    from elastune.sim.control.journal import Entry
    from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
    from elastune.sim.model.prices import Pool, PriceBook

_ROUNDING_S = 0.01
"""The seconds of a segment's parts may differ from its length by so much, and by a millionth of the time."""


@dataclass(slots=True)
class _Machine:
    """A machine that is not gone, and how far it has come."""

    gpus: float
    held_gpus: int = 0
    is_launched: bool = False
    is_booted: bool = False
    is_ready: bool = False
    is_released: bool = False


@dataclass(slots=True)
class _Trial:
    """The durable iterations of a trial, and the segment that trains it."""

    durable: int = 0
    segment: SegmentId | None = None


@dataclass
class JournalCheck:
    """Takes the entries of one journal in order.

    Attributes:
        path: of the journal, for errors.
        trials: how many the job has.
        price_book: of the run.
    """

    path: Path
    trials: int
    price_book: PriceBook
    _line: int = 1
    _now_s: float = 0.0
    _is_finished: bool = False
    _requested: int = 0
    _started: int = 0
    _boots: bool | None = None
    _pools: set[Pool] = field(default_factory=set)
    _machines: dict[InstanceId, _Machine] = field(default_factory=dict)
    _running: dict[SegmentId, tuple[StartSegment, float]] = field(default_factory=dict)
    _known: dict[TrialId, _Trial] = field(default_factory=dict)
    _timers: dict[str, float] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Check the next entry.

        Raises:
            InvalidJournalError: it cannot follow the entries before it; names file and line.
        """
        self._line += 1
        event = entry.event
        self._require(isinstance(event, RunStarted) == (self._line == 2), "a journal begins with RunStarted, once")
        is_in_order = math.isfinite(event.at_s) and event.at_s >= self._now_s
        self._require(is_in_order, f"its time is {event.at_s} s, after one at {self._now_s} s")
        self._now_s = event.at_s
        is_over = self._is_finished == (entry.status == "drained")
        self._require(is_over, "entries after FinishRun, and only these, are marked as drained")
        has_decided = bool(entry.actions or entry.commands)
        self._require(entry.status == "handled" or not has_decided, f"nothing is decided on a {entry.status} event")
        self._event(event, is_stale=entry.status == "stale")
        for action in entry.actions:
            self._action(action)
        for command in entry.commands:
            self._command(command)

    def end(self) -> None:
        """Check that the run has ended.

        Raises:
            InvalidJournalError: it has not, or the end of a machine or a segment is missing.
        """
        self._require(self._is_finished and not self._machines, "the journal ends before its run did")
        # A segment started on a machine that is lost at that moment may end after the run, which nobody records.
        lost = [number for number, (_, from_s) in self._running.items() if from_s < self._now_s]
        self._require(not lost, f"segment {lost[:1]} has no end")

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            raise InvalidJournalError(self.path, self._line, problem)

    # Events.

    def _event(self, event: Event, *, is_stale: bool) -> None:
        match event:
            case SegmentEnded():
                self._segment_ended(event)
            case ProgressReported():
                self._progress(event, is_stale=is_stale)
            case InstanceLaunched() | InstanceBooted() | InstanceReady() | InstanceRefused():
                self._came_up(event)
            case ReclaimNoticed(instance=instance):
                self._machine(instance)
            case InstanceGone():
                self._gone(event)
            case TimerFired(tag=tag):
                due_s = self._timers.pop(tag, math.inf)
                self._require(due_s <= self._now_s * (1 + 1e-9), f"timer {tag!r} was not due")
            case TrialSampled(trial=trial):
                self._trial(trial)
            case _:
                pass

    def _machine(self, number: InstanceId) -> _Machine:
        machine = self._machines.get(number)
        if machine is None:
            state = "gone" if 0 <= number < self._requested else "not requested"
            raise InvalidJournalError(self.path, self._line, f"machine {number} is {state}")
        return machine

    def _trial(self, number: TrialId) -> _Trial:
        self._require(0 <= number < self.trials, f"trial {number} is not one of the job's {self.trials}")
        return self._known.setdefault(number, _Trial())

    def _came_up(self, event: InstanceLaunched | InstanceBooted | InstanceReady | InstanceRefused) -> None:
        machine = self._machine(event.instance)
        told = f"{type(event).__name__} of machine {event.instance}"
        self._require(not machine.is_ready, f"{told} comes after it was ready")
        match event:
            case InstanceLaunched() | InstanceRefused():
                self._require(not machine.is_launched, f"{told} comes after its launch")
                machine.is_launched = True
                if isinstance(event, InstanceRefused):
                    del self._machines[event.instance]
            case InstanceBooted():
                self._require(machine.is_launched and not machine.is_booted, f"{told} does not follow its launch")
                machine.is_booted = True
            case InstanceReady():
                self._require(machine.is_launched, f"{told} comes before its launch")
                # Set-up takes time of its own for all machines of a run, or for none.
                is_alike = self._boots in (None, machine.is_booted)
                self._require(is_alike, f"{told}: other machines have InstanceBooted where this one has not, or not")
                machine.is_ready, self._boots = True, machine.is_booted

    def _gone(self, event: InstanceGone) -> None:
        machine = self._machine(event.instance)
        is_released = event.cause is GoneCause.RELEASED
        self._require(machine.is_released or not is_released, f"machine {event.instance} was not given back")
        for command, from_s in self._running.values():
            is_on_it = any(number == event.instance for number, _ in command.placement)
            has_crossed = from_s == self._now_s or not is_released
            self._require(
                has_crossed or not is_on_it, f"segment {command.segment} on machine {event.instance} has no end"
            )
        del self._machines[event.instance]

    def _segment_ended(self, event: SegmentEnded) -> None:
        command, from_s = self._segment(event.segment, event.trial)
        del self._running[event.segment]
        name, length_s = f"segment {event.segment}", self._now_s - from_s
        self._require(
            command.from_iteration <= event.checkpoint_iteration <= event.iteration,
            f"{name} began at iteration {command.from_iteration} and ends at {event.iteration}, of which"
            f" {event.checkpoint_iteration} are durable",
        )
        is_done = event.iteration >= command.until_iteration
        self._require(
            is_done or event.outcome is not Outcome.COMPLETED,
            f"{name} is completed at iteration {event.iteration} of {command.until_iteration}",
        )
        parts_s = (event.launch_s, event.train_s, event.checkpoint_s)
        self._require(min(*parts_s, event.lost_s) >= 0, f"{name} has negative seconds")
        spare_s = length_s - sum(parts_s)
        # A trial that Ray Tune never runs again has spent nothing.
        is_accounted = abs(spare_s) <= _ROUNDING_S + 1e-6 * self._now_s or not any(parts_s)
        self._require(is_accounted, f"{name} took {length_s} s, but its parts take {sum(parts_s)} s")
        self._require(event.lost_s <= event.train_s + _ROUNDING_S, f"{name} lost more seconds than it trained")
        trial = self._trial(event.trial)
        trial.durable, trial.segment = event.checkpoint_iteration, None
        for number, gpus in command.placement:
            if number in self._machines:
                self._machines[number].held_gpus -= gpus

    def _segment(self, number: SegmentId, trial: TrialId) -> tuple[StartSegment, float]:
        running = self._running.get(number)
        if running is None or running[0].trial != trial:
            raise InvalidJournalError(self.path, self._line, f"segment {number} of trial {trial} does not run")
        return running

    def _progress(self, event: ProgressReported, *, is_stale: bool) -> None:
        self._require(0 <= event.segment < self._started, f"segment {event.segment} was never started")
        is_current = self._trial(event.trial).segment == event.segment
        if not self._is_finished:
            self._require(is_current != is_stale, "an event is stale if its segment has ended, and only then")
        if is_current:
            from_iteration = self._running[event.segment][0].from_iteration
            self._require(event.iteration > from_iteration, f"segment {event.segment} began at {from_iteration}")

    # Decisions.

    def _action(self, action: Action) -> None:
        match action:
            case ScaleTo():
                self._scale(action)
            case CloneTrial(source=source, target=target):
                self._trial(target).durable = self._trial(source).durable
            case FinishRun(best=best):
                self._is_finished = True
                self._require(best is None or self._trial(best).durable > 0, f"the answer {best} is not durable")
            case _:
                pass

    def _scale(self, action: ScaleTo) -> None:
        try:
            pool = self.price_book.pool(action.instance_type, action.market)
            self.price_book.price(*pool)
        except InputError as error:
            raise InvalidJournalError(self.path, self._line, f"the header is another run's: {error}") from error
        self._pools.add(pool)

    def _command(self, command: Command) -> None:
        match command:
            case StartSegment():
                self._start(command)
            case EndSegment(segment=segment):
                self._require(segment in self._running, f"segment {segment} does not run")
            case ProvisionInstance():
                self._provision(command)
            case ReleaseInstance(instance=instance):
                machine = self._machine(instance)
                self._require(not machine.is_released, f"machine {instance} is given back twice")
                machine.is_released = True
            case StartTimer(tag=tag, at_s=at_s):
                self._require(at_s >= self._now_s, f"timer {tag!r} is set for the past")
                self._timers[tag] = at_s

    def _provision(self, command: ProvisionInstance) -> None:
        number = command.instance
        self._require(number == self._requested, f"machine {number} is requested where {self._requested} is next")
        self._requested += 1
        pool = (command.instance_type, command.market)
        self._require(pool in self._pools, f"no ScaleTo asks for machine {number}, {' '.join(pool)}, under this header")
        self._machines[number] = _Machine(self.price_book.type_named(pool[0]).gpus_per_instance)

    def _start(self, command: StartSegment) -> None:
        number, trial = command.segment, self._trial(command.trial)
        self._require(number == self._started, f"segment {number} is started where {self._started} is next")
        self._started += 1
        self._require(trial.segment is None, f"trial {command.trial} is still trained by segment {trial.segment}")
        self._require(
            command.from_iteration == trial.durable,
            f"segment {number} begins at iteration {command.from_iteration}, but {trial.durable} are durable",
        )
        for instance, gpus in command.placement:
            machine = self._machine(instance)
            machine.held_gpus += gpus
            is_free = machine.is_ready and gpus > 0 and machine.held_gpus <= machine.gpus
            self._require(is_free, f"machine {instance} has no {gpus} GPUs free for segment {number}")
        trial.segment = number
        self._running[number] = (command, self._now_s)
