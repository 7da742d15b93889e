"""The time-cost frontier: every efficient plan of a stated space at once, by a label-setting dynamic program. Pure [ours].

Cost is additive over stages given the machines held, so partial plans that hold equally many machines compare by (time, cost)
alone, and by (time, tail, cost) where the 95th percentile of the makespan counts; see `policies.planning.program`.

Exact within its space, by the closed form of `policies.planning.estimate` (and of `policies.planning.lateness`), up to the
rounding of leases to a quantum of at most `FINE_QUANTUM_S`. Coarser quanta, and a minimum charge that can bind, are handled by
`policies.planning.aged`, exactly as well unless that is too much work; `Plan.search_gap` then says how much a plan may lose.
"""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from elastune.policies.planning.aged import InexactFrontierWarning, aged_allocations
from elastune.policies.planning.bound import Bound, Paid
from elastune.policies.planning.choices import Choices, choices
from elastune.policies.planning.estimate import refunds
from elastune.policies.planning.held import holding
from elastune.policies.planning.labels import efficient_order
from elastune.policies.planning.lateness import Latenesses, Makespan, estimator
from elastune.policies.planning.plan import FINE_QUANTUM_S, Allocation, Plan, Terms
from elastune.policies.planning.program import Program
from elastune.policies.planning.spaces import MOST_COUNTS, Space, left_out
from elastune.policies.rules.margin import most_usd
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.aged_limits import AgedPlans
    from elastune.policies.planning.arrays import Ids
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.scaling import Scaling

_RISING = (1.02, 1.1, 1.3, 1.7)
"""Prices up to which the cheapest plan is looked for first, over the least that any plan can cost."""


def frontier(
    stages: Sequence[Stage],
    terms: Terms,
    *,
    space: Space = "wide",
    makespan: Makespan = "mean",
    live_instances: int = 0,
    is_resumed: bool = False,
) -> list[Plan]:
    """All efficient plans within the terms' limits, fastest and dearest first; empty where none keeps them.

    No plan of the space ends as soon and costs less. `fair`: every trial of a stage gets the same share, machines follow the
    need. `wide`: any number of gangs, uneven waves, machines held beyond the need, and new ones asked for before the barrier.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits; plans beyond deadline or budget are left out.
        space: the plan space.
        makespan: what is compared, among plans and with the deadline: the expected makespan, or its 95th percentile as
            `policies.planning.lateness` estimates it, which plans then carry as `makespan_p95_s`. Costs are expected ones.
        live_instances: machines held already, whose further time is charged and whose start is not.
        is_resumed: whether the first stage continues earlier ones.
    """
    return _Search(stages, terms, space, makespan, live_instances, is_resumed=is_resumed).plans()


