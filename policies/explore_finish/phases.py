"""How time and money are shared between trying configurations and training the best of them [ours]. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from elastune.policies.sizing.list_scheduling import Load, best_cluster

if TYPE_CHECKING:
    from elastune.policies.planning.plan import Terms
    from elastune.sim.model.job import TuningJob

TRAININGS = 2
"""A job without a deadline is given the time of so many trainings to R, one after the other."""


@dataclass(frozen=True)
class Phases:
    """What is fixed before the run.

    Attributes:
        gpus: of each gang that tries a configuration.
        instances: machines to begin with.
        explores_until_s: when the last round of the best begins at the latest.
        ends_s: when the run is planned to end.
    """

    gpus: int
    instances: int
    explores_until_s: float
    ends_s: float


def share_out(name: str, job: TuningJob, terms: Terms, *, time_share: float, money_share: float) -> Phases:
    """The phases of a job.

    Args:
        name: of the policy, for messages.
        job: the tuning job.
        terms: profile, prices, limits.
        time_share: of the time in which machines can train, for trying configurations.
        money_share: of the budget, for the same; all of it where no time is left for the finals.

    Raises:
        InfeasibleJobError: not one configuration, or with `job.exact` not all of them, trains the first rung by T within B.
    """
    gpus = terms.gang_sizes[0]
    least = _least_instances(name, job, terms, gpus)
    ends_s = _ends_s(job, terms, gpus, least)
    startup_s = min(terms.profile.startup.mean_s, ends_s)
    until_s = startup_s + (ends_s - startup_s) * time_share
    useful = instances_of(job.trials, gpus, terms)
    paid_usd = terms.budget_usd * (money_share if time_share < 1 else 1.0)
    # A machine pays for whole quanta, however soon it is given back.
    usd_each = terms.usd_per_s * (terms.price_book.billing.billed_s(until_s) if terms.is_per_instance else until_s)
    affordable = useful if usd_each == 0 or paid_usd >= useful * usd_each else math.floor(paid_usd / usd_each)
    instances = max(min(useful, affordable, terms.price_book.max_instances), least)
    return Phases(gpus, instances, until_s, ends_s)


def instances_of(gangs: int, gpus: int, terms: Terms) -> int:
    """Machines that hold so many gangs of so many GPUs."""
    return math.ceil(gangs * gpus / terms.gpus_per_instance)


def _least_instances(name: str, job: TuningJob, terms: Terms, gpus: int) -> int:
    """Machines that hold one gang; with `job.exact`, so many that every configuration trains the first rung."""
    first_rung = msgspec.structs.replace(job, max_iterations=job.min_iterations)
    segment_s = terms.segment_s(job.min_iterations, gpus, is_first=True)
    cluster = best_cluster(name, first_rung, terms, Load(gpus, segment_s, segment_s))
    return cluster.instances if job.exact else instances_of(1, gpus, terms)


def _ends_s(job: TuningJob, terms: Terms, gpus: int, least: int) -> float:
    """T, or the time that is enough without one; no later than when B has paid for the fewest machines."""
    training_s = terms.segment_s(job.max_iterations, gpus, is_first=True)
    ends_s = terms.deadline_s
    if math.isinf(ends_s):
        ends_s = terms.profile.startup.mean_s + TRAININGS * training_s
    usd_per_s = least * terms.usd_per_s
    return min(ends_s, terms.budget_usd / usd_per_s) if usd_per_s else ends_s
