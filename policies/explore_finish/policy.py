"""`explore-finish`: many configurations without barriers on many machines, then the best few on large gangs on fewer machines.

README.md in this folder is its pseudo-code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.execution.limits import Limits, live_instances
from elastune.policies.explore_finish.finals import (
    FinalRound,
    ends_of_rounds,
    final_round,
    gangs_of_use,
    gangs_that_pay,
)
from elastune.policies.explore_finish.phases import Phases, share_out
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import ranked
from elastune.policies.tuners.promotion import PromotionRule
from elastune.sim.model.actions import Action, PauseTrial, SetTimer
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import (
    Event,
    InstanceGone,
    InstanceReady,
    InstanceRefused,
    RunStarted,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.model.protocols import RunView, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.asynchronous import Task
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile

NAME = "explore-finish"
ROUND = "final-round"
MOST_ROUNDS = 100
"""Half of the finalists go on from each round, so one is left long before. A round is planned with all those after it."""
_TRAINING = (TrialStatus.RUNNING, TrialStatus.WAITING)


def explore_finish(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    time_share: float = 0.4,
    money_share: float = 0.7,
    rounds: int = 2,
    widens: bool = True,
) -> ExploreFinish:
    """Try many configurations without barriers, then train the best few on large gangs; see `ExploreFinish` [ours].

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        time_share: of the time, for trying configurations; 1 leaves the finals out.
        money_share: of the budget, for the same. With the same share as of the time, the cluster keeps its size.
        rounds: of the finals; half of the finalists go on from each to the next.
        widens: finalists train on larger gangs.

    Raises:
        InputError: a share is not above 0 and at most 1, or there is no round or more than `MOST_ROUNDS`.
        InfeasibleJobError: not one configuration, or with `job.exact` not all of them, trains the first rung by T within B.

    Deviations:
        From ASHA (Li et al., MLSys 2020, Algorithm 2), by whose rule configurations are tried: it ends early, and machines and
        gangs change.
    """
    for name, share in (("time_share", time_share), ("money_share", money_share)):
        if not 0 < share <= 1:
            raise InputError(f"{NAME}: {name} is {share}, but must be above 0 and at most 1")
    if not 1 <= rounds <= MOST_ROUNDS:
        raise InputError(f"{NAME}: rounds is {rounds}, but must be 1 to {MOST_ROUNDS}")
    terms = Terms.of(job, profile, price_book)
    phases = share_out(NAME, job, terms, time_share=time_share, money_share=money_share)
    return ExploreFinish(
        job,
        terms,
        Limits(job, profile, price_book),
        phases=phases,
        gangs=gangs_that_pay(terms, widens=widens),
        rounds=rounds,
    )


class ExploreFinish:
    """ASHA on small gangs for a share of the time, then final rounds of few trials on larger gangs and fewer machines [ours].

    In a final round a trial trains as far as it gets until the round ends. So no trial waits for another. Trials are ranked by
    their durable scores, whatever their iterations: the run is judged by the score that it reports.

    Args:
        job: the tuning job.
        terms: its terms.
        limits: of the run.
        phases: how time and money are shared.
        gangs: that a finalist may train on, ascending.
        rounds: of the finals.
    """

    def __init__(
        self,
        job: TuningJob,
        terms: Terms,
        limits: Limits,
        *,
        phases: Phases,
        gangs: Sequence[int],
        rounds: int,
    ) -> None:
        self._job = job
        self._terms = terms
        self._limits = limits
        self._phases = phases
        self._gangs = gangs
        self._rounds_left = rounds
        self._rule = PromotionRule(job, job.trials, top=0 if job.exact else None)
        self._round: FinalRound | None = None
        self._tasks: dict[TrialId, Task] = {}
        self._returned: list[Task] = []
        self._is_due = False

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        limiting = self._limits.on_event(event, view)
        if isinstance(event, SegmentEnded):
            self._settle(event)
        if self._limits.is_stopping:
            return limiting
        match event:
            case RunStarted():
                return self._begin(view)
            case TimerFired(tag=tag) if tag == ROUND:
                self._is_due = self._rounds_left > 0
                return (*limiting, *self._fill(view), *self._limits.rearm(view))
            case SegmentEnded() | InstanceReady() | InstanceGone() | InstanceRefused():
                return (*limiting, *self._fill(view), *self._limits.rearm(view))
            case _:
                return limiting

    def _begin(self, view: RunView) -> Sequence[Action]:
        instances, scaling = self._limits.scale_to(view, self._phases.instances)
        if instances * self._terms.gpus_per_instance < self._phases.gpus:
            return self._limits.stop(view)
        return (*scaling, SetTimer(ROUND, self._phases.explores_until_s))

    def _settle(self, event: SegmentEnded) -> None:
        task = self._tasks.pop(event.trial, None)
        if task is None or self._round is not None:
            return
        if event.checkpoint_iteration >= task.until_iteration:
            self._rule.reached(event.trial, event.iteration, event.score)
        else:
            self._returned.append(task)

    def _fill(self, view: RunView) -> Sequence[Action]:
        """Work for the free GPUs; the end of the run if there is none and nothing runs."""
        if self._is_due and self._may_close(view):
            return self._next_round(view)
        actions = self._try(view) if self._round is None else self._train_finalists(self._round, view)
        if not actions and self._round is None and self._is_idle(view) and self._may_close(view):
            return self._next_round(view)
        return actions or self._finish_if_idle(view)

    def _finish_if_idle(self, view: RunView) -> Sequence[Action]:
        """Ends the run where a gang is free that nothing could be started on, and nothing else runs."""
        if view.running_trials or view.free_gpus < self._gang(view):
            return ()
        return self._limits.finish(view)

    def _gang(self, view: RunView) -> int:
        """The gang of the phase; in the finals a smaller one where machines were lost."""
        if self._round is None:
            return self._phases.gpus
        most = min(self._round.gpus, live_instances(view) * self._terms.gpus_per_instance)
        return max((size for size in self._gangs if size <= most), default=self._gangs[0])

    def _is_idle(self, view: RunView) -> bool:
        """Whether the finals begin early: half of the GPUs have nothing to try, and nothing new is under way."""
        if not view.running_trials:
            return True
        all_durable = all(view.trial(trial).checkpoint_iteration for trial in view.started_trials())
        return 2 * view.free_gpus >= view.ready_gpus and all_durable

    def _may_close(self, view: RunView) -> bool:
        """Whether there is a finalist, and every configuration that must be started is."""
        return self._are_started(view) and bool(self._candidates(view))

    def _are_started(self, view: RunView) -> bool:
        """Whether all configurations are started, or need not be."""
        return not self._job.exact or sum(1 for _ in view.started_trials()) == self._job.trials

    def _candidates(self, view: RunView) -> list[TrialId]:
        """Trials that can train further, by their durable scores, best first."""
        trials = [(trial, view.trial(trial)) for trial in view.started_trials()]
        durable = [
            (t, one.checkpoint_score) for t, one in trials if 0 < one.checkpoint_iteration < self._job.max_iterations
        ]
        return ranked(durable, self._job.direction)

    def _try(self, view: RunView) -> list[Action]:
        """The next task of the rule for every free gang; no promotion before all that must be started are."""
        if self._are_started(view):
            self._rule.top = len(self._rule.levels) - 1
        actions: list[Action] = []
        gpus = self._phases.gpus
        for _ in range(view.free_gpus // gpus):
            task = self._returned.pop() if self._returned else self._rule.next_task()
            if task is None:
                break
            action = self._limits.run(view, task.trial, gpus, task.until_iteration)
            if action is None:
                self._returned.append(task)
                break
            self._tasks[task.trial] = task
            actions.append(action)
        return actions

    def _train_finalists(self, current: FinalRound, view: RunView) -> list[Action]:
        """The best trials that do not train yet, on free GPUs, up to as many finalists as the round has.

        A place that a trial has left at R is taken by the next one, until the planned end.
        """
        if view.now_s >= self._phases.ends_s:
            return []
        gpus = self._gang(view)
        candidates = self._candidates(view)
        places = current.finalists - sum(view.trial(trial).status in _TRAINING for trial in candidates)
        free = view.free_gpus
        actions: list[Action] = []
        for trial in candidates:
            status = view.trial(trial).status
            if places <= 0 or free < gpus:
                break
            if status is TrialStatus.ENDING:
                places -= 1  # it has its place when it has ended
            elif status is TrialStatus.IDLE and (
                action := self._limits.run(view, trial, gpus, self._job.max_iterations)
            ):
                places -= 1
                free -= gpus
                actions.append(action)
        return actions

    def _next_round(self, view: RunView) -> Sequence[Action]:
        """Choose finalists, gang and machines; pause what trains otherwise."""
        self._rounds_left -= 1
        self._is_due = False
        candidates = self._candidates(view)
        self._round = current = self._planned_round(candidates, view)
        paused = [
            PauseTrial(trial) for trial in self._leaving(set(candidates[: current.finalists]), current.gpus, view)
        ]
        _, scaling = self._limits.scale_to(view, current.instances)
        started = [] if paused else self._train_finalists(current, view)
        if not (paused or started) and (finishing := self._finish_if_idle(view)):
            return finishing
        timer = [SetTimer(ROUND, current.ends_s)] if self._rounds_left else []
        return (*paused, *scaling, *started, *timer)

    def _planned_round(self, candidates: Sequence[TrialId], view: RunView) -> FinalRound:
        now_s, live = view.now_s, live_instances(view)
        left = self._job.max_iterations - view.trial(candidates[0]).checkpoint_iteration
        return final_round(
            gangs_of_use(self._gangs, self._terms, iterations=left, seconds=self._phases.ends_s - now_s),
            self._terms,
            candidates=len(candidates),
            live=live,
            now_s=now_s,
            ends_s=ends_of_rounds(now_s, max(self._phases.ends_s, now_s), self._rounds_left + 1),
            left_usd=self._terms.budget_usd - view.committed_usd - self._terms.margin_usd(live),
        )

    def _leaving(self, finalists: set[TrialId], gpus: int, view: RunView) -> list[TrialId]:
        """Trials that train but are no finalists, or have another gang than these."""
        training = [trial for trial in view.started_trials() if view.trial(trial).status in _TRAINING]
        return [trial for trial in training if trial not in finalists or view.trial(trial).gpus != gpus]
