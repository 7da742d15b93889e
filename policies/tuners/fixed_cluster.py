"""Tuning rules on a cluster of constant size: the best size and run time that T and B allow, and the naive size.

The best size m maximises the number n of configurations the rule finishes by T with a bill of at most B, the cheapest m
where several do; machines are paid until the rule ends. The naive size is floor(B / (c T)) machines, held for all of T.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.static import plan_on_cluster
from elastune.policies.sizing.list_scheduling import best_cluster, promotion_load
from elastune.policies.sizing.memoize import remembered
from elastune.policies.sizing.sizing import infeasible, largest
from elastune.policies.tuners.asha import AshaPolicy
from elastune.sim.model.billing import metered_usd
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.prices import SECONDS_PER_HOUR

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

    Survivors share the cluster: gangs of the size that ends the stage first, uneven waves allowed.

    Raises:
        InfeasibleJobError: no cluster size finishes even one configuration.

    Deviations:
        The paper has no machines; how survivors share them, and n and m, are ours.
    """
    terms = Terms.of(job, profile, price_book)
    plan = _largest_plan(job, terms)
    if plan is None:
        raise infeasible("sha-fixed", job, terms)
    return run_plan(plan, job, profile, price_book)


@remembered
def _largest_plan(job: TuningJob, terms: Terms) -> Plan | None:
    """Of the most configurations that successive halving finishes on any fixed cluster, on the cheapest."""

    def cheapest(stages: Sequence[Stage]) -> Plan | None:
        plans = (plan_on_cluster(stages, count, terms) for count in terms.cluster_sizes)
        return min((plan for plan in plans if terms.are_kept_by(plan)), key=lambda plan: plan.cost_usd, default=None)

    found = largest(job, terms, cheapest)
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
    """
    terms = Terms.of(job, profile, price_book)
    instances = naive_instances("sha-fixed-naive", job, price_book)
    free = replace(terms, budget_usd=math.inf)

    def on_time(stages: Sequence[Stage]) -> Plan | None:
        plan = plan_on_cluster(stages, instances, free) if instances in terms.cluster_sizes else None
        return plan if plan is not None and terms.are_kept_by(plan) else None

    found = largest(job, free, on_time)
    if found is None:
        raise infeasible("sha-fixed-naive", job, terms)
    return run_plan(found[1], job, profile, price_book, holds=True)


def asha_fixed(job: TuningJob, profile: Profile, price_book: PriceBook, rng: np.random.Generator) -> AshaPolicy:  # noqa: ARG001
    """ASHA on the best fixed cluster; see `policies.tuners.asha.AshaPolicy`.

    Raises:
        InfeasibleJobError: no cluster size trains even one configuration to R on one GPU.

    Deviations:
        n and m are ours: the largest n whose work fits the machines' time within T and B, and in that time one trial can reach
        R; where several m allow it, one that also has time for the tail of promotions, and the cheapest of these.
    """
    terms = Terms.of(job, profile, price_book)
    cluster = best_cluster("asha-fixed", job, terms, promotion_load(job, terms), is_anytime=True)
    return AshaPolicy(job, profile, price_book, instances=cluster.instances, trials=cluster.trials)


def asha_fixed_naive(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
) -> AshaPolicy:
    """ASHA on floor(B / (c T)) machines, held for all of T; new configurations are started as long as there are any.

    Raises:
        InfeasibleJobError: T or B is missing, or B does not pay one machine for all of T.
    """
    instances = naive_instances("asha-fixed-naive", job, price_book)
    return AshaPolicy(job, profile, price_book, instances=instances, trials=job.trials, holds=True)


def naive_instances(name: str, job: TuningJob, price_book: PriceBook) -> int:
    """floor(B / (c T)) machines, at most the quota; what head node and storage cost in all of T is taken from B first.

    Raises:
        InfeasibleJobError: T or B is missing, or B does not pay one machine for all of T.
    """
    if job.deadline_s is None or job.budget_usd is None:
        raise InfeasibleJobError(
            f"{name}: the naive size is B / (c T), so the job needs job.deadline_s and job.budget_usd"
        )
    usd_per_hour = price_book.at_highest(job.deadline_s).usd_per_hour()
    each_usd = metered_usd(price_book.billing, usd_per_hour, job.deadline_s) + price_book.ingress_usd
    if each_usd == 0:
        return price_book.max_instances
    left_usd = job.budget_usd - job.deadline_s * price_book.standing_usd_per_hour / SECONDS_PER_HOUR
    instances = math.floor(left_usd / each_usd + 1e-9)
    if instances < 1:
        rate_usd_per_hour = usd_per_hour + price_book.standing_usd_per_hour
        longest_s = max(job.budget_usd - price_book.ingress_usd, 0.0) / rate_usd_per_hour * SECONDS_PER_HOUR
        each_usd += job.budget_usd - left_usd
        raise InfeasibleJobError(
            f"{name}: one {price_book.default_type.name} held for all of {job.deadline_s:g} s costs {each_usd:.2f} USD, more"
            f" than the budget of {job.budget_usd:g} USD; that budget holds one for {longest_s:.0f} s"
        )
    return min(instances, price_book.max_instances)
