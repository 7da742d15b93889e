"""The time-cost frontier: every efficient plan of a stated space at once, by a label-setting dynamic program. Pure [ours].

Cost is additive over stages given the machines held, so partial plans that hold equally many machines compare by (time, cost)
alone, and by (time, tail, cost) where the 95th percentile of the makespan counts; see `policies.planning.program`.

Exact within its space, by the closed form of `policies.planning.estimate` (and of `policies.planning.lateness`), up to the
rounding of leases to a quantum of at most `FINE_QUANTUM_S`. Coarser quanta, and a minimum charge that can bind, are handled by
`policies.planning.aged`, exactly as well unless that is too much work; `Plan.search_gap` then says how much a plan may lose.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from elastune.policies.planning.aged import InexactFrontierWarning, aged_allocations
from elastune.policies.planning.bound import Bound, Paid
from elastune.policies.planning.estimate import refunds
from elastune.policies.planning.held import holding
from elastune.policies.planning.labels import efficient_order
from elastune.policies.planning.lateness import Latenesses, estimator
from elastune.policies.planning.plan import FINE_QUANTUM_S
from elastune.policies.planning.program import Program
from elastune.policies.planning.spaces import MOST_COUNTS, choices, left_out
from elastune.policies.rules.margin import most_usd
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.aged_limits import AgedPlans
    from elastune.policies.planning.lateness import Makespan
    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.planning.spaces import Choice, Space
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.scaling import Scaling


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
    latenesses = Latenesses(stages, terms, is_resumed=is_resumed) if makespan == "p95" else None
    if latenesses is not None and not latenesses.is_random:
        latenesses = None
    is_spread = latenesses is not None
    is_thinned = latenesses is not None and terms.price_book.max_instances > MOST_COUNTS
    per_stage = [
        choices(
            stage,
            terms,
            space,
            is_first=index == 0 and not is_resumed,
            lateness_of=functools.partial(latenesses.by_growth, index) if latenesses is not None else None,
            is_thinned=is_thinned,
        )
        for index, stage in enumerate(stages)
    ]
    if not all(per_stage):
        return []

    def bound() -> Bound | Paid:
        if live_instances or is_resumed or refunds(terms):
            return Paid(stages, terms, live_instances=live_instances, is_resumed=is_resumed)
        return Bound(stages, terms)

    planned = estimator(stages, terms, makespan, live_instances=live_instances, is_resumed=is_resumed)
    if not terms.is_per_instance and space == "wide" and not is_spread and not live_instances:
        plans = [planned(one) for one in _all_held(per_stage, terms)]
    else:
        program = Program(per_stage, terms, space, live_instances, is_spread=is_spread)
        plans = [planned(one) for one in program.solve()]
    found = None
    if _ages_matter(per_stage, terms):
        found = aged_allocations(per_stage, terms, space, live_instances, plans, bound)
        # Its own plans first: of equal ones, the first is kept.
        plans = [*map(planned, found.allocations), *plans]
    plans = efficient_plans(filter(terms.are_kept_by, plans))
    said = left_out(stages, terms, space, is_thinned=is_thinned)
    if found is not None and found.left_out:
        plans = _with_gaps(plans, found)
        said = "; ".join(
            filter(None, (said, "not all partial plans were followed, as this billing rule leaves too many"))
        )
    if is_thinned:
        plans = _with_bound(plans, bound())
    return [replace(plan, left_out=said) for plan in plans] if said else plans


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


def _ages_matter(per_stage: Sequence[Sequence[Choice]], terms: Terms) -> bool:
    """Whether quanta are coarse, or some machine may live shorter than the minimum charge."""
    rule, profile = terms.price_book.billing, terms.profile
    if not terms.is_per_instance:
        return False
    shortest_s = min(choice.train_s for stage in per_stage for choice in stage) + terms.price_book.release_s
    shortest_s += profile.startup.billed_mean_s(rule)
    return rule.granularity_s > FINE_QUANTUM_S or rule.minimum_s > shortest_s


def _all_held(per_stage: Sequence[Sequence[Choice]], terms: Terms) -> list[list[Allocation]]:
    """Where idle machines are free: the most that any stage needs are held from the start, and stages add up.

    Any number; and where data is paid for, each number.
    """
    needs = {choice.instances for stage in per_stage for choice in stage}
    caps = needs if terms.ingress_usd else {max(needs)}
    return [plan for cap in sorted(caps) for plan in _sums(per_stage, cap)]


def _sums(per_stage: Sequence[Sequence[Choice]], cap: int) -> list[list[Allocation]]:
    """The efficient sums of choices that need at most `cap` machines; none where a stage has no such choice."""
    if any(min(choice.instances for choice in stage) > cap for stage in per_stage):
        return []
    within = [_cheaper([choice for choice in stage if choice.instances <= cap]) for stage in per_stage]
    time_s, usd = np.zeros(1), np.zeros(1)
    steps: list[NDArray[np.int64]] = []
    for stage in within:
        all_s = (time_s[:, None] + [choice.train_s for choice in stage]).ravel()
        all_usd = (usd[:, None] + [choice.usd for choice in stage]).ravel()
        order = efficient_order(all_s, all_usd)
        time_s, usd = all_s[order], all_usd[order]
        steps.append(order)
    found = []
    for last in range(len(time_s)):
        chosen, at = [], last
        for order, stage in zip(reversed(steps), reversed(within), strict=True):
            at, number = divmod(int(order[at]), len(stage))
            chosen.append(stage[number])
        held = [max(choice.instances for choice in chosen)] * len(chosen)
        found.append(holding(chosen[::-1], held, 0, prefetches=False))
    return found


def _cheaper(found: Sequence[Choice]) -> list[Choice]:
    """Those cheaper than all faster ones."""
    order = efficient_order(np.array([c.train_s for c in found]), np.array([c.usd for c in found]))
    return [found[index] for index in order]
