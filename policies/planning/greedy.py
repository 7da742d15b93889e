"""SEER's inner solver by greed: speed a plan up where a second costs least, until it is on time. Pure [ours]."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.spaces import Option, lower_hull, stage_options
from elastune.policies.planning.static import cluster_sizes, constant_plans, plan_on_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.rules.halving import Stage


def greedy_plan(
    stages: Sequence[Stage], terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
) -> Plan | None:
    """A cheap plan that ends by the deadline, the fastest where there is no budget; None where even the fastest is late.

    Under each of several caps on the machines: each stage starts at its cheapest option, and the stage in which a saved second
    costs least is sped up one step along its hull until the plan is on time. From the best of these plans, or from the
    cheapest constant cluster if that is cheaper, single stages are changed as long as money is saved. The budget is not
    looked at: the caller compares the plan's cost with it.
    """
    search = _GreedySearch(stages, terms, live_instances, is_resumed=is_resumed)
    if math.isinf(terms.budget_usd) and math.isfinite(terms.deadline_s):
        fastest = search.fastest()
        return fastest if fastest.makespan_s <= terms.deadline_s else None
    plans = [plan for plan in search.walks() if plan.makespan_s <= terms.deadline_s]
    if not plans:
        return None
    return search.descend(min(plans, key=lambda plan: plan.cost_usd))


def fastest_plan(stages: Sequence[Stage], terms: Terms) -> Plan:
    """The earliest plan that was found, whatever it costs and however late it is."""
    return _GreedySearch(stages, terms, 0, is_resumed=False).fastest()


class _GreedySearch:
    """The options of one job's stages, and plans made of them."""

    def __init__(self, stages: Sequence[Stage], terms: Terms, live_instances: int, *, is_resumed: bool) -> None:
        self._stages = tuple(stages)
        self._terms = terms
        self._live_instances = live_instances
        self._is_resumed = is_resumed
        # Under a cap no stage uses more machines than the first may, so those that must be started are the first stage's.
        self._options = [
            stage_options(
                stage,
                terms,
                is_first=index == 0 and not is_resumed,
                live_instances=live_instances if index == 0 else None,
            )
            for index, stage in enumerate(self._stages)
        ]

    def fastest(self) -> Plan:
        """The earliest plan, over the caps: more machines for a later stage cost the time to start them."""
        plans = [self._plan([hull[-1] for hull in hulls]) for hulls in self._hulls()]
        constant = [plan_on_cluster(self._stages, n, self._terms) for n in cluster_sizes(self._stages, self._terms)]
        return min(plans + ([] if self._is_resumed else constant), key=lambda plan: (plan.makespan_s, plan.cost_usd))

    def walks(self) -> Iterator[Plan]:
        """A cheap plan that is on time for each cap, or that cap's fastest."""
        for hulls in self._hulls():
            yield self._walk(hulls)
        # The walk prices each stage alone, and so does not see what a constant cluster costs in all.
        if not self._is_resumed:
            yield from constant_plans(self._stages, self._terms, lambda plan: plan.makespan_s <= self._terms.deadline_s)

    def descend(self, plan: Plan) -> Plan:
        """Replace one stage's allocation at a time by another efficient one as long as that is on time and saves money."""
        hulls = [lower_hull(options) for options in self._options]
        is_better = True
        while is_better:
            is_better = False
            for stage, hull in enumerate(hulls):
                for choice in hull:
                    allocations = (*plan.allocations[:stage], choice.allocation, *plan.allocations[stage + 1 :])
                    other = self._estimate(allocations)
                    if other.makespan_s <= self._terms.deadline_s and other.cost_usd < plan.cost_usd - 1e-9:
                        plan, is_better = other, True
        return plan

    def _hulls(self) -> Iterator[list[list[Option]]]:
        """Each stage's hull within a cap on machines: all counts up to 4, then steps of at most a half."""
        most = max(choice.allocation.instances for options in self._options for choice in options)
        caps = {count for power in range(2, most.bit_length() + 1) for count in (2**power, 3 * 2 ** (power - 1))}
        for cap in sorted({count for count in caps | {1, 2, 3} if count < most} | {most}):
            within = [[c for c in options if c.allocation.instances <= cap] for options in self._options]
            if all(within):
                yield [lower_hull(options) for options in within]

    def _walk(self, hulls: Sequence[list[Option]]) -> Plan:
        at = [0] * len(hulls)
        plan = self._plan([hull[0] for hull in hulls])
        steps = [(_step_usd_per_s(hull, 0), stage) for stage, hull in enumerate(hulls) if len(hull) > 1]
        heapq.heapify(steps)
        while plan.makespan_s > self._terms.deadline_s and steps:
            _, stage = heapq.heappop(steps)
            at[stage] += 1
            if at[stage] + 1 < len(hulls[stage]):
                heapq.heappush(steps, (_step_usd_per_s(hulls[stage], at[stage]), stage))
            plan = self._plan([hull[index] for hull, index in zip(hulls, at, strict=True)])
        return plan

    def _plan(self, choices: Sequence[Option]) -> Plan:
        return self._estimate([choice.allocation for choice in choices])

    def _estimate(self, allocations: Sequence[Allocation]) -> Plan:
        return estimate(
            self._stages,
            allocations,
            self._terms,
            live_instances=self._live_instances,
            is_resumed=self._is_resumed,
        )


def _step_usd_per_s(hull: list[Option], index: int) -> float:
    slow, fast = hull[index], hull[index + 1]
    return (fast.usd - slow.usd) / (slow.seconds - fast.seconds)
