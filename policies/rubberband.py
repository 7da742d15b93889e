"""RubberBand: the cheapest elastic plan for a tuning job under a deadline, made before the run and executed as it stands."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from policies.planning.plan import Terms
from policies.planning.rubberband_search import rubberband_plan
from policies.planning.sampling import sample
from policies.sha import run_plan
from policies.sizing import infeasible, largest
from sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from policies.halving import Stage
    from policies.planning.plan import Plan
    from policies.staged import StagedPolicy
    from sim.model.job import TuningJob
    from sim.model.prices import PriceBook
    from sim.model.profile import Profile

SAMPLES = 200
"""Runs that are sampled for a percentile."""


def rubberband(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,
    *,
    steps: Literal["next", "all"] = "all",
    makespan: Literal["mean", "p95"] = "mean",
) -> StagedPolicy:
    """Misra et al., "RubberBand: Cloud-based Hyperparameter Tuning" (EuroSys 2021).

    The static optimum, the greedy descent from it, and stage-by-stage execution with whole instances given back.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: samples makespans where `makespan` is "p95".
        steps: see `policies.planning.rubberband_search.rubberband_plan`.
        makespan: what must be within the deadline: the expected makespan, or its 95th percentile over sampled runs.

    Raises:
        InputError: `steps` or `makespan` is neither of its values.
        InfeasibleJobError: no plan ends by the deadline within the budget.

    Deviations:
        The full text of the paper is not at hand: plan space and greedy are as recalled from talks and notes about it.
        The paper's job is pre-determined and has no budget; with one, the largest SHA whose plan fits it is run [ours].
        "mean" is the closed form (with the expected slowest gang of a stage) instead of sampled critical paths.
        Gangs fill or divide whole machines, so that every plan can be placed as it is priced [ours].
        Without a deadline the cheapest plan of all is made [ours].
    """
    if steps not in ("next", "all"):
        raise InputError(f"rubberband: steps is {steps!r}, but must be 'next' or 'all'")
    if makespan not in ("mean", "p95"):
        raise InputError(f"rubberband: makespan is {makespan!r}, but must be 'mean' or 'p95'")
    terms = Terms.of(job, profile, price_book)

    def within(stages: Sequence[Stage]) -> Plan | None:
        plan = rubberband_plan(stages, terms, steps=steps)
        if plan is not None and makespan == "p95":
            plan = _surely_on_time(plan, terms, steps, rng)
        return plan if plan is not None and terms.are_kept_by(plan) else None

    found = largest(job, terms, within)
    if found is None:
        raise infeasible("rubberband", job, terms)
    return run_plan(found[1], job, profile, price_book)


def _surely_on_time(plan: Plan, terms: Terms, steps: Literal["next", "all"], rng: np.random.Generator) -> Plan | None:
    """A plan whose 95th percentile is within the deadline: planned for an ever earlier one until it is."""
    import numpy as np

    earlier: Plan | None = plan
    while earlier is not None and math.isfinite(terms.deadline_s):
        late_s = float(np.quantile(sample(earlier, terms, SAMPLES, rng).makespan_s, 0.95))
        if late_s <= terms.deadline_s:
            break
        target_s = earlier.makespan_s * min(terms.deadline_s / late_s, 1 - 1e-6)
        earlier = rubberband_plan(plan.stages, replace(terms, deadline_s=target_s), steps=steps)
    return earlier
