"""Random search, on the best fixed cluster and elastic: every configuration trains to R, nothing is stopped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.rules.halving import Stage
from elastune.policies.sizing.constant import cheapest_fixed_plan, check_gang, constant_plan
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible
from elastune.policies.sizing.sizing import largest_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def random_fixed(job: TuningJob, profile: Profile, price_book: PriceBook, rng: np.random.Generator) -> StagedPolicy:  # noqa: ARG001
    """Random search (Bergstra and Bengio, JMLR 2012) on the best fixed cluster.

    The configurations are the first of the job, in the order in which they were drawn. Each trains to R in one segment, on a
    gang of the size that ends them all first.

    Raises:
        InfeasibleJobError: no cluster size finishes even one configuration.

    Deviations:
        The paper has neither machines nor limits: the number of configurations, the cluster and the gangs are ours.
    """
    terms = Terms.of(job, profile, price_book)
    plan = _largest_fixed_plan(job, terms)
    if plan is None:
        raise infeasible("random-fixed", _one_rung(job), terms, cheapest_fixed_plan)
    return run_plan(plan, job, profile, price_book)


@memoized
def _largest_fixed_plan(job: TuningJob, terms: Terms) -> Plan | None:
    """The plan for the most configurations that any fixed cluster trains to R, on the cheapest such cluster."""
    return largest_within(job, lambda trials: cheapest_fixed_plan(_all_to_the_end(job, trials), terms))


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

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        gpus_per_trial: size of every gang.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota.
        InfeasibleJobError: not one configuration is finished by T and B at this size.

    Deviations:
        The paper has no machines; this is the obvious extension to machines that come and go, and ours.
    """
    terms = Terms.of(job, profile, price_book)
    check_gang("random-elastic", gpus_per_trial, terms)

    plan_for = partial(constant_plan, gpus_per_trial=gpus_per_trial)
    plan = largest_within(job, lambda trials: plan_for(_all_to_the_end(job, trials), terms))
    if plan is None:
        raise infeasible(f"random-elastic:gpus_per_trial={gpus_per_trial}", _one_rung(job), terms, plan_for)
    return run_plan(plan, job, profile, price_book, gives_back=True)


def _all_to_the_end(job: TuningJob, trials: int) -> Sequence[Stage]:
    return (Stage(trials, job.max_iterations, job.max_iterations),)


def _one_rung(job: TuningJob) -> TuningJob:
    """The same job, its first rung at R."""
    return msgspec.structs.replace(job, min_iterations=job.max_iterations, stages=None)
