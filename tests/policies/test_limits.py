from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from elastune.policies.execution.limits import Limits
from elastune.policies.registry import factory
from elastune.policies.tuners.asha import asha_on
from elastune.sim.model.events import SegmentEnded
from elastune.sim.model.prices import BillingRule
from elastune.sim.model.profile import Delay, Startup


class Watched:
    """Notes when the committed bill was highest."""

    def __init__(self, policy):
        self.policy, self.most_usd = policy, 0.0

    def on_event(self, event, view):
        self.most_usd = max(self.most_usd, view.committed_usd)
        return self.policy.on_event(event, view)


@pytest.fixture
def asha(world, play):
    """ASHA on so many machines of one GPU at 1 USD per second, whatever it was planned for, and its story."""

    def run(instances, **keywords):
        tiny = world(gpus=1, **keywords)
        policy = Watched(asha_on(instances, tiny.job, tiny.profile, tiny.book, trials=tiny.job.trials))
        story = play(policy, tiny)
        return story, policy.most_usd

    return run


def test_the_minimum_charge_of_a_replacement_counts_from_the_moment_it_is_asked_for(asha):
    # Launched at 150 s; machine 0 is lost at 250 s. Committed then: 100 + 100 USD. The replacement queues for 150 s and commits
    # 60 USD of the remaining 100 at once, so machine 1 can be held until 290 s, not 350 s; its last iteration ends at 270 s.
    story, most_usd = asha(
        2,
        trials=2,
        iterations=9,
        tau=20.0,
        startup=(150.0, 0.0),
        billing=BillingRule(0, 60),
        losses={0: 100.0},
        budget_usd=300.0,
    )
    assert story.makespan_s == 270.0
    assert most_usd <= 300.0
    assert story.bill_usd == 100 + 120


def test_a_replacement_that_cannot_be_paid_is_not_asked_for(asha):
    # Committed at the loss: 210 of 250 USD; 60 more are too many.
    story, most_usd = asha(
        2,
        trials=2,
        iterations=9,
        tau=20.0,
        startup=(150.0, 0.0),
        billing=BillingRule(0, 60),
        losses={0: 105.0},
        budget_usd=250.0,
    )
    assert [text for text in story.log if "+i2" in text] == []
    assert most_usd <= 250.0


def test_a_function_call_that_the_budget_cannot_pay_is_not_started(asha):
    # Each call of 1 s costs a minute: 60 USD. Two of them fit 150 USD.
    story, most_usd = asha(
        1, trials=9, iterations=3, tau=1.0, billing=BillingRule(60, 60, model="per-function"), budget_usd=150.0
    )
    segments = sum(isinstance(entry.event, SegmentEnded) for entry in story.entries)
    assert 1 <= segments <= 2
    assert most_usd == story.bill_usd == 60 * segments
    assert story.best is not None


def test_the_answer_is_the_best_durable_score_not_the_best_that_was_seen(world):
    # Trial 0 shows the checkpoint of trial 4, from which it goes on with another configuration: it is trial 4's alone.
    tiny = world(trials=5, budget_usd=10.0)
    trials = [
        SimpleNamespace(score=0.3, checkpoint_score=0.3, checkpoint_iteration=2, cloned_from=4),
        SimpleNamespace(score=0.1, checkpoint_score=0.5, checkpoint_iteration=2, cloned_from=None),
        SimpleNamespace(score=0.2, checkpoint_score=None, checkpoint_iteration=0, cloned_from=None),
        SimpleNamespace(score=0.3, checkpoint_score=0.3, checkpoint_iteration=1, cloned_from=None),
        SimpleNamespace(score=0.3, checkpoint_score=0.3, checkpoint_iteration=2, cloned_from=None),
    ]
    view = SimpleNamespace(trial=lambda trial: trials[trial], started_trials=lambda: [4, 3, 2, 1, 0])
    assert Limits(tiny.job, tiny.profile, tiny.book).best(view) == 3


def test_without_limits_no_timer_is_set_and_no_report_is_asked_for(asha):
    story, _ = asha(1, trials=3, iterations=3)
    assert [text for text in story.log if "hard-stop" in text or "report" in text] == []


def test_reports_are_asked_for_only_where_the_limit_may_come_first(asha):
    # Nine iterations of 10 s, believed right; they may take four times as long by T = 1000, but not by T = 150.
    story, _ = asha(1, trials=1, iterations=9, deadline_s=1000.0)
    assert not any("report" in text for text in story.log)
    story, _ = asha(1, trials=1, iterations=9, deadline_s=150.0)
    assert any("report" in text for text in story.log)


@pytest.mark.parametrize("name", ["seer", "sha-elastic", "asha-elastic", "sha-fixed", "asha-fixed"])
def test_a_budget_that_queueing_uses_up_ends_the_run_before_any_machine_comes(play, world, name):
    # 1 USD per machine and second from the request on; the queue is believed to take 5 s and takes forty minutes.
    rule = BillingRule(granularity_s=10.0, minimum_s=0.0, bills_queue=True)
    tiny = world(trials=4, startup=(5.0, 10.0), billing=rule, quota=2, budget_usd=500.0)
    tiny.cloud = replace(tiny.cloud, startup=Startup(Delay(2400.0), Delay(10.0)))
    story = play(factory(name)(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert story.best is None
    assert 400.0 < story.bill_usd <= 500.0
    assert story.makespan_s <= 500.0
