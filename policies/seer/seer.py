"""SEER, the reading that plans towards R iterations. README.md in this folder is its pseudo-code.

`run_seer` plans before the run with `best_plan` and hands the plan to `policies.seer.director`, which follows it; at each
barrier `SeerReplanner` plans the rungs that are left.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elastune.policies.execution.planned import staged
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.rules.halving import Bracket, Stage
from elastune.policies.seer.barrier import Barrier, StagesLeft
from elastune.policies.seer.director import Replanner, SeerDirector
from elastune.policies.seer.fill import most_survivors, open_to_all
from elastune.policies.seer.mechanisms import TowardsR
from elastune.policies.sizing.list_scheduling import largest_number
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible
from elastune.policies.sizing.replanning import AtBarrier, fastest_or_cheapest
from elastune.policies.sizing.targets import best_expected, best_of_targets, least_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.observed import Observed
    from elastune.policies.execution.staged import StagedPolicy
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView

LATE = 1.15
"""Machines are requested one start-up before the stage is expected to end. The barrier is planned as if that took so many times
as long."""


def seer(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    **mechanisms: Any,  # noqa: ANN401  `TowardsR` checks them
) -> StagedPolicy:
    """Dunlap et al., "Elastic Hyperparameter Tuning on the Cloud" (SoCC 2021): Sequential Elimination with Elastic Resources.

    For each target of the winner's training, SEER takes the most configurations that have a plan by T within B. It runs the
    plan whose winner has the best expected score. The cluster fits each rung. While it runs, SEER learns how fast trials train
    and how well they scale, and plans the remaining rungs anew at each barrier. Plans are the cheapest by T, or the fastest
    where there is a deadline but no budget.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        mechanisms: see `policies.seer.mechanisms.TowardsR`.

    Raises:
        InputError: a parameter has none of its values.
        InfeasibleJobError: not even one configuration, or as many as must be started, reaches the lowest target by T within B.

    Deviations:
        The full text of the paper is not at hand. Its abstract says: test many configurations in the beginning, keep varying
        degrees of parallelism among the promising ones so that they are trained sufficiently by the deadline, avoid the
        effects of sublinear scaling. Everything else is our reading, the expected score and its curve model included.
        Where not all survivors of a rung can be trained as planned, the worst are dropped. Where `truncate` allows it, training
        all of them less is weighed against that, by the same expected score.
        Within a rung a trial gets more GPUs only if other trials of the rung have left them; nothing is rented for it.
        Where B pays for it, the plan keeps T with the 95th percentile of its makespan: money that is left is worth nothing.
        Where B does not, it is the plan with the earliest 95th percentile that fits B and is on time on average.
        The trials of a rung have equal gangs when it begins, unless `parallelism` is "ranked". Gangs differ between rungs.
        Speed-up is learned only from a trial that trains on one GPU first and on more later.
    """
    return run_seer(job, profile, price_book, TowardsR(**mechanisms))


def run_seer(job: TuningJob, profile: Profile, price_book: PriceBook, mechanisms: TowardsR) -> StagedPolicy:
    """Plan, then run the plan; see `seer`."""
    terms = replace(Terms.of(job, profile, price_book), gives_back=mechanisms.elastic)
    plan = best_plan(job, terms, mechanisms)
    if plan is None:
        least = least_job(job, profile, mechanisms.truncation)
        raise infeasible(mechanisms.policy, least, terms, mechanisms.plan)
    replanner = SeerReplanner(plan, job, terms, mechanisms)
    director = SeerDirector(plan, terms, job, mechanisms, replanner, replanner.stages)
    return staged(director, mechanisms.limits(job, profile, price_book), profile, price_book)


@memoized
def best_plan(job: TuningJob, terms: Terms, mechanisms: TowardsR) -> Plan | None:
    """The plan to run; None if not even one configuration is trained on time within the budget.

    The plan with the best expected score of its winner, over all numbers of iterations that the winner may be trained to, is
    made safer against being late.
    """
    best = best_of_targets(job, terms, mechanisms.truncation, lambda stages: mechanisms.plan(stages, terms))
    if best is None:
        return None
    safe = mechanisms.safer(best, terms)
    return _filled(safe, terms, mechanisms) if mechanisms.fills(job) else safe


def _filled(plan: Plan, terms: Terms, mechanisms: TowardsR) -> Plan:
    """The plan with the most survivors of the first rung that time and money allow.

    The search keeps as much time free as this plan's 95th percentile lies beyond its mean.
    """
    first, *later = plan.stages
    within = replace(terms, deadline_s=terms.deadline_s - max(plan.promised_s - plan.makespan_s, 0.0))
    if not later or not within.are_kept_by(replace(plan, makespan_p95_s=None)):
        return plan

    @functools.cache
    def plan_for(stages: tuple[Stage, ...]) -> Plan | None:
        return mechanisms.plan((first, *stages), within)

    wider = most_survivors(later, first.trials, lambda stages: plan_for(stages) is not None)
    found = None if wider is None else plan_for(wider)
    # The wider plan is the cheapest within less time than there is.
    return plan if found is None else mechanisms.safer(found, terms, is_cheapest=False)


def _with_beyond(stages: Sequence[Stage], job: TuningJob) -> tuple[Stage, ...]:
    """These stages, and one in which the winner goes on to R if time and money are left, where they end before R."""
    target = stages[-1].until_iteration
    if job.stages is not None or target >= job.max_iterations:
        return tuple(stages)
    return (*stages, Stage(1, job.max_iterations - target, job.max_iterations))


class SeerReplanner(Replanner):
    """Plans the rungs that are left at a barrier; see `policies.seer.director.Replanner`.

    Args:
        plan: made before the run.
        job: the tuning job.
        terms: what was known before the run.
        mechanisms: how plans are made and chosen.
    """

    def __init__(self, plan: Plan, job: TuningJob, terms: Terms, mechanisms: TowardsR) -> None:
        planned = plan.stages[-1].until_iteration
        self._targets = [t for t in mechanisms.targets(job, terms.profile) if t <= planned] or [planned]
        self._job = job
        self._terms = terms
        self._mechanisms = mechanisms
        self._planned = _with_beyond(plan.stages, job)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the bracket runs: as planned, or open to all survivors where barriers decide how many go on."""
        decides = self._mechanisms.replan and self._mechanisms.fills(self._job)
        return open_to_all(self._planned) if decides else self._planned

    def replanned(self, bracket: Bracket, view: RunView, observed: Observed) -> Plan:
        """The plan for what is left; the bracket goes on with its stages.

        If all planned survivors can train as planned, they do, and more of them with `fill`. Else the worst are dropped, or all
        are trained less, whichever has the better expected score. If no plan keeps T and B, the best survivor trains alone by
        `fastest_or_cheapest`: by the fastest plan if B pays for it, else by the cheapest. `Limits` ends the run by T within B,
        unless `hard_stop` is off.
        """
        plan = self._affordable(bracket.index, bracket.trials, AtBarrier.of(view), observed)
        before = self._planned[: bracket.index]
        self._planned = (*before, *_with_beyond(plan.stages, self._job))
        bracket.stages = self.stages
        return plan

    def next_instances(self, bracket: Bracket, view: RunView, observed: Observed, instances: int) -> int:
        """See `policies.seer.director.Replanner`: those that the barrier would keep, even if it comes a little late."""
        ends_s = view.now_s + LATE * self._terms.profile.startup.mean_s
        at = AtBarrier.ahead(view, ends_s, instances, self._terms.usd_per_hour)
        plan = self._affordable(bracket.index + 1, bracket.trials, at, observed)
        return min(plan.allocations[0].instances, instances)

    def _affordable(self, index: int, trials: Sequence[TrialId], at: AtBarrier, observed: Observed) -> Plan:
        """The plan with the best expected score of those that T and B still allow; the best survivor alone if none does."""
        barrier = Barrier(trials, at, observed, self._terms, self._mechanisms)
        planned = self._planned[index]
        # In the stage beyond the plan, no target is left but the end of that stage.
        targets = [t for t in self._targets if t >= planned.until_iteration] or [planned.until_iteration]
        most = min(planned.trials, len(trials))
        candidates: list[StagesLeft] = []
        for target in targets:
            left = self._largest(index, barrier, target)
            if left is not None:
                if left.stages[0].trials == most:
                    candidates += self._fuller(left, barrier)
                    break  # shorter training of as many is worse
                candidates.append(left)
        before = self._planned[:index]
        best = best_expected(candidates, self._terms.profile, self._job.max_iterations, before)
        # Where the best one has none, the plan that showed it was wrong by rounding.
        plan = None if best is None else barrier.plan(best)
        if plan is not None:
            return plan
        alone = self._stages_left(index, 1, targets[0])
        return fastest_or_cheapest(alone, barrier.terms(1, of_slowest=True), at.live_instances)

    def _largest(self, index: int, barrier: Barrier, target: int) -> StagesLeft | None:
        """The most survivors that T and B allow to train towards so many iterations; None if not even one.

        They end by T even if the slowest of them wins. Where B does not pay for that, they do if an average one wins.
        """

        def asked(count: int, *, of_slowest: bool) -> StagesLeft:
            return StagesLeft(tuple(self._stages_left(index, count, target)), of_slowest)

        most = min(self._planned[index].trials, len(barrier.trials))
        most_of_slowest = most
        for count in range(most, 0, -1):
            if count == most - 1 and barrier.more_is_never_faster:
                # All planned trials did not fit. Where the bound refuses some, it refuses more of them too, as their slowest
                # is no faster. One trial alone is left out: it trains in a single stage.
                most_of_slowest = 1 + largest_number(
                    count - 1, lambda more: not barrier.is_refused(asked(1 + more, of_slowest=True))
                )
            for of_slowest in (True, False):
                if of_slowest and count > max(most_of_slowest, 1):
                    continue
                found = asked(count, of_slowest=of_slowest)
                if barrier.allows(found):
                    return found
        return None

    def _fuller(self, left: StagesLeft, barrier: Barrier) -> list[StagesLeft]:
        """The candidates: this one, or with `fill` a wider one in its place, and one that trains the winner further."""
        if not self._mechanisms.fills(self._job):
            return [left]

        def is_kept(stages: tuple[Stage, ...]) -> bool:
            return barrier.allows(StagesLeft(stages, of_slowest=False))

        wider = most_survivors(left.stages, len(barrier.trials), is_kept)
        longer = _with_beyond(left.stages, self._job)
        found = [left if wider is None else StagesLeft(wider, of_slowest=False)]
        if len(longer) > len(left.stages) and is_kept(longer):
            found.append(StagesLeft(longer, of_slowest=False))
        return found

    def _stages_left(self, index: int, trials: int, target: int) -> list[Stage]:
        """The stage that begins, with so many trials, and those after it up to the target.

        A trial that is alone has nobody left to compare with, so it gets one stage.
        """
        planned = self._planned[index:]
        done = planned[0].until_iteration - planned[0].iterations
        if trials == 1:
            return [Stage(1, target - done, target)]
        stages = []
        for stage in planned:
            until = min(stage.until_iteration, target)
            if until > done:
                stages.append(Stage(min(stage.trials, trials), until - done, until))
                done = until
        return [replace(stages[0], trials=trials), *stages[1:]]
