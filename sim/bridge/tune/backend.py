"""What Ray Tune's callbacks mean as events, and what orders mean for its trials. Stands on the pure core and knows no Ray.

Tune keeps the loop: it calls, and is answered. So there is no waiting here: `next_event` gives what has happened so far, and
timers fire when somebody looks. Machines are slices of a fixed cluster, ready the moment they are asked for.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from elastune.sim.model.commands import (
    EndSegment,
    ProvisionInstance,
    ReleaseInstance,
    StartSegment,
    StartTimer,
)
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import (
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
from elastune.sim.model.ids import TrialId

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.sim.model.commands import Command
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import InstanceId, SegmentId

PENDING, PAUSED, TERMINATED, ERROR = "PENDING", "PAUSED", "TERMINATED", "ERROR"
"""Where Tune says that a trial is; it is RUNNING as well, which nobody here asks for."""
_OVER = (TERMINATED, ERROR)
_LASTS_S = "time_this_iter_s"
"""Tune's own key for the seconds since the result before."""
_HOW_TO_SAVE = (
    "policies pause trials and go on from checkpoints, so hand one over with each result,"
    " tune.report(metrics, checkpoint=...), or write save_checkpoint and load_checkpoint for a class"
)


class SavedResult(Protocol):
    """A checkpoint that Tune has stored, as far as it matters here."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the trainable reported with it."""

    @property
    def checkpoint(self) -> Any:  # noqa: ANN401  of Ray's own type
        """The checkpoint itself."""


class TuneTrial(Protocol):
    """A trial of Tune, as far as it matters here."""

    trial_id: str
    status: str

    @property
    def config(self) -> Mapping[str, Any]:
        """Its hyperparameters, whatever the search space holds."""

    @property
    def latest_checkpoint_result(self) -> SavedResult | None:
        """The last checkpoint that is stored."""


@dataclass(slots=True)
class RunningSegment:
    """A stretch of training that was ordered and has not ended.

    Attributes:
        gpus: size of its gang.
        ordered_at_s: when it was ordered.
        score: at the last result.
        reported_at_s: when each of its results came.
        trains_from_s: when its first iteration began, known with its first result; NaN before.
        is_ending: it was told to end.
        is_pausing: Tune was told to pause it, and saves.
        is_broken: its worker died.
        has_left: its trainable ended by itself.
    """

    order: StartSegment
    gpus: int
    ordered_at_s: float
    score: float | None
    reported_at_s: list[float] = field(default_factory=list)
    trains_from_s: float = math.nan
    is_ending: bool = False
    is_pausing: bool = False
    is_broken: bool = False
    has_left: bool = False

    @property
    def iteration(self) -> int:
        """Iterations of the trial that are known to be completed."""
        return self.order.from_iteration + len(self.reported_at_s)

    def take(self, at_s: float, lasted_s: float, score: float | None) -> None:
        """One more iteration is complete."""
        if not self.reported_at_s:
            self.trains_from_s = min(max(at_s - lasted_s, self.ordered_at_s), at_s)
        self.reported_at_s.append(at_s)
        self.score = score

    def seconds(self, at_s: float, *, is_saved: bool) -> tuple[float, float, float]:
        """Seconds of launch, training and the checkpoint at the end, which are all there were.

        Args:
            at_s: when it ended.
            is_saved: it ended as it was told to, so that what came after its last result was saving.
        """
        if not self.reported_at_s:
            return at_s - self.ordered_at_s, 0.0, 0.0
        trained_until_s = self.reported_at_s[-1] if is_saved else at_s
        launch_s = self.trains_from_s - self.ordered_at_s
        return launch_s, trained_until_s - self.trains_from_s, at_s - trained_until_s

    def lost_s(self, at_s: float, durable: int) -> float:
        """Seconds of training after the last iteration that is durable."""
        if not self.reported_at_s:
            return 0.0
        kept = durable - self.order.from_iteration
        return at_s - (self.reported_at_s[kept - 1] if kept > 0 else self.trains_from_s)


