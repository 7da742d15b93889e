"""RubberBand: the cheapest elastic plan for a tuning job under a deadline, made before the run and executed as it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from policies.planning.plan import Terms
from policies.planning.rubberband_search import rubberband_plan
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


def rubberband(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    steps: Literal["next", "all"] = "all",
) -> StagedPolicy:
    """Misra et al., "RubberBand: Cloud-based Hyperparameter Tuning" (EuroSys 2021).

    The static optimum, the greedy descent from it, and stage-by-stage execution with whole instances given back.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        steps: see `policies.planning.rubberband_search.rubberband_plan`.

    Raises:
        InputError: `steps` is neither.
        InfeasibleJobError: no plan ends by the deadline within the budget.

    Deviations:
        The full text of the paper is not at hand: plan space and greedy are as recalled from talks and notes about it.
        The paper's job is pre-determined and has no budget; with one, the largest SHA whose plan fits it is run [ours].
        Means (with the expected slowest gang of a stage) instead of sampled critical paths.
        Gangs fill or divide whole machines, so that every plan can be placed as it is priced [ours].
        Without a deadline the cheapest plan of all is made [ours].
    """
    if steps not in ("next", "all"):
        raise InputError(f"rubberband: steps is {steps!r}, but must be 'next' or 'all'")
    terms = Terms.of(job, profile, price_book)

    def within(stages: Sequence[Stage]) -> Plan | None:
        plan = rubberband_plan(stages, terms, steps=steps)
        return plan if plan is not None and terms.are_kept_by(plan) else None

    found = largest(job, terms, within)
    if found is None:
        raise infeasible("rubberband", job, terms)
    return run_plan(found[1], job, profile, price_book)
