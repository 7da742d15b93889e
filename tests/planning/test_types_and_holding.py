from __future__ import annotations

import math
from dataclasses import replace

import pytest
from monte_carlo import sample
from slowest import slowest_normals

from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.frontier import cheapest_by, cheapest_of, frontier, frontier_of, offers
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.planning.spread import ShiftedLogNormal, iteration_mean, trial_factor
from elastune.policies.planning.static import naive_plan, static_plan
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.model.errors import InputError
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import LinearScaling, TableScaling

AS_USED = BillingRule(granularity_s=0.0, minimum_s=0.0)


def terms_of(*, gpus=1, quota=8, startup=(0.0, 0.0), billing=AS_USED, scaling=None, sync_s=0.0, **more):
    """1 USD per machine and second, iterations of 10 s."""
    book = PriceBook((InstanceType("m", gpus, {"on-demand": 3600.0}),), billing, quota, **more)
    profile = Profile(10.0, scaling or LinearScaling(1), startup=Startup(*map(Delay, startup)), sync_s=sync_s)
    return Terms(profile, book)


def test_uneven_waves_are_cheaper_than_a_fair_share():
    """Ten trials on machines of four: three waves on one machine; fair shares are 2 GPUs, 5 on two machines, 10 on three."""
    terms, stages = terms_of(gpus=4, startup=(0.0, 10.0)), explicit_stages([(10, 1)])
    assert frontier(stages, terms)[-1].cost_usd == pytest.approx(10 + 30)
    assert frontier(stages, terms, space="fair")[-1].cost_usd == pytest.approx(
        min(10 + 50, 2 * (10 + 20), 3 * (10 + 10))
    )


def test_machines_are_held_through_a_dip_where_starting_anew_costs_more():
    stages = explicit_stages([(4, 10), (1, 1), (1, 20)])
    terms = terms_of(gpus=1, startup=(0.0, 60.0), scaling=TableScaling({1: 1.0, 4: 4.0}))
    # The second stage at one GPU takes 10 s; keeping three more machines for it costs 30, booting them again 180.
    held = estimate(stages, [Allocation(4, 4, 1, 1), Allocation(1, 1, 1, 1, 3), Allocation(1, 4, 4, 1)], terms)
    assert held.instances_per_stage == (4, 4, 4)
    assert held.cost_usd == pytest.approx(4 * (60 + 100 + 10 + 50))
    anew = estimate(stages, [Allocation(4, 4, 1, 1), Allocation(1, 1, 1, 1), Allocation(1, 4, 4, 1)], terms)
    assert anew.cost_usd == pytest.approx(4 * 160 + 10 + (60 + 50) + 3 * (60 + 50))
    best = cheapest_by(frontier(stages, terms), held.makespan_s)
    assert best.cost_usd <= held.cost_usd


def test_prefetching_hides_a_start_behind_the_stage_before():
    stages = explicit_stages([(1, 10), (1, 10)])
    terms = terms_of(startup=(5.0, 30.0), scaling=TableScaling({1: 1.0, 2: 2.0}))
    later = [Allocation(1, 1, 1, 1), Allocation(1, 2, 2, 1)]
    late = estimate(stages, later, terms)
    early = estimate(stages, [later[0], replace(later[1], is_prefetched=True)], terms)
    assert (late.makespan_s, late.cost_usd) == pytest.approx((35 + 100 + 35 + 50, 30 + 100 + 35 + 50 + 30 + 50))
    # Asked for 35 s before the barrier at 135 s: nobody waits, and the first machine is not paid for idling.
    assert (early.makespan_s, early.cost_usd) == pytest.approx((35 + 100 + 50, 30 + 100 + 50 + 30 + 50))
    assert early.prefetch_after_s == (pytest.approx(100.0), None)
    with pytest.raises(InputError, match="first stage cannot be asked for"):
        estimate(stages, [replace(later[0], is_prefetched=True), later[1]], terms)


def test_a_prefetch_reaches_back_no_further_than_the_training_before_it():
    stages = explicit_stages([(1, 1), (1, 10)])
    terms = terms_of(startup=(0.0, 30.0), scaling=TableScaling({1: 1.0, 2: 2.0}))
    plan = estimate(stages, [Allocation(1, 1, 1, 1), Allocation(1, 2, 2, 1, is_prefetched=True)], terms)
    assert plan.stage_s == pytest.approx((40.0, 20.0 + 50.0))


