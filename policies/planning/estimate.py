"""Makespan and cost of a plan, in closed form. Pure; shares no code with the simulated world.

Exact where nothing is random. Under stragglers the longest of a stage's gangs counts, by Blom's approximation of the expected
maximum of log-normal sums.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from elastune.policies.planning.plan import Plan
from elastune.sim.model.billing import metered_usd
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Allocation, Terms
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.profile import Stragglers


def estimate(
    stages: Sequence[Stage],
    allocations: Sequence[Allocation],
    terms: Terms,
    *,
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Plan:
    """What these allocations are expected to take and cost.

    A stage that grows waits for queue and initialisation of its new machines, all its trials together, less the seconds by
    which they were asked for before the barrier; a barrier follows each stage but the last; machines that the next stage
    does not hold are given back after it, those with the least paid time left first, as the controller does.

    Where a later stage waits for new machines, its trials may start on those that are there: if it trains in waves, or its
    trials end before the new ones come, or it holds them as spare ones. There, and only there, a run without randomness may
    end before its estimate.

    Args:
        stages: what is to be trained.
        allocations: one per stage.
        terms: profile, prices, limits.
        live_instances: machines held already, whose further time is charged and whose start is not.
        is_resumed: whether the first stage continues earlier ones.

    Raises:
        InputError: the first stage is prefetched.
    """
    leases = Leases(terms, live_instances)
    sync_s, startup_s = terms.profile.sync_s, terms.profile.startup.mean_s
    now_s, busy_s, functions_usd = 0.0, 0.0, 0.0
    stage_s: list[float] = []
    prefetch_after_s: list[float | None] = [None] * len(stages)
    for index, (stage, allocation) in enumerate(zip(stages, allocations, strict=True)):
        start_s, ahead_s = now_s, 0.0
        if allocation.is_prefetched:
            if index == 0:
                raise InputError("the machines of the first stage cannot be asked for before it")
            if allocation.instances > allocations[index - 1].instances:
                ahead_s = lead_s(busy_s, startup_s)
                # A difference of sums of the same seconds may be just below zero.
                prefetch_after_s[index - 1] = max(stage_s[-1] - ahead_s, 0.0)
        now_s += leases.resize(allocation.instances, now_s, ahead_s)
        is_first = index == 0 and not is_resumed
        segment_s = terms.segment_s(stage.iterations, allocation.gpus_per_trial, is_first=is_first)
        busy_s = expected_s(stage, allocation, terms, is_first=is_first)
        functions_usd += allocation.trials * function_usd(terms, allocation.gpus_per_trial, segment_s)
        if index < len(stages) - 1:
            busy_s += sync_s
        now_s += busy_s
        stage_s.append(now_s - start_s)
    cost_usd = leases.close(now_s) if terms.is_per_instance else functions_usd
    return Plan(
        tuple(stages),
        tuple(allocations),
        tuple(stage_s),
        now_s,
        cost_usd + leases.started * terms.ingress_usd + now_s * terms.standing_usd_per_s,
        tuple(prefetch_after_s),
        terms.instance_type,
    )


def lead_s(busy_s: float, startup_s: float) -> float:
    """How long before the barrier a prefetch asks for machines: their start-up, at most since the stage began to train.

    Args:
        busy_s: seconds of the stage before, from when all its machines are there to the end of its barrier.
        startup_s: mean seconds from request to readiness.
    """
    return min(busy_s, startup_s)


def expected_s(stage: Stage, allocation: Allocation, terms: Terms, *, is_first: bool) -> float:
    """Expected seconds of a stage from when all its machines are there to its last checkpoint."""
    stretch = expected_stretch(terms.profile.stragglers, stage.iterations, allocation)
    segment_s = terms.segment_s(stage.iterations, allocation.gpus_per_trial, is_first=is_first, stretch=stretch)
    return allocation.waves * segment_s


def expected_stretch(stragglers: Stragglers, iterations: int, allocation: Allocation) -> float:
    """Expected training seconds of a stage over their mean: the slowest of the gangs that train side by side. At least 1."""
    gangs, waves = allocation.gangs, allocation.waves
    if gangs == 1 or not stragglers.any:
        return 1.0
    variance = (
        math.log1p(stragglers.persistent_cv**2) / waves
        + math.log1p(stragglers.per_iteration_cv**2) / (iterations * waves)
    )  # fmt: skip
    return max(1.0, math.exp(_normal_of_slowest(gangs) * math.sqrt(variance) - variance / 2))


@functools.lru_cache(4096)
def _normal_of_slowest(count: int) -> float:
    """Blom's expected maximum of so many standard normals."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def function_usd(terms: Terms, gpus: int, seconds: float) -> float:
    """Price of a segment where functions are billed, its minimum and rounding included."""
    return metered_usd(terms.price_book.billing, terms.usd_per_hour * gpus / terms.gpus_per_instance, seconds)


