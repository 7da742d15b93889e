"""Naive cloud extensions: the same rules on a cluster that fits what runs, at a constant number of GPUs per trial [ours]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.rules.halving import Stage
from elastune.policies.sizing.sizing import infeasible, largest, largest_within
from elastune.sim.model.errors import InfeasibleJobError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.planning.plan import Plan
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


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
    check_gang("sha-elastic", gpus_per_trial, terms)
    found = largest(job, terms, lambda stages: constant_plan(stages, gpus_per_trial, terms))
    if found is None:
        raise infeasible(f"sha-elastic with {gpus_per_trial} GPUs per trial", job, terms)
    return run_plan(found[1], job, profile, price_book, gives_back=True)


def random_elastic(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    gpus_per_trial: int = 1,
) -> StagedPolicy:
    """Random search with all configurations at once, each on `gpus_per_trial` GPUs; idle machines are given back.

    Where the quota is smaller, they take turns.

    Deviations:
        None from a paper: it is the obvious extension of one, and ours.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota.
        InfeasibleJobError: not one configuration is finished by T and B at this size.
    """
    terms = Terms.of(job, profile, price_book)
    check_gang("random-elastic", gpus_per_trial, terms)

    def plan(trials: int) -> Plan | None:
        return constant_plan((Stage(trials, job.max_iterations, job.max_iterations),), gpus_per_trial, terms)

    found = largest_within(job, plan)
    if found is None:
        raise infeasible(f"random-elastic with {gpus_per_trial} GPUs per trial", job, terms)
    return run_plan(found, job, profile, price_book, gives_back=True)


def constant_plan(stages: Sequence[Stage], gpus_per_trial: int, terms: Terms) -> Plan | None:
    """All trials of a stage at once on gangs of this size, as far as the quota allows; None where T or B is not kept."""
    plan = estimate(stages, [constant_allocation(stage, gpus_per_trial, terms) for stage in stages], terms)
    return plan if terms.are_kept_by(plan) else None


def constant_allocation(stage: Stage, gpus_per_trial: int, terms: Terms) -> Allocation:
    """All trials of a stage at once on gangs of this size, as far as the quota allows."""
    gangs = min(stage.trials, terms.max_gpus // gpus_per_trial)
    return Allocation(stage.trials, gangs * gpus_per_trial, gpus_per_trial, terms.gpus_per_instance)


def check_gang(name: str, gpus_per_trial: int, terms: Terms) -> None:
    """Refuse gangs that cannot be planned.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota.
        InfeasibleJobError: it does not hold every configuration in its memory.
    """
    if not 1 <= gpus_per_trial <= terms.largest_gang:
        raise InputError(f"{name}: gpus_per_trial is {gpus_per_trial}, but must be between 1 and {terms.largest_gang}")
    if gpus_per_trial < terms.profile.min_gpus:
        raise InfeasibleJobError(
            f"{name}: gpus_per_trial is {gpus_per_trial}, but the memory of a configuration takes {terms.profile.min_gpus} GPUs"
            f" (min_gpus): set {name}:gpus_per_trial={terms.gang_sizes[0]} or more"
        )
