"""ASHA's promotions as a rule: which trial goes on to which rung. Pure."""

from __future__ import annotations

from elastune.policies.execution.asynchronous import Task
from elastune.policies.rules.halving import AsynchronousRung, rung_levels
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import TuningJob, loss_of


class PromotionRule:
    """Li et al. (MLSys 2020), Algorithm 2: the best promotable trial of the highest rung, else a new configuration.

    Args:
        trials: configurations that may be started.
        top: the highest rung that is promoted to; None for the last.
        report_every: see `policies.execution.asynchronous.Task`.
        climbs: as a last resort a trial trains to the next rung, as after any promotion; else to R at once.

    Attributes:
        levels: (rungs,) iterations in all at each rung; the last is R.
        top: the highest rung that is promoted to; PASHA raises it.
    """

    def __init__(
        self, job: TuningJob, trials: int, *, top: int | None = None, report_every: int = 0, climbs: bool = False
    ) -> None:
        self.levels = rung_levels(job)
        self.top = len(self.levels) - 1 if top is None else top
        self._direction = job.direction
        self._report_every = report_every
        self._climbs = climbs
        self._rungs = [AsynchronousRung(job.reduction_factor) for _ in self.levels]
        # Rungs where a trial has been recorded since they had none to promote: the others need not be asked again.
        self._has_news = [False] * len(self.levels)
        self._rung_of = [0] * trials
        self._next = 0

    def next_task(self) -> Task | None:
        """A promotion, else a new configuration; None if there is neither."""
        has_news = self._has_news
        for rung in range(self.top - 1, -1, -1):
            if has_news[rung]:
                trial = self._rungs[rung].promote()
                if trial is not None:
                    return self._task(trial, rung + 1)
                has_news[rung] = False
        if self._next == len(self._rung_of):
            return None
        self._next += 1
        return self._task(TrialId(self._next - 1), 0)

    def last_resort(self) -> Task | None:
        """The best trial of the highest rung goes on towards R, unless one was sent there before [ours]."""
        last = len(self.levels) - 1
        if last in self._rung_of:
            return None
        for rung in range(last - 1, -1, -1):
            trial = self._rungs[rung].promote_best()
            if trial is not None:
                return self._task(trial, rung + 1 if self._climbs else last)
        return None

    def reached(self, trial: TrialId, iteration: int, score: float | None) -> None:  # noqa: ARG002  its rung says it
        """A trial has reached its rung."""
        rung = self._rung_of[trial]
        self._rungs[rung].record(trial, loss_of(score, self._direction))
        self._has_news[rung] = True

    def reported(self, trial: TrialId, iteration: int, score: float | None) -> bool:  # noqa: ARG002  decides at rungs only
        """Goes on: rungs are decided when they are reached."""
        return True

    def rung_of(self, trial: TrialId) -> int:
        """The rung a trial is in, or on its way to."""
        return self._rung_of[trial]

    def _task(self, trial: TrialId, rung: int) -> Task:
        self._rung_of[trial] = rung
        return Task(trial, self.levels[rung], self._report_every)
