"""Makespan and cost of a plan, in closed form. Pure; shares no code with the simulated world.

Exact where nothing is random. Under stragglers the longest of a stage's gangs counts, by Blom's approximation of the expected
maximum of log-normal sums.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.policies.planning.bill import Leases, around_usd, function_usd, held_usd
from elastune.policies.planning.plan import FINE_QUANTUM_S, Allocation, Plan, Terms
from elastune.policies.planning.refund import refund_of
from elastune.policies.planning.spread import normal_of_slowest
from elastune.policies.rules.margin import PLAN_MARGIN_S
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    does not hold are given back after it, those with the least paid time left first, as the controller does, or before its end
    if the terms say so.

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
    now_s, busy_s, functions_usd, given_back_usd = 0.0, 0.0, 0.0, 0.0
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
        if terms.gives_back:
            kept = allocations[index + 1].instances if index < len(stages) - 1 else 0
            given_back_usd += held_usd(terms, given_back_s(stage, allocation, kept, terms))
        if index < len(stages) - 1:
            busy_s += sync_s
        now_s += busy_s
        stage_s.append(now_s - start_s)
    if terms.is_per_instance:
        cost_usd = leases.closed_usd(now_s)
        margin_usd = leases.closed_usd(now_s + PLAN_MARGIN_S) - cost_usd
        cost_usd -= given_back_usd
    else:
        cost_usd, margin_usd = functions_usd, _last_wave_margin_usd(allocation, segment_s, terms)
    return Plan(
        tuple(stages),
        tuple(allocations),
        tuple(stage_s),
        now_s,
        cost_usd + around_usd(terms, leases.started, now_s),
        tuple(prefetch_after_s),
        terms.instance_type,
        margin_usd=margin_usd + around_usd(terms, 0, PLAN_MARGIN_S),
    )


def _last_wave_margin_usd(allocation: Allocation, segment_s: float, terms: Terms) -> float:
    """What the functions of a stage's last wave cost more if each of them ends one margin later."""
    last, size = allocation.trials - (allocation.waves - 1) * allocation.gangs, allocation.gpus_per_trial
    return last * (function_usd(terms, size, segment_s + PLAN_MARGIN_S) - function_usd(terms, size, segment_s))


def given_back_s(stage: Stage, allocation: Allocation, kept: int, terms: Terms) -> float:
    """Machine-seconds of a stage that are not paid because machines are given back when their last gang ends.

    Below zero where the closed form of the mean takes the stage to end earlier than it does. Nothing where machines are paid by
    coarse quanta: what is left of a quantum is paid anyway.

    Args:
        stage: what is trained.
        allocation: on what.
        kept: machines that the next stage holds, which are paid until this one ends; 0 after the last.
        terms: for the spread of the trials and the size of machines.
    """
    if not _ends_differ(terms):
        return 0.0
    found = refund_of(allocation, log_variance(terms.profile.stragglers, stage.iterations))
    released = found.released[0]
    machine_means = (
        allocation.instances * found.of_each[0] + released[min(max(allocation.instances - kept, 0), len(released) - 1)]
    )
    return float(machine_means * terms.train_s(stage.iterations, allocation.gpus_per_trial))


def refunds(terms: Terms) -> bool:
    """Whether machines are given back within a stage, and that saves anything."""
    return terms.gives_back and terms.is_per_instance and _ends_differ(terms)


def _ends_differ(terms: Terms) -> bool:
    return terms.profile.stragglers.any and terms.price_book.billing.granularity_s <= FINE_QUANTUM_S


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
    gangs = allocation.gangs
    if gangs == 1 or not stragglers.any:
        return 1.0
    variance = log_variance(stragglers, iterations) / allocation.waves
    return max(1.0, math.exp(normal_of_slowest(gangs) * math.sqrt(variance) - variance / 2))


def log_variance(stragglers: Stragglers, iterations: int) -> float:
    """Variance of the logarithm of a trial's training time over its mean."""
    return math.log1p(stragglers.persistent_cv**2) + math.log1p(stragglers.per_iteration_cv**2) / iterations