class TuneBackend:
    """Carries orders out on Tune's trials.

    Attributes:
        to_start: segments that were ordered and that Tune has not been given yet, first ordered first.

    Args:
        trials: in the order in which Tune has added them: the trials of the job.
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
        """Whether nothing can happen any more by itself."""
        return not (self._events or self._segments or self._timers)

    # Orders.

    def perform(self, command: Command) -> None:
        """Take an order; its outcome arrives as an event.

        Raises:
            InputError: a trial is to go on from the checkpoint of another.
        """
        # What is ordered on an event is ordered at its time, so that the seconds of segments and machines have no gaps.
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

    def _start(self, order: StartSegment, now_s: float) -> None:
        if order.restore_from not in (None, order.trial):
            raise InputError(
                f"trial {order.trial} is to go on from a checkpoint of trial {order.restore_from}, which this scheduler does"
                " not do: Ray Tune has a PopulationBasedTraining of its own"
            )
        trial = self._trials[order.trial]
        if order.trial not in self._sampled:
            self._sampled.add(order.trial)
            self._events.append(TrialSampled(now_s, order.trial, plain_configuration(trial.config)))
        if trial.status in _OVER:
            self._pass_over(order, trial, now_s)
            return
        gpus = sum(count for _, count in order.placement)
        segment = RunningSegment(order, gpus, now_s, None)
        self._segments[order.trial] = segment
        self.to_start.append(segment)

    def _pass_over(self, order: StartSegment, trial: TuneTrial, now_s: float) -> None:
        """Tune will never run it again: one that failed counts as diverged, one that ended by itself keeps its score."""
        score = None if trial.status == ERROR else self._last_score(trial)
        until = order.until_iteration
        self._events.append(
            SegmentEnded(now_s, order.trial, order.segment, until, until, score, Outcome.COMPLETED, 0.0, 0.0, 0.0)
        )

    def _last_score(self, trial: TuneTrial) -> float | None:
        saved = trial.latest_checkpoint_result
        return None if saved is None else finite(saved.metrics.get(self._metric))

    def _end(self, number: SegmentId) -> None:
        for segment in self._segments.values():
            if segment.order.segment == number:
                segment.is_ending = True
                return

    def _release(self, instance: InstanceId, now_s: float) -> None:
        """Gangs are on a machine that is given back only where the run ends; Tune is told to stop them by whoever asks."""
        for segment in list(self._segments.values()):
            if any(number == instance for number, _ in segment.order.placement):
                self._break(segment, Outcome.ENDED, now_s)
        self._events.append(InstanceGone(now_s, instance, GoneCause.RELEASED))

    # What Tune says.

    def next_event(self) -> Event | None:
        """The next event that has happened; None where there is no other yet."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._told_at_s = event.at_s
        return event

    def look(self) -> None:
        """Take notice of what Tune does not call for, or where it calls too early: who is paused, broken or gone; timers.

        Raises:
            InputError: a trial was paused, or ended by itself, without a checkpoint of where it stood.
        """
        now_s = self._clock()
        for segment in list(self._segments.values()):
            if segment.is_broken:
                self._break(segment, Outcome.FAILED, now_s)
            elif segment.has_left:
                self._settle(segment, "ended by itself", now_s)
            elif segment.is_pausing and self._trials[segment.order.trial].status == PAUSED:
                self._settle(segment, "was paused", now_s)
        for tag in sorted((tag for tag, at_s in self._timers.items() if at_s <= now_s), key=self._timers.__getitem__):
            del self._timers[tag]
            self._events.append(TimerFired(now_s, tag))

    def result(self, trial: TuneTrial, result: Mapping[str, Any]) -> None:
        """A trial has completed an iteration; ask `is_to_pause` when the policy has heard of it.

        Raises:
            InputError: the result is not that of the iteration after the last one, or it has no score.
        """
        number = self._numbers[trial.trial_id]
        segment = self._segments.get(number)
        if segment is None:
            return
        now_s = self._clock()
        self._take(segment, trial, result, now_s)
        order, iteration = segment.order, segment.iteration
        is_last = iteration >= order.until_iteration or segment.is_ending
        if order.report_every and iteration % order.report_every == 0 and not is_last:
            self._events.append(ProgressReported(now_s, number, order.segment, iteration, segment.score))

    def is_to_pause(self, trial: TuneTrial) -> bool:
        """Whether the trial is to be paused after this result, with a checkpoint."""
        segment = self._segments.get(self._numbers[trial.trial_id])
        if segment is None:
            return False
        segment.is_pausing = segment.is_ending or segment.iteration >= segment.order.until_iteration
        return segment.is_pausing

    def is_to_save(self, trial: TuneTrial) -> bool:
        """Whether the trial is to write a checkpoint after this result, and train on."""
        segment = self._segments.get(self._numbers[trial.trial_id])
        every = 0 if segment is None else segment.order.checkpoint_every
        return segment is not None and every > 0 and segment.iteration % every == 0

    def ended(self, trial: TuneTrial, result: Mapping[str, Any]) -> None:
        """A trial has ended by itself, at this last result. Tune calls before it has put the trial away: `look` tells of it.

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
        """A trial's worker died. Whether Tune will run it again is not known yet: `look` tells of it."""
        segment = self._segments.get(self._numbers[trial.trial_id])
        if segment is not None:
            segment.is_broken = True

    def _take(self, segment: RunningSegment, trial: TuneTrial, result: Mapping[str, Any], now_s: float) -> None:
        iteration = self._iteration_in(result, trial)
        expected = segment.iteration + 1
        if iteration != expected:
            problem = f"reported {self._time_attr} {iteration}, but {expected} comes next"
            if not segment.reported_at_s and segment.order.from_iteration:
                raise InputError(
                    f"trial {trial.trial_id} {problem}: it was resumed from its checkpoint of {expected - 1}, and has not gone"
                    f" on from there; {_HOW_TO_SAVE}"
                )
            raise InputError(f"trial {trial.trial_id} {problem}: each iteration is to be reported, once")
        segment.take(now_s, float(result.get(_LASTS_S, 0.0)), finite(result.get(self._metric)))

    def _iteration_in(self, result: Mapping[str, Any], trial: TuneTrial) -> int:
        iteration = result.get(self._time_attr)
        if isinstance(iteration, np.generic):
            iteration = iteration.item()
        if isinstance(iteration, bool) or not isinstance(iteration, int | float) or iteration != int(iteration):
            raise InputError(
                f"trial {trial.trial_id} reported {self._time_attr} = {iteration!r}, but time_attr must name the whole number"
                " of iterations it has completed"
            )
        return int(iteration)

    def _settle(self, segment: RunningSegment, how: str, now_s: float) -> None:
        """The segment has ended with a checkpoint of where it stands."""
        trial, iteration = self._trials[segment.order.trial], segment.iteration
        durable = self._durable(trial)
        if durable != iteration:
            last = f"its last checkpoint is of {durable}" if durable else "it has no checkpoint"
            raise InputError(
                f"trial {trial.trial_id} {how} at {self._time_attr} {iteration}, but {last}: {_HOW_TO_SAVE}"
            )
        is_complete = iteration >= segment.order.until_iteration
        self._tell(segment, Outcome.COMPLETED if is_complete else Outcome.ENDED, now_s, iteration)

    def _durable(self, trial: TuneTrial) -> int:
        saved = trial.latest_checkpoint_result
        return 0 if saved is None else self._iteration_in(saved.metrics, trial)

    def _break(self, segment: RunningSegment, outcome: Outcome, now_s: float) -> None:
        """The segment ends as it stands: only what Tune has stored is durable."""
        durable = min(self._durable(self._trials[segment.order.trial]), segment.iteration)
        self._tell(segment, outcome, now_s, durable, is_broken=True)

    def _tell(
        self, segment: RunningSegment, outcome: Outcome, now_s: float, durable: int, *, is_broken: bool = False
    ) -> None:
        order = segment.order
        del self._segments[order.trial]
        if segment in self.to_start:
            self.to_start.remove(segment)
        score = segment.score
        if not segment.reported_at_s and durable:
            score = self._last_score(self._trials[order.trial])
        seconds = segment.seconds(now_s, is_saved=not is_broken)
        lost_s = segment.lost_s(now_s, durable) if is_broken else 0.0
        self._events.append(
            SegmentEnded(
                now_s, order.trial, order.segment, segment.iteration, durable, score, outcome, *seconds, lost_s
            )
        )


def finite(score: object) -> float | None:
    """The score as events hold it.

    Raises:
        InputError: it is no number.
    """
    try:
        number = float(score)  # type: ignore[arg-type]  # what users report: numpy and torch scalars among it
    except (TypeError, ValueError) as error:
        raise InputError(f"a score is {score!r}, but must be a number") from error
    return number if math.isfinite(number) else None


def plain_configuration(config: Mapping[str, Any]) -> dict[str, float | int | str | bool | None]:
    """The configuration as the journal holds it: nested keys joined by a slash, values that are not plain as text."""
    plain: dict[str, float | int | str | bool | None] = {}
    for key, value in config.items():
        if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
            value = value.item()  # noqa: PLW2901  np.float64 is a float that msgspec cannot write
        if isinstance(value, dict):
            plain |= {f"{key}/{inner}": value for inner, value in plain_configuration(value).items()}
        elif isinstance(value, str | bool | int | float | None) and not _is_not_a_number(value):
            plain[str(key)] = value
        else:
            plain[str(key)] = str(value)
    return plain


def _is_not_a_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
