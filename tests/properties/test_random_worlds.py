"""Random worlds and random policies: what must hold whatever happens."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from examples import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_worlds import build_world

from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.ledger import PARTS, Ledger
from elastune.policies.registry import POLICIES, factory
from elastune.sim.control.controller import Controller
from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer, StopTrial
from elastune.sim.model.billing import lease_usd
from elastune.sim.model.capacity import Steps
from elastune.sim.model.commands import EndSegment, ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.events import (
    GoneCause,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    RunStarted,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.model.node_scaling import AllReduceScaling, Link
from elastune.sim.model.price_series import PriceSeries, combined
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import (
    CloudTruth,
    Contention,
    Delay,
    Faults,
    GroundTruth,
    Profile,
    SlowNodes,
    Spot,
    Startup,
    Stragglers,
    Timings,
)
from elastune.sim.model.protocols import TrialStatus
from elastune.sim.model.reclaim import Lifetimes, NodeChange, RecordedNodes
from elastune.sim.model.scaling import LinearScaling, PowerScaling
from elastune.sim.model.spread import LOG_NORMAL, ParetoTail
from elastune.sim.model.streams import Streams


class RandomPolicy:
    """Actions at random for what is possible, on every event, and finishes after a while."""

    def __init__(self, job, book, seed, events=60):
        self.rng = np.random.default_rng(seed)
        self.job, self.book, self.left = job, book, events
        self.target = 0

    def on_event(self, event, view):
        self.left -= 1
        if self.left <= 0:
            return [FinishRun(next((t for t in view.started_trials() if view.trial(t).checkpoint_iteration), None))]
        actions = (
            [SetTimer("tick", view.now_s + self.rng.uniform(0.1, 30.0))]
            if isinstance(event, RunStarted | TimerFired)
            else []
        )
        requested = set()
        if isinstance(event, RunStarted) or self.rng.random() < 0.2:
            actions.append(self.scale(view))
        for _ in range(self.rng.integers(0, 4)):
            trial = int(self.rng.integers(self.job.trials))
            if trial not in requested:
                requested.add(trial)
                actions += self.action(view, trial)
        return actions

    def scale(self, view):
        """A target that still holds whatever waits."""
        waiting = [
            view.trial(trial) for trial in range(self.job.trials) if view.trial(trial).status is TrialStatus.WAITING
        ]
        least = self.largest_action if waiting or self.has_ending(view) else 0
        self.target = int(self.rng.integers(least, self.book.max_instances + 1))
        return ScaleTo(self.target)

    largest_action = 0

    def has_ending(self, view):
        return any(view.trial(trial).status is TrialStatus.ENDING for trial in range(self.job.trials))

    def action(self, view, trial):
        state, done = view.trial(trial), view.trial(trial).checkpoint_iteration
        gpus_each = self.book.default_type.gpus_per_instance
        match state.status:
            case TrialStatus.IDLE if self.target and done < self.job.max_iterations:
                gpus = int(self.rng.integers(1, self.target * gpus_each + 1))
                self.largest_action = max(self.largest_action, math.ceil(gpus / gpus_each))
                until = int(self.rng.integers(done + 1, self.job.max_iterations + 1))
                return [RunTrial(trial, gpus, until, int(self.rng.integers(0, 3)))]
            case TrialStatus.RUNNING | TrialStatus.WAITING:
                return [PauseTrial(trial)] if self.rng.random() < 0.6 else [StopTrial(trial)]
            case _:
                return []


@st.composite
def billings(draw):
    """Rules; which phases of a start-up are billed is one of the four that leave no gap."""
    queue, startup, setup = draw(
        st.sampled_from([(False, True, None), (False, False, None), (True, True, True), (False, False, True)])
    )
    return BillingRule(
        draw(st.sampled_from([0.0, 1.0, 60.0])),
        draw(st.sampled_from([0.0, 60.0])),
        startup,
        draw(st.sampled_from(["per-instance", "per-instance", "per-function"])),
        queue,
        setup,
    )


@st.composite
def prices(draw, tau):
    """3 USD an hour, or a series that rises and falls around it; it may end free of charge."""
    if draw(st.booleans()):
        return 3.0
    steps = draw(
        st.lists(st.tuples(st.sampled_from([0.5, 3.0, 20.0]), st.sampled_from([0.0, 1.0, 3.0, 9.0])), max_size=4)
    )
    times_s = np.cumsum([0.0, *(step * tau for step, _ in steps)])
    return PriceSeries(tuple(times_s.tolist()), (3.0, *(price for _, price in steps)))


SLOW_NETWORK = AllReduceScaling(1.0, Link(0.01, 0.1), Link(0.05, 1.0), "strong", max_gpus=32)


@st.composite
def rough_worlds(draw, **job):
    """Worlds with everything that can go wrong, in any mixture; what is believed is up to three times wrong."""
    trials, iterations = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    seed = draw(st.integers(0, 10**6))
    scores = np.random.default_rng(seed).random((trials, iterations))
    scores[scores < draw(st.sampled_from([0.0, 0.1]))] = np.nan
    tau = draw(st.sampled_from([0.3, 7.0, 60.0]))
    checkpoint_s, launch_s, queue_s, init_s, release_s, setup_s = (
        draw(st.sampled_from(choices)) * tau
        for choices in ([0, 0.1, 1], [0, 0.3, 2], [0, 1, 5], [0, 1, 5], [0, 0, 2], [0, 0, 2])
    )
    billing = draw(billings())
    tiny = build_world(
        scores=scores,
        tau=tau,
        gpus=draw(st.sampled_from([1, 2, 4])),
        usd_per_hour=draw(prices(tau)),
        billing=billing,
        quota=draw(st.sampled_from([1, 3, 8])),
        checkpoint_every=draw(st.sampled_from([0, 0, 1, 2])),
        direction=draw(st.sampled_from(["minimize", "maximize"])),
        **job,
    )
    stragglers = Stragglers(
        draw(st.sampled_from([0.0, 0.3])),
        draw(st.sampled_from([0.0, 0.2])),
        draw(st.sampled_from([LOG_NORMAL, ParetoTail()])),
        is_per_worker=draw(st.booleans()),
    )
    slow_nodes = SlowNodes(draw(st.sampled_from([0.0, 0.0, 0.3])), 1.5)
    contention = Contention(draw(st.sampled_from([0.0, 0.0, 0.2])), draw(st.sampled_from([None, None, 1.0])))
    timings = Timings(launch_s, checkpoint_s, checkpoint_s + launch_s)
    startup = Startup(Delay(queue_s), Delay(init_s, draw(st.sampled_from([0.0, 0.5]))), Delay(setup_s))
    per_hour = 3600 / (20 * tau)
    faults = Faults(draw(st.sampled_from([0.0, 1.0])) * per_hour, draw(st.sampled_from([0.0, 1.0])) * per_hour)
    scaling = draw(st.sampled_from([LinearScaling(32), PowerScaling(0.7, 32), SLOW_NETWORK]))
    tiny.truth = GroundTruth(scores, np.full(trials, tau), scaling, timings, stragglers)
    capacity = draw(st.sampled_from([{}, {}, {("m", "on-demand"): Steps.constant(2)}]))
    tiny.cloud = CloudTruth(startup, faults, capacity, release_s, slow_nodes=slow_nodes, contention=contention)
    tiny.book = PriceBook(
        tiny.book.instance_types,
        billing,
        tiny.book.max_instances,
        release_s,
        data_gb=2.0,
        ingress_usd_per_gb=draw(st.sampled_from([0.0, 0.0, 0.001])),
        storage_usd_per_gb_month=draw(st.sampled_from([0.0, 50.0])),
        head_node_usd_per_hour=draw(st.sampled_from([0.0, 0.0, 1.0])),
    )
    believed_s = tau * draw(st.sampled_from([0.33, 0.67, 1.0, 2.0]))
    tiny.profile = Profile(
        believed_s, draw(st.sampled_from([scaling, PowerScaling(0.5, 32)])), timings, startup, stragglers, sync_s=tau
    )
    tiny.streams = Streams(seed)
    tiny.placement = draw(st.sampled_from(["on", "on", "off", "spread"]))
    return tiny


@st.composite
def markets(draw, tau):
    """How spot machines are taken back, each after some ten iterations or more."""
    kind = draw(st.sampled_from(["drawn", "waves", "recorded"]))
    if kind == "drawn":
        return Lifetimes(draw(st.sampled_from([10.0, 50.0])) * tau, draw(st.sampled_from([0.6, 1.0, 2.0])))
    if kind == "waves":
        return Lifetimes(bulk_per_hour=3600 / (20 * tau), bulk_share=draw(st.sampled_from([0.5, 1.0])), zones=2)
    there, changes = set(), []
    for at, node in sorted(draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 4)), min_size=1, max_size=12))):
        changes.append(NodeChange(at * tau, node not in there, str(node)))
        there ^= {node}
    return RecordedNodes("drawn", tuple(changes), 100.0 * tau, draw(st.sampled_from([0.0, None])))


@st.composite
def spot_worlds(draw, all_markets=("spot", "mixed")):
    """Rough worlds on spot machines, with notice or without, and perhaps a quota that rises."""
    tiny = draw(rough_worlds())
    tau = float(tiny.truth.iteration_s[0])
    spot = Spot(draw(markets(tau)), draw(st.sampled_from([0.0, 0.5, 4.0])) * tau)
    ramp = draw(st.sampled_from([None, None, Steps((0.0, 10.0 * tau), (1, 8))]))
    tiny.cloud = replace(tiny.cloud, spot=spot, quota=ramp, waits=draw(st.booleans()))
    fail_over = draw(st.sampled_from([(), (), (("m", "on-demand"),)]))
    market = draw(st.sampled_from(all_markets))
    tiny.book = msgspec.structs.replace(tiny.book, market=market, fail_over=fail_over)
    tiny.profile = replace(tiny.profile, mtbf_s=draw(st.sampled_from([math.inf, 10.0 * tau])))
    if draw(st.booleans()):
        tiny.job = msgspec.structs.replace(tiny.job, checkpoint_every="auto")
    return tiny


@settings(max_examples=examples(400))
@given(st.one_of(rough_worlds(), spot_worlds()), st.integers(0, 10**6))
def test_whatever_a_policy_asks_for_the_history_is_consistent(play, tiny, seed):
    # `play` checks the state after every event: GPUs add up, none is held twice, the quota is kept.
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
            assert 0 <= event.lost_s <= event.train_s
            assert event.lost_s == 0 or event.outcome != "completed"
            durable[event.trial] = event.checkpoint_iteration
        for command in entry.commands:
            if isinstance(command, StartSegment):
                assert command.trial not in stopped, "a stopped trial runs"
                assert command.from_iteration == durable[command.trial]
                started[command.segment] = command
            if isinstance(command, EndSegment):
                assert command.segment not in ended
        # Only now: what waited has started before the policy was asked.
        stopped |= {action.trial for action in entry.actions if isinstance(action, StopTrial)}
    assert ended == set(started), "a segment never ended"


def bill_of(entries, book):
    """The bill from the journal alone, written down a second time: of leases or of segments, lease by lease."""
    spans, loads = (leases_of if book.billing.model == "per-instance" else segments_of)(entries, book)
    finished_at_s = next(e.event.at_s for e in entries if any(isinstance(action, FinishRun) for action in e.actions))
    usd = [lease_usd(book.billing, price, start_s, end_s) for price, start_s, end_s in spans.values()]
    standing_usd = book.standing_usd_per_hour * finished_at_s / 3600
    return math.fsum([*usd, loads * book.ingress_usd, standing_usd])


def handled(entries, kind):
    return {e.event.instance: e.event.at_s for e in entries if e.status == "handled" and isinstance(e.event, kind)}


def leases_of(entries, book):
    """(price, from, until) of each lease by instance, and how many machines were launched."""
    rule = book.billing
    commands = [(command, e.event.at_s) for e in entries for command in e.commands]
    asked = {command.instance: at_s for command, at_s in commands if isinstance(command, ProvisionInstance)}
    released = {
        command.instance: at_s + book.release_s for command, at_s in commands if isinstance(command, ReleaseInstance)
    }
    refused, gone = handled(entries, InstanceRefused), handled(entries, InstanceGone)
    phases = [handled(entries, kind) for kind in (InstanceLaunched, InstanceBooted, InstanceReady)]
    billed = [(rule.bills_queue, asked), (rule.bills_startup, phases[0]), (rule.is_setup_billed, phases[1])]
    spans = {}
    for instance in asked.keys() - refused.keys():
        starts_s = [
            at_s[instance] for is_billed, at_s in (*billed, (True, phases[2])) if is_billed and instance in at_s
        ]
        if starts_s:
            spans[instance] = (book.price(), min(starts_s), gone.get(instance, released.get(instance)))
    return spans, len(phases[0])


def segments_of(entries, book):
    """(price, from, until) of each segment by number, and how many machines were launched."""
    finished_at_s = next(e.event.at_s for e in entries if any(isinstance(action, FinishRun) for action in e.actions))
    ended = {e.event.segment: e.event.at_s for e in entries if isinstance(e.event, SegmentEnded)}
    spans = {}
    for entry in entries:
        for command in entry.commands:
            if isinstance(command, StartSegment):
                share = sum(gpus for _, gpus in command.placement) / book.default_type.gpus_per_instance
                until_s = min(ended[command.segment], finished_at_s)
                spans[command.segment] = (combined([(book.price(), share)]), entry.event.at_s, until_s)
    return spans, len(handled(entries, InstanceLaunched))


@settings(max_examples=examples(100))
@given(st.one_of(rough_worlds(), spot_worlds(all_markets=("spot",))), st.integers(0, 10**6))
def test_the_bill_is_a_fold_over_the_journal(play, tiny, seed):
    story = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    assert bill_of(story.entries, tiny.book) == pytest.approx(story.bill_usd, rel=1e-12, abs=1e-12)


@settings(max_examples=examples(400))
@given(rough_worlds(), st.integers(0, 10**6))
def test_the_parts_of_the_ledger_add_up_to_the_bill_and_to_the_machines_time(play, tiny, seed):
    story = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    ledger = Ledger.of(Tables.of(story.entries, tiny.book))
    usd, gpu_s = ledger.usd, ledger.gpu_s
    assert tuple(usd) == tuple(gpu_s) == PARTS
    assert math.fsum(usd.values()) == pytest.approx(story.bill_usd, rel=1e-9, abs=1e-9)
    assert math.fsum(gpu_s.values()) == pytest.approx(story.state.totals.leased_gpu_s, rel=1e-9, abs=1e-6)
    assert gpu_s["training"] + gpu_s["redone"] == pytest.approx(story.state.totals.trained_gpu_s, rel=1e-9, abs=1e-6)
    # Under a series a quantum is charged at its first price, which may be the lower one.
    assert all(usd[part] >= -1e-9 for part in PARTS if part != "rounding")
    assert min(gpu_s.values()) >= -1e-9
    assert gpu_s["data"] == gpu_s["head_node"] == gpu_s["rounding"] == 0


@settings(max_examples=examples(200))
@given(rough_worlds(), st.integers(0, 10**6), st.sampled_from([0.3, 3.0, 1000.0]))
def test_what_is_reclaimed_early_is_free_in_bill_and_ledger(play, tiny, seed, iterations):
    # The same history with every loss a reclaim, told to a controller that knows the rule.
    story = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    within_s = iterations * tiny.profile.iteration_s
    rule = msgspec.structs.replace(tiny.book.billing, free_if_reclaimed_within_s=within_s)
    book = msgspec.structs.replace(tiny.book, billing=rule)
    tables = Tables(book)
    policy = RandomPolicy(tiny.job, book, seed)
    again = Controller(policy, tiny.job, book, name="again", sink=tables, placement=tiny.placement)
    reclaimed = set()
    for entry in story.entries:
        event = entry.event
        if isinstance(event, InstanceGone) and event.cause is GoneCause.LOST:
            event = InstanceGone(event.at_s, event.instance, GoneCause.RECLAIMED)
            reclaimed |= {event.instance} if entry.status == "handled" else set()
        assert again.handle(event) == entry.commands
    bill_usd = again.state.bill.spent_usd(again.finished_at_s)
    spans, loads = (leases_of if rule.model == "per-instance" else segments_of)(story.entries, book)
    usd = [
        lease_usd(rule, price, from_s, until_s)
        for key, (price, from_s, until_s) in spans.items()
        if rule.model == "per-function" or key not in reclaimed or until_s - from_s >= within_s
    ]
    around_usd = loads * book.ingress_usd + book.standing_usd_per_hour * again.finished_at_s / 3600
    assert bill_usd == pytest.approx(math.fsum(usd) + around_usd, rel=1e-9, abs=1e-9)
    assert math.fsum(Ledger.of(tables).usd.values()) == pytest.approx(bill_usd, rel=1e-9, abs=1e-9)
    assert math.fsum(Ledger.of(tables).gpu_s.values()) == pytest.approx(
        again.state.totals.leased_gpu_s, rel=1e-9, abs=1e-6
    )


@settings(max_examples=examples(60))
@given(rough_worlds(), st.integers(0, 10**6), st.sampled_from([0.5, 3.0, 7.0]))
def test_prices_times_k_make_the_bill_times_k(play, tiny, seed, k):
    story = play(RandomPolicy(tiny.job, tiny.book, seed), tiny)
    machine, book = tiny.book.default_type, tiny.book
    dearer = InstanceType(machine.name, machine.gpus_per_instance, {"on-demand": combined([(book.price(), k)])})
    tiny.book = msgspec.structs.replace(
        book,
        instance_types=(dearer,),
        ingress_usd_per_gb=k * book.ingress_usd_per_gb,
        storage_usd_per_gb_month=k * book.storage_usd_per_gb_month,
        head_node_usd_per_hour=k * book.head_node_usd_per_hour,
    )
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
    """Notes the highest committed bill at any event, before and after the policy has answered."""

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


@settings(max_examples=examples(400))
@given(tiny=rough_worlds(), **limits)
def test_seer_keeps_deadline_and_budget_whatever_goes_wrong(play, tiny, deadline_share, budget_share):
    keeps_its_limits("seer", play, tiny, deadline_share, budget_share)


@pytest.mark.many(fast=4)
@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"seer"}))
@settings(max_examples=examples(100))
@given(tiny=rough_worlds(), **limits)
def test_deadline_and_budget_are_kept_whatever_goes_wrong(play, name, tiny, deadline_share, budget_share):
    keeps_its_limits(name, play, tiny, deadline_share, budget_share)


@settings(max_examples=examples(200))
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


@pytest.mark.many(fast=4)
@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(max_examples=examples(50))
@given(tiny=spot_worlds(), **limits)
def test_deadline_and_budget_are_kept_whatever_is_taken_back(play, name, tiny, deadline_share, budget_share):
    keeps_its_limits(name, play, tiny, deadline_share, budget_share)


@settings(max_examples=examples(300))
@given(tiny=rough_worlds(), budget_share=st.floats(1.5, 20), deadline_share=st.floats(1.5, 20))
def test_seer_names_a_durable_winner_wherever_machines_and_workers_live(play, tiny, budget_share, deadline_share):
    # Under wrong beliefs and stragglers; where everything may die all the time, nobody can promise a winner.
    tiny.cloud = CloudTruth(tiny.cloud.startup, release_s=tiny.cloud.release_s)
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
