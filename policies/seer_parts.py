"""What both readings of SEER share: finding allocations, choosing by expected score, what is left at a barrier. Pure."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from policies.curve_prior import prior_for
from policies.planning.frontier import frontier
from policies.planning.greedy import greedy_plan
from policies.planning.plan import MARGIN_S
from sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.halving import Stage
    from policies.planning.plan import Plan, Terms
    from sim.model.profile import Profile
    from sim.model.protocols import RunView

Solver = Literal["frontier", "greedy"]


def require_one_of(policy: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """Accept a parameter that has one of these values.

    Raises:
        InputError: it has another.
    """
    if value not in allowed:
        raise InputError(f"{policy}: {name} is {value!r}, but must be one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Planner:
    """Finds the allocations of given stages."""

    solver: Solver

    def plan(
        self, stages: Sequence[Stage], terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
    ) -> Plan | None:
        """The cheapest plan by the deadline, the fastest where there is no budget; None where none keeps both."""
        if self.solver == "greedy":
            plan = greedy_plan(stages, terms, live_instances=live_instances, is_resumed=is_resumed)
            return plan if plan is not None and terms.are_kept_by(plan) else None
        plans = frontier(stages, terms, live_instances=live_instances, is_resumed=is_resumed)
        within = [plan for plan in plans if terms.are_kept_by(plan)]
        if not within:
            return None
        return within[0] if math.isinf(terms.budget_usd) and math.isfinite(terms.deadline_s) else within[-1]


def best_expected(plans: Sequence[Plan], family: str, max_iterations: int) -> Plan | None:
    """The plan whose winner has the best expected score, under a curve model fitted on other families; None of none."""
    if len(plans) < 2:
        return plans[0] if plans else None
    prior = prior_for(family)
    # Rounded, so that the last bits of a matrix product do not decide; ties go to the longer training.
    return min(
        plans,
        key=lambda plan: (
            round(prior.expected_regret(plan.stages, max_iterations), 9),
            -plan.stages[-1].until_iteration,
        ),
    )


def terms_left(terms: Terms, profile: Profile, view: RunView) -> Terms:
    """These terms with the time and the money that are left, and the profile as learned so far."""
    job = view.job
    deadline_s = math.inf if job.deadline_s is None else job.deadline_s - 2 * MARGIN_S - view.now_s
    budget_usd = math.inf if job.budget_usd is None else job.budget_usd - view.committed_usd
    return replace(terms, profile=profile, deadline_s=deadline_s, budget_usd=budget_usd)


def fastest_affordable(stages: Sequence[Stage], terms: Terms, live_instances: int) -> Plan:
    """Late whatever is done: resumed stages as fast as the budget of these terms allows."""
    # A deadline without a budget asks for the fastest plan, a budget without a deadline for the cheapest.
    hurried = replace(terms, deadline_s=sys.float_info.max, budget_usd=math.inf)
    fastest = greedy_plan(stages, hurried, live_instances=live_instances, is_resumed=True)
    cheapest = greedy_plan(stages, replace(terms, deadline_s=math.inf), live_instances=live_instances, is_resumed=True)
    assert fastest is not None  # nothing is late for that deadline
    assert cheapest is not None
    return fastest if fastest.cost_usd <= terms.budget_usd else cheapest