def cheapest_plan(
    stages: Sequence[Stage],
    terms: Terms,
    *,
    space: Space = "wide",
    makespan: Makespan = "mean",
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Plan | None:
    """The plan of the frontier that costs least, found without most of the others; None where none keeps the limits.

    Dearer plans are left out from the start: the search begins a little above the least that any plan can cost, and goes on
    with more while it finds none.

    Args:
        stages: as of `frontier`, like all others.
        terms: profile, prices, limits.
        space: the plan space.
        makespan: what is compared with the deadline.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
    """
    search = _Search(stages, terms, space, makespan, live_instances, is_resumed=is_resumed)
    for limit_usd in search.rising_usd():
        plans = search.plans(limit_usd)
        if plans:
            return min(plans, key=lambda plan: (plan.cost_usd, plan.promised_s))
    return None


class _Search:
    """The search for the efficient plans of some stages; see `frontier`."""

    def __init__(
        self,
        stages: Sequence[Stage],
        terms: Terms,
        space: Space,
        makespan: Makespan,
        live_instances: int,
        *,
        is_resumed: bool,
    ) -> None:
        latenesses = Latenesses(stages, terms) if makespan == "p95" else None
        self._is_spread = latenesses is not None and latenesses.is_random
        self._is_thinned = self._is_spread and terms.price_book.max_instances > MOST_COUNTS
        self._terms, self._space, self._live = terms, space, live_instances
        self._stages, self._is_resumed = stages, is_resumed
        self._per_stage = [
            choices(
                stage,
                terms,
                space,
                is_first=index == 0 and not is_resumed,
                lateness_of=functools.partial(latenesses.by_growth, index) if latenesses and self._is_spread else None,
                is_thinned=self._is_thinned,
            )
            for index, stage in enumerate(stages)
        ]
        self._planned = estimator(stages, terms, makespan, live_instances=live_instances, is_resumed=is_resumed)
        self._program = None
        adds_up = not terms.is_per_instance and space == "wide" and not self._is_spread and not live_instances
        if all(self._per_stage) and not adds_up:
            self._program = Program(self._per_stage, terms, space, live_instances, is_spread=self._is_spread)

    def rising_usd(self) -> Iterator[float]:
        """Prices up to which to look for the cheapest plan, one after the other; the last is no limit."""
        if self._program is not None and not self._is_aged:
            for share in _RISING:
                if self._program.limits.least_usd * share < most_usd(self._terms.budget_usd):
                    yield self._program.limits.least_usd * share
        yield math.inf

    def plans(self, limit_usd: float = math.inf) -> list[Plan]:
        """The efficient plans that cost at most so much, but for the rounding of leases; fastest first."""
        if not all(self._per_stage):
            return []
        if self._program is None:
            plans = [self._planned(one) for one in _all_held(self._per_stage, self._terms)]
        else:
            plans = [self._planned(one) for one in self._program.solve(limit_usd)]
        said, found = self._left_out, None
        if self._is_aged:
            found = aged_allocations(self._per_stage, self._terms, self._space, self._live, plans, self._bound)
            # Its own plans first: of equal ones, the first is kept.
            plans = [*map(self._planned, found.allocations), *plans]
        plans = efficient_plans(filter(self._terms.are_kept_by, plans))
        if found is not None and found.left_out:
            plans = _with_gaps(plans, found)
            followed = "not all partial plans were followed, as this billing rule leaves too many"
            said = "; ".join(filter(None, (said, followed)))
        if self._is_thinned:
            plans = _with_bound(plans, self._bound())
        return [replace(plan, left_out=said) for plan in plans] if said else plans

    @functools.cached_property
    def _is_aged(self) -> bool:
        return _ages_matter(self._per_stage, self._terms)

    @functools.cached_property
    def _left_out(self) -> str:
        """What the search does not weigh, in words."""
        return left_out(self._stages, self._terms, self._space, is_thinned=self._is_thinned)

    def _bound(self) -> Bound | Paid:
        """What any plan costs at least."""
        if self._live or self._is_resumed or refunds(self._terms):
            return Paid(self._stages, self._terms, live_instances=self._live, is_resumed=self._is_resumed)
        return Bound(self._stages, self._terms)


def _with_bound(plans: Sequence[Plan], bound: Bound | Paid) -> list[Plan]:
    """The plans of a thinned space, which say by how much any plan may be cheaper."""

    def gap(plan: Plan) -> float:
        return max(1.0 - bound.usd(plan.promised_s) / plan.cost_usd, 0.0) if plan.cost_usd else 0.0

    return [replace(plan, search_gap=max(plan.search_gap, gap(plan))) for plan in plans]


def _with_gaps(plans: list[Plan], found: AgedPlans) -> list[Plan]:
    """The plans, which say by how much they may be too dear as the search was cut short."""
    warnings.warn(
        "frontier: this billing rule leaves too many partial plans, so that only some were followed; a plan's search_gap is the"
        " share of its price that it may lose by that; a deadline or a budget leaves fewer",
        InexactFrontierWarning,
        stacklevel=3,
    )
    return [replace(plan, search_gap=found.gap(plan)) for plan in plans]


def efficient_plans(plans: Iterable[Plan]) -> list[Plan]:
    """The plans than which none is both sooner and cheaper, fastest first."""
    listed = list(plans)
    if len(listed) < 2:
        return listed
    times_s, usd = np.array([p.promised_s for p in listed]), np.array([p.cost_usd for p in listed])
    return [listed[index] for index in efficient_order(times_s, usd)]


def cheapest_by(plans: Sequence[Plan], deadline_s: float) -> Plan | None:
    """The cheapest plan of a frontier that ends by the deadline; None where none does."""
    on_time = (plan for plan in plans if plan.promised_s <= deadline_s)
    return min(on_time, key=lambda plan: (plan.cost_usd, plan.promised_s), default=None)


def earliest_within(plans: Sequence[Plan], budget_usd: float) -> Plan | None:
    """The plan of a frontier that ends first and costs at most the budget; None where none does."""
    paid_for = (plan for plan in plans if plan.cost_usd <= most_usd(budget_usd))
    return min(paid_for, key=lambda plan: (plan.promised_s, plan.cost_usd), default=None)


def offers(
    terms: Terms,
    scalings: Mapping[str, Scaling] | None = None,
    iteration_s: Mapping[str, float] | None = None,
) -> list[Terms]:
    """The terms of each instance type in the price book, as if it were the only one.

    Args:
        terms: those of the first type; what is not given for another is taken from here.
        scalings: believed speed-up by type.
        iteration_s: mean seconds per iteration on one GPU by type.

    Raises:
        InputError: a type is named that the price book does not have.
    """
    book, profile = terms.price_book, terms.profile
    known = [instance_type.name for instance_type in book.instance_types]
    for name in (*(scalings or {}), *(iteration_s or {})):
        if name not in known:
            raise InputError(f"there is no instance type {name!r}; known: {', '.join(known)}")
    return [
        replace(
            terms,
            price_book=msgspec.structs.replace(book, instance_types=(instance_type,)),
            profile=replace(
                profile,
                scaling=(scalings or {}).get(instance_type.name, profile.scaling),
                iteration_s=(iteration_s or {}).get(instance_type.name, profile.iteration_s),
            ),
        )
        for instance_type in book.instance_types
    ]


def cheapest_of(offered: Sequence[Terms], planner: Callable[[Terms], Plan | None]) -> Plan | None:
    """The cheapest plan that the planner makes for any of the types, the soonest of equally cheap ones; None for none."""
    plans = [plan for terms in offered if (plan := planner(terms)) is not None]
    return min(plans, key=lambda plan: (plan.cost_usd, plan.promised_s), default=None)


def frontier_of(
    stages: Sequence[Stage], offered: Sequence[Terms], *, space: Space = "wide", makespan: Makespan = "mean"
) -> list[Plan]:
    """The efficient plans of all types together, fastest first; `Plan.instance_type` says which."""
    return efficient_plans(
        plan for terms in offered for plan in frontier(stages, terms, space=space, makespan=makespan)
    )


def _ages_matter(per_stage: Sequence[Choices], terms: Terms) -> bool:
    """Whether quanta are coarse, or some machine may live shorter than the minimum charge."""
    rule, profile = terms.price_book.billing, terms.profile
    if not terms.is_per_instance:
        return False
    shortest_s = min(float(stage.train_s.min()) for stage in per_stage) + terms.price_book.release_s
    shortest_s += profile.startup.billed_mean_s(rule)
    return rule.granularity_s > FINE_QUANTUM_S or rule.minimum_s > shortest_s


def _all_held(per_stage: Sequence[Choices], terms: Terms) -> list[list[Allocation]]:
    """Where idle machines are free: the most that any stage needs are held from the start, and stages add up.

    Any number; and where data is paid for, each number.
    """
    needs = {held for stage in per_stage for held in stage.instances.tolist()}
    caps = needs if terms.ingress_usd else {max(needs)}
    return [plan for cap in sorted(caps) for plan in _sums(per_stage, cap)]


def _sums(per_stage: Sequence[Choices], cap: int) -> list[list[Allocation]]:
    """The efficient sums of choices that need at most `cap` machines; none where a stage has no such choice."""
    within = [_cheaper(stage, cap) for stage in per_stage]
    if not all(map(len, within)):
        return []
    time_s, usd = np.zeros(1), np.zeros(1)
    steps: list[NDArray[np.int64]] = []
    for stage, numbers in zip(per_stage, within, strict=True):
        all_s = (time_s[:, None] + stage.train_s[numbers]).ravel()
        all_usd = (usd[:, None] + stage.usd[numbers]).ravel()
        order = efficient_order(all_s, all_usd)
        time_s, usd = all_s[order], all_usd[order]
        steps.append(order)
    found = []
    for last in range(len(time_s)):
        chosen, at = [], last
        for order, stage, numbers in zip(reversed(steps), reversed(per_stage), reversed(within), strict=True):
            at, number = divmod(int(order[at]), len(numbers))
            chosen.append(stage.allocations[numbers[number]])
        held = [max(allocation.needed_instances for allocation in chosen)] * len(chosen)
        found.append(holding(chosen[::-1], held, 0, prefetches=False))
    return found


def _cheaper(stage: Choices, most_instances: int) -> Ids:
    """Positions of those on so many machines at most that are cheaper than all faster ones."""
    there = np.flatnonzero(stage.instances <= most_instances)
    return there[efficient_order(stage.train_s[there], stage.usd[there])]
