"""Random worlds and random policies: what must hold whatever happens."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_worlds import build_world

from policies.registry import POLICIES, factory
from sim.billing import Bill
from sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer, StopTrial
from sim.model.commands import EndSegment, ProvisionInstance, ReleaseInstance, StartSegment
from sim.model.errors import InfeasibleJobError
from sim.model.events import (
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    RunStarted,
    SegmentEnded,
    TimerFired,
)
from sim.model.node_scaling import AllReduceScaling, Link
from sim.model.prices import BillingRule, InstanceType, PriceBook
from sim.model.profile import CloudTruth, Delay, Faults, GroundTruth, Profile, Startup, Stragglers, Timings
from sim.model.protocols import TrialStatus
from sim.model.scaling import LinearScaling, PowerScaling
from sim.streams import Streams


class RandomPolicy:
    """Wishes at random for what is possible, on every fact, and finishes after a while."""

    def __init__(self, job, book, seed, facts=60):
        self.rng = np.random.default_rng(seed)
        self.job, self.book, self.left = job, book, facts
        self.target = 0

    def on_event(self, event, view):
        self.left -= 1
        if self.left <= 0:
            return [FinishRun(next((t for t in view.started_trials() if view.trial(t).checkpoint_iteration), None))]
        wishes = (
            [SetTimer("tick", view.now_s + self.rng.uniform(0.1, 30.0))]
            if isinstance(event, RunStarted | TimerFired)
            else []
        )
        wished = set()
        if isinstance(event, RunStarted) or self.rng.random() < 0.2:
            wishes.append(self.scale(view))
        for _ in range(self.rng.integers(0, 4)):
            trial = int(self.rng.integers(self.job.trials))
            if trial not in wished:
                wished.add(trial)
                wishes += self.wish(view, trial)
        return wishes

    def scale(self, view):
        """A target that still holds whatever waits."""
        waiting = [
            view.trial(trial) for trial in range(self.job.trials) if view.trial(trial).status is TrialStatus.WAITING
        ]
        least = self.largest_wish if waiting or self.has_ending(view) else 0
        self.target = int(self.rng.integers(least, self.book.max_instances + 1))
        return ScaleTo(self.target)

    largest_wish = 0

    def has_ending(self, view):
        return any(view.trial(trial).status is TrialStatus.ENDING for trial in range(self.job.trials))

    def wish(self, view, trial):
        state, done = view.trial(trial), view.trial(trial).checkpoint_iteration
        gpus_each = self.book.default_type.gpus_per_instance
        match state.status:
            case TrialStatus.IDLE if self.target and done < self.job.max_iterations:
                gpus = int(self.rng.integers(1, self.target * gpus_each + 1))
                self.largest_wish = max(self.largest_wish, math.ceil(gpus / gpus_each))
                until = int(self.rng.integers(done + 1, self.job.max_iterations + 1))
                return [RunTrial(trial, gpus, until, int(self.rng.integers(0, 3)))]
            case TrialStatus.RUNNING | TrialStatus.WAITING:
                return [PauseTrial(trial)] if self.rng.random() < 0.6 else [StopTrial(trial)]
            case _:
                return []


billings = st.builds(
    BillingRule,
    granularity_s=st.sampled_from([0.0, 1.0, 60.0]),
    minimum_s=st.sampled_from([0.0, 60.0]),
    bills_startup=st.booleans(),
    model=st.sampled_from(["per-instance", "per-instance", "per-function"]),
)


SLOW_NETWORK = AllReduceScaling(1.0, Link(0.01, 0.1), Link(0.05, 1.0), "strong", max_gpus=32)


@st.composite
def rough_worlds(draw, **job):
    """Worlds with everything that can go wrong, in any mixture; what is believed is up to three times wrong."""
    trials, iterations = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    seed = draw(st.integers(0, 10**6))
    scores = np.random.default_rng(seed).random((trials, iterations))
    scores[scores < draw(st.sampled_from([0.0, 0.1]))] = np.nan
    tau = draw(st.sampled_from([0.3, 7.0, 60.0]))
    checkpoint_s, launch_s, queue_s, init_s, release_s = (
        draw(st.sampled_from(choices)) * tau for choices in ([0, 0.1, 1], [0, 0.3, 2], [0, 1, 5], [0, 1, 5], [0, 0, 2])
    )
    billing = draw(billings)
    tiny = build_world(
        scores=scores,
        tau=tau,
        gpus=draw(st.sampled_from([1, 2, 4])),
        usd_per_hour=3.0,
        billing=billing,
        quota=draw(st.sampled_from([1, 3, 8])),
        checkpoint_every=draw(st.sampled_from([0, 0, 1, 2])),
        direction=draw(st.sampled_from(["minimize", "maximize"])),
        **job,
    )
    stragglers = Stragglers(draw(st.sampled_from([0.0, 0.3])), draw(st.sampled_from([0.0, 0.2])))
    timings = Timings(launch_s, checkpoint_s, checkpoint_s + launch_s)
    startup = Startup(Delay(queue_s), Delay(init_s, draw(st.sampled_from([0.0, 0.5]))))
    per_hour = 3600 / (20 * tau)
    faults = Faults(draw(st.sampled_from([0.0, 1.0])) * per_hour, draw(st.sampled_from([0.0, 1.0])) * per_hour)
    scaling = draw(st.sampled_from([LinearScaling(32), PowerScaling(0.7, 32), SLOW_NETWORK]))
    tiny.truth = GroundTruth(scores, np.full(trials, tau), scaling, timings, stragglers)
    tiny.cloud = CloudTruth(startup, faults, draw(st.sampled_from([None, None, 2])), release_s)
    tiny.book = PriceBook(tiny.book.instance_types, billing, tiny.book.max_instances, release_s)
    believed_s = tau * draw(st.sampled_from([0.33, 0.67, 1.0, 2.0]))
    tiny.profile = Profile(
        believed_s, draw(st.sampled_from([scaling, PowerScaling(0.5, 32)])), timings, startup, stragglers, sync_s=tau
    )
    tiny.streams = Streams(seed)
    tiny.placement = draw(st.sampled_from(["on", "on", "off", "spread"]))
    return tiny


@settings(max_examples=400)
@given(rough_worlds(), st.integers(0, 10**6))
def test_whatever_a_policy_wishes_the_history_is_consistent(play, tiny, seed):
    # `play` checks the state after every fact: GPUs add up, none is held twice, the quota is kept.
    story = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    started, ended, stopped = {}, set(), set()
    durable = dict.fromkeys(range(tiny.job.trials), 0)
    last_s = 0.0
    for entry in story.entries:
        event = entry.event
        assert event.at_s >= last_s
        last_s = event.at_s
        if isinstance(event, SegmentEnded):
            assert event.segment in started, "an end without a start"
            assert event.segment not in ended, "a second end"
            ended.add(event.segment)
            assert durable[event.trial] <= event.checkpoint_iteration <= event.iteration
            assert min(event.launch_s, event.train_s, event.checkpoint_s) >= 0
            durable[event.trial] = event.checkpoint_iteration
        for order in entry.commands:
            if isinstance(order, StartSegment):
                assert order.trial not in stopped, "a stopped trial runs"
                assert order.from_iteration == durable[order.trial]
                started[order.segment] = order
            if isinstance(order, EndSegment):
                assert order.segment not in ended
        # Only now: what waited has started before the policy was asked.
        stopped |= {wish.trial for wish in entry.actions if isinstance(wish, StopTrial)}
    assert ended == set(started), "a segment never ended"


def bill_of(entries, book):
    """The bill as a fold over the journal, written down a second time: of leases, or of segments."""
    per_instance = book.billing.model == "per-instance"
    bill = Bill(book.billing, book.release_s if per_instance else 0.0)
    fold = fold_leases if per_instance else fold_segments
    for number, entry in enumerate(entries):
        fold(bill, entry, book)
        if any(isinstance(wish, FinishRun) for wish in entry.actions):
            # Drained facts do not bill; machines given back earlier end when they were going to.
            released = {
                o.instance: e.event.at_s for e in entries[:number] for o in e.commands if isinstance(o, ReleaseInstance)
            }
            for instance, at_s in released.items():
                if per_instance and instance in bill:
                    bill.stop(instance, at_s + book.release_s)
            bill.stop_all(entry.event.at_s)
            return bill.spent_usd(entry.event.at_s)
    raise AssertionError("no FinishRun")


def fold_leases(bill, entry, book):
    match entry.event:
        case InstanceLaunched() if book.billing.bills_startup:
            bill.start(entry.event.instance, entry.event.at_s)
        case InstanceReady() if not book.billing.bills_startup:
            bill.start(entry.event.instance, entry.event.at_s)
        case InstanceGone() | InstanceRefused():
            bill.stop(entry.event.instance, entry.event.at_s)
    for order in entry.commands:
        if isinstance(order, ProvisionInstance):
            bill.ask(order.instance, book.usd_per_hour())


def fold_segments(bill, entry, book):
    if isinstance(entry.event, SegmentEnded):
        bill.stop(entry.event.segment, entry.event.at_s)
    for order in entry.commands:
        if isinstance(order, StartSegment):
            share = sum(gpus for _, gpus in order.placement) / book.default_type.gpus_per_instance
            bill.ask(order.segment, book.usd_per_hour() * share)
            bill.start(order.segment, entry.event.at_s)


@settings(max_examples=100)
@given(rough_worlds(), st.integers(0, 10**6))
def test_the_bill_is_a_fold_over_the_journal(play, tiny, seed):
    story = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    assert bill_of(story.entries, tiny.book) == pytest.approx(story.bill_usd, rel=1e-12, abs=1e-12)


@settings(max_examples=60)
@given(rough_worlds(), st.integers(0, 10**6), st.sampled_from([0.5, 3.0, 7.0]))
def test_prices_times_k_make_the_bill_times_k(play, tiny, seed, k):
    story = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    machine = tiny.book.default_type
    dearer = InstanceType(machine.name, machine.gpus_per_instance, {"on-demand": k * machine.usd_per_hour["on-demand"]})
    tiny.book = PriceBook((dearer,), tiny.book.billing, tiny.book.max_instances, tiny.book.release_s)
    again = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    assert again.bill_usd == pytest.approx(k * story.bill_usd)
    assert again.makespan_s == story.makespan_s


@given(
    st.integers(2, 9),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([0.3, 10.0]),
    st.floats(0.01, 0.99),
)
def test_pausing_and_resuming_costs_a_rescale_and_no_iteration(
    play, world, iterations, checkpoint_s, resume_s, tau, share
):
    def makespan_s(pauses):
        tiny = world(iterations=iterations, tau=tau, timings=(2.0, checkpoint_s, checkpoint_s + resume_s))
        at_s = 2.0 + share * (iterations - 1) * tau
        timers = [SetTimer("pause", at_s)] if pauses else []
        resumed = (lambda _: [RunTrial(0, 1, iterations), SetTimer("end", 1e4)]) if pauses else [FinishRun(0)]
        story = play(
            {
                "start": [ScaleTo(1), RunTrial(0, 1, iterations), *timers],
                "timer pause": [PauseTrial(0)],
                "ended 0": resumed,
                "timer end": [FinishRun(0)],
            },
            tiny,
        )
        ends = [entry.event.at_s for entry in story.entries if isinstance(entry.event, SegmentEnded)]
        assert story.state.totals.iterations_trained == iterations
        return ends[-1]

    assert makespan_s(True) == pytest.approx(makespan_s(False) + checkpoint_s + resume_s)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(2, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([1, 2, 4]),
)
def test_synchronous_sha_takes_as_long_as_its_closed_form(play, world, trials, last, eta, quota, sync_s, gpus):
    # One GPU each: startup + barriers + waves of quota x gpus trials x (launch + iterations x tau + checkpoint) in each rung.
    scores = np.random.default_rng(trials).random((trials, last))
    tiny = world(
        scores=scores,
        timings=(2.0, 1.0, 4.0),
        startup=(5.0, 20.0),
        gpus=gpus,
        quota=quota,
        sync_s=sync_s,
        reduction_factor=eta,
        exact=True,
        deadline_s=1e6,
    )
    story = play(factory("sha-elastic")(tiny.job, tiny.profile, tiny.book, None), tiny)
    expected_s, size, level, until, rung = 25.0, trials, 1, 0, 0
    while until < last:
        level = last if size == 1 else min(level, last)
        expected_s += math.ceil(size / (quota * gpus)) * ((2.0 if rung == 0 else 3.0) + (level - until) * 10.0 + 1.0)
        until, rung, level, size = level, rung + 1, level * eta, max(1, size // eta)
    assert story.makespan_s == pytest.approx(expected_s + (rung - 1) * sync_s)


def limited(tiny, deadline_share, budget_share):
    """The world with limits around what one machine needs for one configuration at R."""
    work_s = tiny.job.max_iterations * tiny.profile.iteration_s + tiny.profile.startup.mean_s
    job = replace_job(
        tiny.job, deadline_share and deadline_share * work_s, budget_share and budget_share * work_s * 3.0 / 3600
    )
    tiny.job = job
    return tiny


def replace_job(job, deadline_s, budget_usd):
    return msgspec.structs.replace(job, deadline_s=deadline_s, budget_usd=budget_usd)


class Watch:
    """Notes the highest committed bill at any fact, before and after the policy has answered."""

    def __init__(self, policy):
        self.policy, self.most_usd = policy, 0.0

    def on_event(self, event, view):
        self.most_usd = max(self.most_usd, view.committed_usd)
        return self.policy.on_event(event, view)


limits = {
    "deadline_share": st.one_of(st.none(), st.floats(0.7, 20)),
    "budget_share": st.one_of(st.none(), st.floats(0.7, 20)),
}


def keeps_its_limits(name, play, tiny, deadline_share, budget_share, **parameters):
    assume(deadline_share or budget_share)
    limited(tiny, deadline_share, budget_share)
    try:
        policy = Watch(factory(name, parameters)(tiny.job, tiny.profile, tiny.book, None))
    except InfeasibleJobError:
        return
    story = play(policy, tiny)
    if tiny.job.deadline_s is not None:
        assert story.makespan_s <= tiny.job.deadline_s
    if tiny.job.budget_usd is not None:
        assert max(policy.most_usd, story.bill_usd) <= tiny.job.budget_usd * (1 + 1e-9)
    ends = [
        entry.event for entry in story.entries if isinstance(entry.event, SegmentEnded) and entry.status == "handled"
    ]
    durable = {event.trial for event in ends if event.checkpoint_iteration}
    assert story.best in durable if durable else story.best is None


@settings(max_examples=400)
@given(tiny=rough_worlds(), **limits)
def test_seer_keeps_deadline_and_budget_whatever_goes_wrong(play, tiny, deadline_share, budget_share):
    keeps_its_limits("seer", play, tiny, deadline_share, budget_share)


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"seer"}))
@settings(max_examples=100)
@given(tiny=rough_worlds(), **limits)
def test_deadline_and_budget_are_kept_whatever_goes_wrong(play, name, tiny, deadline_share, budget_share):
    keeps_its_limits(name, play, tiny, deadline_share, budget_share)


@settings(max_examples=200)
@given(
    tiny=rough_worlds(),
    mechanisms=st.fixed_dictionaries(
        {
            "replan": st.booleans(),
            "reserve": st.booleans(),
            "resize_rule": st.sampled_from(["gain", "always", "never"]),
            "elastic": st.booleans(),
            "parallelism": st.sampled_from(["uniform", "ranked"]),
            "solver": st.sampled_from(["frontier", "greedy"]),
        }
    ),
    **limits,
)
def test_seer_keeps_them_with_any_of_its_mechanisms(play, tiny, mechanisms, deadline_share, budget_share):
    keeps_its_limits("seer", play, tiny, deadline_share, budget_share, **mechanisms)


@settings(max_examples=300)
@given(tiny=rough_worlds(), budget_share=st.floats(1.5, 20), deadline_share=st.floats(1.5, 20))
def test_seer_names_a_durable_winner_wherever_machines_and_workers_live(play, tiny, budget_share, deadline_share):
    # Under wrong beliefs and stragglers; where everything may die all the time, nobody can promise a winner.
    tiny.cloud = replace(tiny.cloud, faults=Faults(), capacity_instances=None)
    limited(tiny, deadline_share, budget_share)
    try:
        policy = factory("seer")(tiny.job, tiny.profile, tiny.book, None)
    except InfeasibleJobError:
        return
    story = play(policy, tiny)
    longest_s = tiny.truth.timings.launch_s + tiny.truth.timings.checkpoint_s + 3 * 2.5 * tiny.profile.iteration_s
    if longest_s + 3 * tiny.profile.startup.mean_s < story.makespan_s:
        assert story.best is not None
        assert story.state.trials[story.best].checkpoint_iteration >= 1
