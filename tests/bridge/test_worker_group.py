import os
import shutil
import signal

import pytest
from packages import needs
from worker_groups import DIED, Meeting, run_group

from elastune.experiments.real.trainables import WorkloadTrainables
from elastune.sim.bridge.workers import process_group
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.bridge.workers.worker import (
    Assignment,
    Finished,
    Saved,
    SegmentWorker,
    Started,
    Trained,
    WorkerSettings,
)
from elastune.sim.model.errors import WorkerError

needs("torch", "sklearn")

CONFIGURATION = {
    "optimizer": "adam",
    "learning_rate": 0.003,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 64,
    "hidden_layers": 2,
    "width": 32,
    "dropout": 0.3,
    "init_scale": 1.0,
}
DIGITS = WorkloadTrainables("digits-mlp", seed=3)
ALONE = Meeting(0, 1, None)


class CannotLoadTheNewest:
    """Real training, but rank 1 finds the checkpoint of iteration 4 unreadable."""

    needs_process_group = True

    def __call__(self, assignment, device):
        trainable = DIGITS(assignment, device)
        if assignment.rank == 1:
            load = trainable.load

            def picky(path):
                if "iteration-000004" in path.name:
                    raise WorkerError("the disk of rank 1 is broken")
                load(path)

            trainable.load = picky
        return trainable


def assignment(rank, size, **changes):
    asked = {
        "trial": 0,
        "segment": 0,
        "from_iteration": 0,
        "until_iteration": 6,
        "report_every": 1,
        "checkpoint_every": 0,
        "restore_from": None,
        "configuration": CONFIGURATION,
        "nodes": 1,
    }
    return Assignment(rank=rank, size=size, **{**asked, **changes})


def train(meeting, build, folder, device="cpu", ends_after=None, **changes):
    worker = SegmentWorker(WorkerSettings(build, folder, device), assignment(meeting.rank, meeting.size, **changes))
    address = None if meeting.size == 1 else meeting.at(worker.rendezvous() if meeting.rank == 0 else None)
    messages = []
    for message in worker.train(address):
        messages.append(message)
        if isinstance(message, Trained) and message.iteration == ends_after:
            worker.end()
    return messages


def several_segments(meeting, folder):
    """One after another in the same processes: to its end, told to end, resumed, and with a checkpoint rank 1 cannot read."""
    return [
        train(meeting, DIGITS, f"{folder}/straight"),
        train(meeting, DIGITS, f"{folder}/cut", until_iteration=9, ends_after=2),
        train(meeting, DIGITS, f"{folder}/cut", from_iteration=2, restore_from=0),
        train(meeting, DIGITS, f"{folder}/picky", until_iteration=4, checkpoint_every=2),
        train(meeting, CannotLoadTheNewest(), f"{folder}/picky", from_iteration=4, restore_from=0),
    ]


