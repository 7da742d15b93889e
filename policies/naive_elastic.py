"""Naive cloud extensions: the same rules on a cluster that fits what runs, at a constant number of GPUs per trial [ours]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.planning.estimate import estimate
from policies.planning.plan import Allocation, Terms
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


def sha_elastic(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    gpus_per_trial: int = 1,
) -> StagedPolicy:
    """Successive halving with all trials of a stage at once, each on `gpus_per_trial` GPUs; idle machines are given back.

    Where the quota is smaller than a stage, its trials take turns.

    Deviations:
        None from a paper: it is the obvious extension of one, and ours.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota.
        InfeasibleJobError: not one configuration is finished by T and B at this size.
    """
    terms = Terms.of(job, profile, price_book)
    limit = min(profile.scaling.max_gpus, terms.max_gpus)
    if not 1 <= gpus_per_trial <= limit:
        raise InputError(f"sha-elastic: gpus_per_trial is {gpus_per_trial}, but must be between 1 and {limit}")

    def constant(stages: Sequence[Stage]) -> Plan | None:
        allocations = [
            Allocation(
                stage.trials,
                min(stage.trials, terms.max_gpus // gpus_per_trial) * gpus_per_trial,
                gpus_per_trial,
                terms.gpus_per_instance,
            )
            for stage in stages
        ]
        plan = estimate(stages, allocations, terms)
        return plan if terms.are_kept_by(plan) else None

    found = largest(job, terms, constant)
    if found is None:
        raise infeasible(f"sha-elastic with {gpus_per_trial} GPUs per trial", job, terms)
    return run_plan(found[1], job, profile, price_book)
