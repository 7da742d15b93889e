"""SEER: the best model under a deadline and a budget, with elastic resources (the reading that plans to R iterations)."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from policies.limits import Limits
from policies.observed import Observed
from policies.planning.greedy import greedy_plan
from policies.planning.plan import MARGIN_S, Terms
from policies.sizing import infeasible, largest
from policies.staged import StagedPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from policies.halving import Bracket, Stage
    from policies.planning.plan import Allocation, Plan
    from sim.model.events import SegmentEnded
    from sim.model.ids import TrialId
    from sim.model.job import TuningJob
    from sim.model.prices import PriceBook
    from sim.model.profile import Profile
    from sim.model.protocols import RunView


def seer(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    replan: bool = True,
) -> StagedPolicy:
    """Dunlap et al., "Elastic Hyperparameter Tuning on the Cloud" (SoCC 2021): Sequential Elimination with Elastic Resources.

    Plans rungs to R iterations for the largest number of configurations whose cheapest on-time allocation costs at most B;
    runs them on a cluster that fits each rung, the same number of GPUs for every trial of a rung; learns seconds per
    iteration and scaling while it runs, and plans the remaining rungs anew at each barrier.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        replan: whether the remaining rungs are planned anew at each barrier, with what was learned.

    Raises:
        InfeasibleJobError: not even one configuration reaches R by T within B.

    Deviations:
        The full text of the paper is not at hand; everything beyond its abstract (test many at the beginning, keep varying
        parallelism among the promising so that they are trained sufficiently by the deadline, avoid sublinear scaling) is
        our reading of it.
        The objective is the largest number of configurations, not yet the expected score of the winner.
        Parallelism changes at barriers only, where every trial is checkpointed anyway.
    """
    terms = Terms.of(job, profile, price_book)

    def within(stages: Sequence[Stage]) -> Plan | None:
        plan = greedy_plan(stages, terms)
        return plan if plan is not None and terms.are_kept_by(plan) else None

    found = largest(job, terms, within)
    if found is None:
        raise infeasible("seer", job, terms)
    plan = found[1]
    limits = Limits(job, profile, price_book)
    return StagedPolicy(job, profile, plan.stages, SeerAllocator(plan, terms, replan=replan), limits)


class SeerAllocator:
    """Follows the plan, and makes a new one for what is left at each barrier.

    Args:
        plan: made before the run.
        terms: what was known then.
        replan: whether to make new ones.
    """

    def __init__(self, plan: Plan, terms: Terms, *, replan: bool) -> None:
        self._plan = plan
        self._terms = terms
        self._replan = replan
        self._observed = Observed(terms.profile)

    def observe(self, event: SegmentEnded, gpus: int, iterations: int) -> None:
        """Learn from the seconds a segment took; see `policies.staged.Allocator`."""
        self._observed.segment(event, gpus, iterations)

    def allocate(self, bracket: Bracket, view: RunView) -> Allocation:
        """See `policies.staged.Allocator`.

        The remaining rungs get the cheapest allocations that end by T even if the slowest survivor wins, or, where B does not
        pay for that, as long as an average one does. Where not even this is paid for, the worst survivors are dropped, one by
        one; where no allocation is on time, the best survivor alone is trained as fast as the budget allows. `Limits` stops
        it at T in any case.
        """
        planned = self._plan.allocations[bracket.index]
        if not self._replan or bracket.index == 0:
            return planned
        live = len(view.instances)
        for trials in range(len(bracket.trials), 0, -1):
            for of_slowest in (True, False):
                terms = self._terms_left(bracket.trials[:trials], view, of_slowest=of_slowest)
                stages = self._stages_left(bracket, trials)
                plan = greedy_plan(stages, terms, live_instances=live, is_resumed=True)
                if plan is not None and terms.are_kept_by(plan):
                    return plan.allocations[0]
        return self._fastest_affordable(bracket, view)

    def _terms_left(self, survivors: Sequence[TrialId], view: RunView, *, of_slowest: bool) -> Terms:
        """Time and money that are left, and the profile as learned so far for these survivors."""
        job = view.job
        deadline_s = math.inf if job.deadline_s is None else job.deadline_s - 2 * MARGIN_S - view.now_s
        budget_usd = math.inf if job.budget_usd is None else job.budget_usd - view.committed_usd
        profile = self._observed.profile(survivors, of_slowest=of_slowest)
        return replace(self._terms, profile=profile, deadline_s=deadline_s, budget_usd=budget_usd)

    def _stages_left(self, bracket: Bracket, trials: int) -> list[Stage]:
        """The stage that begins with this many trials, and the later ones, none larger."""
        later = [replace(stage, trials=min(stage.trials, trials)) for stage in bracket.remaining]
        return [replace(bracket.stage, trials=trials), *later]

    def _fastest_affordable(self, bracket: Bracket, view: RunView) -> Allocation:
        """Late whatever is done: the best survivor alone, as fast as what is left of the budget allows."""
        stages, live = self._stages_left(bracket, 1), len(view.instances)
        terms = self._terms_left(bracket.trials[:1], view, of_slowest=True)
        # A deadline without a budget asks for the fastest plan, a budget without a deadline for the cheapest.
        fastest = greedy_plan(
            stages,
            replace(terms, deadline_s=sys.float_info.max, budget_usd=math.inf),
            live_instances=live,
            is_resumed=True,
        )
        cheapest = greedy_plan(stages, replace(terms, deadline_s=math.inf), live_instances=live, is_resumed=True)
        assert fastest is not None  # nothing is late for that deadline
        assert cheapest is not None
        return (fastest if fastest.cost_usd <= terms.budget_usd else cheapest).allocations[0]
