"""Small random worlds of each way to be billed: a job that a policy takes ends with an answer, within T and B."""

from __future__ import annotations

import contextlib

import msgspec
import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from test_limits_at_the_edge import NAMED, refused
from tiny_worlds import build_world

from elastune.policies.registry import POLICIES, factory
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import BillingRule, InstanceType

BILLINGS = {
    "per function": st.builds(
        BillingRule,
        st.sampled_from([0.0, 1.0, 60.0]),
        st.sampled_from([0.0, 60.0, 600.0]),
        model=st.just("per-function"),
    ),
    "minimum": st.builds(BillingRule, st.sampled_from([0.0, 1.0]), st.sampled_from([60.0, 600.0])),
    "hourly": st.builds(BillingRule, st.just(3600.0), st.sampled_from([0.0, 3600.0]), st.booleans()),
    "by queue": st.builds(
        BillingRule, st.sampled_from([0.0, 60.0]), st.sampled_from([0.0, 60.0]), bills_queue=st.just(True)
    ),
    "spot": st.builds(BillingRule, st.sampled_from([0.0, 1.0, 600.0]), st.sampled_from([0.0, 60.0])),
    "mixed": st.builds(BillingRule, st.sampled_from([0.0, 1.0, 600.0]), st.sampled_from([0.0, 60.0])),
}


@st.composite
def worlds(draw):
    """Nothing in them is random but the scores; a machine costs 1 USD a second, unless its price changes."""
    kind = draw(st.sampled_from(sorted(BILLINGS)))
    trials, iterations = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    tau, gpus = draw(st.sampled_from([1.0, 10.0, 47.0, 300.0])), draw(st.sampled_from([1, 4]))
    tiny = build_world(
        scores=np.random.default_rng(draw(st.integers(0, 9))).random((trials, iterations)),
        tau=tau,
        timings=draw(st.sampled_from([(0.0, 0.0, 0.0), (1.0, 0.5, 2.0)])),
        startup=draw(st.sampled_from([(0.0, 0.0), (5.0, 20.0), (100.0, 50.0)])),
        gpus=gpus,
        quota=draw(st.sampled_from([1, 2, 4, 9])),
        billing=draw(BILLINGS[kind]),
        sync_s=draw(st.sampled_from([0.0, 3.0])),
        release_s=draw(st.sampled_from([0.0, 15.0])),
        market=kind if kind in ("spot", "mixed") else "on-demand",
        exact=draw(st.booleans()),
    )
    if draw(st.booleans()):
        changes_s = draw(st.floats(1.0, 60.0)) * tau
        price = PriceSeries((0.0, changes_s), (3600.0, draw(st.sampled_from([1000.0, 9000.0]))))
        machine = InstanceType("m", gpus, {**tiny.book.instance_types[0].usd_per_hour, "on-demand": price})
        tiny.book = msgspec.structs.replace(tiny.book, instance_types=(machine,))
    return tiny


def answered(play, name, tiny, deadline_s, budget_usd):
    """Run it, and check that it keeps its limits and has an answer."""
    tiny.job = msgspec.structs.replace(tiny.job, deadline_s=deadline_s, budget_usd=budget_usd)
    story = play(factory(name)(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert story.best is not None
    assert story.makespan_s <= (deadline_s or 1e9)
    assert story.bill_usd <= (budget_usd or 1e9) + 1e-9
    return story


@pytest.mark.many(fast=5)
@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=examples(25))
@given(
    tiny=worlds(),
    time=st.sampled_from([None, 1.05, 1.5, 3.0, 10.0]),
    money=st.sampled_from([0.3, 1.0, 1.01, 1.5, 4.0, 16.0]),
)
def test_a_job_that_is_taken_ends_with_an_answer(play, name, tiny, time, money):
    alone_s = tiny.job.max_iterations * tiny.profile.iteration_s
    rule = tiny.book.billing
    least_usd = max(alone_s, rule.minimum_s, rule.granularity_s)
    if rule.model == "per-function":
        least_usd /= tiny.book.default_type.gpus_per_instance
    startup_s = tiny.profile.startup.mean_s
    with contextlib.suppress(InfeasibleJobError):
        answered(play, name, tiny, time and alone_s * time + startup_s + 5.0, money * least_usd)


@pytest.mark.many(fast=5)
@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=examples(10))
@given(tiny=worlds())
def test_the_limits_that_a_refusal_names_lead_to_an_answer(play, name, tiny):
    message = refused(name, tiny, deadline_s=0.01, budget_usd=1e6 if name.endswith("naive") else 0.01)
    if message is None:
        return
    fastest_s, fastest_usd, cheapest_usd, cheapest_s = map(float, NAMED.search(message).groups())
    answered(play, name, tiny, fastest_s, fastest_usd)
    answered(play, name, tiny, cheapest_s, cheapest_usd)


@pytest.mark.parametrize("name", ["sha-fixed", "rubberband", "sha-elastic", "random-fixed"])
@pytest.mark.parametrize("model", ["per-instance", "per-function"])
def test_a_whole_number_of_quanta_is_trained_to_its_end(play, name, model):
    # One trial trains for exactly 90 s, which are 90 quanta: the margin before the budget ends must not cut the last one.
    tiny = build_world(trials=1, iterations=9, gpus=1, quota=1, billing=BillingRule(1.0, 0.0, model=model))
    message = refused(name, tiny, deadline_s=0.01, budget_usd=0.01)
    _, _, cheapest_usd, cheapest_s = map(float, NAMED.search(message).groups())
    story = answered(play, name, tiny, cheapest_s, cheapest_usd)
    assert story.state.trials[0].checkpoint_iteration == 9
    assert story.bill_usd == 90.0


@pytest.mark.parametrize("name", ["sha-fixed", "hyperband-fixed", "random-fixed"])
def test_a_fixed_cluster_needs_the_minimum_of_a_function_once(play, name):
    # One trial on all four GPUs is billed for the minimum of 600 s, 600 USD. The margin takes one more quantum at most.
    rule = BillingRule(1.0, 600.0, model="per-function")
    tiny = build_world(trials=4, iterations=9, quota=1, billing=rule, min_iterations=9)
    message = refused(name, tiny, deadline_s=None, budget_usd=0.5)
    _, _, cheapest_usd, cheapest_s = map(float, NAMED.search(message).groups())
    assert 600.0 <= cheapest_usd <= 601.0
    answered(play, name, tiny, cheapest_s, cheapest_usd)


def test_a_minimum_that_segments_have_committed_is_not_charged_to_their_gpus_again(play):
    # Four trials on four GPUs: each call costs its minimum of 600 s of a GPU, 150 USD, and trains to the end within it.
    rule = BillingRule(1.0, 600.0, model="per-function")
    tiny = build_world(trials=4, iterations=9, quota=1, billing=rule, min_iterations=9)
    story = answered(play, "random-elastic", tiny, None, 600.01)
    assert [trial.checkpoint_iteration for trial in story.state.trials] == [9, 9, 9, 9]
    assert story.bill_usd == 600.0
