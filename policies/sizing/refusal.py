"""Refusals of parameters, and of jobs that cannot be done: they name what the rule accepts instead [ours]. Pure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from elastune.policies.planning.greedy import fastest_plan
from elastune.policies.rules.halving import Stage, rungs
from elastune.policies.rules.margin import PLAN_MARGIN_S, deadline_for_s
from elastune.sim.model.errors import InfeasibleJobError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.planning.plan import Plan, Terms
    from elastune.sim.model.job import TuningJob


def require_one_of(policy: str, name: str, value: object, allowed: Sequence[object]) -> None:
    """Accept a parameter that has one of these values.

    Raises:
        InputError: it has another value.
    """
    if value not in allowed:
        raise InputError(f"{policy}: {name} is {value!r}, but must be one of {', '.join(map(str, allowed))}")


class Possible(NamedTuple):
    """Limits under which a rule can do the job, in the whole seconds and cents that a message prints."""

    deadline_s: int
    budget_usd: float

    @classmethod
    def of(cls, end_s: float, needed_usd: float) -> Possible:
        """Limits for a plan that ends after so many seconds, and the budget that it takes."""
        return cls(math.ceil(deadline_for_s(end_s)), math.ceil(needed_usd * 100) / 100)


def infeasible(
    name: str, job: TuningJob, terms: Terms, plan_for: Callable[[Sequence[Stage], Terms], Plan | None]
) -> InfeasibleJobError:
    """The error that says what could be achieved instead, with as few configurations as the job allows.

    Args:
        name: of the policy.
        job: the tuning job.
        terms: its terms, within which the rule has no plan.
        plan_for: the rule's plan for these stages; None where it is late or too dear.
    """
    terms = terms.for_any_deadline()  # the limits that are named may end later than those that were asked for
    trials = rungs(job)[0].trials if job.exact or job.stages is not None else 1
    stages = rungs(job, trials)

    def rule(limits: Terms) -> Plan | None:
        return plan_for(stages, limits)

    cheapest = _possible(rule(terms.without_limits()), terms, rule)
    fastest = _fastest(fastest_plan(stages, terms).makespan_s, cheapest, terms, rule)
    return refusal(name, job, trials, [fastest, cheapest])


def refusal(
    name: str, job: TuningJob, trials: int, possible: Sequence[Possible], *, lacks: str = "no plan"
) -> InfeasibleJobError:
    """The error that names the limits asked for, and of those that are possible the fastest and the cheapest.

    Args:
        name: of the policy.
        job: the tuning job.
        trials: the fewest configurations that the job asks for.
        possible: limits under which so many are trained.
        lacks: what cannot do it within the limits asked for.
    """
    fastest, cheapest = min(possible), min(possible, key=lambda limits: limits[::-1])
    what = f"{lacks} trains {trials} configuration{'s' if trials > 1 else ''} to {job.max_iterations} iterations"
    asked = (
        "" if job.deadline_s is None else f"a deadline of {job.deadline_s:g} s",
        "" if job.budget_usd is None else f"a budget of {job.budget_usd:g} USD",
    )
    error = InfeasibleJobError(
        f"{name}: {what} within {' and '.join(filter(None, asked))}; the fastest takes {fastest.deadline_s} s"
        f" (for {fastest.budget_usd:.2f} USD), the cheapest costs {cheapest.budget_usd:.2f} USD"
        f" (in {cheapest.deadline_s} s)"
    )
    error.cheapest = cheapest.budget_usd, cheapest.deadline_s
    return error


def _fastest(start_s: float, cheapest: Possible, terms: Terms, rule: Callable[[Terms], Plan | None]) -> Possible:
    """The limits of the rule's plan for about the shortest deadline that it can keep, searched from a lower one."""
    deadline_s = start_s
    while deadline_s < cheapest.deadline_s:
        plan = rule(replace(terms, deadline_s=deadline_s, budget_usd=math.inf))
        if plan is not None:
            return min(_possible(plan, terms, rule), cheapest)
        deadline_s *= 1.05
    return cheapest


def _possible(plan: Plan | None, terms: Terms, rule: Callable[[Terms], Plan | None]) -> Possible:
    """Limits that this plan keeps, raised until the rule itself finds a plan within them."""
    assert plan is not None  # nothing is late or too dear without limits
    end_s, needed_usd = plan.promised_s, plan.needed_usd
    while True:
        limits = Possible.of(end_s, needed_usd)
        if rule(replace(terms, deadline_s=limits.deadline_s - PLAN_MARGIN_S, budget_usd=limits.budget_usd)) is not None:
            return limits
        end_s, needed_usd = end_s * 1.02, needed_usd * 1.02