def test_data_is_paid_for_by_every_new_machine():
    terms = terms_of(quota=4, data_gb=3.0, ingress_usd_per_gb=2.0)
    plan = naive_plan(explicit_stages([(4, 1), (1, 1)]), terms, 1)
    assert plan.cost_usd == pytest.approx(4 * 10 + 10 + 4 * 6)
    assert sample(plan, terms, 1, None).cost_usd == pytest.approx(plan.cost_usd)


def test_planners_pick_the_instance_type():
    slow = InstanceType("slow", 1, {"on-demand": 360.0})
    fast = InstanceType("fast", 4, {"on-demand": 7200.0})
    terms = Terms(Profile(10.0, LinearScaling(4)), PriceBook((slow, fast), AS_USED, 2))
    stages = explicit_stages([(8, 6)])
    offered = offers(terms, scalings={"slow": LinearScaling(1)}, iteration_s={"fast": 4.0})
    assert [one.instance_type for one in offered] == ["slow", "fast"]
    merged = frontier_of(stages, offered)
    assert {plan.instance_type for plan in merged} == {"slow", "fast"}
    assert merged[0].instance_type == "fast"
    assert merged[-1].instance_type == "slow"
    cheapest = cheapest_of(offered, lambda one: static_plan(stages, one))
    assert (cheapest.instance_type, cheapest.cost_usd) == ("slow", pytest.approx(48.0))
    hurried = [replace(one, deadline_s=100.0) for one in offered]
    assert cheapest_of(hurried, lambda one: static_plan(stages, one)).instance_type == "fast"
    with pytest.raises(InputError, match="no instance type 'slwo'"):
        offers(terms, scalings={"slwo": LinearScaling(1)})


def test_nothing_is_planned_where_no_gang_fits():
    assert naive_plan(explicit_stages([(2, 1)]), terms_of(), 2) is None
    assert frontier(explicit_stages([(2, 1)]), replace(terms_of(), deadline_s=5.0)) == []


@pytest.mark.slow
def test_fitted_spreads_have_the_moments_of_what_they_stand_for(rng):
    for cv, iterations in ((0.1, 1), (0.5, 4), (1.0, 16)):
        draws = rng.lognormal(-math.log1p(cv**2) / 2, math.sqrt(math.log1p(cv**2)), (200_000, iterations)).mean(axis=1)
        fitted = iteration_mean(cv, iterations).at(rng.standard_normal(200_000))
        assert fitted.mean() == pytest.approx(1.0, rel=0.01)
        assert fitted.std() == pytest.approx(draws.std(), rel=0.03)
        for level in (0.05, 0.5, 0.95, 0.99):
            ours, theirs = (sorted(values)[int(level * len(values))] for values in (fitted, draws))
            assert ours == pytest.approx(theirs, rel=0.03)
    assert ShiftedLogNormal.of_moments(0.0, 0.0).at(rng.standard_normal(3)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("stragglers", [Stragglers(0.5, 0.0), Stragglers(0.0, 0.5), Stragglers(0.4, 0.3)])
def test_the_slowest_of_a_stage_is_that_of_a_draw_per_trial(rng, stragglers):
    factor = trial_factor(stragglers, 4)
    slowest = factor.at(slowest_normals([30, 10, 1], [0.5] * 3, 40_000, rng))
    drawn = factor.at(rng.standard_normal((40_000, 30)))
    for stage, trials in enumerate((30, 10, 1)):
        maximum = drawn[:, :trials].max(axis=1)
        assert slowest[:, stage].mean() == pytest.approx(maximum.mean(), rel=0.02)
        assert slowest[:, stage].std() == pytest.approx(maximum.std(), rel=0.05)


def test_slowness_that_stays_with_a_trial_ties_stages_together(rng):
    """All survive: with lasting slowness their maximum is the same in both stages, otherwise they have nothing in common."""
    lasting = slowest_normals([20, 20], [1.0, 1.0], 2000, rng)
    assert lasting[:, 0] == pytest.approx(lasting[:, 1], abs=1e-6)
    fresh = slowest_normals([20, 20], [0.0, 0.0], 2000, rng)
    assert abs(float(((fresh[:, 0] - fresh[:, 0].mean()) * (fresh[:, 1] - fresh[:, 1].mean())).mean())) < 0.05


def test_timings_of_resumed_trials_are_those_of_a_restart():
    terms = replace(terms_of(), profile=Profile(10.0, LinearScaling(1), Timings(7.0, 1.0, 4.0)))
    plan = estimate(explicit_stages([(1, 1), (1, 1)]), [Allocation(1, 1, 1, 1)] * 2, terms)
    assert plan.stage_s == pytest.approx((7 + 10 + 1, 3 + 10 + 1))
