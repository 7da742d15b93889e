from __future__ import annotations

import math

import pytest

from elastune.policies.execution.checkpoints import iterations_between, young_daly_s
from elastune.policies.execution.limits import Limits
from elastune.policies.execution.pools import Pools
from elastune.policies.registry import factory
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo
from elastune.sim.model.capacity import Steps
from elastune.sim.model.commands import ProvisionInstance, StartSegment
from elastune.sim.model.events import GoneCause, InstanceGone, InstanceReady, RunStarted, SegmentEnded
from elastune.sim.model.prices import InstanceType, PriceBook
from elastune.sim.model.profile import Profile, Spot, Timings
from elastune.sim.model.reclaim import Lifetimes, NodeChange, RecordedNodes
from elastune.sim.model.scaling import LinearScaling

NEVER = Spot(Lifetimes(), notice_s=0.0)


class Holder:
    """Actions for so many machines through the limits, and ends at the deadline."""

    def __init__(self, world, instances, rungs_left=None):
        self.limits = Limits(world.job, world.profile, world.book)
        self.instances, self.rungs_left = instances, rungs_left
        self.actions = []

    def on_event(self, event, view):
        limiting = self.limits.on_event(event, view)
        if isinstance(event, RunStarted):
            limiting = self.limits.scale_to(view, self.instances, rungs_left=self.rungs_left)[1]
        self.actions += [action for action in limiting if isinstance(action, ScaleTo)]
        return limiting


def asked(story):
    """Market of each machine, in the order in which they were asked for."""
    return [order.market for entry in story.entries for order in entry.commands if isinstance(order, ProvisionInstance)]


def test_what_is_refused_on_spot_is_asked_for_on_demand_for_the_same_money(world, play):
    # On demand costs four times as much as spot: of 9 spot machines one is granted, and the money of the 8 refused pays 2.
    tiny = world(
        market="spot",
        fail_over=(("m", "on-demand"),),
        capacity={("m", "spot"): Steps.constant(1)},
        spot=NEVER,
        quota=16,
        deadline_s=60.0,
        budget_usd=1e6,
    )
    holder = Holder(tiny, 9)
    story = play(holder, tiny)
    assert asked(story) == ["spot"] * 9 + ["on-demand"] * 2
    assert holder.limits.wanted_instances == 3
    # 59.999 s of one machine at 0.25 and two at 1 USD/s: a run ends a millisecond before its deadline.
    assert story.bill_usd == pytest.approx(59.999 * 2.25)


def test_without_a_budget_as_many_are_asked_for_as_were_refused(world, play):
    tiny = world(
        market="spot",
        fail_over=(("m", "on-demand"),),
        capacity={("m", "spot"): Steps.constant(1)},
        spot=NEVER,
        quota=16,
        deadline_s=60.0,
    )
    assert asked(play(Holder(tiny, 3), tiny)) == ["spot"] * 3 + ["on-demand"] * 2


def test_where_nothing_is_held_at_least_one_is_asked_for_whatever_it_costs(world, play):
    tiny = world(
        market="spot",
        fail_over=(("m", "on-demand"),),
        capacity={("m", "spot"): Steps.constant(0)},
        spot=NEVER,
        deadline_s=60.0,
        budget_usd=1e6,
    )
    assert asked(play(Holder(tiny, 2), tiny)) == ["spot", "spot", "on-demand"]


def test_where_the_list_is_at_its_end_the_run_goes_on_with_what_there_is(world, play):
    tiny = world(
        market="spot",
        fail_over=(("m", "on-demand"),),
        capacity={("m", "spot"): Steps.constant(1), ("m", "on-demand"): Steps.constant(1)},
        spot=NEVER,
        deadline_s=60.0,
    )
    holder = Holder(tiny, 4)
    story = play(holder, tiny)
    assert asked(story) == ["spot"] * 4 + ["on-demand"] * 3
    assert holder.limits.wanted_instances == 2


def test_the_dearest_machines_are_given_back_first():
    book = PriceBook(
        (InstanceType("a", 1, {"spot": 1.0, "on-demand": 4.0}), InstanceType("b", 1, {"spot": 2.0})),
        market="spot",
        fail_over=(("b", "spot"), ("a", "on-demand")),
    )
    view = held([("a", "spot"), ("a", "spot"), ("b", "spot"), ("a", "on-demand")])
    pools = Pools(book)
    pools.hold(view, 4)
    assert pools.hold(view, 2) == (ScaleTo(0, "b", "spot"), ScaleTo(0, "a", "on-demand"))


def held(pools):
    from types import SimpleNamespace

    machines = [
        SimpleNamespace(instance_type=name, market=market, status="ready", gone_at_s=math.inf) for name, market in pools
    ]
    return SimpleNamespace(instances=dict(enumerate(machines)))


def test_on_both_markets_the_last_rungs_are_trained_on_demand(world, play):
    # 9, 3 and 1 trials; the last rung's machine comes from the other market, and those of spot are given back.
    tiny = world(trials=9, market="mixed", spot=NEVER, deadline_s=1e5, exact=True, iterations=9)
    story = play(factory("sha-elastic")(tiny.job, tiny.profile, tiny.book, None), tiny)
    markets = dict(enumerate(asked(story)))
    by_stage = {}
    for entry in story.entries:
        for order in entry.commands:
            if isinstance(order, StartSegment):
                by_stage.setdefault(order.until_iteration, set()).update(
                    markets[number] for number, _ in order.placement
                )
    assert by_stage == {1: {"spot"}, 3: {"spot"}, 9: {"on-demand"}}


