"""The frontier against brute force over the same space, on random small jobs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from small_jobs import AS_USED, assert_same_curve, brute_force, fair_space, limited, random_job, wide_space

from elastune.policies.planning.frontier import cheapest_by, earliest_within, frontier
from elastune.sim.model.prices import BillingRule
from elastune.sim.model.scaling import TableScaling


@pytest.mark.parametrize("block", range(5))
def test_the_fair_frontier_is_that_of_brute_force(block):
    rng = np.random.default_rng(block)
    for _ in range(60):
        stages, terms = random_job(rng, most_trials=8, quota=(2, 4, 8))
        if rng.integers(2):
            terms = limited(stages, terms, rng)
        assert_same_curve(frontier(stages, terms, space="fair"), brute_force(fair_space, stages, terms))


@pytest.mark.parametrize("block", range(5))
def test_the_wide_frontier_is_that_of_brute_force(block):
    rng = np.random.default_rng(100 + block)
    for _ in range(40):
        stages, terms = random_job(rng, stages=(1, 2), quota=(1, 2, 3))
        if rng.integers(2):
            terms = limited(stages, terms, rng)
        assert_same_curve(frontier(stages, terms), brute_force(wide_space, stages, terms))


@pytest.mark.slow
def test_the_wide_frontier_of_three_stages_is_that_of_brute_force():
    rng = np.random.default_rng(200)
    for _ in range(25):
        stages, terms = random_job(rng, most_trials=4, stages=(3,), quota=(2, 3))
        terms = replace(terms, profile=replace(terms.profile, scaling=TableScaling({1: 1.0, 2: 1.6})))
        assert_same_curve(frontier(stages, terms), brute_force(wide_space, stages, terms))


@pytest.mark.parametrize("space", ["fair", "wide"])
def test_per_function_frontiers_are_those_of_brute_force(space):
    rng = np.random.default_rng(300)
    rule = BillingRule(granularity_s=10.0, minimum_s=30.0, model="per-function")
    for _ in range(40):
        stages, terms = random_job(rng, billing=rule, stages=(1, 2), most_trials=4, quota=(1, 2, 3))
        expected = brute_force(fair_space if space == "fair" else wide_space, stages, terms)
        assert_same_curve(frontier(stages, terms, space=space), expected)


@pytest.mark.parametrize("space", ["fair", "wide"])
@pytest.mark.parametrize(
    "billing", [AS_USED, BillingRule(10.0, 30.0, model="per-function")], ids=["instance", "function"]
)
def test_frontiers_from_machines_held_are_those_of_brute_force(space, billing):
    rng = np.random.default_rng(500)
    for _ in range(30):
        stages, terms = random_job(rng, billing=billing, stages=(1, 2), most_trials=4)
        state = {"live_instances": int(rng.integers(0, terms.price_book.max_instances + 1)), "is_resumed": True}
        expected = brute_force(fair_space if space == "fair" else wide_space, stages, terms, **state)
        assert_same_curve(frontier(stages, terms, space=space, **state), expected)


def test_a_frontier_answers_for_every_deadline_and_budget():
    stages, terms = random_job(np.random.default_rng(1), stages=(3,))
    plans = frontier(stages, terms)
    assert all(a.makespan_s < b.makespan_s and a.cost_usd > b.cost_usd for a, b in itertools.pairwise(plans))
    assert cheapest_by(plans, math.inf) is plans[-1]
    assert earliest_within(plans, math.inf) is plans[0]
    assert cheapest_by(plans, plans[0].makespan_s - 1) is None
    assert earliest_within(plans, plans[-1].cost_usd - 1) is None
    assert cheapest_by(plans, plans[0].makespan_s) is plans[0]


@pytest.mark.parametrize("makespan", ["mean", "p95"])
@pytest.mark.parametrize("billing", [AS_USED, BillingRule(model="per-function")], ids=["instance", "function"])
def test_limits_leave_exactly_the_plans_that_keep_them(billing, makespan):
    rng = np.random.default_rng(600)
    for _ in range(25):
        stages, terms = random_job(rng, billing=billing, most_trials=12, stages=(2, 3, 4), quota=(3, 6, 9))
        state = {"live_instances": int(rng.integers(0, 3)), "is_resumed": bool(rng.integers(2)), "makespan": makespan}
        plans = frontier(stages, terms, **state)
        one, other = plans[rng.integers(len(plans))], plans[rng.integers(len(plans))]
        limits = replace(terms, deadline_s=one.promised_s * 1.05, budget_usd=other.cost_usd * 1.05)
        assert frontier(stages, limits, **state) == [plan for plan in plans if limits.are_kept_by(plan)]
