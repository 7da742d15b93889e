"""One or two machines, on spot at first and on demand later, all taken back at once: nobody asks for the impossible."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_worlds import build_world

from elastune.policies.registry import POLICIES, factory
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo
from elastune.sim.model.errors import InfeasibleJobError, InvalidActionError
from elastune.sim.model.profile import Spot, Stragglers
from elastune.sim.model.reclaim import Lifetimes
from elastune.sim.model.streams import Streams


def small_market(*, trials, iterations, gpus, quota, waves, share, notice_s, deadline_s, budget_usd, seed):
    rng = np.random.default_rng(seed)
    tiny = build_world(
        scores=rng.random((trials, iterations)),
        tau=60.0,
        timings=(1.0, 0.5, 2.0),
        gpus=gpus,
        usd_per_hour=1.0,
        quota=quota,
        stragglers=Stragglers(persistent_cv=0.6),
        spot=Spot(Lifetimes(bulk_per_hour=3600.0 * waves / deadline_s, bulk_share=share), notice_s),
        market="mixed",
        deadline_s=deadline_s,
        budget_usd=budget_usd,
    )
    tiny.streams = Streams(seed)
    return tiny


class Bounded:
    """Fails where a run does not come to an end."""

    def __init__(self, policy, events=5000):
        self.policy, self.left = policy, events

    def on_event(self, event, view):
        self.left -= 1
        assert self.left > 0, f"no end in sight at {event}"
        return self.policy.on_event(event, view)


markets = st.fixed_dictionaries(
    {
        "trials": st.integers(1, 6),
        "iterations": st.integers(2, 4),
        "gpus": st.sampled_from([1, 4]),
        "quota": st.integers(1, 2),
        "waves": st.sampled_from([0.0, 1.0, 5.0]),
        "share": st.sampled_from([0.5, 1.0]),
        "notice_s": st.sampled_from([0.0, 30.0]),
        "deadline_s": st.sampled_from([250.0, 400.0, 700.0]),
        "budget_usd": st.sampled_from([None, 0.05, 1.0]),
        "seed": st.integers(0, 999),
    }
)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=examples(40))
@given(market=markets)
def test_a_small_mixed_market_is_survived(play, name, market):
    tiny = small_market(**market)
    try:
        policy = factory(name)(tiny.job, tiny.profile, tiny.book, None)
    except InfeasibleJobError:
        return
    story = play(Bounded(policy), tiny)
    assert story.makespan_s <= tiny.job.deadline_s
    assert story.bill_usd <= (tiny.job.budget_usd or 1e9)


@pytest.mark.parametrize("seed", [26, 79])
def test_a_stage_that_begins_with_a_cut_keeps_the_machine_that_it_asks_for(play, seed):
    # Alone on one machine: the cut of the first rung begins the second, which is to be trained on demand.
    tiny = small_market(
        trials=2,
        iterations=2,
        gpus=1,
        quota=1,
        waves=0.0,
        share=1.0,
        notice_s=0.0,
        deadline_s=400.0,
        budget_usd=None,
        seed=seed,
    )
    story = play(factory("seer", {"reserve": True})(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert story.state.trials[story.best].checkpoint_iteration == 2


def scaled(instances, market):
    return ScaleTo(instances, "m", market)


def test_the_targets_of_one_answer_may_be_lower_in_between(simulate):
    story = simulate(
        {
            "start": [scaled(1, "spot")],
            "ready 0": [RunTrial(0, 1, 2), RunTrial(1, 4, 1)],
            # Trial 1 waits for four GPUs: no machine on spot, then one on demand.
            "ended 0": [scaled(0, "spot"), scaled(1, "on-demand")],
            "ended 1": [FinishRun(0)],
        },
        market="mixed",
        quota=1,
    )
    assert story.state.trials[1].checkpoint_iteration == 1


def test_targets_that_can_never_hold_what_waits_are_refused(simulate):
    problem = r"ScaleTo\(instances=0, .*\) at 0.0 s: trial 1 waits for 4 GPUs, which that target can never hold"
    with pytest.raises(InvalidActionError, match=problem):
        simulate(
            {
                "start": [scaled(1, "spot")],
                "ready 0": [RunTrial(0, 1, 2), RunTrial(1, 4, 1), scaled(0, "spot")],
            },
            market="mixed",
            quota=1,
        )
