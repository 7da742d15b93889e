"""Turns Ray Tune's callbacks into events, and commands into what its trials do. Imports the pure core, not ray.

Tune runs the loop and calls this backend, so nothing waits here: `next_event` returns what has happened so far, and timers fire
at the next call of `look`. Machines are parts of a fixed cluster, ready as soon as they are requested.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from elastune.sim.bridge.tune.segment import RunningSegment
from elastune.sim.bridge.tune.values import finite, plain, plain_configuration
from elastune.sim.model.commands import (
    Command,
    EndSegment,
    ProvisionInstance,
    ReleaseInstance,
    StartSegment,
    StartTimer,
)
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import (
    Event,
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    Outcome,
    ProgressReported,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId

PENDING, PAUSED, TERMINATED, ERROR = "PENDING", "PAUSED", "TERMINATED", "ERROR"
"""States of a trial in Tune; RUNNING is not needed here."""
_OVER = (TERMINATED, ERROR)
_LASTS_S = "time_this_iter_s"
"""Tune's key for the seconds since the previous result."""
_HOW_TO_SAVE = (
    "policies pause trials and resume them from checkpoints, so save one with each result,"
    " tune.report(metrics, checkpoint=...), or write save_checkpoint and load_checkpoint for a class"
)


class SavedResult(Protocol):
    """The part of a stored checkpoint that is used here."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the trainable reported with it."""

    @property
    def checkpoint(self) -> Any:  # noqa: ANN401  of Ray's own type
        """The checkpoint itself."""


class TuneTrial(Protocol):
    """The part of a Tune trial that is used here."""

    trial_id: str
    status: str

    @property
    def config(self) -> Mapping[str, Any]:
        """Its hyperparameters."""

    @property
    def latest_checkpoint_result(self) -> SavedResult | None:
        """Its last stored checkpoint."""