def test_on_both_markets_a_rule_without_stages_holds_one_machine_on_demand(world, play):
    tiny = world(market="mixed", spot=NEVER, deadline_s=60.0)
    assert sorted(asked(play(Holder(tiny, 4), tiny))) == ["on-demand", "spot", "spot", "spot"]


def test_a_budget_counts_machines_that_may_be_either_at_the_dearer_price(world, play):
    # A minimum of 60 s is 15 USD on spot and 60 USD on demand: 130 USD allow two, as either may be either.
    from elastune.sim.model.prices import BillingRule

    tiny = world(market="mixed", spot=NEVER, budget_usd=130.0, deadline_s=600.0, billing=BillingRule(minimum_s=60.0))
    story = play(Holder(tiny, 4), tiny)
    assert len(asked(story)) == 2
    assert story.bill_usd <= 130.0


def test_a_machine_that_cannot_be_paid_for_again_is_not_asked_for_and_the_others_go_on(world, play):
    # Two machines; the second goes at 50 s, when less than its minimum charge of 600 USD is left beside the other's.
    from elastune.sim.model.prices import BillingRule

    nodes = RecordedNodes(
        "test", (NodeChange(0.0, True, "a"), NodeChange(0.0, True, "b"), NodeChange(50.0, False, "b")), 1e6
    )
    tiny = world(
        market="spot",
        usd_per_hour=4 * 3600.0,
        spot=Spot(nodes, notice_s=10.0),
        budget_usd=1300.0,
        deadline_s=400.0,
        billing=BillingRule(minimum_s=600.0),
    )
    story = play(Holder(tiny, 2), tiny)
    assert len(asked(story)) == 2
    assert story.makespan_s == pytest.approx(399.999)
    gone = [
        entry.event.cause
        for entry in story.entries
        if isinstance(entry.event, InstanceGone) and entry.status == "handled"
    ]
    assert gone == [GoneCause.RELEASED]  # it was idle when its end was noticed


def test_checkpoints_follow_from_young_and_daly():
    # sqrt(2 x 2 x 100) = 20 s is 2 iterations of 10 s; on two machines sqrt(2 x 2 x 50) = 14.1 s, 8 GPUs: 11 of 1.25 s.
    assert young_daly_s(2.0, 100.0) == 20.0
    profile = Profile(10.0, LinearScaling(), Timings(checkpoint_s=2.0, rescale_s=2.0), mtbf_s=100.0)
    assert iterations_between(profile, 1, 1) == 2
    assert iterations_between(profile, 8, 2) == 11
    assert iterations_between(Profile(10.0, LinearScaling(), mtbf_s=100.0), 1, 1) == 1
    assert iterations_between(Profile(10.0, LinearScaling()), 1, 1) == 0


def test_the_interval_reaches_the_workers_where_the_job_leaves_it_open(world, play):
    def order_of(checkpoint_every):
        tiny = world(
            market="spot",
            spot=NEVER,
            timings=(0.0, 2.0, 2.0),
            mtbf_s=100.0,
            deadline_s=1e4,
            checkpoint_every=checkpoint_every,
        )
        story = play(factory("sha-elastic")(tiny.job, tiny.profile, tiny.book, None), tiny)
        return {
            order.checkpoint_every
            for entry in story.entries
            for order in entry.commands
            if isinstance(order, StartSegment)
        }

    assert order_of("auto") == {2}
    assert order_of(5) == {5}
    assert order_of(0) == {0}


def test_lost_work_is_done_again_from_the_last_checkpoint(world, play):
    # One GPU, iterations of 10 s, checkpoints of 1 s after every second one; the node goes at 57 s without notice: 5 iterations
    # are done (50 s and two checkpoints), 4 are durable. The replacement is there at once.
    nodes = RecordedNodes(
        "test", tuple(NodeChange(*c) for c in [(0.0, True, "a"), (0.0, True, "b"), (57.0, False, "a")]), 1e6
    )
    tiny = world(trials=1, market="spot", spot=Spot(nodes, 0.0), timings=(0.0, 1.0, 1.0), checkpoint_every=2, gpus=1)

    class Once:
        def on_event(self, event, _view):
            match event:
                case RunStarted():
                    return [ScaleTo(1)]
                case InstanceReady():
                    return [RunTrial(0, 1, 9)]
                case SegmentEnded(outcome="completed"):
                    return [FinishRun(0)]
            return []

    story = play(Once(), tiny)
    ends = [entry.event for entry in story.entries if isinstance(entry.event, SegmentEnded)]
    assert [(end.iteration, end.checkpoint_iteration, end.outcome) for end in ends] == [
        (5, 4, "instance_gone"),
        (9, 9, "completed"),
    ]
    # Iteration 5 took 10 s, and 57 - 50 - 2 s of the sixth were trained when the node went.
    assert [end.lost_s for end in ends] == [15.0, 0.0]
    # From iteration 4 on: 5 iterations, checkpoints after 6, 8 and 9.
    assert story.makespan_s == 57 + 5 * 10 + 3
    assert story.state.totals.iterations_trained == 5 + 5


def test_a_trial_is_paused_before_a_regular_checkpoint_makes_it_late(world, play):
    # Iterations and checkpoints of 10 s, one after every second iteration: the second ends at 20 s, would be saved
    # by 30 s, and the third be durable at 50 s. Told at 20 s, it ends there, and is durable at 30 s; the run may last 45 s.
    tiny = world(
        trials=1,
        gpus=1,
        timings=(0.0, 10.0, 10.0),
        believed_tau=3.0,
        checkpoint_every=2,
        deadline_s=45.0,
        budget_usd=1e6,
    )
    story = play(factory("sha-elastic")(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert story.best == 0
    assert story.state.trials[0].checkpoint_iteration == 2