def scores(messages):
    return [message.score for message in messages if not isinstance(message, Started)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def group(folder):
    return run_group(2, several_segments, str(folder))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(ALONE, DIGITS, str(tmp_path_factory.mktemp("alone")))


@pytest.mark.slow
def test_two_workers_report_the_scores_of_one(group, alone):
    straight = group[0][0]

    assert isinstance(straight[-1], Finished)
    assert len(scores(straight)) == 6
    assert scores(straight) == pytest.approx(scores(alone), abs=1 / 600)
    assert group[1] == [[]] * 5, "the others tell nothing"


@pytest.mark.slow
def test_all_members_stop_at_the_iteration_at_which_rank_0_was_told_to(group, alone, folder):
    _, cut, resumed, _, _ = group[0]

    assert (cut[-1].iteration, cut[-1].was_ended) == (2, True)
    assert (resumed[0].from_iteration, resumed[0].score) == (2, cut[-1].score)
    assert scores(cut)[:2] + scores(resumed) == pytest.approx(scores(alone), abs=1 / 600)
    assert CheckpointStore(str(folder / "cut")).latest(0).iteration == 6


@pytest.mark.slow
def test_all_members_go_back_to_a_checkpoint_that_each_of_them_can_read(group, alone):
    *_, picky, again = group[0]

    assert picky[-1].iteration == 4
    assert again[0].from_iteration == 2
    assert scores(again) == pytest.approx(scores(alone)[2:], abs=1 / 600)


@pytest.mark.slow
def test_a_worker_group_can_shrink_to_one_worker_and_goes_on_from_the_same_checkpoint(group, alone, folder, tmp_path):
    assert group[0][0][-1].iteration == 6
    shutil.copytree(folder / "cut", tmp_path / "cut")
    resumed = train(ALONE, DIGITS, str(tmp_path / "cut"), from_iteration=2, restore_from=0)

    assert [message.iteration for message in resumed[1:]] == [3, 4, 5, 6]
    assert resumed[0].from_iteration == 2
    assert scores(resumed) == pytest.approx(scores(alone)[2:], abs=1 / 600)


class DiesInTheSixthIteration:
    """Real training, but SIGKILL ends rank 1 where it would train its sixth iteration."""

    needs_process_group = True

    def __call__(self, assignment, device):
        trainable = DIGITS(assignment, device)
        if assignment.rank == 1:
            train_iteration, done = trainable.train_iteration, []

            def deadly():
                if len(done) == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.append(train_iteration())

            trainable.train_iteration = deadly
        return trainable


def lose_a_member(meeting, folder):
    """What rank 0 told, and whether its worker group broke."""
    worker = SegmentWorker(
        WorkerSettings(DiesInTheSixthIteration(), folder),
        assignment(meeting.rank, 2, until_iteration=10**6, checkpoint_every=2),
    )
    told = []
    try:
        told.extend(worker.train(meeting.at(worker.rendezvous() if meeting.rank == 0 else None)))
    except RuntimeError:
        return told, "broken"
    return told, "whole"


@pytest.mark.slow
def test_a_worker_group_that_loses_a_member_breaks_and_what_was_durable_stays(tmp_path):
    (told, state), lost = run_group(2, lose_a_member, str(tmp_path))
    assert (state, lost) == ("broken", DIED)
    assert [message.iteration for message in told if isinstance(message, Saved)] == [2, 4]
    assert [message.iteration for message in told if isinstance(message, Trained)] == [1, 2, 3, 4, 5]

    resumed = train(ALONE, DIGITS, str(tmp_path), from_iteration=5, restore_from=0)
    assert (resumed[0].from_iteration, resumed[0].score) == (4, told[-3].score)
    assert resumed[-1].iteration == 6


def test_a_worker_group_whose_members_do_not_come_says_so(tmp_path, monkeypatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "lo")
    worker = SegmentWorker(WorkerSettings(DIGITS, str(tmp_path), forming_s=1.0), assignment(0, 2))

    with pytest.raises(WorkerError, match=r"rank 0 of 2: the worker group at 127\.0\.0\.1:\d+ did not come together"):
        next(worker.train(worker.rendezvous()))


def open_sockets(meeting):
    """The addresses at which the processes of a worker group listen while it trains."""
    import psutil

    listening = process_group.listen("127.0.0.1") if meeting.rank == 0 else None
    address = meeting.at(listening and f"127.0.0.1:{listening.getsockname()[1]}")
    with process_group.form_group(meeting.rank, meeting.size, "cpu", address, listening) as group:
        assert group.agree(7 if meeting.rank == 0 else 0) == 7
        assert group.all_of(is_true=True)
        assert not group.all_of(is_true=meeting.rank == 0)
        connections = psutil.Process().net_connections("tcp")
        return sorted({connection.laddr.ip for connection in connections if connection.status == "LISTEN"})


@pytest.mark.slow
def test_a_worker_group_on_loopback_agrees_and_listens_nowhere_else():
    listening = run_group(2, open_sockets)

    assert "127.0.0.1" in listening[0]
    assert all(set(addresses) <= {"127.0.0.1"} for addresses in listening), listening
