"""How many configurations a rule can finish by T and B: every policy starts the largest number that its own rule can [ours]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from elastune.policies.rules.halving import Stage, rungs
from elastune.policies.sizing.list_scheduling import largest_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.planning.plan import Terms
    from elastune.sim.model.job import TuningJob

PlanT = TypeVar("PlanT")


def largest(
    job: TuningJob, terms: Terms, plan_for: Callable[[Sequence[Stage]], PlanT | None]
) -> tuple[int, PlanT] | None:
    """The largest number of configurations for which there is a plan, and that plan.

    A downward scan, not a bisection: cost is not monotone where the number of rungs changes. It starts where a lower bound of
    the cost exceeds the budget.

    Args:
        job: with `exact` or `stages`, only its own number is tried.
        terms: for the lower bound.
        plan_for: the rule's plan for these stages, None where it is late or too dear.
    """
    fixed = job.exact or job.stages is not None
    most = rungs(job)[0].trials if fixed else _most_affordable(job, terms)
    for trials in range(most, most - 1 if fixed else 0, -1):
        plan = plan_for(rungs(job, trials))
        if plan is not None:
            return trials, plan
    return None


def largest_within(job: TuningJob, plan_for: Callable[[int], PlanT | None]) -> PlanT | None:
    """The plan for the most configurations, found by bisection; None where there is none, or none for as many as must be.

    Args:
        job: with `exact`, only its own number will do.
        plan_for: a rule's plan for so many, None where it is late or too dear; where it has one, it has one for fewer.
    """
    most = rungs(job)[0].trials
    trials = largest_number(most, lambda number: plan_for(number) is not None)
    return plan_for(trials) if trials == most or (trials and not job.exact) else None


def _most_affordable(job: TuningJob, terms: Terms) -> int:
    """No more configurations than this fit the budget even if every GPU-second that is paid for trains at p = 1."""
    gpu_usd_per_s = terms.usd_per_s / terms.gpus_per_instance
    gpu_s = math.inf if gpu_usd_per_s == 0 else terms.budget_usd / gpu_usd_per_s
    gpu_s = min(gpu_s, terms.deadline_s * terms.max_gpus)
    low, high = 1, job.trials
    while low < high:
        middle = (low + high + 1) // 2
        work_s = sum(stage.trials * stage.iterations for stage in rungs(job, middle)) * terms.profile.iteration_s
        # The bound itself is nearly monotone; a tenth more covers where the number of rungs changes.
        low, high = (middle, high) if work_s <= gpu_s * 1.1 else (low, middle - 1)
    return min(low + max(low // 10, job.reduction_factor), job.trials)
