"""Random search: every configuration to R, nothing stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.static import plan_on_cluster
from elastune.policies.rules.halving import Stage
from elastune.policies.sizing.memoize import remembered
from elastune.policies.sizing.sizing import infeasible, largest_within

if TYPE_CHECKING:
    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.planning.plan import Plan
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def random_fixed(job: TuningJob, profile: Profile, price_book: PriceBook, rng: np.random.Generator) -> StagedPolicy:  # noqa: ARG001
    """Random search (Bergstra and Bengio, JMLR 2012) on the best fixed cluster.

    The configurations are the first of the job, in the order in which they were drawn; each trains to R in one segment, on a
    gang of the size that ends them all first.

    Raises:
        InfeasibleJobError: no cluster size finishes even one configuration.

    Deviations:
        The paper has neither machines nor limits; n, m and the gangs are ours.
    """
    terms = Terms.of(job, profile, price_book)
    plan = _largest_plan(job, terms)
    if plan is None:
        raise infeasible("random-fixed", job, terms)
    return run_plan(plan, job, profile, price_book)


@remembered
def _largest_plan(job: TuningJob, terms: Terms) -> Plan | None:
    """Of the most configurations that any fixed cluster trains to R, on the cheapest."""

    def cheapest(trials: int) -> Plan | None:
        stages = (Stage(trials, job.max_iterations, job.max_iterations),)
        plans = (plan_on_cluster(stages, count, terms) for count in terms.cluster_sizes)
        return min((plan for plan in plans if terms.are_kept_by(plan)), key=lambda plan: plan.cost_usd, default=None)

    return largest_within(job, cheapest)
