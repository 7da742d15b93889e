"""SHA, synchronous successive halving: on the best fixed cluster, on the naive one, and elastic.

Names are `room.module.name` below `policies`:

    for n configurations, largest first:                  sizing.sizing.largest
      rungs of n, n/eta, n/eta^2, ... trials              rules.halving.rungs
      machines and gangs of the best fixed cluster,       sizing.constant.cheapest_fixed_plan
        or one gang size on machines that come and go     sizing.constant.constant_plan
      keep the first n whose plan keeps T and B           planning.plan.Terms.are_kept_by
    run each rung, all its trials to the same iteration   execution.planned.run_plan
      keep the best 1/eta and stop the others             rules.halving.Bracket.advance
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.static import plan_on_cluster
from elastune.policies.sizing.constant import (
    cheapest_fixed_plan,
    check_gang,
    constant_plan,
    naive_instances,
    naive_refusal,
)
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible
from elastune.policies.sizing.sizing import largest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.planning.plan import Plan
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def sha_fixed(job: TuningJob, profile: Profile, price_book: PriceBook, rng: np.random.Generator) -> StagedPolicy:  # noqa: ARG001
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016) on the best fixed cluster.

    The cluster finishes the most configurations by T within B; of several that do, it is the cheapest. Survivors share it:
    each stage uses the gang size that ends the stage first, in uneven waves if need be.

    Raises:
        InfeasibleJobError: no cluster size finishes even one configuration.

    Deviations:
        The paper has no machines: how survivors share them, the number of configurations and the cluster are ours.
    """
    terms = Terms.of(job, profile, price_book)
    plan = _largest_fixed_plan(job, terms)
    if plan is None:
        raise infeasible("sha-fixed", job, terms, cheapest_fixed_plan)
    return run_plan(plan, job, profile, price_book)


@memoized
def _largest_fixed_plan(job: TuningJob, terms: Terms) -> Plan | None:
    """Of the most configurations that successive halving finishes on any fixed cluster, on the cheapest."""
    found = largest(job, terms, lambda stages: cheapest_fixed_plan(stages, terms))
    return None if found is None else found[1]


def sha_fixed_naive(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
) -> StagedPolicy:
    """Successive halving on floor(B / (c T)) machines, held for all of T.

    Raises:
        InfeasibleJobError: T or B is missing, B does not pay one machine for all of T, or not one configuration is finished.

    Deviations:
        Those of `sha_fixed`, but the cluster is the naive one.
    """
    terms = Terms.of(job, profile, price_book)
    instances = naive_instances("sha-fixed-naive", job, price_book)
    free = replace(terms, budget_usd=math.inf)

    def on_time(stages: Sequence[Stage]) -> Plan | None:
        plan = plan_on_cluster(stages, instances, free) if instances in terms.cluster_sizes else None
        return plan if plan is not None and terms.are_kept_by(plan) else None

    found = largest(job, free, on_time)
    if found is None:
        raise naive_refusal("sha-fixed-naive", job, terms)
    return run_plan(found[1], job, profile, price_book, holds=True)


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

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota.
        InfeasibleJobError: not one configuration is finished by T and B at this size.

    Deviations:
        The paper has no machines; this is the obvious extension to machines that come and go, and ours.
    """
    terms = Terms.of(job, profile, price_book)
    check_gang("sha-elastic", gpus_per_trial, terms)

    def plan_for(stages: Sequence[Stage], within: Terms) -> Plan | None:
        return constant_plan(stages, gpus_per_trial, within)

    found = largest(job, terms, lambda stages: plan_for(stages, terms))
    if found is None:
        raise infeasible(f"sha-elastic with {gpus_per_trial} GPUs per trial", job, terms, plan_for)
    return run_plan(found[1], job, profile, price_book, gives_back=True)
