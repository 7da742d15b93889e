"""Static allocation: a pre-determined tuning job on the cheapest constant cluster that ends by T; RubberBand's baseline.

Names are `room.module.name` below `policies`:

    for n configurations, largest first:                          sizing.sizing.largest
      the cheapest constant cluster that ends by T                planning.static.static_plan
      keep the first n whose plan costs at most B                 planning.plan.Terms.are_kept_by
    run the plan on that cluster, billed until the job ends       execution.planned.PlannedDirector
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias, get_args

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.lateness import Makespan, late_probability
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.planning.spaces import Space
from elastune.policies.planning.static import static_plan
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible, require_one_of
from elastune.policies.sizing.sizing import largest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile

Planner: TypeAlias = "Callable[..., Plan | None]"
"""Of (stages, terms, makespan=...), for a pre-determined job; its space and steps are bound."""


def static(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    space: Space = "fair",
    makespan: Makespan = "mean",
) -> StagedPolicy:
    """Static allocation, the baseline of Misra et al., "RubberBand: Cloud-based Hyperparameter Tuning" (EuroSys 2021).

    The cheapest constant cluster on which the whole job ends by T. With a budget, of the largest SHA that it pays.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        space: how a stage uses the cluster: `fair`, every trial with the same share, as RubberBand's plans; `wide`, in uneven
            waves where those are faster.
        makespan: what must be within the deadline: the expected makespan, or its 95th percentile.

    Raises:
        InputError: `space` or `makespan` is neither of its values.
        InfeasibleJobError: no constant cluster ends by the deadline within the budget.

    Deviations:
        The text of the paper is not at hand: that a static cluster shares fairly, too, is how its plan space is recalled.
    """
    require_one_of("static", "space", space, get_args(Space))
    require_one_of("static", "makespan", makespan, get_args(Makespan))
    terms = Terms.of(job, profile, price_book)
    planner = partial(static_plan, space=space)
    planned = _largest_plan(job, terms, planner, makespan)
    if planned is None:
        raise infeasible("static", job, terms, partial(plan_within, planner=planner, makespan=makespan))
    plan, late = planned
    return run_plan(plan, job, profile, price_book, late=late)


@memoized
def _largest_plan(
    job: TuningJob, terms: Terms, planner: Planner, makespan: Makespan
) -> tuple[Plan, float | None] | None:
    """The plan of the largest SHA whose plan keeps T and B, and the probability that it is late."""
    found = largest(job, terms, partial(plan_within, terms=terms, planner=planner, makespan=makespan))
    return None if found is None else (found[1], late_probability(found[1], terms))


def plan_within(stages: Sequence[Stage], terms: Terms, *, planner: Planner, makespan: Makespan) -> Plan | None:
    """The planner's plan; None where it has none, or where that is late or too dear."""
    plan = planner(stages, terms, makespan=makespan)
    return plan if plan is not None and terms.are_kept_by(plan) else None
