"""Head node, storage, data and the phases of a start-up in plans: as simulated, as sampled, and in the exact frontier."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from monte_carlo import sample
from test_estimates_and_simulation import may_start_early, outcome, random_plan, random_terms, waits_for_a_release
from test_frontier_exact import assert_same_curve, brute_force, fair_space, limited, random_job, wide_space

from elastune.policies.planning.bound import Bound
from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.spending import spending_usd
from elastune.policies.registry import factory
from elastune.policies.sizing.constant import naive_instances
from elastune.sim.model.job import TuningJob
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Stragglers

PHASES = (
    {"bills_queue": True, "bills_startup": True},
    {"bills_startup": False, "bills_setup": True},
    {"bills_startup": False},
    {"bills_startup": True},
)


def with_more(terms, rng, *, usd_per_hour):
    """The same terms with a set-up, one of the ways to bill a start-up, a head node, and data to load and keep."""
    book = terms.price_book
    rule = msgspec.structs.replace(book.billing, **PHASES[rng.integers(len(PHASES))])
    more = msgspec.structs.replace(
        book,
        billing=rule,
        data_gb=5.0,
        ingress_usd_per_gb=float(rng.choice([0.0, 0.01])) * usd_per_hour / 36,
        storage_usd_per_gb_month=float(rng.uniform(0, 200)) * usd_per_hour / 36,
        head_node_usd_per_hour=float(rng.choice([0.0, 0.5])) * usd_per_hour,
    )
    startup = replace(terms.profile.startup, setup=Delay(float(rng.uniform(1, 40))))
    job = TuningJob(1, 1, 1, deadline_s=None)
    made = Terms.of(job, replace(terms.profile, startup=startup), more)
    return replace(made, deadline_s=terms.deadline_s, budget_usd=terms.budget_usd)


def test_without_randomness_estimate_sample_and_simulation_agree_on_all_of_it():
    rng = np.random.default_rng(7)
    exact = 0
    for seed in range(200):
        terms = with_more(random_terms(rng), rng, usd_per_hour=36.0)
        plan = random_plan(rng, terms)
        if waits_for_a_release(plan, terms):
            continue
        makespan_s, usd = outcome(plan, terms, seed, stragglers=Stragglers(), startup=terms.profile.startup)
        sampled = sample(plan, terms, 2, rng)
        assert sampled.makespan_s == pytest.approx(makespan_s, rel=1e-9)
        assert sampled.cost_usd == pytest.approx(usd, rel=1e-7)
        if not may_start_early(plan, terms):
            exact += 1
            assert (makespan_s, usd) == pytest.approx((plan.makespan_s, plan.cost_usd), rel=1e-7)
        assert usd >= Bound(plan.stages, terms).usd(makespan_s)
        assert math.fsum(spending_usd(plan, terms).values()) == pytest.approx(plan.cost_usd)
    assert exact > 80


@pytest.mark.parametrize("model", ["per-instance", "per-function"])
@pytest.mark.parametrize("space", ["fair", "wide"])
def test_the_frontier_with_all_of_it_is_that_of_brute_force(space, model):
    rng = np.random.default_rng(600)
    for _ in range(25):
        rule = BillingRule(*((0.0, 0.0) if rng.integers(2) else (60.0, 300.0)), model=model)
        stages, terms = random_job(rng, billing=rule, stages=(1, 2), most_trials=4)
        terms = with_more(terms, rng, usd_per_hour=3600.0)
        if rng.integers(2):
            terms = limited(stages, terms, rng)
        expected = brute_force(fair_space if space == "fair" else wide_space, stages, terms)
        assert_same_curve(frontier(stages, terms, space=space), expected)


def test_the_naive_cluster_leaves_money_for_what_is_around_the_machines():
    # 10 USD/h each for one hour and 1 USD of data; 9 USD for head node and storage: (53 - 9) / 11 = 4 machines.
    kind = InstanceType("m", 4, {"on-demand": PriceSeries((0.0, 1800.0, 7200.0), (8.0, 10.0, 99.0))})
    book = PriceBook(
        (kind,),
        data_gb=100.0,
        ingress_usd_per_gb=0.01,
        storage_usd_per_gb_month=7.3,
        head_node_usd_per_hour=8.0,
    )
    job = TuningJob(8, 1, 9, deadline_s=3600.0, budget_usd=53.0)
    assert naive_instances("naive", job, book) == 4
    assert naive_instances("naive", msgspec.structs.replace(job, budget_usd=52.9), book) == 3


@pytest.mark.parametrize("policy", ["sha-fixed", "seer", "asha-fixed", "hyperband-fixed", "rubberband"])
def test_a_plan_takes_the_head_node_from_the_budget(policy, play, world):
    # 12 trials of 9 iterations x 10 s at 1 USD per machine-second; the head node costs a dollar a second as well.
    tiny = world(trials=12, startup=(0, 20), quota=4, deadline_s=900.0, budget_usd=700.0)
    alone = play(factory(policy)(tiny.job, tiny.profile, tiny.book, None), tiny)
    tiny.book = msgspec.structs.replace(tiny.book, head_node_usd_per_hour=3600.0)
    story = play(factory(policy)(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert story.bill_usd <= 700.0
    assert story.bill_usd > story.makespan_s
    assert story.best is not None
    # Nobody is stopped by the money: the plan was made with it.
    assert story.state.trials[story.best].checkpoint_iteration == 9
    assert alone.bill_usd <= 700.0
