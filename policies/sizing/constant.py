"""Clusters and gangs whose size does not change: the best and the naive number of machines, and one gang size for all [ours].

Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.plan import Allocation, Plan, Terms, highest_prices
from elastune.policies.planning.static import cluster_sizes, constant_plans, plan_on_cluster
from elastune.policies.rules.halving import Stage, rungs
from elastune.policies.rules.margin import most_usd
from elastune.policies.sizing.refusal import Possible, refusal
from elastune.sim.model.billing import metered_usd
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.prices import SECONDS_PER_HOUR, PriceBook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.model.job import TuningJob


def cheapest_fixed_plan(stages: Sequence[Stage], terms: Terms) -> Plan | None:
    """The plan on the cheapest constant cluster that keeps T and B; None where no cluster does."""
    kept = constant_plans(stages, terms, terms.are_kept_by, most_usd=terms.budget_usd)
    return min(kept, key=lambda plan: plan.cost_usd, default=None)


def naive_instances(name: str, job: TuningJob, price_book: PriceBook) -> int:
    """floor(B / (c T)) machines, at most the quota; B first pays for head node and storage during all of T.

    Raises:
        InfeasibleJobError: T or B is missing, or B does not pay one machine for all of T.
    """
    if job.deadline_s is None or job.budget_usd is None:
        raise InfeasibleJobError(
            f"{name}: the naive size is B / (c T), so the job needs job.deadline_s and job.budget_usd"
        )
    usd_per_hour = highest_prices(price_book, job.deadline_s).usd_per_hour()
    each_usd = metered_usd(price_book.billing, usd_per_hour, job.deadline_s) + price_book.ingress_usd
    if each_usd == 0:
        return price_book.max_instances
    left_usd = most_usd(job.budget_usd) - job.deadline_s * price_book.standing_usd_per_hour / SECONDS_PER_HOUR
    instances = math.floor(left_usd / each_usd)
    if instances < 1:
        rate_usd_per_hour = usd_per_hour + price_book.standing_usd_per_hour
        longest_s = max(job.budget_usd - price_book.ingress_usd, 0.0) / rate_usd_per_hour * SECONDS_PER_HOUR
        each_usd = math.ceil((each_usd + job.budget_usd - left_usd) * 100) / 100
        raise InfeasibleJobError(
            f"{name}: one {price_book.default_type.name} held for all of {job.deadline_s:g} s costs {each_usd:.2f} USD, more"
            f" than the budget of {job.budget_usd:g} USD; that budget holds one for {math.floor(longest_s)} s"
        )
    return min(instances, price_book.max_instances)


def naive_refusal(name: str, job: TuningJob, terms: Terms) -> InfeasibleJobError:
    """The error for a job that the naive cluster does not finish by T: what numbers of machines held for all of T need."""
    terms = terms.for_any_deadline()
    trials = rungs(job)[0].trials if job.exact or job.stages is not None else 1
    possible = []
    stages = rungs(job, trials)
    for count in cluster_sizes(stages, terms):
        plan = plan_on_cluster(stages, count, terms)
        deadline_s = Possible.of(plan.promised_s, 0.0).deadline_s
        each_usd = metered_usd(terms.price_book.billing, terms.usd_per_hour, deadline_s) + terms.ingress_usd
        held_usd = count * each_usd + deadline_s * terms.standing_usd_per_s
        # The release comes after T, and the plan pays for it.
        possible.append(Possible.of(plan.promised_s, max(held_usd, plan.needed_usd)))
    return refusal(name, job, trials, possible)


def constant_plan(stages: Sequence[Stage], terms: Terms, *, gpus_per_trial: int) -> Plan | None:
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
        InfeasibleJobError: a configuration does not fit into the memory of this gang.
    """
    if not 1 <= gpus_per_trial <= terms.largest_gang:
        raise InputError(f"{name}: gpus_per_trial is {gpus_per_trial}, but must be between 1 and {terms.largest_gang}")
    if gpus_per_trial < terms.profile.min_gpus:
        raise InfeasibleJobError(
            f"{name}: gpus_per_trial is {gpus_per_trial}, but the memory of a configuration takes {terms.profile.min_gpus} GPUs"
            f" (min_gpus): set {name}:gpus_per_trial={terms.gang_sizes[0]} or more"
        )