@dataclass
class _Group:
    """Machines that were asked for together.

    Attributes:
        billed_from_s: when their bill began, or where they were held before, when what is charged here began.
        is_from_before: their minimum has been charged, and their age is not known.
    """

    count: int
    billed_from_s: float
    is_from_before: bool = False


class Leases:
    """The machines of a plan, oldest first.

    Attributes:
        started: machines asked for so far.
    """

    def __init__(self, terms: Terms, live_instances: int) -> None:
        self.started = 0
        self._terms = terms
        self._rule = terms.price_book.billing
        self._groups = [_Group(live_instances, 0.0, is_from_before=True)] if live_instances else []
        self._held = live_instances
        self._usd: list[float] = []

    def resize(self, instances: int, now_s: float, ahead_s: float) -> float:
        """Hold this many from `now_s` on, asked for `ahead_s` before; returns the seconds that all must wait."""
        startup = self._terms.profile.startup
        if instances > self._held:
            unbilled_s = sum(delay.mean_s for delay in startup.unbilled(self._rule))
            self._groups.append(_Group(instances - self._held, now_s - ahead_s + unbilled_s))
            self.started += instances - self._held
            self._held = instances
            return startup.mean_s - ahead_s
        self._give_back(self._held - instances, now_s)
        return 0.0

    def copy(self) -> Leases:
        """The same machines, to go on with in another way."""
        twin = Leases(self._terms, 0)
        twin.started, twin._held, twin._usd = self.started, self._held, list(self._usd)
        twin._groups = [replace(group) for group in self._groups]
        return twin

    def ages(self, now_s: float) -> list[tuple[float, bool, int]]:
        """(age in seconds, whether held from before, count) of the machines held, up to rounding of sums."""
        ages: dict[tuple[float, bool], int] = {}
        for group in self._groups:
            key = (round(now_s - group.billed_from_s, 6), group.is_from_before)
            ages[key] = ages.get(key, 0) + group.count
        return sorted((age, is_from_before, count) for (age, is_from_before), count in ages.items())

    def accrued_usd(self, now_s: float) -> float:
        """What was billed, and for the machines held their time so far and the release that will follow: the least bill."""
        used_s = (g.count * (now_s - g.billed_from_s + self._terms.price_book.release_s) for g in self._groups)
        return math.fsum(
            (*self._usd, math.fsum(used_s) * self._terms.usd_per_s, self.started * self._terms.ingress_usd)
        )

    def paid_usd(self, now_s: float) -> float:
        """The bill if all were given back now; it never falls."""
        usd = (group.count * self._lease_usd(group, now_s) for group in self._groups)
        return math.fsum((*self._usd, *usd, self.started * self._terms.ingress_usd))

    def margin_usd(self, now_s: float) -> float:
        """The most that minimum charge and rounding can add to that, whenever the machines are given back."""
        least_s = self._rule.billed_s(0.0) - self._terms.price_book.release_s
        margins_s = (
            group.count * max(least_s - (now_s - group.billed_from_s), self._rule.granularity_s)
            for group in self._groups
            if not group.is_from_before
        )
        return math.fsum(margins_s) * self._terms.usd_per_s

    def close(self, now_s: float) -> float:
        """The bill when all are given back."""
        self._give_back(self._held, now_s)
        return math.fsum(self._usd)

    def _give_back(self, instances: int, now_s: float) -> None:
        self._held -= instances
        # Sorting keeps the order of equals: the oldest first.
        for group in sorted(self._groups, key=lambda group: self._paid_until_s(group, now_s)):
            taken = min(group.count, instances)
            instances -= taken
            group.count -= taken
            self._usd.append(taken * self._lease_usd(group, now_s))
        self._groups = [group for group in self._groups if group.count]

    def _paid_until_s(self, group: _Group, now_s: float) -> float:
        if group.is_from_before:
            return now_s
        return group.billed_from_s + self._rule.billed_s(now_s - group.billed_from_s)

    def _lease_usd(self, group: _Group, now_s: float) -> float:
        used_s = max(now_s - group.billed_from_s, 0.0) + self._terms.price_book.release_s
        if group.is_from_before:
            return used_s * self._terms.usd_per_s
        return metered_usd(self._rule, self._terms.usd_per_hour, used_s)
