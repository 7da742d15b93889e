"""One cut: many configurations for a few iterations, the best one to R."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.greedy import greedy_plan
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.rules.halving import Stage
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible
from elastune.policies.sizing.sizing import largest_within
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile

CUTS = (1, 2, 4)
"""Iterations before the cut that are tried where none are asked for."""


def one_cut(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    iterations: int = 0,
) -> StagedPolicy:
    """Some configurations for a few iterations, the best one trained on to R: two rungs of successive halving [ours].

    Both rungs get the cheapest on-time allocation of an elastic cluster, as SEER's do, and keep it.

    Args:
        job: the tuning job; its min_iterations and reduction_factor are not used.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        iterations: before the cut; 0 for the one of `CUTS` with the most configurations, the longest where several have.

    Raises:
        InputError: the cut is not between 1 and R - 1, or 0.
        InfeasibleJobError: not one configuration is finished by T and B.

    Deviations:
        None: it is no paper's algorithm, but what a careful user would do by hand.
    """
    last = job.max_iterations
    if iterations != 0 and not 1 <= iterations < last:
        raise InputError(f"one-cut: iterations is {iterations}, but must be between 1 and {last - 1}, or 0")
    terms = Terms.of(job, profile, price_book)
    cuts = [cut for cut in CUTS if cut < last] if iterations == 0 else [iterations]
    cuts = cuts or [last]
    plan = best_plan(cuts, job, terms)
    if plan is None:

        def plan_for(stages: Sequence[Stage], within: Terms) -> Plan | None:
            plans = (_plan(stages[0].trials, cut, job, within) for cut in cuts)
            return min(filter(None, plans), key=lambda plan: plan.cost_usd, default=None)

        raise infeasible("one-cut", job, terms, plan_for)
    return run_plan(plan, job, profile, price_book, gives_back=True)


@memoized
def best_plan(cuts: Sequence[int], job: TuningJob, terms: Terms) -> Plan | None:
    """The plan with the most configurations, of the longest cut where several have."""
    found = [(plan.stages[0].trials, cut, plan) for cut in cuts if (plan := _largest(cut, job, terms))]
    return max(found, key=lambda candidate: candidate[:2])[2] if found else None


def _largest(cut: int, job: TuningJob, terms: Terms) -> Plan | None:
    return largest_within(job, lambda trials: _plan(trials, cut, job, terms))


def _plan(trials: int, cut: int, job: TuningJob, terms: Terms) -> Plan | None:
    last = job.max_iterations
    stages = (Stage(trials, cut, cut), Stage(1, last - cut, last)) if trials > 1 else (Stage(1, last, last),)
    plan = greedy_plan(stages if cut < last else stages[:1], terms)
    return plan if plan is not None and terms.are_kept_by(plan) else None
