"""RubberBand's greedy search for a cheap elastic plan that ends by a deadline. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from elastune.policies.planning.lateness import estimator
from elastune.policies.planning.plan import Allocation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.planning.lateness import Makespan
    from elastune.policies.planning.plan import Plan, Terms
    from elastune.policies.rules.halving import Stage

    PlannedAt = Callable[[Sequence[int]], Plan]
    """The plan at these levels, one per stage."""

WARM_STARTS = (1, 2, 3, 4)
"""Multiples of the static optimum the descent starts from."""


def fair_levels(trials: int, terms: Terms) -> list[Allocation]:
    """What a stage may be given when every trial gets the same share, smallest first.

    x GPUs with x mod trials = 0 (gangs of x / trials), or trials mod x = 0 (waves of trials / x at one GPU each, or at as many
    as the memory takes at least).
    """
    whole, least = terms.gpus_per_instance, terms.gang_sizes[0]
    waves = [Allocation(trials, gangs * least, least, whole) for gangs in range(1, trials) if trials % gangs == 0]
    gangs = [Allocation(trials, trials * size, size, whole) for size in terms.gang_sizes]
    return [level for level in waves + gangs if level.gpus <= terms.max_gpus]


def rubberband_plan(
    stages: Sequence[Stage],
    terms: Terms,
    *,
    steps: Literal["next", "all"] = "all",
    makespan: Makespan = "mean",
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Plan | None:
    """A cheap plan that ends by the deadline; None where no constant cluster does.

    From the cheapest constant fair plan, and from 2, 3 and 4 times its size, one stage at a time is lowered to a lower fair
    level that keeps the deadline and saves money, the largest saving per added second first, until none saves.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits.
        steps: "next" considers only each stage's next lower level, as recalled of the paper; "all" every lower level, which
            does not get stuck on whole-instance plateaus [ours].
        makespan: what must be within the deadline; see `policies.planning.frontier.frontier`.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
    """
    levels = [fair_levels(stage.trials, terms) for stage in stages]
    planned = estimator(stages, terms, makespan, live_instances=live_instances, is_resumed=is_resumed)

    def planned_at(at: Sequence[int]) -> Plan:
        return planned([choices[index] for choices, index in zip(levels, at, strict=True)])

    start = _static_size(levels, planned_at, terms)
    if start is None:
        return None
    plans = (
        _descend(planned_at, _constant(levels, start * factor), terms, 1 if steps == "next" else None)
        for factor in WARM_STARTS
    )
    on_time = [plan for plan in plans if plan.promised_s <= terms.deadline_s]
    return min(on_time, key=lambda plan: (plan.cost_usd, plan.promised_s))


def _constant(levels: list[list[Allocation]], gpus: int) -> list[int]:
    """Each stage's largest level within this many GPUs."""
    return [max(sum(level.gpus <= gpus for level in choices) - 1, 0) for choices in levels]


def _static_size(levels: list[list[Allocation]], planned_at: PlannedAt, terms: Terms) -> int | None:
    """GPUs of the cheapest constant fair plan that is on time."""
    best: tuple[float, int] | None = None
    for gpus in sorted({level.gpus for choices in levels for level in choices}):
        plan = planned_at(_constant(levels, gpus))
        if plan.promised_s <= terms.deadline_s and (best is None or plan.cost_usd < best[0]):
            best = (plan.cost_usd, gpus)
    return None if best is None else best[1]


def _descend(planned_at: PlannedAt, at: list[int], terms: Terms, reach: int | None) -> Plan:
    plan = planned_at(at)
    while True:
        best: tuple[float, list[int], Plan] | None = None
        for stage, index in enumerate(at):
            for lower in range(0 if reach is None else max(index - reach, 0), index):
                trial_at = [*at[:stage], lower, *at[stage + 1 :]]
                lowered = planned_at(trial_at)
                saved_usd = plan.cost_usd - lowered.cost_usd
                if saved_usd > 1e-9 and lowered.promised_s <= terms.deadline_s:
                    added_s = lowered.promised_s - plan.promised_s
                    merit = saved_usd / added_s if added_s > 0 else math.inf
                    if best is None or merit > best[0]:
                        best = (merit, trial_at, lowered)
        if best is None:
            return plan
        _, at, plan = best
