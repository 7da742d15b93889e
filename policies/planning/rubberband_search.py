"""RubberBand's greedy search for a cheap elastic plan that ends by a deadline. Pure."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.lateness import Makespan, estimator
from elastune.policies.planning.spaces import Space, fair_levels, on_cluster
from elastune.policies.planning.static import static_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.rules.halving import Stage

    Planned = Callable[[Sequence[Allocation]], Plan]
    """The plan of these allocations."""
    PlannedAt = Callable[[Sequence[int]], Plan]
    """The plan at these levels, one per stage."""

Steps: TypeAlias = Literal["next", "all", "exact"]
"""How the cheapest plan is looked for."""

WARM_STARTS = (1, 2, 3, 4)
"""Multiples of the static optimum the descent starts from."""


def rubberband_plan(
    stages: Sequence[Stage],
    terms: Terms,
    *,
    space: Space = "fair",
    steps: Steps = "all",
    makespan: Makespan = "mean",
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Plan | None:
    """A cheap plan that ends by the deadline, never dearer than the static one of the same space; None where there is none.

    From a constant start, and from 2, 3 and 4 times its size, one stage at a time is lowered to a lower level that keeps the
    deadline and saves money, the largest saving per added second first, until none saves. The static plan itself is a
    candidate beside the outcomes.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits.
        space: `fair`, the paper's as recalled: levels are fair allocations on the machines that they need, and the start is the
            cheapest constant one; or `wide` [ours]: levels are machines held, each used as fast as uneven waves allow, new
            machines are asked for before the barrier, and the start is the static plan.
        steps: "next" considers only each stage's next lower level, as recalled of the paper; "all" every lower level, which
            does not get stuck on whole-instance plateaus [ours]; "exact" takes the cheapest plan of the space's frontier
            instead of a descent's outcome [ours].
        makespan: what must be within the deadline; see `policies.planning.frontier.frontier`.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
    """
    planned = estimator(stages, terms, makespan, live_instances=live_instances, is_resumed=is_resumed)
    static = static_plan(
        stages, terms, space=space, makespan=makespan, live_instances=live_instances, is_resumed=is_resumed
    )
    reach = 1 if steps == "next" else None
    if steps == "exact":
        plans = frontier(
            stages, terms, space=space, makespan=makespan, live_instances=live_instances, is_resumed=is_resumed
        )
    elif space == "fair":
        plans = _fair_descents(stages, terms, planned, reach)
    else:
        plans = _wide_descents(stages, terms, planned, static, reach, live_instances, is_resumed=is_resumed)
    candidates = [*plans, *([] if static is None else [static])]
    on_time = [plan for plan in candidates if plan.promised_s <= terms.deadline_s]
    return min(on_time, key=lambda plan: (plan.cost_usd, plan.promised_s), default=None)


def _fair_descents(stages: Sequence[Stage], terms: Terms, planned: Planned, reach: int | None) -> list[Plan]:
    """What the descents from the cheapest constant fair plan come to; none where no such plan is on time."""
    levels = [fair_levels(stage.trials, terms) for stage in stages]

    def planned_at(at: Sequence[int]) -> Plan:
        return planned([choices[index] for choices, index in zip(levels, at, strict=True)])

    start = _static_size(levels, planned_at, terms)
    if start is None:
        return []
    return [_descend(planned_at, _constant(levels, start * factor), terms, reach) for factor in WARM_STARTS]


def _wide_descents(
    stages: Sequence[Stage],
    terms: Terms,
    planned: Planned,
    static: Plan | None,
    reach: int | None,
    live_instances: int,
    *,
    is_resumed: bool,
) -> list[Plan]:
    """What the descents from clusters of the static plan's size and multiples of it come to."""
    if static is None:
        return []
    found = []
    most = terms.price_book.max_instances
    for size in dict.fromkeys(min(static.instances_per_stage[0] * factor, most) for factor in WARM_STARTS):
        levels = [
            _machine_levels(stage, size, terms, is_first=index == 0 and not is_resumed)
            for index, stage in enumerate(stages)
        ]
        planned_at = functools.partial(_planned_held, planned, levels, live_instances)
        found.append(_descend(planned_at, [len(choices) - 1 for choices in levels], terms, reach))
    return found


def _machine_levels(stage: Stage, size: int, terms: Terms, *, is_first: bool) -> list[Allocation]:
    """What a stage may be given on clusters of at most this size: the fastest on each that is faster than with fewer machines.

    The last holds the whole cluster, so that a stage may keep machines for a later one.
    """
    levels: list[Allocation] = []
    fastest_s = math.inf
    for count in range(terms.cluster_sizes[0], size + 1):
        option = on_cluster(stage, count, terms, is_first=is_first)
        if option.seconds < fastest_s or count == size:
            levels.append(option.allocation)
            fastest_s = option.seconds
    return levels


def _planned_held(
    planned: Planned, levels: Sequence[Sequence[Allocation]], live_instances: int, at: Sequence[int]
) -> Plan:
    """The plan at these levels; stages that grow ask for their new machines before the barrier."""
    chosen = [choices[index] for choices, index in zip(levels, at, strict=True)]
    before = [live_instances, *(allocation.instances for allocation in chosen)]
    return planned(
        [
            replace(allocation, is_prefetched=index > 0 and allocation.instances > before[index])
            for index, allocation in enumerate(chosen)
        ]
    )


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
