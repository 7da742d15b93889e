"""Frontiers where machines are given back within a stage: whatever brute force finds within T and B, they find too."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from small_jobs import assert_same_curve, brute_force, fair_space, random_job, wide_space

from elastune.policies.planning import choices, program, spaces
from elastune.policies.planning.bound import Bound, Paid, almost_least_used, least_used
from elastune.policies.planning.frontier import cheapest_by, cheapest_plan, efficient_plans, frontier
from elastune.policies.planning.held import by_instances
from elastune.policies.planning.lateness import estimator
from elastune.policies.planning.program_limits import ProgramLimits
from elastune.sim.model.prices import BillingRule
from elastune.sim.model.profile import Stragglers

SPACES = {"fair": fair_space, "wide": wide_space}


def priced_by(makespan):
    def price(stages, allocations, terms, **state):
        return estimator(stages, terms, makespan, **state)(allocations)

    return price


def refunded_job(rng, space, minimum_s):
    """A small job whose trials differ, so that machines end at different times, from nothing or from machines held."""
    many = {"stages": (1, 2, 3), "most_trials": 6, "quota": (1, 2, 3, 6)}
    few = {"stages": (1, 2), "most_trials": 5, "quota": (2, 3, 4)}
    billing = BillingRule(granularity_s=0.0, minimum_s=minimum_s)
    stages, terms = random_job(rng, billing=billing, **(many if space == "fair" else few))
    stragglers = Stragglers(float(rng.choice([0.3, 0.6, 1.0])), float(rng.choice([0.0, 0.4])))
    startup = terms.profile.startup
    startup = replace(startup, init=replace(startup.init, cv=float(rng.choice([0.0, 0.5]))))
    terms = replace(terms, gives_back=True, profile=replace(terms.profile, stragglers=stragglers, startup=startup))
    live = int(rng.integers(0, terms.price_book.max_instances + 1)) if rng.integers(2) else 0
    return stages, terms, {"live_instances": live, "is_resumed": live > 0}


@settings(max_examples=examples(150), deadline=None)
@given(
    st.sampled_from(sorted(SPACES)),
    st.sampled_from(["mean", "p95"]),
    st.sampled_from([0.0, 0.0, 0.0, 60.0, 300.0, 600.0]),
    st.integers(0, 2**32 - 1),
)
def test_what_brute_force_finds_within_any_limits_the_frontier_finds_and_none_pays_less_than_the_bound(
    space, makespan, minimum_s, seed
):
    """One test, because brute force takes all of its time."""
    rng = np.random.default_rng(seed)
    stages, terms, state = refunded_job(rng, space, minimum_s)
    every = brute_force(SPACES[space], stages, terms, price=priced_by(makespan), **state)
    bounds = [Paid(stages, terms, **state, is_whole=is_whole) for is_whole in (False, True)]
    assert all(plan.cost_usd >= max(least.usd(plan.promised_s) for least in bounds) - 1e-9 for plan in every)
    assert_same_curve(frontier(stages, terms, space=space, makespan=makespan, **state), every)
    if every:
        wanted = every[rng.integers(len(every))]
        deadline_s = rng.choice([math.inf, wanted.promised_s * (1 + 1e-9)])
        limited = replace(terms, budget_usd=wanted.needed_usd * (1 + 1e-9), deadline_s=float(deadline_s))
        kept = efficient_plans(plan for plan in every if limited.are_kept_by(plan))
        assert_same_curve(frontier(stages, limited, space=space, makespan=makespan, **state), kept)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(SPACES)),
    st.sampled_from(["mean", "p95"]),
    st.sampled_from([0.0, 0.0, 60.0]),
    st.integers(0, 2**32 - 1),
)
def test_the_cheapest_plan_is_the_last_of_the_frontier(space, makespan, minimum_s, seed):
    rng = np.random.default_rng(seed)
    stages, terms, state = refunded_job(rng, space, minimum_s)
    if rng.integers(2):
        terms = replace(terms, gives_back=False)
    every = frontier(stages, terms, space=space, makespan=makespan, **state)
    if every and rng.integers(3):
        wanted = every[rng.integers(len(every))]
        terms = replace(
            terms,
            deadline_s=wanted.promised_s + float(rng.choice([0.0, 1.0, math.inf])),
            budget_usd=wanted.needed_usd * float(rng.choice([0.999, 1.0 + 1e-9, 1.2, math.inf])),
        )
        every = frontier(stages, terms, space=space, makespan=makespan, **state)
    found = cheapest_plan(stages, terms, space=space, makespan=makespan, **state)
    assert (found is None) == (not every)
    if found is not None:
        assert found.cost_usd == pytest.approx(every[-1].cost_usd, rel=1e-9)
        assert found.promised_s == pytest.approx(every[-1].promised_s, rel=1e-9)


@pytest.mark.parametrize("space", SPACES)
def test_a_budget_that_pays_only_what_is_used_until_machines_are_given_back_finds_the_plan(space):
    """Held until the end of its stages, no plan of this job fits this budget."""
    stages, terms, state = refunded_job(np.random.default_rng(47), space, 0.0)
    cheapest = frontier(stages, terms, space=space, **state)[-1]
    held = frontier(stages, replace(terms, gives_back=False), space=space, **state)[-1]
    assert cheapest.needed_usd < 0.95 * held.needed_usd
    (*_, found) = frontier(stages, replace(terms, budget_usd=cheapest.needed_usd), space=space, **state)
    assert found.cost_usd == pytest.approx(cheapest.cost_usd)


@pytest.fixture(scope="module")
def forced():
    """Some jobs, and what brute force finds for each."""
    jobs = [refunded_job(np.random.default_rng(seed), "wide", 0.0) for seed in range(25)]
    return [(job, brute_force(wide_space, *job[:2], **job[2])) for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize(("most_released", "all_gangs"), [(1, 99), (99, 1), (1, 1), (99, 99)])
def test_where_limits_cut_a_cheaper_plan_off_plans_say_what_was_left_out(monkeypatch, forced, most_released, all_gangs):
    """The limits are lowered, so that small jobs meet them; then brute force shows what that costs."""
    for module in (spaces, choices, program):
        monkeypatch.setattr(module, "MOST_RELEASED", most_released)
    monkeypatch.setattr(spaces, "ALL_GANGS", all_gangs)
    forget_spaces()
    told = {True: set(), False: set()}
    for (stages, terms, state), every in forced:
        found = frontier(stages, terms, **state)
        told[is_dearer(found, every)] |= {plan.left_out for plan in found}
    forget_spaces()
    assert "" not in told[True]
    if most_released == all_gangs == 99:
        assert told == {True: set(), False: {""}}
    elif most_released == 1:
        assert told[True]
    else:  # the gangs that are left out saved nothing in any of these jobs
        assert told[False] > {""}


def forget_spaces():
    """What was worked out under other limits."""
    spaces.allocations_of.cache_clear()
    choices._shapes.cache_clear()


def is_dearer(found, every):
    """Whether some plan of these undercuts all of those that end as soon."""
    best = [cheapest_by(found, plan.promised_s + 1e-5) for plan in every]
    return any(
        mine is None or mine.cost_usd > plan.cost_usd * (1 + 1e-9) for mine, plan in zip(best, every, strict=True)
    )


def test_the_share_that_is_paid_falls_with_the_variance_and_that_of_a_grid_is_a_little_lower():
    variances = np.geomspace(1e-6, 3.9, 300).tolist()
    shares = [least_used(variance) for variance in variances]
    assert shares == sorted(shares, reverse=True)
    for variance, share in zip(variances, shares, strict=True):
        assert 0 <= share - almost_least_used(variance) < 2e-3
    assert least_used(4.1) < 0.2 < least_used(3.9)  # beyond what few groups tell
    assert almost_least_used(3.99) <= least_used(3.99)
    assert almost_least_used(0.0) == 1.0  # of a spread too small to square


def test_on_more_machines_than_the_limits_pay_for_nothing_can_be_taken():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        stages, terms, state = refunded_job(rng, "wide", 0.0)
        live = state["live_instances"]
        wide = [choices.choices(stage, terms, "wide", is_first=False) for stage in stages]
        limits = ProgramLimits(wide, terms, live)
        limits.set_usd(limits.least_usd * rng.uniform(1.0, 2.0))
        counts = range(1, terms.price_book.max_instances + 1)
        for index, stage in enumerate(wide):
            most_held = limits.most_held(index)
            every = by_instances(stage, terms, "wide", counts, most_held=most_held)
            paid = [held for held in counts if held <= most_held.max()]
            some = by_instances(stage, terms, "wide", paid, most_held=most_held)
            assert {held: numbers.tolist() for held, numbers in every.items()} == {
                held: numbers.tolist() for held, numbers in some.items()
            }
            for held, numbers in some.items():
                assert (most_held[numbers] >= held).all()


def test_refunds_take_plans_below_the_bound_that_knows_nothing_of_them():
    below = 0
    for seed in range(40):
        stages, terms, state = refunded_job(np.random.default_rng(seed), "wide", 0.0)
        if not state["live_instances"]:
            bound = Bound(stages, terms)
            below += any(p.cost_usd < bound.usd(p.promised_s) for p in frontier(stages, terms))
    assert below
