"""Planning with several instance types to choose from: one type per plan. Pure [ours]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from elastune.policies.planning.frontier import efficient_plans, frontier
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.policies.planning.lateness import Makespan
    from elastune.policies.planning.plan import Plan, Terms
    from elastune.policies.planning.spaces import Space
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.scaling import Scaling


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
