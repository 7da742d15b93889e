"""What allocations in hand show without a search, the search finds: for random jobs, and for their rungs widened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from small_jobs import random_job

from elastune.policies.planning.frontier import cheapest_plan
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.planning.spaces import MOST_RELEASED
from elastune.policies.planning.witness import is_shown_by
from elastune.policies.rules.halving import explicit_stages
from elastune.policies.seer.fill import widened
from elastune.policies.seer.mechanisms import Mechanisms
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Profile, Stragglers
from elastune.sim.model.scaling import LinearScaling


def job_with_a_plan(rng, granularity_s=1.0, most_trials=6):
    """A plan with something to spare, from nothing or from machines that are held; None where none is found."""
    billing = BillingRule(granularity_s=granularity_s, minimum_s=0.0)
    stages, terms = random_job(rng, billing=billing, most_trials=most_trials, quota=(2, 4, 8))
    stragglers = Stragglers(float(rng.choice([0.0, 0.3, 0.8])), float(rng.choice([0.0, 0.4])))
    terms = replace(terms, gives_back=bool(rng.integers(4)), profile=replace(terms.profile, stragglers=stragglers))
    live = int(rng.integers(0, terms.price_book.max_instances + 1))
    state = {"live_instances": live, "is_resumed": live > 0}
    soonest = cheapest_plan(stages, terms, **state)
    terms = replace(terms, deadline_s=soonest.makespan_s * rng.uniform(0.4, 1.5))
    plan = cheapest_plan(stages, terms, **state)
    if plan is None:
        return None
    return plan, replace(terms, budget_usd=plan.needed_usd * rng.uniform(1.0, 1.5)), state


def shown(rng, **kind):
    """Whether a plan shows that rungs widened at random have one, and whether they have."""
    found = job_with_a_plan(rng, **kind)
    if found is None:
        return False, False
    plan, terms, state = found
    stages = widened(plan.stages, plan.stages[0].trials + int(rng.integers(0, 5)))
    is_shown = is_shown_by(plan.allocations, stages, terms, **state)
    return is_shown, is_shown and cheapest_plan(stages, terms, **state) is not None


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from([0.0, 1.0]), st.sampled_from([6, 20]), st.integers(0, 2**32 - 1))
def test_what_is_shown_is_found(granularity_s, most_trials, seed):
    is_shown, is_found = shown(np.random.default_rng(seed), granularity_s=granularity_s, most_trials=most_trials)
    assert is_found == is_shown


def test_much_is_shown():
    assert sum(shown(np.random.default_rng(seed))[0] for seed in range(60)) >= 10


def free_of_limits(seed=3, granularity_s=0.0):
    plan, terms, state = job_with_a_plan(np.random.default_rng(seed), granularity_s)
    return plan, replace(terms.without_limits(), gives_back=True), state


def test_nothing_is_shown_where_the_search_is_not_exact():
    plan, terms, state = free_of_limits()
    assert is_shown_by(plan.allocations, plan.stages, terms, **state)
    book = terms.price_book
    for rule in (BillingRule(3600.0, 0.0), BillingRule(1.0, 1e6), BillingRule(1.0, 0.0, model="per-function")):
        other = replace(terms, price_book=with_fields(book, billing=rule))
        assert not is_shown_by(plan.allocations, plan.stages, other, **state)
    spread = replace(terms, profile=replace(terms.profile, stragglers=Stragglers(0.3, 0.0)))
    many = replace(spread, price_book=with_fields(book, max_instances=MOST_RELEASED + 1))
    assert is_shown_by(plan.allocations, plan.stages, spread, **state)
    assert not is_shown_by(plan.allocations, plan.stages, many, **state)
    assert is_shown_by(plan.allocations, plan.stages, replace(many, gives_back=False), **state)


def test_nothing_is_shown_of_other_stages_or_to_other_solvers():
    plan, terms, state = free_of_limits()
    assert not is_shown_by(plan.allocations[1:], plan.stages, terms, **state)
    assert Mechanisms().is_shown_by(plan.allocations, plan.stages, terms, **state)
    for other in (Mechanisms(solver="greedy"), Mechanisms(elastic=False)):
        assert not other.is_shown_by(plan.allocations, plan.stages, terms, **state)


def test_some_money_is_kept_back_for_the_rounding_of_leases():
    """One trial on one machine for 100 s at 1 USD/s, 2.5 quanta of which are kept back, and 2.5 margins of 2 ms."""
    book = PriceBook((InstanceType("m", 1, {"on-demand": 3600.0}),), BillingRule(1.0, 0.0), 2)
    stages, terms = explicit_stages([(1, 10)]), Terms(Profile(10.0, LinearScaling(1)), book, 200.0)
    given = [Allocation(1, 1, 1, 1)]
    for budget_usd, is_shown in ((102.5, False), (103.5, False), (104.0, True)):
        # A run that ends 2 ms later pays for 101 s.
        assert is_shown_by(given, stages, replace(terms, budget_usd=budget_usd), live_instances=0) == is_shown


def with_fields(book, **fields):
    return type(book)(**{name: getattr(book, name) for name in book.__struct_fields__} | fields)
