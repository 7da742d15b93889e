"""SEER: the best model under a deadline and a budget, with elastic resources (the reading that plans to R iterations)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from elastune.policies.execution.limits import live_instances
from elastune.policies.execution.planned import staged
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import Stage
from elastune.policies.seer.director import SeerDirector
from elastune.policies.seer.mechanisms import Mechanisms, best_expected, require_one_of
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.replanning import fastest_affordable, terms_left
from elastune.policies.sizing.sizing import infeasible, largest

if TYPE_CHECKING:
    import numpy as np

    from elastune.policies.execution.observed import Observed
    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.planning.plan import Plan
    from elastune.policies.rules.halving import Bracket
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView

Objective = Literal["expected_score", "largest_n"]

TARGETS = (1.0, 2 / 3, 1 / 2, 1 / 3)
"""Shares of R to which a plan may train the winner, where a shorter run is a prefix of a longer one."""


def seer(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    objective: Objective = "expected_score",
    **mechanisms: Any,  # noqa: ANN401  `Mechanisms` checks them
) -> StagedPolicy:
    """Dunlap et al., "Elastic Hyperparameter Tuning on the Cloud" (SoCC 2021): Sequential Elimination with Elastic Resources.

    Plans rungs whose cheapest on-time allocation costs at most B, for the best expected score of the winner; runs them on a
    cluster that fits each rung; learns seconds per iteration and scaling while it runs, and plans the remaining rungs anew at
    each barrier. With no deadline it is the cheapest plan for the largest number of configurations, with no budget the
    fastest.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        objective: "expected_score" weighs the number of configurations against training the winner to fewer iterations than R,
            under a curve model fitted on other families, and lets it go on to R if time and money are left; "largest_n" trains
            to R and starts as many as it can.
        mechanisms: see `policies.seer.mechanisms.Mechanisms`.

    Raises:
        InputError: a parameter has none of its values.
        InfeasibleJobError: not even one configuration reaches R by T within B.

    Deviations:
        The full text of the paper is not at hand; everything beyond its abstract (test many at the beginning, keep varying
        parallelism among the promising so that they are trained sufficiently by the deadline, avoid sublinear scaling) is
        our reading of it, the expected score and its curve model included.
        Where not all survivors of a rung can be trained as planned, the worst are dropped or, where a shorter run is a prefix
        of a longer one, all train less, by the same expected score.
        Within a rung a trial gets a larger gang only on GPUs that others of the rung have left; nothing is rented for it.
        Where B pays for it, the plan keeps T with the 95th percentile of its makespan, as money that is left is worth nothing.
    """
    require_one_of("seer", "objective", objective, ("expected_score", "largest_n"))
    return run_seer(job, profile, price_book, Mechanisms(**mechanisms), objective)


def run_seer(
    job: TuningJob, profile: Profile, price_book: PriceBook, mechanisms: Mechanisms, objective: Objective
) -> StagedPolicy:
    """SEER with these mechanisms; see `seer`."""
    terms = Terms.of(job, profile, price_book)
    plan = _best_plan(job, terms, mechanisms, objective)
    if plan is None:
        raise infeasible(mechanisms.policy, job, terms)
    replanner = SeerReplanner(plan, job, terms, mechanisms, objective)
    director = SeerDirector(plan, terms, job, mechanisms, replanner, (*plan.stages, *_extension(plan, job)))
    return staged(director, mechanisms.limits(job, profile, price_book), profile, price_book)


@memoized
def _best_plan(job: TuningJob, terms: Terms, mechanisms: Mechanisms, objective: Objective) -> Plan | None:
    """The plan with the best objective, made safer; for each target the largest number of configurations, the best for it."""
    plans = []
    for target in _targets(job, terms.profile, objective):
        found = largest(msgspec.structs.replace(job, max_iterations=target), terms, lambda s: mechanisms.plan(s, terms))
        if found is not None:
            plans.append(found[1])
    best = best_expected(plans, terms.profile.family, job.max_iterations)
    return None if best is None else mechanisms.safer(best, terms)


def _targets(job: TuningJob, profile: Profile, objective: Objective) -> list[int]:
    """Iterations to which a plan may train its winner."""
    if objective == "largest_n" or job.stages is not None or not profile.is_prefix_schedule:
        return [job.max_iterations]
    least = min(job.min_iterations * job.reduction_factor, job.max_iterations)
    return sorted({max(round(job.max_iterations * share), least) for share in TARGETS}, reverse=True)


def _extension(plan: Plan, job: TuningJob) -> tuple[Stage, ...]:
    """What the winner goes on for, if time and money are left, where the plan ends before R."""
    target = plan.stages[-1].until_iteration
    if job.stages is not None or target >= job.max_iterations:
        return ()
    return (Stage(1, job.max_iterations - target, job.max_iterations),)


class SeerReplanner:
    """Plans the remaining rungs anew; see `policies.seer.director.Replanner`.

    Args:
        plan: made before the run.
        job: the tuning job.
        terms: what was known then.
        mechanisms: how plans are made.
        objective: how they are chosen.
    """

    def __init__(self, plan: Plan, job: TuningJob, terms: Terms, mechanisms: Mechanisms, objective: Objective) -> None:
        planned = plan.stages[-1].until_iteration
        self._targets = [target for target in _targets(job, terms.profile, objective) if target <= planned] or [planned]
        self._max_iterations = job.max_iterations
        self._terms = terms
        self._mechanisms = mechanisms

    def replanned(self, bracket: Bracket, view: RunView, observed: Observed) -> Plan:
        """The plan for what is left; the bracket goes on with its stages.

        Where all survivors can go on to the iterations that were planned, they do. Else either the worst are dropped, or, where
        a shorter run is a prefix of a longer one, all train less: whatever is expected to leave the better winner.
        The rungs get the cheapest allocations that end by T even if the slowest survivor wins, or, where B does not pay for
        that, as long as an average one does. Where no allocation is on time, the best survivor alone is trained as fast as the
        budget allows. `Limits` stops it at T in any case.
        """
        plan = self._affordable(bracket, view, observed)
        last, end = plan.stages[-1].until_iteration, bracket.stages[-1].until_iteration
        beyond = (Stage(1, end - last, end),) if end > last else ()
        bracket.stages = (*bracket.stages[: bracket.index], *plan.stages, *beyond)
        return plan

    def _affordable(self, bracket: Bracket, view: RunView, observed: Observed) -> Plan:
        plans = []
        # What the winner goes on for beyond the plan has a target of its own.
        targets = [t for t in self._targets if t >= bracket.stage.until_iteration] or [bracket.stage.until_iteration]
        for target in targets:
            plan = self._largest(bracket, view, observed, target)
            if plan is not None:
                plans.append(plan)
                if plan.stages[0].trials == len(bracket.trials):
                    break  # shorter training of as many is worse
        before = bracket.stages[: bracket.index]
        best = best_expected(plans, self._terms.profile.family, self._max_iterations, before)
        if best is not None:
            return best
        terms = terms_left(self._terms, observed.profile(bracket.trials[:1], of_slowest=True), view)
        return fastest_affordable(self._stages_left(bracket, 1, targets[0]), terms, live_instances(view))

    def _largest(self, bracket: Bracket, view: RunView, observed: Observed, target: int) -> Plan | None:
        """The plan that keeps the most survivors for so many iterations; None where not even one is on time and paid."""
        for trials in range(len(bracket.trials), 0, -1):
            stages = self._stages_left(bracket, trials, target)
            for of_slowest in (True, False):
                profile = observed.profile(bracket.trials[:trials], of_slowest=of_slowest)
                terms = terms_left(self._terms, profile, view)
                plan = self._mechanisms.plan(stages, terms, live_instances=live_instances(view), is_resumed=True)
                if plan is not None:
                    return plan
        return None

    def _stages_left(self, bracket: Bracket, trials: int, target: int) -> list[Stage]:
        """The stage that begins with so many trials, and those after it up to the target; one stage where one is left."""
        done = bracket.stage.until_iteration - bracket.stage.iterations
        if trials == 1:
            # Who is alone has nobody left to compare with.
            return [Stage(1, target - done, target)]
        stages = []
        for stage in (bracket.stage, *bracket.remaining):
            until = min(stage.until_iteration, target)
            if until > done:
                stages.append(Stage(min(stage.trials, trials), until - done, until))
                done = until
        return [replace(stages[0], trials=trials), *stages[1:]]
