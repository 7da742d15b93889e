"""The real backend keeps the promises that the simulated one keeps, and turns deaths into events in time."""

from __future__ import annotations

import signal
import threading
import time

import psutil
import pytest

from elastune.experiments.contracts.backends import Dialogue
from elastune.experiments.contracts.policies import BACKEND_PROMISES, BackendUnderTest, check_backend
from elastune.experiments.real.trainables import WorkloadTrainables
from elastune.sim.bridge.machines.fault_injector import FaultInjector
from elastune.sim.bridge.machines.nodes import NoNodeError
from elastune.sim.model.commands import ProvisionInstance, StartSegment
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceRefused,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    TrialSampled,
)
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
from elastune.sim.model.prices import ON_DEMAND, SPOT
from elastune.sim.model.profile import CloudTruth, Spot
from elastune.sim.model.reclaim import Lifetimes
from elastune.sim.model.streams import Streams
from tests.bridge.conftest import ITERATIONS, Emulated

ZERO = InstanceId(0)


@pytest.fixture
def under_test(real):
    return BackendUnderTest(
        "ray", real, "m", iterations=ITERATIONS, moment_s=0.25, build_losing=lambda: real(loses_after_s=4.0),
        is_repeatable=False,
    )  # fmt: skip


@pytest.mark.parametrize("promise", BACKEND_PROMISES)
def test_the_real_backend_keeps_its_promises(under_test, promise):
    check_backend(under_test, promise)


def members(nodes):
    """Processes of the actors on a machine."""
    raylet = psutil.Process(nodes.raylet_pid(ZERO))
    return [child for child in raylet.children(recursive=True) if "SegmentWorker" in " ".join(child.cmdline())]


def start(talk, segment, gpus, since=0, until=ITERATIONS):
    talk.backend.perform(
        StartSegment(
            SegmentId(segment), TrialId(1), ((ZERO, gpus),), since, until, report_every=1, checkpoint_every=1,
            restore_from=TrialId(1) if since else None,
        )
    )  # fmt: skip


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_group_that_loses_a_member_fails_at_once_and_goes_on_from_what_was_saved(under_test, real, victim):
    talk = Dialogue(under_test, "a broken worker group", real(trainables=Emulated(0.4)))
    talk.hear()
    talk.rent(0)
    started_at_s = talk.now_s
    start(talk, 0, gpus=2)
    talk.hear_until(lambda event: isinstance(event, ProgressReported) and event.iteration == 2)
    both = members(talk.backend.nodes)
    assert len(both) == 2
    both[victim].send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    end = talk.end_of(0)
    assert time.monotonic() - killed_s < 2.0
    assert end.outcome is Outcome.FAILED
    assert end.iteration >= end.checkpoint_iteration >= 1
    assert end.launch_s + end.train_s + end.checkpoint_s == pytest.approx(end.at_s - started_at_s, abs=1e-6)
    assert 0 < end.lost_s < end.train_s
    assert not psutil.wait_procs(both, timeout=2.0)[1], "a survivor lives on"
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
    both = members(talk.backend.nodes)
    both[1].send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    end = talk.end_of(0)
    assert time.monotonic() - killed_s < 2.0
    assert end.outcome is Outcome.FAILED
    assert end.checkpoint_iteration >= 2
    assert not psutil.wait_procs(both, timeout=2.0)[1], "a survivor lives on"


def test_a_spot_machine_is_reclaimed_after_a_notice_in_which_everything_is_saved(under_test, real):
    cloud = CloudTruth(spot=Spot(Lifetimes(mean_s=8.0, shape=60.0), notice_s=2.0))
    talk = Dialogue(
        under_test, "a reclaim", real(fault_injector=FaultInjector(cloud, Streams(0)), trainables=Emulated(0.2))
    )
    talk.hear()
    talk.backend.perform(ProvisionInstance(ZERO, "m", SPOT))
    talk.hear_until(lambda event: type(event).__name__ == "InstanceReady")
    talk.backend.perform(StartSegment(SegmentId(0), TrialId(1), ((ZERO, 1),), 0, ITERATIONS))
    notice = talk.hear_until(lambda event: isinstance(event, ReclaimNoticed))
    end = talk.end_of(0)
    gone = talk.hear_until(lambda event: isinstance(event, InstanceGone))
    assert end.outcome is Outcome.INSTANCE_GONE
    assert gone.cause is GoneCause.RECLAIMED
    assert notice.gone_at_s <= gone.at_s < notice.gone_at_s + 6.0  # how late depends on what else the machine does
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
    is_starting = threading.Event()

    def start_another():
        cluster.acquire(other, 1, launched=is_starting.set, is_cancelled=lambda: False)

    starting = threading.Thread(target=start_another)
    starting.start()
    assert is_starting.wait(60)
    psutil.Process(cluster.raylet_pid(one)).send_signal(signal.SIGKILL)
    while one not in cluster.dead():
        time.sleep(0.01)
    cluster.release(one)
    assert starting.is_alive(), "the loss of the one was not told before the other had come up"
    starting.join(60)
    cluster.release(other)
    assert one not in cluster.dead()


def test_control_is_timed(under_test, real):
    talk = Dialogue(under_test, "timing", real())
    talk.hear()
    talk.wait("a moment", 0.2)
    assert len(talk.backend.control_s) == 1
    assert 0 <= talk.backend.control_s[0] < 1
