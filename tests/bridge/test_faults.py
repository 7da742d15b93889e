"""Failures around workers, without workers: the nodes and worker groups are stand-ins that fail as real ones rarely do."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("psutil", reason="real workers need the bridge extra")

from ray.exceptions import RayTaskError

from elastune.sim.bridge.backend import RayBackend
from elastune.sim.bridge.machines.clock import Clock
from elastune.sim.bridge.machines.fault_injector import FaultInjector, MachineFaults
from elastune.sim.bridge.machines.nodes import Node, NoNodeError
from elastune.sim.bridge.retry_policy import RetryPolicy
from elastune.sim.bridge.workers import worker_group
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.bridge.workers.resumption import OpenInstance, Resumption
from elastune.sim.bridge.workers.worker import Saved, Started, Trained, WorkerSettings
from elastune.sim.model.commands import ProvisionInstance, ReleaseInstance, StartSegment, StartTimer
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    Outcome,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
from elastune.sim.model.protocols import InstanceStatus
from tests.bridge.conftest import Emulated, Table

ZERO, ONE = InstanceId(0), TrialId(1)


class Nodes:
    """Machines that are there at once."""

    def __init__(self):
        self.ours, self.closed, self.problem = {}, 0, None

    def acquire(self, instance, gpus, *, launched, is_cancelled):
        del is_cancelled
        launched()
        if self.problem is not None:
            raise self.problem
        self.ours[instance] = Node(f"node-{instance}", "127.0.0.1", gpus)
        return self.ours[instance]

    def release(self, instance):
        self.ours.pop(instance, None)

    def dead(self):
        return []

    def adopt(self, leased):
        return leased

    def close(self):
        self.closed += 1


class Breaking(worker_group.WorkerGroup):
    """A worker group that breaks as soon as it starts; nothing of Ray is there."""

    tells = ()
    aborts_badly = False

    def _train(self):
        for message in self.tells:
            self._hear(message)
        raise RayTaskError("train", "RuntimeError: out of memory", RuntimeError("out of memory"))

    def _dismiss(self):
        pass

    def _kill(self):
        if self.aborts_badly:
            raise RuntimeError("the head is gone")


@pytest.fixture
def world(tmp_path):
    """A backend on stand-ins: it, its nodes, its store, and the configurations that it asks."""
    built = []

    def build(groups=Breaking, faults=None, speed=100.0, resumption=None, no_place=False, **waits):
        injector = FaultInjector()
        if faults is not None or no_place:
            injector.draw = lambda *_: faults
        nodes, table = Nodes(), Table()
        settings = WorkerSettings(Emulated(), str(tmp_path / "checkpoints"))
        one = type("StandIn", (RayBackend,), {"make_group": groups, **waits})(
            nodes,
            settings,
            gpus_of={"m": 2},
            configurations=table,
            clock=Clock(speed, 0.0 if resumption is None else resumption.at_s),
            fault_injector=injector,
            resumption=resumption,
        )
        built.append(one)
        return SimpleNamespace(backend=one, nodes=nodes, table=table, store=CheckpointStore(settings.checkpoints))

    yield build
    for one in built:
        one.close()


def hear(one, kind, within=200):
    """The next event of this kind."""
    for _ in range(within):
        event = one.next_event()
        assert event is not None, f"nothing can happen any more, without {kind}"
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind}")


def rent(one):
    one.perform(ProvisionInstance(ZERO, "m", "on-demand"))
    hear(one, InstanceReady)


def start(segment=0, trial=1, since=0, until=5, instance=ZERO, restore_from=None):
    source = restore_from if restore_from is not None else (TrialId(trial) if since else None)
    return StartSegment(SegmentId(segment), TrialId(trial), ((instance, 1),), since, until, restore_from=source)


def save(store, trial, iteration, score, segment=0):
    store.save(TrialId(trial), iteration, score, lambda path: path.write_text("x"), segment=SegmentId(segment))


@pytest.mark.parametrize("instance", [ZERO, InstanceId(7)], ids=["the worker group breaks", "its machine is gone"])
def test_a_segment_that_ends_before_it_trained_keeps_the_score_that_was_known(world, instance):
    one = world()
    save(one.store, 1, 3, 0.25)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start(since=3, instance=instance))
    end = hear(one.backend, SegmentEnded)
    assert (end.iteration, end.checkpoint_iteration, end.score) == (3, 3, 0.25)
    assert one.table.heard[-1] == (1, 3, 0.25), "a sampler would take None for a trial that diverged"


def test_what_broke_after_all_was_saved_is_complete(world, monkeypatch):
    monkeypatch.setattr(Breaking, "tells", [Started(0.0, 3, 0.25)])
    one = world()
    save(one.store, 1, 5, 0.125)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start(since=3, until=5))
    end = hear(one.backend, SegmentEnded)
    assert (end.outcome, end.iteration, end.checkpoint_iteration, end.score) == (Outcome.COMPLETED, 5, 5, 0.125)


class Unreadable(Breaking):
    """The store cannot be read when the worker group asks what of it is durable."""

    def _last_event(self):
        raise PermissionError("checkpoints: permission denied")


def test_a_worker_group_whose_end_cannot_be_found_out_breaks_the_run_instead_of_being_silent(world):
    one = world(Unreadable)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    with pytest.raises(WorkerError, match="PermissionError: checkpoints: permission denied"):
        hear(one.backend, SegmentEnded)


class Endless(Breaking):
    """Trains until it is told to stop."""

    def _train(self):
        self._broken.wait()


class Slow(Endless):
    """The thread of a worker group that does not get to run for a while, as where dozens start at once."""

    may_run = threading.Event()

    def start(self):
        assert self.may_run.wait(10)
        super().start()


def test_the_run_goes_on_while_worker_groups_start_and_waits_for_them_at_the_end(world):
    one = world(Slow)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    one.backend.perform(StartTimer("soon", 0.0))
    assert hear(one.backend, TimerFired).tag == "soon"
    one.backend.perform(ReleaseInstance(ZERO))
    Slow.may_run.set()
    assert hear(one.backend, SegmentEnded).outcome is Outcome.ENDED, "before the end of its machine"
    assert hear(one.backend, InstanceGone).cause is GoneCause.RELEASED


class Unstartable(Endless):
    """The system has no room for another thread."""

    made = ()

    def start(self):
        type(self).made += (self,)
        raise RuntimeError("can't start new thread")


def test_nobody_waits_for_worker_groups_that_cannot_be_started(world):
    one = world(Unstartable)
    one.backend.next_event()
    rent(one.backend)
    for number in range(2):
        one.backend.perform(start(number, number))
    with pytest.raises(WorkerError, match="can't start new thread"):
        hear(one.backend, SegmentEnded)
    one.backend.close()
    assert len(Unstartable.made) == 2
    assert all(group.join(0.0) for group in Unstartable.made)


class Late(Slow):
    """Its thread starts when the run is over."""

    may_run = threading.Event()
    made = ()

    def start(self):
        type(self).made += (self,)
        super().start()

    def _train(self):
        raise AssertionError("there is nothing to train on any more")


def test_a_worker_group_that_starts_after_the_run_has_ended_asks_for_nothing(world, caplog):
    one = world(Late, join_s=0.05)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    one.backend.close()
    assert one.nodes.closed
    Late.may_run.set()
    assert Late.made[0].join(10)
    assert "nothing to train on" not in caplog.text


class Exiting(Breaking):
    """Something in the thread of the worker group ends that thread."""

    def _train(self):
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_group_whose_thread_has_ended_is_over(world):
    groups = queue.SimpleQueue()

    class Kept(Exiting):
        def start(self):
            groups.put(self)
            super().start()

    one = world(Kept)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    assert groups.get(timeout=10).join(10)
    for thread in threading.enumerate():
        if thread.name.startswith("segment-"):
            thread.join(10)  # pytest hears of its end within this test


def test_machines_are_given_back_even_where_worker_groups_cannot_be_ended(world, monkeypatch):
    one = world(Endless)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    monkeypatch.setattr(Breaking, "aborts_badly", True)
    with pytest.raises(RuntimeError, match="the head is gone"):
        one.backend.close()
    assert one.nodes.closed == 1


def test_a_machine_that_was_launched_and_does_not_come_up_is_lost_not_refused(world):
    one = world()
    one.nodes.problem = NoNodeError("Ray could not start a node: TimeoutError")
    one.backend.next_event()
    one.backend.perform(ProvisionInstance(ZERO, "m", "on-demand"))
    assert isinstance(one.backend.next_event(), InstanceLaunched)
    gone = one.backend.next_event()
    assert isinstance(gone, InstanceGone)
    assert gone.cause is GoneCause.LOST


@pytest.mark.parametrize(
    ("faults", "at_s", "cause"),
    [
        (MachineFaults(boot_s=50, lost_after_s=20), 20, GoneCause.LOST),
        (MachineFaults(queue_s=10, boot_s=50, reclaimed_at_s=40, notice_s=5), 40, GoneCause.RECLAIMED),
        (MachineFaults(queue_s=60, reclaimed_at_s=30), 30, GoneCause.RECLAIMED),
    ],
)
def test_a_machine_that_is_made_to_end_while_it_comes_up_is_never_ready(world, faults, at_s, cause):
    one = world(faults=faults)
    one.backend.next_event()
    one.backend.perform(ProvisionInstance(ZERO, "m", "spot"))
    events = []
    while not isinstance(events[-1] if events else None, InstanceGone):
        events.append(one.backend.next_event())
    assert not [event for event in events if isinstance(event, InstanceReady)]
    assert events[-1].cause is cause
    assert at_s <= events[-1].at_s


def test_a_machine_that_is_released_while_it_comes_up_is_given_back(world):
    one = world(faults=MachineFaults(boot_s=1e6))
    one.backend.next_event()
    one.backend.perform(ProvisionInstance(ZERO, "m", "on-demand"))
    hear(one.backend, InstanceLaunched)
    one.backend.perform(ReleaseInstance(ZERO))
    assert hear(one.backend, InstanceGone).cause is GoneCause.RELEASED
    assert not one.nodes.ours


def test_losses_of_a_machine_that_was_taken_over_are_counted_from_now(world):
    left = Resumption(
        1000.0,
        instances=[OpenInstance(ZERO, "m", "on-demand", InstanceStatus.READY)],
        leased={ZERO: Node("node", "127.0.0.1", 2)},
    )
    one = world(faults=MachineFaults(lost_after_s=30), resumption=left)
    gone = hear(one.backend, InstanceGone)
    assert gone.at_s >= 1030


def test_a_loss_that_is_farther_away_than_the_system_can_wait_is_waited_for(world):
    one = world(faults=MachineFaults(lost_after_s=1e13), speed=1.0)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(StartTimer("later", 0.3))
    assert isinstance(one.backend.next_event(), TimerFired), "the machine's thread broke down"


def test_timers_and_events_come_in_order_of_time(world):
    one = world(faults=MachineFaults(queue_s=5, boot_s=10))
    one.backend.next_event()
    one.backend.perform(ProvisionInstance(ZERO, "m", "on-demand"))
    for number in range(30):
        one.backend.perform(StartTimer(f"t{number}", number * 1.0))
    told = [one.backend.next_event().at_s for _ in range(32)]
    assert told == sorted(told)


def test_a_timer_is_not_overtaken_by_what_happens_later_while_the_driver_is_busy(world):
    """A deadline that is handled late was met all the same."""
    one = world(faults=MachineFaults(queue_s=5, boot_s=5))
    one.backend.next_event()
    one.backend.perform(StartTimer("deadline", 3.0))
    one.backend.perform(ProvisionInstance(ZERO, "m", "on-demand"))
    while one.backend._events.qsize() < 2:  # launched and ready, both later than the timer
        threading.Event().wait(0.01)
    told = [one.backend.next_event() for _ in range(3)]
    assert [type(event).__name__ for event in told] == ["TimerFired", "InstanceLaunched", "InstanceReady"]
    assert told[0].at_s == 3.0
    assert told[1].at_s >= 5.0


class SlowToEnd(Endless):
    """Finding out what it has saved takes until `may_end` is set."""

    may_end = threading.Event()

    def _last_event(self):
        assert self.may_end.wait(60)
        return super()._last_event()


def test_the_end_of_a_worker_group_is_told_before_that_of_its_machine_however_long_it_takes(world, monkeypatch):
    monkeypatch.setattr(SlowToEnd, "may_end", threading.Event())
    one = world(SlowToEnd, join_s=0.01)
    give_back = one.nodes.release

    def give_back_first(instance):
        give_back(instance)
        SlowToEnd.may_end.set()

    monkeypatch.setattr(one.nodes, "release", give_back_first)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    hear(one.backend, TrialSampled)
    one.backend.perform(ReleaseInstance(ZERO))
    assert isinstance(one.backend.next_event(), SegmentEnded)
    assert isinstance(one.backend.next_event(), InstanceGone)


def test_a_worker_group_that_never_ends_stops_the_run_instead_of_being_forgotten(world, monkeypatch):
    monkeypatch.setattr(SlowToEnd, "may_end", threading.Event())
    one = world(SlowToEnd, join_s=0.01, hangs_s=0.01)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start(segment=6))
    one.backend.perform(ReleaseInstance(ZERO))
    with pytest.raises(WorkerError, match="segment 6 does not end, although machine 0 is gone"):
        hear(one.backend, InstanceGone)
    assert not one.nodes.ours, "the machine is given back all the same"
    SlowToEnd.may_end.set()


def test_a_machine_that_was_taken_over_and_has_no_place_any_more_is_reclaimed_not_refused(world):
    left = Resumption(
        10.0,
        instances=[OpenInstance(ZERO, "m", "spot", InstanceStatus.READY)],
        leased={ZERO: Node("node", "127.0.0.1", 2)},
    )
    one = world(no_place=True, resumption=left)
    assert hear(one.backend, InstanceGone).cause is GoneCause.RECLAIMED


def test_what_a_worker_group_that_broke_had_saved_last_is_kept_with_its_seconds(tmp_path, monkeypatch):
    """Ordered at 80 s, launched at 90 s; two iterations of 4 s are saved in half a second; it breaks at 100 s."""
    monkeypatch.setattr(
        Breaking, "tells", [Started(0.0, 0, None), Trained(1, 0.5, 4.0, 0.0, False), Saved(2, 8.0, 0.5)]
    )
    store, told, broken = CheckpointStore(str(tmp_path)), [], []
    save(store, 1, 2, 0.25)
    clock = SimpleNamespace(now_s=lambda: 90.0, speed=1.0)
    context = worker_group.GroupContext(
        WorkerSettings(Emulated(), str(tmp_path)), store, clock, lambda event_at: told.append(event_at(100.0))
    )
    site = worker_group.Site(["node-0"], "127.0.0.1", lambda: True)
    listener = worker_group.GroupListener(ended=lambda _: None, broken=broken.append)
    one = Breaking(start(), 80.0, {}, site, context=context, listener=listener)
    one.start()
    assert one.join(60)
    assert not broken
    [end] = told
    assert (end.outcome, end.iteration, end.checkpoint_iteration, end.score) == (Outcome.FAILED, 2, 2, 0.25)
    assert (end.launch_s, end.train_s, end.checkpoint_s, end.lost_s) == (10.0, 9.5, 0.5, 1.5)


# A trial that fails by itself.


def end(trial, outcome, durable=0, segment=0):
    return SegmentEnded(0.0, TrialId(trial), SegmentId(segment), durable, durable, None, outcome, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("raises", "times"), [(True, 5), (False, 20)])
def test_a_trial_that_only_fails_while_others_get_on_counts_as_diverged(raises, times):
    setbacks = RetryPolicy()
    if raises:
        setbacks.raised[SegmentId(0)] = "no memory"
    for number in range(times):
        assert not setbacks.is_hopeless(start())
        setbacks.hear(end(1, Outcome.FAILED), {})
        setbacks.hear(end(2, Outcome.ENDED, durable=number + 1), {})
    assert setbacks.is_hopeless(start())
    assert not setbacks.is_hopeless(start(trial=2))
    setbacks.forgive(ONE)
    assert not setbacks.is_hopeless(start()), "as a clone it is another trial"


def test_a_trial_that_makes_something_durable_between_its_failures_goes_on():
    setbacks = RetryPolicy()
    setbacks.raised[SegmentId(0)] = "no memory"
    for number in range(40):
        setbacks.hear(end(1, Outcome.FAILED, durable=number // 4), {})
        setbacks.hear(end(1, Outcome.INSTANCE_GONE, durable=number // 4), {})
        assert not setbacks.is_hopeless(start())


def test_where_nothing_but_failures_happens_the_run_stops_and_says_so(world):
    one = world()
    one.backend.next_event()
    rent(one.backend)
    for number in range(14):
        one.backend.perform(start(number, trial=1 + number // 5))
        hear(one.backend, SegmentEnded)
    one.backend.perform(start(14, trial=3))
    said = r"^trials 1, 2, 3 failed again and again, .* Trial 3 \(.*\) at iteration 0: .*out of memory\. If that is"
    with pytest.raises(WorkerError, match=said):
        hear(one.backend, SegmentEnded)


def test_a_trial_whose_process_always_dies_alone_ends_the_run():
    setbacks = RetryPolicy()
    for _ in range(19):
        setbacks.hear(end(1, Outcome.FAILED), {})
    with pytest.raises(WorkerError, match="trial 1 failed again and again at iteration 0, and no other trial got on"):
        setbacks.hear(end(1, Outcome.FAILED), {})


def fails(setbacks, trial, times=5):
    """Errors of the training, from the first to the one before the trial is given up."""
    for _ in range(times):
        setbacks.raised[SegmentId(trial)] = "no memory (mine.py, line 3)"
        assert not setbacks.is_hopeless(start(segment=trial, trial=trial))
        setbacks.hear(end(trial, Outcome.FAILED, segment=trial), {"width": trial})


def test_a_trial_whose_training_always_raises_ends_no_run_though_it_is_alone():
    setbacks = RetryPolicy()
    for trial in range(1, 9):
        fails(setbacks, trial)
        assert setbacks.is_hopeless(start(segment=100 + trial, trial=trial))
        setbacks.hear(end(trial, Outcome.COMPLETED, durable=4, segment=100 + trial), {})
        if trial % 2 == 0:  # the next one trains
            setbacks.hear(end(50 + trial, Outcome.COMPLETED, durable=4, segment=200 + trial), {})


def test_trials_that_all_raise_end_the_run_which_says_what_and_which():
    setbacks = RetryPolicy()
    for trial in (1, 2):
        fails(setbacks, trial)
        assert setbacks.is_hopeless(start(segment=100 + trial, trial=trial))
        setbacks.hear(end(trial, Outcome.COMPLETED, durable=4, segment=100 + trial), {})
    fails(setbacks, 3, times=4)
    said = r"trials 1, 2, 3 failed .* Trial 3 \(width=3\) at iteration 0: no memory \(mine\.py, line 3\)\. If .* anew .* \(-o\)"
    with pytest.raises(WorkerError, match=said):
        fails(setbacks, 3, times=1)


def test_a_hopeless_trial_is_told_as_diverged_and_costs_nothing(world):
    one = world()
    one.backend.next_event()
    rent(one.backend)
    for _ in range(5):
        one.backend._retries.hear(end(2, Outcome.COMPLETED, durable=1), {})
        one.backend._retries.raised[SegmentId(1)] = "no memory"
        one.backend._retries.hear(end(1, Outcome.FAILED, segment=1), {})
        one.backend._retries.hear(end(2, Outcome.COMPLETED, durable=1), {})
    one.backend.perform(start(9, until=4))
    assert isinstance(one.backend.next_event(), TrialSampled)
    told = one.backend.next_event()
    assert (told.outcome, told.iteration, told.score, told.train_s) == (Outcome.COMPLETED, 4, None, 0.0)
    assert told.launch_s >= 0, "the time since its command is accounted for"
