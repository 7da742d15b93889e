"""What a single stage can be given: the choices planners combine. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.policies.planning.estimate import expected_s
from elastune.policies.planning.plan import Allocation
from elastune.sim.model.billing import metered_usd
from elastune.sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from elastune.policies.planning.plan import Terms
    from elastune.policies.rules.halving import Stage


@dataclass(frozen=True)
class Option:
    """One allocation of one stage.

    Attributes:
        seconds: expected duration, without growth and barrier.
        usd: price of the machines (or function calls) for that time, without minimum and rounding.
    """

    allocation: Allocation
    seconds: float
    usd: float


def option(
    stage: Stage, gpus: int, gpus_per_trial: int, terms: Terms, *, is_first: bool, live_instances: int | None = None
) -> Option:
    """The option of giving a stage this many GPUs in gangs of this size.

    Args:
        stage: what is to be trained.
        gpus: GPUs in all.
        gpus_per_trial: size of a gang.
        terms: profile, prices, limits.
        is_first: whether its trials are new.
        live_instances: machines held already, if the start of further ones is to be priced in; None where it is not.
    """
    allocation = Allocation(stage.trials, gpus, gpus_per_trial, terms.gpus_per_instance)
    segment_s = terms.segment_s(stage.iterations, gpus_per_trial, is_first=is_first)
    seconds = expected_s(stage, allocation, terms, is_first=is_first)
    if terms.price_book.billing.model == "per-function":
        usd_per_hour = terms.usd_per_hour * gpus_per_trial / terms.gpus_per_instance
        usd = stage.trials * metered_usd(terms.price_book.billing, usd_per_hour, segment_s)
    else:
        usd = allocation.instances * seconds * terms.usd_per_hour / SECONDS_PER_HOUR
        boot_s = terms.profile.startup.billed_mean_s(terms.price_book.billing)
        if live_instances is not None and boot_s:
            started = max(allocation.instances - live_instances, 0)
            usd += started * boot_s * terms.usd_per_hour / SECONDS_PER_HOUR
    return Option(allocation, seconds, usd)


def on_cluster(stage: Stage, instances: int, terms: Terms, *, is_first: bool) -> Option:
    """The fastest way to train a stage on a cluster of this size, which it holds whole."""
    gpus = instances * terms.gpus_per_instance
    choices = (option(stage, gpus, size, terms, is_first=is_first) for size in terms.gang_sizes if size <= gpus)
    return min(choices, key=lambda choice: choice.seconds)


def stage_options(stage: Stage, terms: Terms, *, is_first: bool, live_instances: int | None = None) -> list[Option]:
    """All options on whole instances, uneven waves included."""
    whole = terms.gpus_per_instance
    options = []
    for size in terms.gang_sizes:
        most = min(math.ceil(stage.trials * size / whole), terms.price_book.max_instances)
        least = math.ceil(size / whole)
        options += [
            option(stage, count * whole, size, terms, is_first=is_first, live_instances=live_instances)
            for count in range(least, most + 1)
        ]
    return options


def lower_hull(options: list[Option]) -> list[Option]:
    """The options on the lower convex hull of (seconds, usd), slowest and cheapest first.

    Each step to the next is faster and dearer, at a rising price per second saved.
    """
    hull: list[Option] = []
    best_usd = math.inf
    for choice in sorted(options, key=lambda o: (o.seconds, o.usd)):
        if choice.usd >= best_usd:
            continue  # another one is faster and cheaper
        best_usd = choice.usd
        while len(hull) > 1 and _usd_per_s(hull[-2], hull[-1]) <= _usd_per_s(hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull[::-1]


def _usd_per_s(fast: Option, slow: Option) -> float:
    return (fast.usd - slow.usd) / (slow.seconds - fast.seconds)
