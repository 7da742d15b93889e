"""The frontier against brute force over the same space, on random small jobs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from policies.halving import explicit_stages
from policies.planning import aged
from policies.planning.estimate import estimate
from policies.planning.frontier import cheapest_by, earliest_within, efficient_plans, frontier
from policies.planning.plan import Allocation, Terms
from policies.planning.rubberband_search import fair_levels
from sim.model.prices import BillingRule, InstanceType, PriceBook
from sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from sim.model.scaling import TableScaling

AS_USED = BillingRule(granularity_s=0.0, minimum_s=0.0)


def random_job(rng, *, billing=AS_USED, most_trials=5, stages=(1, 2, 3), quota=(1, 2, 3), with_stragglers=True):
    """Stages and terms with nothing round in them, so that no two sums tie by chance."""
    trials = np.sort(rng.integers(1, most_trials + 1, rng.choice(stages)))[::-1]
    gpus = int(rng.choice([1, 2, 3, 4]))
    points = np.cumsum([1.0, *rng.uniform(-0.1, 1.0, 7)])
    profile = Profile(
        float(rng.uniform(5, 60)),
        TableScaling({k + 1: max(float(s), 0.2) for k, s in enumerate(points)}),
        Timings(float(rng.uniform(0, 9)), 0.5, 0.5 + float(rng.uniform(0, 9))),
        Startup(Delay(float(rng.uniform(0, 20))), Delay(float(rng.uniform(0, 90)))),
        Stragglers(float(rng.choice([0.0, 0.4])), float(rng.choice([0.0, 0.4]))) if with_stragglers else Stragglers(),
        float(rng.choice([0.0, 3.0])),
    )
    book = PriceBook(
        (InstanceType("m", gpus, {"on-demand": 3600.0}),),
        replaced(billing, bills_startup=bool(rng.integers(2))),
        int(rng.choice(quota)),
        float(rng.choice([0.0, 7.0])),
    )
    ingress = {"data_gb": 2.0, "ingress_usd_per_gb": float(rng.choice([0.0, 3.0]))}
    pairs = [(int(n), int(w)) for n, w in zip(trials, rng.integers(1, 6, len(trials)), strict=True)]
    return explicit_stages(pairs), Terms(profile, book, **ingress)


def replaced(rule, **changes):
    fields = {"granularity_s": rule.granularity_s, "minimum_s": rule.minimum_s, "model": rule.model}
    return BillingRule(**(fields | changes))


def fair_space(stage, index, terms):  # noqa: ARG001  the same for every stage
    return fair_levels(stage.trials, terms)


def wide_space(stage, index, terms):
    """Written out again: every gang that tiles machines, every number of gangs, every number held, early or not."""
    whole, quota = terms.gpus_per_instance, terms.price_book.max_instances
    for size in range(1, min(terms.profile.scaling.max_gpus, terms.max_gpus) + 1):
        rest = size % whole
        if rest and whole % rest:
            continue
        for gangs in range(1, min(stage.trials, quota * whole // size) + 1):
            need = math.ceil(gangs * size / whole)
            for held, is_early in itertools.product(range(need, quota + 1), (False, True)[: 1 + (index > 0)]):
                yield Allocation(stage.trials, gangs * size, size, whole, held - need, is_early)


def brute_force(space, stages, terms, **state):
    per_stage = [list(space(stage, index, terms)) for index, stage in enumerate(stages)]
    if not all(per_stage):
        return []
    plans = (estimate(stages, plan, terms, **state) for plan in itertools.product(*per_stage))
    return efficient_plans(plan for plan in plans if terms.are_kept_by(plan))


def assert_same_curve(found, expected):
    """Equal costs at every deadline at which either changes; a hair before and after, because sums differ by rounding."""
    for plan in (*found, *expected):
        for deadline_s in (plan.makespan_s - 1e-5, plan.makespan_s + 1e-5):
            costs = [getattr(cheapest_by(plans, deadline_s), "cost_usd", math.inf) for plans in (found, expected)]
            assert costs[0] == pytest.approx(costs[1], rel=1e-9, abs=1e-9), deadline_s


def limited(stages, terms, rng):
    """The same with a deadline and a budget somewhere on the frontier."""
    plans = frontier(stages, terms, space="fair")
    deadline_s = plans[rng.integers(len(plans))].makespan_s * 1.1 if len(plans) else math.inf
    budget_usd = plans[rng.integers(len(plans))].cost_usd * 1.1 if len(plans) else math.inf
    return replace(terms, deadline_s=deadline_s, budget_usd=budget_usd)


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
@pytest.mark.parametrize(("granularity_s", "minimum_s"), [(0.0, 600.0), (200.0, 0.0), (60.0, 300.0)])
def test_frontiers_under_a_minimum_or_coarse_quanta_are_those_of_brute_force(space, granularity_s, minimum_s):
    rng = np.random.default_rng(400)
    rule = BillingRule(granularity_s=granularity_s, minimum_s=minimum_s)
    for _ in range(20):
        stages, terms = random_job(rng, billing=rule, stages=(2, 3) if space == "fair" else (2,), most_trials=4)
        expected = brute_force(fair_space if space == "fair" else wide_space, stages, terms)
        assert_same_curve(frontier(stages, terms, space=space), expected)


@pytest.mark.parametrize("space", ["fair", "wide"])
def test_frontiers_from_machines_held_are_those_of_brute_force(space):
    rng = np.random.default_rng(500)
    for _ in range(30):
        stages, terms = random_job(rng, stages=(1, 2), most_trials=4)
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


def test_a_frontier_that_may_miss_plans_says_so(monkeypatch):
    monkeypatch.setattr(aged, "MOST_PARTIALS", 1)
    rule = BillingRule(granularity_s=200.0, minimum_s=0.0)
    stages, terms = random_job(np.random.default_rng(3), billing=rule, stages=(3,), quota=(3,))
    with pytest.warns(aged.InexactFrontierWarning, match="of which 1 are followed"):
        assert frontier(stages, terms)
