"""Plans price machines until they are given back, and the bills of runs agree with them where configurations differ in cost."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from elastune.policies.planning.estimate import given_back_s
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.registry import factory
from elastune.policies.rules.halving import Stage
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Profile, Stragglers, Timings
from elastune.sim.model.scaling import LinearScaling, PowerScaling

SPREAD = 1.0
RUNS = 16


def spread_costs(trials):
    """(trials,) seconds per iteration with mean 100 s, spread evenly over the quantiles of a log-normal."""
    normals = np.array([NormalDist().inv_cdf((place + 0.5) / trials) for place in range(trials)])
    costs = np.exp(np.sqrt(np.log1p(SPREAD**2)) * normals)
    return 100.0 * costs / costs.mean()


def bills(world, play, gpus, deadline_s):
    """The planned bill, and the mean of the bills of runs in which the costs fall to other trials."""
    rng = np.random.default_rng(7)
    costs_s = spread_costs(48)
    limits = {"deadline_s": deadline_s, "budget_usd": 1e5, "quota": 64, "gpus": gpus}
    tiny = world(trials=48, stages=((48, 2), (16, 4)), tau=100.0, scaling=PowerScaling(0.6, 8), **limits)
    tiny.profile = replace(tiny.profile, stragglers=Stragglers(persistent_cv=costs_s.std() / costs_s.mean()))
    realised_usd = []
    for _ in range(RUNS):
        tiny.truth = replace(tiny.truth, iteration_s=rng.permutation(costs_s))
        parameters = {"reserve": False, "makespan": "mean", "replan": False, "resize_rule": "never", "hard_stop": False}
        policy = factory("seer", parameters)(tiny.job, tiny.profile, tiny.book, None)
        planned_usd = policy._director.plan.cost_usd
        realised_usd.append(play(policy, tiny).bill_usd)
    return planned_usd, float(np.mean(realised_usd))


@pytest.mark.parametrize("gpus", [1, 4])
@pytest.mark.parametrize("deadline_s", [2000.0, 4000.0, 10000.0])
def test_a_planned_bill_is_the_realised_one_where_costs_are_spread(world, play, gpus, deadline_s):
    planned_usd, realised_usd = bills(world, play, gpus, deadline_s)
    assert realised_usd == pytest.approx(planned_usd, rel=0.05)


def stage_terms(gpus, cv, granularity_s=1.0):
    book = PriceBook(
        (InstanceType("m", gpus, {"on-demand": 3600.0}),), BillingRule(granularity_s=granularity_s), max_instances=64
    )
    return Terms(Profile(1.0, LinearScaling(8), Timings(), stragglers=Stragglers(persistent_cv=cv)), book)


def test_where_trials_are_equal_machines_end_together_and_nothing_is_given_back():
    assert given_back_s(Stage(8, 1, 1), Allocation(8, 8, 1, 1), 0, stage_terms(1, 0.0)) == 0.0


def test_a_machine_that_is_alone_or_kept_is_paid_until_the_stage_ends():
    terms = stage_terms(1, SPREAD)
    assert given_back_s(Stage(1, 1, 1), Allocation(1, 1, 1, 1), 0, terms) == pytest.approx(0.0, abs=0.02)
    eight = Allocation(8, 8, 1, 1)
    kept, released = (given_back_s(Stage(8, 1, 1), eight, kept, terms) for kept in (8, 0))
    # The eighth of eight ends at 2.6 times the mean, all of them together use 8 times the mean.
    assert released - kept == pytest.approx(8 * 2.6 - 8, rel=0.1)


def test_gangs_that_share_a_machine_leave_it_together():
    alone_gpu_s = given_back_s(Stage(16, 1, 1), Allocation(16, 16, 1, 1), 0, stage_terms(1, SPREAD))
    shared_gpu_s = 4 * given_back_s(Stage(16, 1, 1), Allocation(16, 16, 1, 4), 0, stage_terms(4, SPREAD))
    # A machine of four ends with the slowest of four.
    assert 0.4 * alone_gpu_s < shared_gpu_s < 0.7 * alone_gpu_s


def test_nothing_is_given_back_within_an_hour_that_is_paid_anyway():
    assert given_back_s(Stage(8, 1, 1), Allocation(8, 8, 1, 1), 0, stage_terms(1, SPREAD, 3600.0)) == 0.0
