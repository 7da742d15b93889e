"""Frontiers of the 95th percentile of the makespan: against brute force, and its estimate against Monte Carlo."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from monte_carlo import sample
from small_jobs import (
    AS_USED,
    assert_same_curve,
    brute_force,
    fair_space,
    limited,
    random_job,
    wide_space,
)

from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.frontier import cheapest_by, frontier
from elastune.policies.planning.lateness import (
    LEVEL,
    Latenesses,
    Moments,
    growth_class,
    most_of_class,
    with_p95,
)
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import TableScaling

SPACES = {"fair": fair_space, "wide": wide_space}
PER_FUNCTION = BillingRule(granularity_s=10.0, minimum_s=30.0, model="per-function")
COARSE = BillingRule(granularity_s=60.0, minimum_s=300.0)
SMALL_GANGS = TableScaling({1: 1.0, 2: 1.7, 4: 2.55, 8: 3.1})


def late_brute_force(space, stages, terms, **state):
    latenesses = Latenesses(stages, terms)

    def priced(stages, allocations, terms, **state):
        plan = estimate(stages, allocations, terms, **state)
        return replace(plan, makespan_p95_s=latenesses.p95_s(plan, state.get("live_instances", 0)))

    return brute_force(SPACES[space], stages, terms, price=priced, **state)


def spread_job(rng, **limits):
    """A small job whose trials and machines vary, or not."""
    stages, terms = random_job(rng, **limits)
    startup = terms.profile.startup
    profile = replace(
        terms.profile,
        stragglers=Stragglers(float(rng.choice([0.0, 0.1, 0.5])), float(rng.choice([0.0, 0.3, 1.0]))),
        startup=Startup(
            replace(startup.queue, cv=float(rng.choice([0.0, 0.5]))),
            replace(startup.init, cv=float(rng.choice([0.0, 0.1, 0.8]))),
        ),
    )
    return stages, replace(terms, profile=profile)


@pytest.mark.many(fast=2)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("billing", "jobs"), [(AS_USED, 100), (PER_FUNCTION, 50), (COARSE, 30)], ids=["used", "functions", "coarse"]
)
def test_the_frontier_of_percentiles_is_that_of_brute_force(space, billing, jobs):
    rng = np.random.default_rng(jobs)
    for _ in range(jobs):
        many = {"stages": (1, 2, 3), "most_trials": 6, "quota": (1, 2, 3, 6)}
        few = {"stages": (1, 2), "most_trials": 4, "quota": (1, 2, 3)}
        stages, terms = spread_job(rng, billing=billing, **(many if space == "fair" else few))
        if rng.integers(2):
            terms = limited(stages, terms, rng, makespan="p95")
        state = {}
        if rng.integers(2):
            live = int(rng.integers(0, terms.price_book.max_instances + 1))
            state = {"live_instances": live, "is_resumed": bool(rng.integers(2))}
        found = frontier(stages, terms, space=space, makespan="p95", **state)
        assert_same_curve(found, late_brute_force(space, stages, terms, **state))
        assert all(plan.makespan_p95_s >= plan.makespan_s - 1e-9 for plan in found)


@pytest.mark.slow
def test_the_wide_frontier_of_percentiles_of_three_stages_is_that_of_brute_force():
    rng = np.random.default_rng(7)
    for _ in range(25):
        stages, terms = spread_job(rng, most_trials=4, stages=(3,), quota=(2, 3))
        terms = replace(terms, profile=replace(terms.profile, scaling=TableScaling({1: 1.0, 2: 1.6})))
        found = frontier(stages, terms, makespan="p95")
        assert_same_curve(found, late_brute_force("wide", stages, terms))


@pytest.mark.parametrize("space", SPACES)
def test_where_nothing_is_random_the_percentile_is_the_mean(space):
    rng = np.random.default_rng(8)
    for _ in range(30):
        stages, terms = random_job(rng, with_stragglers=False)
        means = frontier(stages, terms, space=space)
        late = frontier(stages, terms, space=space, makespan="p95")
        assert [plan.makespan_p95_s for plan in late] == [plan.makespan_s for plan in means]
        assert [plan.allocations for plan in late] == [plan.allocations for plan in means]


def test_a_plan_that_is_late_once_in_twenty_runs_is_not_on_the_frontier_of_a_deadline():
    stages = explicit_stages([(32, 1), (10, 3), (3, 9), (1, 37)])
    terms = replace(p3_terms(Stragglers(0.3, 0.1), 0.1), deadline_s=1800.0)
    rng = np.random.default_rng(1)
    on_time = [
        float((sample(frontier(stages, terms, makespan=makespan)[-1], terms, 8000, rng).makespan_s <= 1800.0).mean())
        for makespan in ("mean", "p95")
    ]
    assert on_time[0] < 0.75
    assert on_time[1] > 0.94


def p3_terms(stragglers, startup_cv, quota=16):
    startup = Startup(Delay(5.0), Delay(124.0, startup_cv))
    profile = Profile(60.0, SMALL_GANGS, Timings(5.0, 1.0, 5.0), startup, stragglers, 2.0)
    return Terms(profile, PriceBook((InstanceType("p3.8xlarge", 4, {"on-demand": 12.24}),), BillingRule(), quota))


JOBS = {
    "SHA(32,1,50,3)": [(32, 1), (10, 3), (3, 9), (1, 37)],
    "SHA(64,4,508,2)": [(64, 4), (32, 8), (16, 16), (8, 32), (4, 64), (2, 128), (1, 256)],
    "all survive": [(8, 10)] * 3,
}


@pytest.mark.many(fast=4)
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    "stragglers", [Stragglers(0.1), Stragglers(0.0, 0.3), Stragglers(0.3, 0.1), Stragglers(0.55)], ids=repr
)
@pytest.mark.parametrize("startup_cv", [0.0, 11.5 / 124])
def test_the_estimated_percentile_is_near_the_sampled_one_and_rather_above(job, stragglers, startup_cv):
    stages, terms = explicit_stages(JOBS[job]), p3_terms(stragglers, startup_cv)
    plans = frontier(stages, terms, makespan="p95")
    rng, errors = np.random.default_rng(0), []
    for plan in plans[:: max(1, len(plans) // 8)]:
        late_s = float(np.quantile(sample(plan, terms, 8000, rng).makespan_s, LEVEL))
        errors.append(plan.makespan_p95_s / late_s - 1)
    assert min(errors) > -0.025
    assert abs(float(np.median(errors))) < 0.08
    assert max(errors) < 0.18


def test_one_stage_without_waves_has_the_percentile_of_its_slowest_trial():
    """16 trials, each log-normal: the greatest is below x with the 16th power of the probability of one."""
    terms = p3_terms(Stragglers(0.5), 0.0)
    plan = with_p95(estimate(explicit_stages([(16, 10)]), [Allocation(16, 16, 1, 4)], terms), terms)
    variance = math.log1p(0.25)
    normal = 2.7273  # at probability .95 ** (1 / 16) = .99680
    slowest = math.exp(math.sqrt(variance) * normal - variance / 2)
    assert plan.makespan_p95_s == pytest.approx(129.0 + 5.0 + 1.0 + 600.0 * slowest, rel=1e-3)


def test_the_last_of_several_machines_is_waited_for():
    """Four machines and no stragglers: the greatest of four log-normal starts."""
    terms = p3_terms(Stragglers(), 0.5)
    plan = with_p95(estimate(explicit_stages([(16, 10)]), [Allocation(16, 16, 1, 4)], terms), terms)
    variance = math.log1p(0.25)
    normal = 2.2340  # at probability .95 ** (1 / 4) = .98726
    slowest_s = 124.0 * math.exp(math.sqrt(variance) * normal - variance / 2)
    assert plan.makespan_p95_s == pytest.approx(5.0 + slowest_s + 5.0 + 1.0 + 600.0, rel=1e-3)


def test_moments_of_the_greatest_are_those_of_draws(rng):
    one = Moments(*np.array([[10.0], [4.0], [12.0]]))
    slowest = Moments(*(moment[0] for moment in one.of_slowest(np.array([5]))))
    expected_s, late_s = (seconds[0] for seconds in one.slowest(np.array([5])))
    assert slowest.mean_s == pytest.approx(10.0 + expected_s)
    # A gamma distribution with these moments: skewness 1.5, so shape (2 / 1.5) ** 2.
    shape = (2 / 1.5) ** 2
    scale = 2.0 / math.sqrt(shape)
    drawn = (10.0 - shape * scale + rng.gamma(shape, scale, (200_000, 5))).max(axis=1)
    assert slowest.mean_s == pytest.approx(drawn.mean(), rel=0.01)
    assert math.sqrt(slowest.second_s2) == pytest.approx(drawn.std(), rel=0.05)
    assert 10.0 + late_s == pytest.approx(np.quantile(drawn, LEVEL), rel=0.01)


def test_stages_that_share_their_slow_trials_are_later_together_than_stages_that_do_not():
    stages = explicit_stages([(8, 10)] * 3)
    held = [Allocation(8, 8, 1, 4)] * 3
    lasting, fresh = (
        with_p95(estimate(stages, held, terms), terms)
        for terms in (p3_terms(Stragglers(0.3), 0.0), p3_terms(Stragglers(0.0, 0.3 * math.sqrt(10)), 0.0))
    )
    assert lasting.makespan_p95_s - lasting.makespan_s > 1.25 * (fresh.makespan_p95_s - fresh.makespan_s)


def test_new_machines_are_told_apart_by_powers_of_two():
    assert [growth_class(new) for new in (0, 1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 3, 3, 4, 4, 5]
    assert [most_of_class(growth) for growth in (1, 2, 3, 4)] == [1, 2, 4, 8]
    latenesses = Latenesses(explicit_stages([(32, 1)]), p3_terms(Stragglers(), 0.5))
    some = Allocation(32, 32, 1, 4)
    late = [latenesses.of(0, some, new) for new in (0, 1, 3, 4, 8)]
    assert late[0] == (0.0, 0.0)
    assert late[2] == late[3]
    assert late[1].shift_s < late[3].shift_s < late[4].shift_s


def test_a_percentile_frontier_answers_by_percentiles():
    stages, terms = spread_job(np.random.default_rng(2), stages=(2,))
    terms = replace(terms, profile=replace(terms.profile, stragglers=Stragglers(0.5)))
    plans = frontier(stages, terms, makespan="p95")
    assert cheapest_by(plans, plans[0].makespan_p95_s) is plans[0]
    assert cheapest_by(plans, plans[0].makespan_p95_s - 1) is None
    assert not replace(terms, deadline_s=plans[0].makespan_p95_s - 1).are_kept_by(plans[0])
