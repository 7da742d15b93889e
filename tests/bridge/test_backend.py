"""The real backend keeps the promises that the simulated one keeps, and turns deaths into events in time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray import cloudpickle

from elastune.experiments.contracts.backends import Dialogue
from elastune.experiments.contracts.policies import BACKEND_PROMISES, BackendUnderTest, check_backend
from elastune.experiments.real.trainables import WorkloadTrainables
from elastune.sim.bridge.machines.clock import Clock
from elastune.sim.bridge.machines.fault_injector import FaultInjector
from elastune.sim.bridge.machines.nodes import NoNodeError
from elastune.sim.model.commands import ProvisionInstance, StartSegment, StartTimer
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceReady,
    InstanceRefused,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    TimerFired,
    TrialSampled,
)
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
from elastune.sim.model.prices import ON_DEMAND, SPOT
from elastune.sim.model.profile import CloudTruth, Spot
from elastune.sim.model.reclaim import Lifetimes
from elastune.sim.model.streams import Streams
from tests.bridge.chaos import wait_for
from tests.bridge.conftest import ITERATIONS, Emulated

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests
ZERO = InstanceId(0)
HANGS_S = 60.0
"""Longer than anything here takes, and shorter than the six hours that the members of a worker group wait for each other."""


class LosesItsMachine(Emulated):
    """Trial 1 kills the machine on which it trains, with all that runs there, after an iteration."""

    def __call__(self, assignment, device):
        trial = super().__call__(assignment, device)
        if assignment.trial == 1:
            train_iteration = trial.train_iteration

            def deadly():
                train_iteration()
                os.kill(os.getppid(), signal.SIGKILL)

            trial.train_iteration = deadly
        return trial


@pytest.fixture
def under_test(real):
    return BackendUnderTest(
        "ray", real, "m", iterations=ITERATIONS, moment_s=0.25, build_losing=lambda: real(LosesItsMachine()),
        is_repeatable=False,
    )  # fmt: skip


@pytest.mark.parametrize("promise", BACKEND_PROMISES)
def test_the_real_backend_keeps_its_promises(under_test, promise):
    check_backend(under_test, promise)


def pair_on(nodes):
    """The processes of both actors on a machine; the second may come up when the first trains already."""
    raylet = psutil.Process(nodes.raylet_pid(ZERO))

    def found():
        with contextlib.suppress(psutil.Error):  # a process that ends is no actor
            actors = [one for one in raylet.children(recursive=True) if "SegmentWorker" in " ".join(one.cmdline())]
            return actors if len(actors) == 2 else None

    return wait_for(found)


@dataclass(frozen=True)
class NotesItsProcess(Emulated):
    """Notes which process trains: that of rank 0, as the other member only holds its slot."""

    note: str = ""

    def __call__(self, assignment, device):
        Path(self.note).write_text(str(os.getpid()))
        return super().__call__(assignment, device)


def start(talk, segment, gpus, since=0, until=ITERATIONS, checkpoint_every=1):
    talk.backend.perform(
        StartSegment(
            SegmentId(segment), TrialId(1), ((ZERO, gpus),), since, until, report_every=1,
            checkpoint_every=checkpoint_every, restore_from=TrialId(1) if since else None,
        )
    )  # fmt: skip


def end_after_death(talk, process):
    """The end of segment 0 once this process of its worker group has died."""
    process.kill()
    talk.backend.perform(StartTimer("hangs", talk.now_s + HANGS_S))
    end = talk.end_of(0)
    assert not [event for event in talk.events if isinstance(event, TimerFired)], "nobody noticed the death"
    return end


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_group_that_loses_a_member_fails_at_once_and_goes_on_from_what_was_saved(
    under_test, real, rank, tmp_path
):
    note = tmp_path / "process"
    talk = Dialogue(under_test, "a broken worker group", real(trainables=NotesItsProcess(0.4, note=str(note))))
    talk.hear()
    talk.rent(0)
    started_at_s = talk.now_s
    start(talk, 0, gpus=2)
    talk.hear_until(lambda event: isinstance(event, ProgressReported) and event.iteration == 2)
    both = pair_on(talk.backend.nodes)
    [victim] = [one for one in both if (one.pid == int(note.read_text())) == (rank == 0)]
    end = end_after_death(talk, victim)
    assert end.outcome is Outcome.FAILED
    assert end.iteration >= end.checkpoint_iteration >= 1
    assert end.launch_s + end.train_s + end.checkpoint_s == pytest.approx(end.at_s - started_at_s, abs=1e-6)
    assert 0 < end.lost_s < end.train_s
    assert not psutil.wait_procs(both, timeout=HANGS_S)[1], "a survivor lives on"
    start(talk, 1, gpus=1, since=end.checkpoint_iteration, until=end.checkpoint_iteration + 1)
    again = talk.end_of(1)
    assert (again.outcome, again.iteration) == (Outcome.COMPLETED, end.checkpoint_iteration + 1)
    assert again.score == pytest.approx(1 + 1 / again.iteration)
    assert [event.configuration for event in talk.events if isinstance(event, TrialSampled)] == [{"number": 1}]


def test_a_worker_group_that_trains_together_is_ended_as_a_whole_when_one_of_it_dies(under_test, real):
    """The survivor waits in a collective for its lost peer, and would do so for ever."""
    configuration = {
        "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 1e-5, "batch_size": 32,
        "hidden_layers": 1, "width": 32, "dropout": 0.0, "init_scale": 1.0,
    }  # fmt: skip
    backend = real(trainables=WorkloadTrainables("digits-mlp", 0), configuration=configuration)
    talk = Dialogue(under_test, "a broken worker group", backend)
    talk.hear()
    talk.rent(0)
    start(talk, 0, gpus=2, until=10_000)
    talk.hear_until(lambda event: isinstance(event, ProgressReported) and event.iteration == 3)
    both = pair_on(talk.backend.nodes)
    end = end_after_death(talk, both[1])
    assert end.outcome is Outcome.FAILED
    assert end.checkpoint_iteration >= 2
    assert not psutil.wait_procs(both, timeout=HANGS_S)[1], "a survivor lives on"


class ClockPutForward(Clock):
    """A clock that a test can put forward, so that what is due in an hour happens now."""

    skipped_s = 0.0

    def put_forward(self, seconds):
        self.skipped_s += seconds

    def now_s(self):
        return super().now_s() + self.skipped_s

    def wait(self, seconds, interrupted):
        until_s = self.now_s() + seconds
        while self.now_s() < until_s and not interrupted.is_set():
            super().wait(min(until_s - self.now_s(), 0.05), interrupted)
        return interrupted.is_set()


def test_a_spot_machine_is_reclaimed_after_a_notice_in_which_everything_is_saved(under_test, real):
    cloud = CloudTruth(spot=Spot(Lifetimes(mean_s=10_000.0, shape=60.0), notice_s=6_000.0))
    clock = ClockPutForward()
    injector = FaultInjector(cloud, Streams(0))
    talk = Dialogue(under_test, "a reclaim", real(fault_injector=injector, trainables=Emulated(0.2), clock=clock))

    def train_on(iterations):
        for _ in range(iterations):
            talk.hear_until(lambda event: isinstance(event, ProgressReported))

    talk.hear()
    talk.backend.perform(ProvisionInstance(ZERO, "m", SPOT))
    talk.hear_until(lambda event: isinstance(event, InstanceReady))
    start(talk, 0, gpus=1, checkpoint_every=0)
    train_on(2)
    clock.put_forward(13_000.0)
    notice = talk.hear_until(lambda event: isinstance(event, ReclaimNoticed))
    train_on(3)
    clock.put_forward(notice.gone_at_s - talk.now_s)
    end = talk.end_of(0)
    gone = talk.hear_until(lambda event: isinstance(event, InstanceGone))
    assert end.outcome is Outcome.INSTANCE_GONE
    assert gone.cause is GoneCause.RECLAIMED
    assert gone.at_s >= notice.gone_at_s
    assert end.iteration - end.checkpoint_iteration <= 1, "it was told to save after each iteration"
    assert end.checkpoint_iteration > 1


def test_a_machine_that_cannot_be_had_is_refused(under_test, real):
    backend = real()

    def none(*_, **__):
        raise NoNodeError("all are taken")

    backend.nodes.acquire = none
    talk = Dialogue(under_test, "a refusal", backend)
    talk.hear()
    talk.backend.perform(ProvisionInstance(ZERO, "m", ON_DEMAND))
    refused = talk.hear_until(lambda event: isinstance(event, InstanceRefused))
    assert refused.reason == "all are taken"
    assert backend.next_event() is None, "nothing can happen any more"


def test_what_breaks_in_the_backend_itself_is_not_waited_for_for_ever(under_test, real):
    backend = real()

    def broken(*_, **__):
        raise WorkerError("the cluster is gone")

    backend.nodes.acquire = broken
    talk = Dialogue(under_test, "a breakdown", backend)
    talk.hear()
    talk.backend.perform(ProvisionInstance(ZERO, "m", ON_DEMAND))
    with pytest.raises(WorkerError, match="the cluster is gone"):
        talk.hear_until(lambda _: False)


def test_a_dead_node_is_not_waited_for_while_another_one_starts(cluster):
    one, other = InstanceId(600_001), InstanceId(600_002)
    cluster.acquire(one, 1, launched=lambda: None, is_cancelled=lambda: False)
    is_starting, may_go_on, held = threading.Event(), threading.Event(), []

    def is_launched():
        is_starting.set()
        held.append(may_go_on.wait(HANGS_S))

    def start_another():
        cluster.acquire(other, 1, launched=is_launched, is_cancelled=lambda: False)

    starting = threading.Thread(target=start_another)
    starting.start()
    assert is_starting.wait(60)
    psutil.Process(cluster.raylet_pid(one)).send_signal(signal.SIGKILL)
    wait_for(lambda: one in cluster.dead())
    cluster.release(one)
    may_go_on.set()
    starting.join(HANGS_S)
    assert held == [True], "the dead one was given back only when the other had come up"
    cluster.release(other)
    assert one not in cluster.dead()


def test_control_is_timed(under_test, real):
    talk = Dialogue(under_test, "timing", real())
    talk.hear()
    handed_over_s = talk.backend.handed_over_s
    time.sleep(0.05)
    talk.wait("a moment", 0.2)
    [control_s] = talk.backend.control_s
    assert 0.05 <= control_s < talk.backend.handed_over_s - handed_over_s