class TuneBackend:
    """Performs commands on Tune's trials.

    Attributes:
        to_start: segments that Tune has not been given yet, oldest first.

    Args:
        trials: of the job, in the order in which Tune added them.
        metric: key of the score in results.
        time_attr: key of the iterations completed in results.
        clock: seconds since the run began.
    """

    def __init__(self, trials: Sequence[TuneTrial], *, metric: str, time_attr: str, clock: Callable[[], float]) -> None:
        self.to_start: list[RunningSegment] = []
        self._trials = trials
        self._numbers = {trial.trial_id: TrialId(number) for number, trial in enumerate(trials)}
        self._metric = metric
        self._time_attr = time_attr
        self._clock = clock
        self._told_at_s = clock()
        self._events: deque[Event] = deque((RunStarted(self._told_at_s),))
        self._segments: dict[TrialId, RunningSegment] = {}
        self._timers: dict[str, float] = {}
        self._sampled: set[TrialId] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing can happen any more."""
        return not (self._events or self._segments or self._timers)

    # Commands.

    def perform(self, command: Command) -> None:
        """Start what the command asks for; its outcome arrives as an event.

        Raises:
            InputError: a trial would continue from the checkpoint of another.
        """
        # Commands have the time of the event that they answer, so that the seconds of segments and machines have no gaps.
        now_s = self._told_at_s
        match command:
            case StartSegment():
                self._start(command, now_s)
            case EndSegment():
                self._end(command.segment)
            case ProvisionInstance():
                self._events += (InstanceLaunched(now_s, command.instance), InstanceReady(now_s, command.instance))
            case ReleaseInstance():
                self._release(command.instance, now_s)
            case StartTimer():
                self._timers[command.tag] = command.at_s

    def _start(self, command: StartSegment, now_s: float) -> None:
        if command.restore_from not in (None, command.trial):
            raise InputError(
                f"trial {command.trial} would continue from a checkpoint of trial {command.restore_from}, which this"
                " scheduler does not do: Ray Tune has a PopulationBasedTraining of its own"
            )
        trial = self._trials[command.trial]
        if command.trial not in self._sampled:
            self._sampled.add(command.trial)
            self._events.append(TrialSampled(now_s, command.trial, plain_configuration(trial.config)))
        if trial.status in _OVER:
            self._pass_over(command, trial, now_s)
            return
        gpus = sum(count for _, count in command.placement)
        segment = RunningSegment(command, gpus, now_s, None)
        self._segments[command.trial] = segment
        self.to_start.append(segment)

    def _pass_over(self, command: StartSegment, trial: TuneTrial, now_s: float) -> None:
        """End a segment of a trial that Tune will not run again: a failed one has diverged, one that ended keeps its score."""
        score = None if trial.status == ERROR else self._last_score(trial)
        until = command.until_iteration
        self._events.append(
            SegmentEnded(now_s, command.trial, command.segment, until, until, score, Outcome.COMPLETED, 0.0, 0.0, 0.0)
        )

    def _last_score(self, trial: TuneTrial) -> float | None:
        saved = trial.latest_checkpoint_result
        return None if saved is None else finite(saved.metrics.get(self._metric))

    def _end(self, number: SegmentId) -> None:
        for segment in self._segments.values():
            if segment.command.segment == number:
                segment.is_ending = True
                return

    def _release(self, instance: InstanceId, now_s: float) -> None:
        """End the segments on a machine. Some are left only at the end of the run, when Tune stops all trials."""
        for segment in list(self._segments.values()):
            if any(number == instance for number, _ in segment.command.placement):
                self._break(segment, Outcome.ENDED, now_s)
        self._events.append(InstanceGone(now_s, instance, GoneCause.RELEASED))

    # What Tune says.

    def next_event(self) -> Event | None:
        """The next event; None if no other has happened yet."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._told_at_s = event.at_s
        return event

    def look(self) -> None:
        """Find what Tune does not announce, or announces too early: paused, broken and ended trials, and due timers.

        Raises:
            InputError: a trial was paused or ended without a checkpoint of its last iteration.
        """
        now_s = self._clock()
        for segment in list(self._segments.values()):
            if segment.is_broken:
                self._break(segment, Outcome.FAILED, now_s)
            elif segment.has_left:
                self._settle(segment, "ended by itself", now_s)
            elif segment.is_pausing and self._trials[segment.command.trial].status == PAUSED:
                self._settle(segment, "was paused", now_s)
        for tag in sorted((tag for tag, at_s in self._timers.items() if at_s <= now_s), key=self._timers.__getitem__):
            del self._timers[tag]
            self._events.append(TimerFired(now_s, tag))

    def result(self, trial: TuneTrial, result: Mapping[str, Any]) -> None:
        """Take the result of an iteration; call `is_to_pause` after the policy has handled the event.

        Raises:
            InputError: the result is not of the next iteration, or it has no score.
        """
        number = self._numbers[trial.trial_id]
        segment = self._segments.get(number)
        if segment is None:
            return
        now_s = self._clock()
        self._take(segment, trial, result, now_s)
        command, iteration = segment.command, segment.iteration
        is_last = iteration >= command.until_iteration or segment.is_ending
        if command.report_every and iteration % command.report_every == 0 and not is_last:
            self._events.append(ProgressReported(now_s, number, command.segment, iteration, segment.score))

    def is_to_pause(self, trial: TuneTrial) -> bool:
        """Whether to pause the trial after this result, with a checkpoint."""
        segment = self._segments.get(self._numbers[trial.trial_id])
        if segment is None:
            return False
        segment.is_pausing = segment.is_ending or segment.iteration >= segment.command.until_iteration
        return segment.is_pausing

    def is_to_save(self, trial: TuneTrial) -> bool:
        """Whether the trial saves after this result and trains on."""
        segment = self._segments.get(self._numbers[trial.trial_id])
        every = 0 if segment is None else segment.command.checkpoint_every
        return segment is not None and every > 0 and segment.iteration % every == 0

    def ended(self, trial: TuneTrial, result: Mapping[str, Any]) -> None:
        """Note that a trial ended by itself. Tune calls this before it stops the trial, so `look` tells the event.

        Raises:
            InputError: as `result`.
        """
        segment = self._segments.get(self._numbers[trial.trial_id])
        if segment is None:
            return
        segment.has_left = True
        if self._iteration_in(result, trial) > segment.iteration:
            self._take(segment, trial, result, self._clock())

    def failed(self, trial: TuneTrial) -> None:
        """Note that a trial's worker died. Tune decides later whether to retry, so `look` tells the event."""
        segment = self._segments.get(self._numbers[trial.trial_id])
        if segment is not None:
            segment.is_broken = True

    def _take(self, segment: RunningSegment, trial: TuneTrial, result: Mapping[str, Any], now_s: float) -> None:
        iteration = self._iteration_in(result, trial)
        expected = segment.iteration + 1
        if iteration != expected:
            problem = f"reported {self._time_attr} {iteration}, but {expected} comes next"
            if not segment.reported_at_s and segment.command.from_iteration:
                raise InputError(
                    f"trial {trial.trial_id} {problem}: it was resumed from its checkpoint of {expected - 1}, but did not"
                    f" continue from there; {_HOW_TO_SAVE}"
                )
            raise InputError(f"trial {trial.trial_id} {problem}: report each iteration once")
        segment.take(now_s, float(result.get(_LASTS_S, 0.0)), finite(result.get(self._metric)))

    def _iteration_in(self, result: Mapping[str, Any], trial: TuneTrial) -> int:
        iteration = plain(result.get(self._time_attr))
        if isinstance(iteration, bool) or not isinstance(iteration, int | float) or iteration % 1 != 0:
            raise InputError(
                f"trial {trial.trial_id} reported {self._time_attr} = {iteration!r}, but time_attr must name the whole number"
                " of iterations it has completed"
            )
        return int(iteration)

    def _settle(self, segment: RunningSegment, how: str, now_s: float) -> None:
        """End a segment that must have a checkpoint of its last iteration."""
        trial, iteration = self._trials[segment.command.trial], segment.iteration
        durable = self._durable(trial)
        if durable != iteration:
            last = f"its last checkpoint is of {durable}" if durable else "it has no checkpoint"
            raise InputError(
                f"trial {trial.trial_id} {how} at {self._time_attr} {iteration}, but {last}: {_HOW_TO_SAVE}"
            )
        is_complete = iteration >= segment.command.until_iteration
        self._tell(segment, Outcome.COMPLETED if is_complete else Outcome.ENDED, now_s, iteration)

    def _durable(self, trial: TuneTrial) -> int:
        saved = trial.latest_checkpoint_result
        return 0 if saved is None else self._iteration_in(saved.metrics, trial)

    def _break(self, segment: RunningSegment, outcome: Outcome, now_s: float) -> None:
        """End a segment at once: only stored checkpoints are durable."""
        durable = min(self._durable(self._trials[segment.command.trial]), segment.iteration)
        self._tell(segment, outcome, now_s, durable, is_broken=True)

    def _tell(
        self, segment: RunningSegment, outcome: Outcome, now_s: float, durable: int, *, is_broken: bool = False
    ) -> None:
        command = segment.command
        del self._segments[command.trial]
        if segment in self.to_start:
            self.to_start.remove(segment)
        score = segment.score
        if not segment.reported_at_s and durable:
            score = self._last_score(self._trials[command.trial])
        seconds = segment.seconds(now_s, is_saved=not is_broken)
        lost_s = segment.lost_s(now_s, durable) if is_broken else 0.0
        self._events.append(
            SegmentEnded(
                now_s, command.trial, command.segment, segment.iteration, durable, score, outcome, *seconds, lost_s
            )
        )
