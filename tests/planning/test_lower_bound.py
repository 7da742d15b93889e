from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from elastune.policies.planning.bound import Bound, gap_to_bound
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.planning.spaces import allocations
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import LinearScaling, TableScaling

RULES = (
    BillingRule(0.0, 0.0),
    BillingRule(1.0, 60.0),
    BillingRule(600.0, 900.0, bills_startup=False),
    BillingRule(1.0, 30.0, model="per-function"),
)


def random_terms(rng):
    points = np.maximum(np.cumsum([1.0, *rng.uniform(-0.1, 1.0, 7)]), 0.2)
    profile = Profile(
        float(rng.uniform(5, 60)),
        TableScaling({k + 1: float(s) for k, s in enumerate(points)}),
        Timings(float(rng.uniform(0, 9)), 0.5, 2.0),
        Startup(Delay(float(rng.uniform(0, 20))), Delay(float(rng.uniform(0, 90)))),
        Stragglers(float(rng.choice([0.0, 0.4])), float(rng.choice([0.0, 0.4]))),
        float(rng.choice([0.0, 3.0])),
    )
    rule = RULES[rng.integers(len(RULES))]
    machine = InstanceType("m", int(rng.choice([1, 2, 4, 8])), {"on-demand": 36.0})
    quota, release_s, ingress_usd = (
        int(rng.choice([1, 2, 5, 20])),
        float(rng.choice([0.0, 7.0])),
        rng.choice([0.0, 0.1]),
    )
    book = PriceBook((machine,), rule, quota, release_s, data_gb=1.0, ingress_usd_per_gb=float(ingress_usd))
    return Terms(profile, book)


def random_stages(rng):
    trials = np.sort(rng.integers(1, 33, rng.integers(1, 5)))[::-1]
    return explicit_stages([(int(n), int(rng.integers(1, 30))) for n in trials])


def random_plan(stages, terms, rng):
    """Any plan of the wide space, mostly bad ones."""
    picked = []
    for index, stage in enumerate(stages):
        choices = allocations(stage, terms, "wide")
        choice = choices[rng.integers(len(choices))]
        spare = int(rng.integers(0, terms.price_book.max_instances - choice.needed_instances + 1))
        picked.append(replace(choice, spare_instances=spare, is_prefetched=bool(index and rng.integers(2))))
    return estimate(stages, picked, terms)


def test_no_plan_is_below_the_bound():
    rng = np.random.default_rng(0)
    for _ in range(300):
        stages, terms = random_stages(rng), random_terms(rng)
        bound = Bound(stages, terms)
        for plan in (random_plan(stages, terms, rng) for _ in range(5)):
            assert plan.makespan_s >= bound.least_s
            assert plan.cost_usd >= bound.usd(plan.makespan_s)


def test_no_efficient_plan_is_below_the_bound():
    rng = np.random.default_rng(1)
    for _ in range(100):
        stages, terms = random_stages(rng), random_terms(rng)
        if terms.price_book.max_instances * terms.gpus_per_instance > 40 or terms.price_book.billing.granularity_s > 1:
            continue
        bound = Bound(stages, terms)
        for plan in frontier(stages, terms):
            assert plan.makespan_s >= bound.least_s
            assert plan.cost_usd >= bound.usd(plan.makespan_s)


def test_the_bound_falls_with_time_and_is_infinite_before_the_least_time():
    rng = np.random.default_rng(2)
    for _ in range(50):
        bound = Bound(random_stages(rng), random_terms(rng))
        assert math.isinf(bound.usd(bound.least_s * 0.999))
        costs = [bound.usd(bound.least_s * factor) for factor in (1.0, 1.2, 1.5, 2.0, 5.0, 50.0)]
        assert all(a >= b * (1 - 1e-9) for a, b in itertools.pairwise(costs))


def test_a_plan_that_wastes_nothing_attains_the_bound():
    book = PriceBook((InstanceType("m", 4, {"on-demand": 3600.0}),), BillingRule(0.0, 0.0), 2)
    terms = Terms(Profile(10.0, LinearScaling(4)), book)
    stages = explicit_stages([(8, 3)])
    plan = estimate(stages, [Allocation(8, 8, 1, 4)], terms)
    assert (plan.makespan_s, plan.cost_usd) == pytest.approx((30.0, 60.0))
    assert gap_to_bound(plan, terms) == pytest.approx(0.0, abs=1e-8)
    # The same work on one GPU of a machine of four: four times the price.
    lone = estimate(stages, [Allocation(8, 1, 1, 4)], terms)
    assert gap_to_bound(lone, terms) == pytest.approx(3.0)


def test_the_bound_by_hand():
    """Two stages, linear speed-up to 2: 4 x 10 s and 1 x 40 s of one GPU; machines of 1 GPU, at most 4."""
    book = PriceBook((InstanceType("m", 1, {"on-demand": 3600.0}),), BillingRule(0.0, 0.0), 4)
    profile = Profile(10.0, TableScaling({1: 1.0, 2: 1.6}), startup=Startup(Delay(3.0), Delay(5.0)), sync_s=2.0)
    bound = Bound(explicit_stages([(4, 1), (1, 4)]), Terms(profile, book))
    # Fastest: stage 0 on four GPUs 10 s; stage 1 on two of them 25 s; start 8 s, barrier 2 s.
    assert bound.least_s == pytest.approx(8 + 10 + 2 + 25)
    # Then 40 + 50 GPU-seconds, one machine through the barrier, and four machines booted.
    assert bound.usd(45.0) == pytest.approx(40 + 50 + 2 + 4 * 5, rel=1e-6)
    # 7.5 s more: stage 1 half between 25 s of 50 and 40 s of 40 GPU-seconds; stage 0 needs 40 / 17.5, so three machines.
    assert bound.usd(52.5) == pytest.approx(40 + 45 + 2 + 3 * 5, rel=1e-6)
