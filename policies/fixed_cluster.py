"""Tuning rules on a cluster of constant size: the best size and run time that T and B allow, and the naive size.

The best size m maximises the number n of configurations the rule finishes by T with a bill of at most B, the cheapest m
where several do; machines are paid until the rule ends. The naive size is floor(B / (c T)) machines, held for all of T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.asha import AshaPolicy
from policies.halving import rung_levels
from policies.planning.plan import Terms
from policies.planning.static import plan_on_cluster
from policies.sha import run_plan
from policies.sizing import infeasible, largest
from sim.billing import metered_usd
from sim.model.errors import InfeasibleJobError
from sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from policies.halving import Stage
    from policies.planning.plan import Plan
    from policies.staged import StagedPolicy
    from sim.model.job import TuningJob
    from sim.model.prices import PriceBook
    from sim.model.profile import Profile


def sha_fixed(job: TuningJob, profile: Profile, price_book: PriceBook, rng: np.random.Generator) -> StagedPolicy:  # noqa: ARG001
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016) on the best fixed cluster.

    Survivors share the cluster: gangs of the size that ends the stage first, uneven waves allowed.

    Raises:
        InfeasibleJobError: no cluster size finishes even one configuration.

    Deviations:
        The paper has no machines; how survivors share them, and n and m, are ours.
    """
    terms = Terms.of(job, profile, price_book)
    counts = range(1, price_book.max_instances + 1)

    def cheapest(stages: Sequence[Stage]) -> Plan | None:
        plans = (plan_on_cluster(stages, count, terms) for count in counts)
        return min((plan for plan in plans if terms.are_kept_by(plan)), key=lambda plan: plan.cost_usd, default=None)

    found = largest(job, terms, cheapest)
    if found is None:
        raise infeasible("sha-fixed", job, terms)
    return run_plan(found[1], job, profile, price_book)


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
    free = Terms(profile, price_book, terms.deadline_s)

    def on_time(stages: Sequence[Stage]) -> Plan | None:
        plan = plan_on_cluster(stages, instances, free)
        return plan if terms.are_kept_by(plan) else None

    found = largest(job, free, on_time)
    if found is None:
        raise infeasible("sha-fixed-naive", job, terms)
    return run_plan(found[1], job, profile, price_book, holds=True)


def asha_fixed(job: TuningJob, profile: Profile, price_book: PriceBook, rng: np.random.Generator) -> AshaPolicy:  # noqa: ARG001
    """ASHA on the best fixed cluster; see `policies.asha.AshaPolicy`.

    Raises:
        InfeasibleJobError: no cluster size trains even one configuration to R on one GPU.

    Deviations:
        n and m are ours: the largest n whose work fits the machines' time within T and B, and in that time one trial can reach
        R; where several m allow it, one that also has time for the tail of promotions, and the cheapest of these.
    """
    terms = Terms.of(job, profile, price_book)
    sizes = [size for count in range(1, price_book.max_instances + 1) if (size := _asha_size(count, job, terms))]
    if not sizes:
        raise infeasible("asha-fixed", job, terms)
    best = max(sizes, key=lambda size: (size.trials, size.has_time_for_tail, -size.cost_usd))
    return AshaPolicy(job, profile, price_book, instances=best.instances, trials=best.trials)


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
    """floor(B / (c T)) machines, at most the quota.

    Raises:
        InfeasibleJobError: T or B is missing, or B does not pay one machine for all of T.
    """
    if job.deadline_s is None or job.budget_usd is None:
        raise InfeasibleJobError(
            f"{name}: the naive size is B / (c T), so the job needs job.deadline_s and job.budget_usd"
        )
    each_usd = metered_usd(price_book.billing, price_book.usd_per_hour(), job.deadline_s)
    if each_usd == 0:
        return price_book.max_instances
    instances = math.floor(job.budget_usd / each_usd + 1e-9)
    if instances < 1:
        longest_s = job.budget_usd / price_book.usd_per_hour() * SECONDS_PER_HOUR
        raise InfeasibleJobError(
            f"{name}: one {price_book.default_type.name} held for all of {job.deadline_s:g} s costs {each_usd:.2f} USD, more"
            f" than the budget of {job.budget_usd:g} USD; that budget holds one for {longest_s:.0f} s"
        )
    return min(instances, price_book.max_instances)


def _asha_work(job: TuningJob, terms: Terms) -> tuple[float, float]:
    """Expected GPU-seconds per configuration, and seconds from a start to R, both at one GPU per trial."""
    work_s = chain_s = 0.0
    before = 0
    for rung, level in enumerate(rung_levels(job)):
        segment_s = terms.segment_s(level - before, 1, is_first=rung == 0)
        work_s += segment_s / job.reduction_factor**rung
        chain_s += segment_s
        before = level
    return work_s, chain_s


@dataclass(frozen=True)
class _AshaSize:
    """A cluster for ASHA.

    Attributes:
        trials: configurations whose expected work fits its time.
        has_time_for_tail: whether even the list-scheduling bound, work / m + (1 - 1 / m) * longest chain, fits.
        cost_usd: expected, with the tail as far as time is left for it.
    """

    instances: int
    trials: int
    has_time_for_tail: bool
    cost_usd: float


def _asha_size(instances: int, job: TuningJob, terms: Terms) -> _AshaSize | None:
    work_s, chain_s = _asha_work(job, terms)
    gpus = instances * terms.gpus_per_instance
    profile, book = terms.profile, terms.price_book
    end_s = terms.deadline_s
    if math.isfinite(terms.budget_usd) and terms.usd_per_hour > 0:
        paid_s = terms.budget_usd / (instances * terms.usd_per_hour) * SECONDS_PER_HOUR
        end_s = min(end_s, profile.startup.queue.mean_s + paid_s - book.billing.granularity_s - book.release_s)
    training_s = end_s - profile.startup.mean_s
    if training_s < chain_s:
        return None
    trials = job.trials
    if math.isfinite(training_s):
        trials = max(1, min(math.floor(training_s * gpus / work_s), job.trials))
    tail_s = trials * work_s / gpus + (1 - 1 / gpus) * chain_s
    held_s = profile.startup.init.mean_s + min(max(tail_s, chain_s), training_s) + book.release_s
    cost_usd = instances * metered_usd(book.billing, terms.usd_per_hour, held_s)
    if cost_usd > terms.budget_usd:
        return None
    return _AshaSize(instances, trials, tail_s <= training_s, cost_usd)
