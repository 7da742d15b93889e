"""SEER: the best model under a deadline and a budget, with elastic resources (the reading that plans to R iterations)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import msgspec

from policies.halving import Stage
from policies.limits import Limits
from policies.observed import Observed
from policies.planning.plan import Terms
from policies.seer_parts import Planner, best_expected, fastest_affordable, require_one_of, terms_left
from policies.sha import prefetch_of
from policies.sizing import infeasible, largest
from policies.staged import StagedPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from policies.halving import Bracket
    from policies.planning.plan import Allocation, Plan
    from policies.seer_parts import Solver
    from sim.model.events import SegmentEnded
    from sim.model.ids import TrialId
    from sim.model.job import TuningJob
    from sim.model.prices import PriceBook
    from sim.model.profile import Profile
    from sim.model.protocols import RunView

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
    solver: Solver = "frontier",
    replan: bool = True,
) -> StagedPolicy:
    """Dunlap et al., "Elastic Hyperparameter Tuning on the Cloud" (SoCC 2021): Sequential Elimination with Elastic Resources.

    Plans rungs whose cheapest on-time allocation costs at most B, for the best expected score of the winner; runs them on a
    cluster that fits each rung, the same number of GPUs for every trial of a rung; learns seconds per iteration and scaling
    while it runs, and plans the remaining rungs anew at each barrier. With no deadline it is the cheapest plan for the largest
    number of configurations, with no budget the fastest.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        objective: "expected_score" weighs the number of configurations against training the winner to fewer iterations than R,
            under a curve model fitted on other families, and lets it go on to R if time and money are left; "largest_n" trains
            to R and starts as many as it can.
        solver: how allocations are found: exactly, on the time-cost frontier, or by the greedy of `policies.planning.greedy`.
        replan: whether the remaining rungs are planned anew at each barrier, with what was learned.

    Raises:
        InputError: `objective` or `solver` is neither of its values.
        InfeasibleJobError: not even one configuration reaches R by T within B.

    Deviations:
        The full text of the paper is not at hand; everything beyond its abstract (test many at the beginning, keep varying
        parallelism among the promising so that they are trained sufficiently by the deadline, avoid sublinear scaling) is
        our reading of it, the expected score and its curve model included.
        Parallelism changes at barriers only, where every trial is checkpointed anyway.
    """
    require_one_of("seer", "objective", objective, ("expected_score", "largest_n"))
    require_one_of("seer", "solver", solver, ("frontier", "greedy"))
    terms = Terms.of(job, profile, price_book)
    planner = Planner(solver)
    plan = _best_plan(job, terms, planner, objective)
    if plan is None:
        raise infeasible("seer", job, terms)
    allocator = SeerAllocator(plan, terms, planner, replan=replan)
    stages = (*plan.stages, *_extension(plan, job))
    return StagedPolicy(job, profile, stages, allocator, Limits(job, profile, price_book))


def _best_plan(job: TuningJob, terms: Terms, planner: Planner, objective: Objective) -> Plan | None:
    """The plan with the best objective; for each target the largest number of configurations, which is best for it."""
    plans = []
    for target in _targets(job, terms.profile, objective):
        found = largest(msgspec.structs.replace(job, max_iterations=target), terms, lambda s: planner.plan(s, terms))
        if found is not None:
            plans.append(found[1])
    return best_expected(plans, terms.profile.family, job.max_iterations)


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


class SeerAllocator:
    """Follows the plan, and makes a new one for what is left at each barrier.

    Args:
        plan: made before the run.
        terms: what was known then.
        planner: makes the new ones.
        replan: whether to make new ones.
    """

    def __init__(self, plan: Plan, terms: Terms, planner: Planner, *, replan: bool) -> None:
        self._plan = plan
        self._planned_stages = len(plan.stages)
        self._first = 0
        self._terms = terms
        self._planner = planner
        self._replan = replan
        self._observed = Observed(terms.profile)

    def observe(self, event: SegmentEnded, gpus: int, iterations: int) -> None:
        """Learn from the seconds a segment took; see `policies.staged.Allocator`."""
        self._observed.segment(event, gpus, iterations)

    def prefetch(self, bracket: Bracket) -> tuple[float, int] | None:
        """See `policies.staged.Allocator`."""
        return prefetch_of(self._plan, bracket.index - self._first)

    def allocate(self, bracket: Bracket, view: RunView) -> Allocation:
        """See `policies.staged.Allocator`.

        The remaining rungs get the cheapest allocations that end by T even if the slowest survivor wins, or, where B does not
        pay for that, as long as an average one does. Where not even this is paid for, the worst survivors are dropped, one by
        one; where no allocation is on time, the best survivor alone is trained as fast as the budget allows. `Limits` stops
        it at T in any case.
        """
        is_extension = bracket.index >= self._planned_stages
        if (self._replan and bracket.index > 0) or is_extension:
            self._plan, self._first = self._replanned(bracket, view), bracket.index
        return self._plan.allocations[bracket.index - self._first]

    def _replanned(self, bracket: Bracket, view: RunView) -> Plan:
        live = len(view.instances)
        for trials in range(len(bracket.trials), 0, -1):
            for of_slowest in (True, False):
                terms = self._terms_left(bracket.trials[:trials], view, of_slowest=of_slowest)
                stages = self._stages_left(bracket, trials)
                plan = self._planner.plan(stages, terms, live_instances=live, is_resumed=True)
                if plan is not None:
                    return plan
        return self._fastest_affordable(bracket, view)

    def _terms_left(self, survivors: Sequence[TrialId], view: RunView, *, of_slowest: bool) -> Terms:
        """Time and money that are left, and the profile as learned so far for these survivors."""
        return terms_left(self._terms, self._observed.profile(survivors, of_slowest=of_slowest), view)

    def _fastest_affordable(self, bracket: Bracket, view: RunView) -> Plan:
        """Late whatever is done: the best survivor alone, as fast as what is left of the budget allows."""
        terms = self._terms_left(bracket.trials[:1], view, of_slowest=True)
        return fastest_affordable(self._stages_left(bracket, 1), terms, len(view.instances))

    def _stages_left(self, bracket: Bracket, trials: int) -> list[Stage]:
        """The stage that begins with this many trials, and the planned ones after it, none larger."""
        later = bracket.stages[bracket.index + 1 : self._planned_stages]
        return [replace(bracket.stage, trials=trials), *(replace(s, trials=min(s.trials, trials)) for s in later)]
