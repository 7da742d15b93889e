"""SEER's inner solver by greed: speed a plan up where a second costs least, until it is on time. Pure [ours]."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from policies.planning.estimate import estimate
from policies.planning.options import whole_instance_options
from policies.planning.static import plan_on_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.halving import Stage
    from policies.planning.options import Option
    from policies.planning.plan import Plan, Terms

    _PlanOf = Callable[[Sequence[int]], Plan]


def greedy_plan(
    stages: Sequence[Stage], terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
) -> Plan | None:
    """A cheap plan that ends by the deadline, the fastest where there is no budget; None where even the fastest is late.

    Each stage starts at its cheapest option; the stage in which a saved second costs least is sped up one step along its
    hull until the plan is on time. From that plan, or from the cheapest constant cluster if it is cheaper, single stages are
    changed as long as money is saved. The budget is not looked at: the caller compares the plan's cost with it.
    """
    hulls = [
        # Rungs shrink, so the machines that must be started are those of the first stage.
        whole_instance_options(
            stage,
            terms,
            is_first=index == 0 and not is_resumed,
            live_instances=live_instances if index == 0 else None,
        )
        for index, stage in enumerate(stages)
    ]

    def plan_of(at: Sequence[int]) -> Plan:
        allocations = [hull[index].allocation for hull, index in zip(hulls, at, strict=True)]
        return estimate(stages, allocations, terms, live_instances=live_instances, is_resumed=is_resumed)

    fastest = plan_of([len(hull) - 1 for hull in hulls])
    if fastest.makespan_s > terms.deadline_s:
        return None
    if math.isinf(terms.budget_usd) and math.isfinite(terms.deadline_s):
        return fastest
    plans = [_cheapest_on_walk(hulls, plan_of, terms.deadline_s, fastest)]
    if not is_resumed:
        plans += _constant_plans(stages, terms)
    best = min(plans, key=lambda plan: plan.cost_usd)
    return _descend(best, hulls, terms, live_instances=live_instances, is_resumed=is_resumed)


def _cheapest_on_walk(hulls: Sequence[list[Option]], plan_of: _PlanOf, deadline_s: float, fastest: Plan) -> Plan:
    """Walk the hulls in order of price per saved second until the plan is on time."""
    at = [0] * len(hulls)
    plan = plan_of(at)
    steps = [(_step_usd_per_s(hull, 0), stage) for stage, hull in enumerate(hulls) if len(hull) > 1]
    heapq.heapify(steps)
    while plan.makespan_s > deadline_s and steps:
        _, stage = heapq.heappop(steps)
        at[stage] += 1
        if at[stage] + 1 < len(hulls[stage]):
            heapq.heappush(steps, (_step_usd_per_s(hulls[stage], at[stage]), stage))
        plan = plan_of(at)
    return plan if plan.makespan_s <= deadline_s else fastest


def _constant_plans(stages: Sequence[Stage], terms: Terms) -> list[Plan]:
    """Constant clusters that are on time: the walk prices each stage alone, and so does not see what growing later costs."""
    plans = (plan_on_cluster(stages, count, terms) for count in range(1, terms.price_book.max_instances + 1))
    return [plan for plan in plans if plan.makespan_s <= terms.deadline_s]


def _descend(plan: Plan, hulls: Sequence[list[Option]], terms: Terms, *, live_instances: int, is_resumed: bool) -> Plan:
    """Replace one stage's allocation at a time by another of its hull as long as that is on time and saves money."""
    is_better = True
    while is_better:
        is_better = False
        for stage, hull in enumerate(hulls):
            for choice in hull:
                allocations = (*plan.allocations[:stage], choice.allocation, *plan.allocations[stage + 1 :])
                other = estimate(plan.stages, allocations, terms, live_instances=live_instances, is_resumed=is_resumed)
                if other.makespan_s <= terms.deadline_s and other.cost_usd < plan.cost_usd - 1e-9:
                    plan, is_better = other, True
    return plan


def _step_usd_per_s(hull: list[Option], index: int) -> float:
    slow, fast = hull[index], hull[index + 1]
    return (fast.usd - slow.usd) / (slow.seconds - fast.seconds)
