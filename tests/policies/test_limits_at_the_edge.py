"""Budgets below one quantum, prices that rise after the deadline, and limits that refusals name."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_worlds import build_world

from elastune import policies
from elastune.experiments import contracts, runs
from elastune.policies.registry import POLICIES, factory
from elastune.policies.rules.margin import most_usd
from elastune.policies.tuners.asha import asha_on
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import BillingRule, InstanceType


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("billing", [BillingRule(3600.0, 0.0), BillingRule(0.0, 3600.0)])
def test_a_budget_below_the_least_bill_of_one_machine_is_refused_before_the_run(world, name, billing):
    # One machine is billed for an hour at least: 3,600 USD. Training to R takes 90 s.
    tiny = world(trials=4, iterations=9, quota=2, billing=billing, deadline_s=1000.0, budget_usd=3000.0)
    with pytest.raises(InfeasibleJobError, match=r"3[,0-9]*(600|602|610)\.\d\d USD|budget"):
        factory(name)(tiny.job, tiny.profile, tiny.book, None)


@pytest.mark.parametrize("name", POLICIES)
def test_a_price_that_rises_after_the_deadline_changes_nothing(world, play, name):
    def log(price):
        tiny = world(trials=4, iterations=9, quota=2, startup=(5.0, 20.0), deadline_s=400.0, budget_usd=1500.0)
        machine = InstanceType("m", 4, {"on-demand": price})
        tiny.book = msgspec.structs.replace(tiny.book, instance_types=(machine,))
        return play(factory(name)(tiny.job, tiny.profile, tiny.book, None), tiny).log

    assert log(PriceSeries((0.0, 7200.0), (3600.0, 1e6))) == log(3600.0)


def test_a_price_that_rises_before_the_deadline_counts(world):
    tiny = world(trials=4, iterations=9, quota=2, startup=(5.0, 20.0), deadline_s=400.0, budget_usd=1500.0)
    machine = InstanceType("m", 4, {"on-demand": PriceSeries((0.0, 300.0), (3600.0, 1e6))})
    tiny.book = msgspec.structs.replace(tiny.book, instance_types=(machine,))
    with pytest.raises(InfeasibleJobError):
        factory("seer")(tiny.job, tiny.profile, tiny.book, None)


def refused(name, tiny, **limits):
    """The message of the refusal under these limits; None where the policy takes the job."""
    job = msgspec.structs.replace(tiny.job, **limits)
    try:
        factory(name)(job, tiny.profile, tiny.book, None)
    except InfeasibleJobError as error:
        return str(error)
    return None


NAMED = re.compile(
    r"the fastest takes (\d+) s \(for (\d+\.\d\d) USD\), the cheapest costs (\d+\.\d\d) USD \(in (\d+) s\)$"
)


@pytest.mark.many(fast=5)
@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=examples(40))
@given(
    trials=st.integers(1, 6),
    iterations=st.integers(1, 12),
    tau=st.sampled_from([0.3, 10.0, 10.044]),
    exact=st.booleans(),
    quota=st.integers(1, 4),
    gpus=st.sampled_from([1, 4]),
    startup=st.sampled_from([(0.0, 0.0), (5.0, 20.0)]),
    billing=st.sampled_from([BillingRule(0.0, 0.0), BillingRule(1.0, 60.0), BillingRule(3600.0, 0.0)]),
    asked=st.sampled_from(["deadline", "budget", "both"]),
)
def test_the_limits_that_a_refusal_names_are_accepted(name, asked, **given_world):
    tiny = build_world(timings=(1.0, 0.5, 2.0), **given_world)
    naive = name.endswith("naive")
    limits = {"deadline_s": None if asked == "budget" else 0.01, "budget_usd": None if asked == "deadline" else 0.01}
    if naive:
        limits = {"deadline_s": 0.01, "budget_usd": 1e6}
    message = refused(name, tiny, **limits)
    if message is None:
        assert naive
        return
    named = NAMED.search(message)
    assert named, message
    fastest_s, fastest_usd, cheapest_usd, cheapest_s = map(float, named.groups())
    assert refused(name, tiny, deadline_s=fastest_s, budget_usd=fastest_usd) is None
    assert refused(name, tiny, deadline_s=cheapest_s, budget_usd=cheapest_usd) is None
    if not naive:
        assert refused(name, tiny, deadline_s=fastest_s, budget_usd=None) is None
        assert refused(name, tiny, deadline_s=None, budget_usd=cheapest_usd) is None


@pytest.mark.parametrize("name", ["asha-fixed", "asha-elastic", "sha-fixed"])
def test_a_run_within_the_named_budget_trains_to_the_end(play, name):
    # Nine iterations of 10 s on one GPU cost 90 USD; the margin before the budget ends costs less than a cent.
    tiny = build_world(trials=1, iterations=9, gpus=1, quota=1, budget_usd=90.0)
    assert "the cheapest costs 90.01 USD" in refused(name, tiny)
    tiny.job = msgspec.structs.replace(tiny.job, budget_usd=90.01)
    story = play(factory(name)(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert story.state.trials[0].checkpoint_iteration == 9


@pytest.mark.parametrize("name", ["sha-elastic", "rubberband", "sha-fixed"])
def test_exactly_the_budget_that_a_plan_takes_pays_for_it(world, play, name):
    rng = np.random.default_rng(13)
    for _ in range(40):
        rule = BillingRule(float(rng.choice([0.0, 0.1, 1.0, 7.0])), float(rng.choice([0.0, 1.0, 60.0])))
        tiny = world(
            trials=int(rng.integers(2, 5)),
            iterations=int(rng.integers(2, 5)),
            quota=int(rng.choice([1, 2, 4])),
            gpus=int(rng.choice([1, 2, 4])),
            tau=float(rng.uniform(0.1, 100)),
            startup=(float(rng.choice([0.0, 5.0])), float(rng.choice([0.0, 7.3]))),
            timings=(float(rng.uniform(0, 3)), 0.37, float(rng.uniform(1, 4))),
            usd_per_hour=float(rng.choice([1.0, 3.06, 3600.0])),
            billing=rule,
            exact=True,
            budget_usd=1e9,
        )
        plan = factory(name)(tiny.job, tiny.profile, tiny.book, None)._director.plan
        tiny.job = msgspec.structs.replace(tiny.job, budget_usd=plan.needed_usd)
        policy = factory(name)(tiny.job, tiny.profile, tiny.book, None)
        play(policy, tiny)
        assert policy.work.done_at_s is not None, (rule, tiny.job)


@pytest.mark.parametrize("model", ["per-function", "per-instance"])
@settings(max_examples=examples(60))
@given(trials=st.integers(1, 9), cents=st.integers(1, 99), minutes=st.integers(1, 7))
def test_a_budget_of_exactly_so_many_charges_pays_for_as_many(play, model, trials, cents, minutes):
    """Sums of prices that come to exactly B in decimals may be a little more in floats."""
    billing = BillingRule(60.0, 60.0 * minutes, model=model)
    tiny = build_world(trials=trials, gpus=1, quota=trials if model == "per-instance" else 1, billing=billing)
    machine = InstanceType("m", 1, {"on-demand": cents / 100 * 60 / minutes})
    tiny.book = msgspec.structs.replace(tiny.book, instance_types=(machine,))
    tiny.job = msgspec.structs.replace(tiny.job, max_iterations=1, budget_usd=trials * cents / 100)
    machines = tiny.book.max_instances
    story = play(asha_on(machines, tiny.job, tiny.profile, tiny.book, trials=trials), tiny)
    assert [story.state.trials[trial].checkpoint_iteration for trial in range(trials)] == [1] * trials
    assert story.bill_usd <= most_usd(tiny.job.budget_usd)


def test_every_comparison_of_a_bill_with_a_budget_allows_for_rounding():
    folders = (Path(policies.__file__).parent, Path(runs.__file__).parent, Path(contracts.__file__).parent)
    compared = re.compile(r"(<=?|>=?) (self\.)?_?(terms\.|job\.)?budget_usd")
    sources = (path for folder in folders for path in folder.rglob("*.py"))
    offenders = [path.name for path in sources if compared.search(path.read_text(encoding="utf-8"))]
    assert offenders == []
