"""Frontiers where a minimum charge or coarse quanta make the ages of machines matter."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from small_jobs import assert_same_curve, brute_force, fair_space, limited, random_job, wide_space

from elastune.experiments.plans.plan_spec import load_plan_spec, planning_profile
from elastune.policies.planning import aged
from elastune.policies.planning.frontier import cheapest_by, frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import explicit_stages, rungs
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Profile
from elastune.sim.model.scaling import LinearScaling, TableScaling

SPACES = {"fair": fair_space, "wide": wide_space}
RULES = st.builds(
    BillingRule,
    granularity_s=st.sampled_from([0.0, 60.0, 200.0, 600.0, 3600.0]),
    minimum_s=st.sampled_from([0.0, 60.0, 300.0, 600.0]),
)


def aged_job(rule, space, seed):
    """A small job under a rule that may bind, from nothing or from machines that are held."""
    rng = np.random.default_rng(seed)
    many = {"stages": (1, 2, 3), "most_trials": 6, "quota": (1, 2, 3, 6)}
    few = {"stages": (2, 3), "most_trials": 3}
    stages, terms = random_job(rng, billing=rule, **(many if space == "fair" else few))
    if len(stages) == 3 and space == "wide":
        terms = replace(terms, profile=replace(terms.profile, scaling=TableScaling({1: 1.0, 2: 1.6})))
    if rng.integers(2):
        terms = limited(stages, terms, rng)
    live = int(rng.integers(0, terms.price_book.max_instances + 1)) if rng.integers(2) else 0
    return stages, terms, {"live_instances": live, "is_resumed": live > 0}


@settings(max_examples=examples(120), deadline=None)
@given(RULES, st.sampled_from(sorted(SPACES)), st.integers(0, 2**32 - 1))
def test_frontiers_under_any_billing_rule_are_those_of_brute_force(rule, space, seed):
    stages, terms, state = aged_job(rule, space, seed)
    found = frontier(stages, terms, space=space, **state)
    assert_same_curve(found, brute_force(SPACES[space], stages, terms, **state))
    assert all(plan.search_gap == 0.0 for plan in found)


@settings(max_examples=examples(60), deadline=None)
@given(
    RULES, st.integers(0, 2**32 - 1), st.sampled_from([("MOST_STARTED", 1), ("MOST_BEGUN", 0), ("MOST_MACHINES", 0)])
)
def test_a_search_that_is_cut_short_says_how_much_it_may_have_missed(rule, seed, cap):
    stages, terms, state = aged_job(rule, "wide", seed)
    exact = frontier(stages, terms, **state)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", aged.InexactFrontierWarning)
        patch.setattr(aged, *cap)
        found = frontier(stages, terms, **state)
    for plan in found:
        best = cheapest_by(exact, plan.promised_s + 1e-6)
        assert best.cost_usd >= plan.cost_usd * (1 - plan.search_gap) - 1e-9
        assert best.cost_usd <= plan.cost_usd + 1e-9


@pytest.mark.parametrize("cap", ["MOST_STARTED", "MOST_BEGUN"])
def test_a_frontier_that_may_miss_plans_warns(monkeypatch, cap):
    monkeypatch.setattr(aged, cap, 1)
    rule = BillingRule(granularity_s=200.0, minimum_s=0.0)
    stages, terms = random_job(np.random.default_rng(0), billing=rule, stages=(3,), quota=(3,))
    with pytest.warns(aged.InexactFrontierWarning, match="only some were followed; a plan's search_gap"):
        plans = frontier(stages, terms)
    assert max(plan.search_gap for plan in plans) > 0


def test_less_comparing_finds_the_same_plans(monkeypatch):
    rule = BillingRule(granularity_s=200.0, minimum_s=300.0)
    stages, terms = random_job(np.random.default_rng(5), billing=rule, stages=(3,), quota=(3,))
    exact = frontier(stages, terms)
    monkeypatch.setattr(aged, "MOST_COMPARED", 0)
    assert_same_curve(frontier(stages, terms), exact)


PLAIN = """
job: {trials: 32, max_iterations: 27}
workload: {bundle: mnist5k-cnn, scaling: linear}
cloud: {instance_type: p3.8xlarge}
"""
SHORT_IN_LONG_QUANTA = """
job: {stages: [[1, 4], [1, 33], [1, 38], [1, 2], [1, 1], [1, 3]], deadline_s: 389.5, budget_usd: 173.4}
workload: {bundle: digits-mlp, scaling: linear, iteration_s: 4.38, straggler_cv: 0.5}
cloud:
  instance_type: {name: m, gpus_per_instance: 1, price_usd_per_hour: 31.2}
  billing: {granularity_s: 600, minimum_s: 0}
  max_instances: 16
"""


@pytest.mark.parametrize("text", [PLAIN, SHORT_IN_LONG_QUANTA], ids=["plain", "long quanta"])
@pytest.mark.parametrize("makespan", ["mean", "p95"])
def test_small_specs_are_planned_exactly_with_little_work(text, makespan, tmp_path, monkeypatch):
    # The work is counted, not timed. These counts take about a second.
    monkeypatch.setattr(aged, "MOST_STARTED", 64_000_000)
    monkeypatch.setattr(aged, "MOST_BEGUN", 250_000)
    monkeypatch.setattr(aged, "MOST_COMPARED", 12_000_000)
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    spec = load_plan_spec(path)
    job = spec.job.tuning_job("minimize")
    terms = Terms.of(job, planning_profile(spec), spec.price_book())
    plans = frontier(rungs(job), terms, makespan=makespan)
    assert plans
    assert all(plan.search_gap == 0.0 for plan in plans)


@pytest.mark.parametrize("machines", [0, 1])
def test_a_budget_that_starts_too_few_machines_for_some_stage_leaves_no_plan(machines):
    # A machine is billed for an hour at least, 3,600 USD; the second stage trains on gangs of two machines only.
    book = PriceBook((InstanceType("m", 1, {"on-demand": 3600.0}),), BillingRule(0.0, 3600.0), 4)
    terms = Terms(Profile(10.0, LinearScaling(4), min_gpus=2), book, budget_usd=machines * 3600.0 + 1.0)
    assert frontier(explicit_stages([(2, 1), (1, 2)]), terms) == []
    enough = replace(terms, budget_usd=7201.0)
    assert frontier(explicit_stages([(2, 1), (1, 2)]), enough)[0].cost_usd == 7200.0
