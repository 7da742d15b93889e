"""Makespan and cost of a plan, in closed form. Pure; shares no code with the simulated world.

Exact where nothing is random. Under stragglers the longest of a stage's gangs counts, by Blom's approximation of the expected
maximum of log-normal sums.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from policies.planning.plan import Plan
from sim.billing import metered_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.halving import Stage
    from policies.planning.plan import Allocation, Terms
    from sim.model.profile import Stragglers


def estimate(
    stages: Sequence[Stage],
    allocations: Sequence[Allocation],
    terms: Terms,
    *,
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Plan:
    """What these allocations are expected to take and cost.

    A stage that grows waits for queue and initialisation of its new machines; a barrier follows each stage but the last;
    machines that the next stage does not need are given back after it, the oldest first.

    Args:
        stages: what is to be trained.
        allocations: one per stage.
        terms: profile, prices, limits.
        live_instances: machines held already, whose further time is charged and whose start is not.
        is_resumed: whether the first stage continues earlier ones.
    """
    leases = _Leases(terms, live_instances)
    now_s, functions_usd = 0.0, 0.0
    stage_s = []
    for index, (stage, allocation) in enumerate(zip(stages, allocations, strict=True)):
        start_s = now_s
        now_s += leases.resize(allocation.instances, now_s)
        is_first = index == 0 and not is_resumed
        segment_s = terms.segment_s(stage.iterations, allocation.gpus_per_trial, is_first=is_first)
        stretch = expected_stretch(terms.profile.stragglers, stage.iterations, allocation)
        now_s += allocation.waves * segment_s * stretch
        functions_usd += allocation.trials * _function_usd(terms, allocation.gpus_per_trial, segment_s)
        if index < len(stages) - 1:
            now_s += terms.profile.sync_s
        stage_s.append(now_s - start_s)
    per_instance = terms.price_book.billing.model == "per-instance"
    cost_usd = leases.close(now_s) if per_instance else functions_usd
    return Plan(tuple(stages), tuple(allocations), tuple(stage_s), now_s, cost_usd)


def expected_stretch(stragglers: Stragglers, iterations: int, allocation: Allocation) -> float:
    """Expected duration of a stage over its mean: the slowest of the gangs that train side by side. At least 1."""
    if not stragglers.any or allocation.gangs == 1:
        return 1.0
    variance = (
        math.log1p(stragglers.persistent_cv**2) / allocation.waves
        + math.log1p(stragglers.per_iteration_cv**2) / (iterations * allocation.waves)
    )  # fmt: skip
    quantile = (allocation.gangs - 0.375) / (allocation.gangs + 0.25)
    return max(1.0, math.exp(NormalDist().inv_cdf(quantile) * math.sqrt(variance) - variance / 2))


def _function_usd(terms: Terms, gpus: int, seconds: float) -> float:
    usd_per_hour = terms.usd_per_hour * gpus / terms.gpus_per_instance
    return metered_usd(terms.price_book.billing, usd_per_hour, seconds)


class _Leases:
    """The machines of a plan, oldest first, as (count, billed from)."""

    def __init__(self, terms: Terms, live_instances: int) -> None:
        self._terms = terms
        self._groups: list[tuple[int, float]] = [(live_instances, 0.0)] if live_instances else []
        self._held = live_instances
        self._usd: list[float] = []
        # Machines held already have had their minimum charged.
        self._live_from_before = live_instances

    def resize(self, instances: int, now_s: float) -> float:
        """Hold this many from `now_s` on; returns the seconds that all must wait."""
        startup = self._terms.profile.startup
        if instances > self._held:
            bills_startup = self._terms.price_book.billing.bills_startup
            billed_from_s = now_s + startup.queue.mean_s + (0.0 if bills_startup else startup.init.mean_s)
            self._groups.append((instances - self._held, billed_from_s))
            self._held = instances
            return startup.mean_s
        self._give_back(self._held - instances, now_s)
        return 0.0

    def close(self, now_s: float) -> float:
        """The bill when all are given back."""
        self._give_back(self._held, now_s)
        return math.fsum(self._usd)

    def _give_back(self, instances: int, now_s: float) -> None:
        terms, release_s = self._terms, self._terms.price_book.release_s
        self._held -= instances
        while instances:
            count, billed_from_s = self._groups.pop(0)
            taken = min(count, instances)
            instances -= taken
            used_s = max(now_s - billed_from_s, 0.0) + release_s
            from_before = min(taken, self._live_from_before)
            self._live_from_before -= from_before
            further_usd = used_s * terms.usd_per_hour / 3600.0
            new_usd = metered_usd(terms.price_book.billing, terms.usd_per_hour, used_s)
            self._usd.append(from_before * further_usd + (taken - from_before) * new_usd)
            if count > taken:
                self._groups.insert(0, (count - taken, billed_from_s))
