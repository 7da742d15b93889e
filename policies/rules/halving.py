"""The promotion arithmetic of successive halving, synchronous and asynchronous: pure, shared by all policies.

Imports only `sim.model`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import Direction, TuningJob, loss_of


@dataclass(frozen=True)
class Stage:
    """A rung, seen as work.

    Attributes:
        trials: how many train in it.
        iterations: further iterations of each.
        until_iteration: iterations of each in all when it is done.
    """

    trials: int
    iterations: int
    until_iteration: int


def rungs(job: TuningJob, trials: int | None = None) -> tuple[Stage, ...]:
    """Stages of successive halving over `trials` configurations (default: the job's).

    Rung k has max(1, floor(trials / eta^k)) trials; its level is r * eta^k, counted in all or further by `job.levels`; the
    last rung trains to R, and so does a trial that is alone. SHA(32,1,50,3) is (32,1)(10,3)(3,9)(1,37).
    """
    if job.stages is not None:
        return explicit_stages(job.stages)
    size = job.trials if trials is None else trials
    eta, last = job.reduction_factor, job.max_iterations
    step, until = job.min_iterations, 0
    stages = []
    while until < last:
        level = step if job.levels == "cumulative" else until + step
        if size == 1 or level > last:
            level = last
        stages.append(Stage(size, level - until, level))
        until, step, size = level, step * eta, max(1, size // eta)
    return tuple(stages)


def explicit_stages(stages: Iterable[tuple[int, int]]) -> tuple[Stage, ...]:
    """Stages from (trials, further iterations) pairs."""
    until = 0
    built = []
    for trials, iterations in stages:
        until += iterations
        built.append(Stage(trials, iterations, until))
    return tuple(built)


def rung_levels(job: TuningJob) -> tuple[int, ...]:
    """Iterations in all at which rungs are decided, however many trials there are; the last is R."""
    eta, step, level = job.reduction_factor, job.min_iterations, 0
    levels = []
    while level < job.max_iterations:
        level = min(step if job.levels == "cumulative" else level + step, job.max_iterations)
        levels.append(level)
        step *= eta
    return tuple(levels)


def ranked(scores: Iterable[tuple[TrialId, float | None]], direction: Direction) -> list[TrialId]:
    """Trials from best to worst; diverged ones last, ties by the lower number."""
    return [trial for _, trial in sorted((loss_of(score, direction), trial) for trial, score in scores)]


class Bracket:
    """Synchronous successive halving in progress.

    Attributes:
        stages: what it goes through.
        index: the stage under way.
        trials: those of the stage under way, best first by the stage before.
    """

    def __init__(self, stages: Sequence[Stage], trials: Sequence[TrialId], direction: Direction) -> None:
        self.stages = tuple(stages)
        self.index = 0
        self.trials = list(trials)
        self._direction: Direction = direction
        self._scores: dict[TrialId, float | None] = {}

    @property
    def stage(self) -> Stage:
        """The stage under way."""
        return self.stages[self.index]

    @property
    def remaining(self) -> tuple[Stage, ...]:
        """The stages that have not begun."""
        return self.stages[self.index + 1 :]

    @property
    def is_last(self) -> bool:
        """Whether no stage follows."""
        return self.index == len(self.stages) - 1

    @property
    def reports(self) -> int:
        """How many trials of the stage have reached its end."""
        return len(self._scores)

    @property
    def pending(self) -> list[TrialId]:
        """The trials of the stage that have not reached its end."""
        return [trial for trial in self.trials if trial not in self._scores]

    @property
    def is_stage_complete(self) -> bool:
        """Whether every trial of the stage has reported."""
        return len(self._scores) == len(self.trials)

    def record(self, trial: TrialId, score: float | None) -> None:
        """A trial has reached the end of the stage."""
        self._scores[trial] = score

    def advance(self) -> list[TrialId]:
        """Begin the next stage with its survivors; returns the trials that drop out, worst last."""
        order = ranked(self._scores.items(), self._direction)
        self.index += 1
        self.trials, dropped = order[: self.stage.trials], order[self.stage.trials :]
        self._scores = {}
        return dropped

    def cut(self) -> list[TrialId]:
        """End the stage with the trials that have reported; returns the others.

        If none has, the best of the stage before goes on alone. In the first stage none is known to be better, so all go on.
        """
        dropped = self.pending
        if not self._scores:
            dropped = dropped[1:] if self.index else []
        self.trials = [trial for trial in self.trials if trial not in set(dropped)]
        return dropped

    def leader(self) -> TrialId | None:
        """The best trial that has reported, else the best of the stage before; None if neither is known."""
        if self._scores:
            return ranked(self._scores.items(), self._direction)[0]
        return self.trials[0] if self.index else None

    def drop(self, trials: int) -> list[TrialId]:
        """Keep only the best `trials` of the stage that begins; returns the others."""
        self.trials, dropped = self.trials[:trials], self.trials[trials:]
        return dropped


class AsynchronousRung:
    """One rung of ASHA: who is in the top 1/eta of those recorded so far, and not yet promoted. O(log n) a call.

    `_top` is a max-heap (negated keys) of the best floor(n / eta), `_rest` a min-heap of the others.
    """

    __slots__ = ("_eta", "_rest", "_top", "_unpromoted", "size")

    def __init__(self, reduction_factor: int) -> None:
        self.size = 0
        self._eta = reduction_factor
        self._top: list[tuple[float, int]] = []
        self._rest: list[tuple[float, int]] = []
        self._unpromoted: list[tuple[float, int]] = []

    def record(self, trial: TrialId, loss: float) -> None:
        """A trial has reached this rung."""
        key: tuple[float, int] = (loss, trial)
        negated = (-loss, -trial)
        heapq.heappush(self._unpromoted, key)
        self.size += 1
        top = self._top
        if top and negated > top[0]:
            loss_before, trial_before = heapq.heapreplace(top, negated)
            key = (-loss_before, -trial_before)
        if len(top) < self.size // self._eta:
            best_loss, best = heapq.heappushpop(self._rest, key)
            heapq.heappush(top, (-best_loss, -best))
        else:
            heapq.heappush(self._rest, key)

    def promote(self) -> TrialId | None:
        """The best trial to promote now, marked as promoted; None if there is none."""
        unpromoted, top = self._unpromoted, self._top
        if not unpromoted or not top:
            return None
        loss, trial = top[0]
        return None if unpromoted[0] > (-loss, -trial) else TrialId(heapq.heappop(unpromoted)[1])

    def promote_best(self) -> TrialId | None:
        """The best trial not yet promoted, whether in the top or not."""
        return TrialId(heapq.heappop(self._unpromoted)[1]) if self._unpromoted else None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The percentile of ascending values, linear between two of them.

    Args:
        ordered: at least one; the last ones may be infinite.
        percent: 0 to 100.
    """
    at = (len(ordered) - 1) * percent / 100
    low = math.floor(at)
    if low == at or ordered[low] == ordered[low + 1]:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (at - low)
