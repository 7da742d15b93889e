"""ASHA: asynchronous successive halving, one GPU per trial, on whatever machines it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.execution.limits import Limits
from elastune.policies.rules.halving import AsynchronousRung, rung_levels
from elastune.sim.model.actions import FinishRun
from elastune.sim.model.events import InstanceReady, Outcome, RunStarted, SegmentEnded
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import loss_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.model.actions import Action
    from elastune.sim.model.events import Event
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView


class AshaPolicy:
    """Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), Algorithm 2, promotion variant.

    A free GPU takes the best promotable trial of the highest rung that has one (top 1/eta of its rung so far), else a new
    configuration.

    Args:
        instances: machines of the fixed cluster.
        trials: configurations that may be started.
        holds: keep the machines until the limit although the work is done.

    Deviations:
        The paper assumes an endless stream of configurations. Here it ends: when all are started, none is promotable and
        nothing runs, the best unpromoted trial of the highest rung trains on, so that a winner reaches R [ours].
        Trials at R are not compared further; deadline and budget are kept by `Limits` [ours].
    """

    def __init__(
        self,
        job: TuningJob,
        profile: Profile,
        price_book: PriceBook,
        *,
        instances: int,
        trials: int,
        holds: bool = False,
    ) -> None:
        self._instances = instances
        self._trials = trials
        self._levels = rung_levels(job)
        self._rungs = [AsynchronousRung(job.reduction_factor) for _ in self._levels]
        self._last_rung = len(self._levels) - 1
        self._descending = range(self._last_rung - 1, -1, -1)
        self._may_promote = [False] * len(self._levels)
        self._rung_of: list[int] = [0] * trials
        self._retries: list[TrialId] = []
        self._next = 0
        self._holds = holds
        self._limits = Limits(job, profile, price_book)
        self._direction = job.direction

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        limiting = self._limits.on_event(event, view)
        match event:
            case SegmentEnded():
                self._settle(event)
            case RunStarted():
                return self._begin(view)
            case InstanceReady():
                pass
            case _:
                return limiting
        if self._limits.is_stopping:
            return limiting
        return (*limiting, *self._fill(view)) if limiting else self._fill(view)

    def _begin(self, view: RunView) -> Sequence[Action]:
        instances, scaling = self._limits.scale_to(view, self._instances)
        return scaling if instances else self._limits.stop(view)

    def _settle(self, event: SegmentEnded) -> None:
        if event.outcome is not Outcome.COMPLETED:
            self._retries.append(event.trial)
            return
        rung = self._rung_of[event.trial]
        if rung < self._last_rung:
            self._rungs[rung].record(event.trial, loss_of(event.score, self._direction))
            self._may_promote[rung] = True

    def _fill(self, view: RunView) -> list[Action]:
        """Work for every free GPU; the end of the run where there is none and nothing runs."""
        actions: list[Action] = []
        running = view.running_trials
        for _ in range(view.free_gpus):
            trial = self._next_trial()
            if trial is None and running == 0 and not actions:
                trial = self._last_resort()
            if trial is None:
                break
            action = self._limits.run(view, trial, 1, self._levels[self._rung_of[trial]])
            if action is None:
                self._retries.append(trial)
                break
            actions.append(action)
        if not actions and running == 0 and view.free_gpus and not self._holds:
            return [FinishRun(self._limits.best(view))]
        return actions

    def _next_trial(self) -> TrialId | None:
        if self._retries:
            return self._retries.pop()
        for rung in self._descending:
            # Only a new record makes somebody promotable, so most rungs need not be asked.
            if self._may_promote[rung]:
                trial = self._rungs[rung].promote()
                if trial is not None:
                    self._rung_of[trial] = rung + 1
                    return trial
                self._may_promote[rung] = False
        if self._next < self._trials:
            self._next += 1
            return TrialId(self._next - 1)
        return None

    def _last_resort(self) -> TrialId | None:
        """Nothing is promotable and nothing runs: let the best of the highest rung train on, unless one has reached R."""
        if self._last_rung in self._rung_of:
            return None
        for rung in self._descending:
            trial = self._rungs[rung].promote_best()
            if trial is not None:
                self._rung_of[trial] = rung + 1
                return trial
        return None
