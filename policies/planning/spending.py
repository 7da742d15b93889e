"""Where the money of a plan goes, as expected before the run. Pure [ours]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from elastune.policies.planning.bill import around_usd, held_usd
from elastune.policies.planning.estimate import estimate

if TYPE_CHECKING:
    from elastune.policies.planning.plan import Plan, Terms

PARTS = ("training", "launch", "checkpoint", "startup", "idle", "rounding", "data", "standing")
"""As in a run's ledger; data: what new machines load before they can train; standing: head node and storage."""


def spending_usd(plan: Plan, terms: Terms) -> dict[str, float]:
    """USD by part; the sum is the plan's cost.

    Args:
        plan: one that starts from nothing.
        terms: what it was made under.
    """
    timings, price_per_gpu_s = terms.profile.timings, terms.usd_per_s / terms.gpus_per_instance
    parts = dict.fromkeys(PARTS, 0.0)
    for index, (stage, allocation) in enumerate(zip(plan.stages, plan.allocations, strict=True)):
        gpus, launch_s = allocation.gpus_per_trial, timings.resume_s if index else timings.launch_s
        iteration_s = terms.profile.iteration_s / terms.speedup(gpus)
        usd_per_s = stage.trials * gpus * price_per_gpu_s
        parts["training"] += usd_per_s * stage.iterations * iteration_s
        parts["launch"] += usd_per_s * launch_s
        parts["checkpoint"] += usd_per_s * timings.checkpoint_s
    held = plan.instances_per_stage
    started = sum(max(now - before, 0) for before, now in zip((0, *held[:-1]), held, strict=True))
    parts["data"] = around_usd(terms, started, 0.0)
    parts["standing"] = around_usd(terms, 0, plan.makespan_s)
    as_used = _by_the_second(terms)
    exact_usd = estimate(plan.stages, plan.allocations, as_used).cost_usd
    parts["rounding"] = plan.cost_usd - exact_usd
    if terms.is_per_instance:
        boot_s = terms.profile.startup.billed_mean_s(terms.price_book.billing)
        parts["startup"] = held_usd(terms, started * boot_s)
        parts["idle"] = exact_usd - sum(parts[name] for name in PARTS if name != "rounding")
    return parts


def _by_the_second(terms: Terms) -> Terms:
    """The same without minimum charge and rounding."""
    book = terms.price_book
    rule = msgspec.structs.replace(book.billing, granularity_s=0.0, minimum_s=0.0)
    return replace(terms, price_book=msgspec.structs.replace(book, billing=rule))
