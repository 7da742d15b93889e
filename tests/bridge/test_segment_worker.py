import json
import math
import pickle
import threading

import pytest

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


class Counting:
    """A trial whose weight is a list of what was done to it; scores are halves, quarters, ...; NaN after 7."""

    def __init__(self, configuration):
        self.history = []
        self.configuration = dict(configuration)
        self.on_iteration = lambda _iteration: None

    def train_iteration(self):
        self.history.append(self.configuration["name"])
        self.on_iteration(len(self.history))

    def evaluate(self):
        return 0.5 ** len(self.history) if len(self.history) <= 7 else math.nan

    def save(self, path):
        path.write_text(json.dumps(self.history))

    def load(self, path):
        try:
            self.history = json.loads(path.read_text())
        except ValueError as error:
            raise WorkerError(f"{path} is not a checkpoint") from error


class Bench:
    """A factory that remembers what it built."""

    needs_process_group = False

    def __init__(self):
        self.built = []
        self.on_iteration = lambda _iteration: None

    def __call__(self, assignment, device):
        trial = Counting(assignment.configuration)
        trial.on_iteration = self.on_iteration
        self.built.append((trial, device))
        return trial


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(str(tmp_path))


@pytest.fixture
def worker(bench, tmp_path):
    """A worker of one; iterations that nobody asked for are not told, however slow the machine is."""

    def make(trial=0, until=4, told_every_s=math.inf, **changes):
        asked = {
            "trial": trial,
            "segment": 0,
            "from_iteration": 0,
            "until_iteration": until,
            "report_every": 0,
            "checkpoint_every": 0,
            "restore_from": None,
            "configuration": {"name": f"trial {trial}"},
            "rank": 0,
            "nodes": 1,
            "size": 1,
        }
        settings = WorkerSettings(bench, str(tmp_path), told_every_s=told_every_s)
        return SegmentWorker(settings, Assignment(**{**asked, **changes}))

    return make


def plain(messages):
    """The messages without their seconds."""
    told = []
    for message in messages:
        match message:
            case Started():
                told.append(("started", message.from_iteration, message.score))
            case Trained():
                told.append(("trained", message.iteration, message.score, message.is_report))
            case Saved():
                told.append(("saved", message.iteration))
            case Finished():
                told.append(("finished", message.iteration, message.score, message.was_ended))
    return told


def iterations_of(store, trial=0):
    return [saved.iteration for saved in store.recorded(trial)]


def test_a_new_trial_starts_trains_and_is_durable_when_it_finishes(worker, bench, store):
    messages = list(worker(until=3).train())

    assert plain(messages) == [("started", 0, None), ("finished", 3, 0.125, False)]
    assert bench.built[0][1] == "cpu"
    saved = store.latest(0)
    assert (saved.iteration, saved.score) == (3, 0.125)
    with store.restore(saved) as path:
        assert json.loads(path.read_text()) == ["trial 0"] * 3


def test_reports_and_checkpoints_come_at_their_multiples_but_not_at_the_end(worker, store):
    told = plain(worker(until=6, report_every=2, checkpoint_every=3).train())

    assert told == [
        ("started", 0, None),
        ("trained", 2, 0.25, True),
        ("saved", 3),
        ("trained", 4, 0.0625, True),
        ("finished", 6, 0.015625, False),
    ]
    assert iterations_of(store) == [6, 3]


def test_multiples_are_those_of_the_trial_and_not_of_the_segment(worker):
    list(worker(until=3).train())
    told = plain(worker(from_iteration=3, until=7, restore_from=0, report_every=2, checkpoint_every=4).train())

    assert told == [
        ("started", 3, 0.125),
        ("trained", 4, 0.0625, True),
        ("saved", 4),
        ("trained", 6, 0.015625, True),
        ("finished", 7, 0.0078125, False),
    ]


def test_a_message_says_the_seconds_of_the_segment_so_far(worker, bench, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        "elastune.sim.bridge.workers.worker.time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})
    )

    def take(_iteration):
        now[0] += 2.0

    bench.on_iteration = take
    plain_save = CheckpointStore.save

    def slow_save(*arguments, **keywords):
        now[0] += 0.5
        return plain_save(*arguments, **keywords)

    monkeypatch.setattr(CheckpointStore, "save", slow_save)
    made = worker(until=4, report_every=1, checkpoint_every=2)
    now[0] += 3.0
    messages = list(made.train())

    assert messages == [
        Started(3.0, 0, None),
        Trained(1, 0.5, 2.0, 0.0, is_report=True),
        Trained(2, 0.25, 4.0, 0.0, is_report=True),
        Saved(2, 4.0, 0.5),
        Trained(3, 0.125, 6.0, 0.5, is_report=True),
        Finished(4, 0.0625, 3.0, 8.0, 1.0, was_ended=False),
    ]


def test_iterations_that_nobody_asked_for_are_told_once_in_a_while(worker, bench, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        "elastune.sim.bridge.workers.worker.time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})
    )

    def take(_iteration):
        now[0] += 0.04

    bench.on_iteration = take
    told = plain(worker(until=7, told_every_s=0.1).train())

    assert [entry[1:] for entry in told if entry[0] == "trained"] == [(3, 0.125, False), (6, 0.015625, False)]


def test_a_score_that_is_not_finite_is_none(worker, store):
    told = plain(worker(until=9, report_every=1).train())

    assert told[-2:] == [("trained", 8, None, True), ("finished", 9, None, False)]
    assert store.latest(0).score is None


def test_told_to_end_it_finishes_the_iteration_under_way_and_is_durable(worker, bench, store):
    segment = worker(until=100, report_every=1)
    bench.on_iteration = lambda iteration: segment.end() if iteration == 3 else None
    told = plain(segment.train())

    assert told == [
        ("started", 0, None),
        ("trained", 1, 0.5, True),
        ("trained", 2, 0.25, True),
        ("finished", 3, 0.125, True),
    ]
    assert iterations_of(store) == [3]


def test_another_thread_can_end_a_segment(worker, bench, store):
    segment, is_training = worker(until=10**9), threading.Event()
    bench.on_iteration = lambda _iteration: is_training.set()
    messages = []
    thread = threading.Thread(target=lambda: messages.extend(segment.train()))
    thread.start()
    assert is_training.wait(60)
    segment.end()
    thread.join(60)

    assert not thread.is_alive()
    assert messages[-1].was_ended
    assert store.latest(0).iteration == messages[-1].iteration == len(bench.built[0][0].history)


def test_told_to_end_during_its_last_iteration_it_is_complete(worker, bench):
    segment = worker(until=2)
    bench.on_iteration = lambda iteration: segment.end() if iteration == 2 else None

    assert plain(segment.train())[-1] == ("finished", 2, 0.25, False)


def test_told_to_end_before_it_trains_it_has_done_nothing(worker, store):
    segment = worker(until=5)
    segment.end()
    assert plain(segment.train()) == [("started", 0, None), ("finished", 0, None, True)]
    assert store.latest(0) is None

    list(worker(until=2).train())
    resumed = worker(from_iteration=2, until=5, restore_from=0)
    resumed.end()
    assert plain(resumed.train()) == [("started", 2, 0.25), ("finished", 2, 0.25, True)]
    assert iterations_of(store) == [2]


def test_told_to_end_after_a_checkpoint_it_writes_no_second_one(worker, monkeypatch):
    saves = []
    plain_save = CheckpointStore.save

    def counted(self, trial, iteration, *arguments, **keywords):
        saves.append(iteration)
        return plain_save(self, trial, iteration, *arguments, **keywords)

    monkeypatch.setattr(CheckpointStore, "save", counted)
    segment = worker(until=10, checkpoint_every=2)
    told = []
    for message in segment.train():
        told.append(message)
        if isinstance(message, Saved):
            segment.end()

    assert plain(told) == [("started", 0, None), ("saved", 2), ("finished", 2, 0.25, True)]
    assert saves == [2]


def test_a_reclaim_notice_has_each_iteration_saved_from_then_on(worker, bench, store):
    segment = worker(until=6, checkpoint_every=4)
    bench.on_iteration = lambda iteration: segment.save_each() if iteration == 2 else None

    told = plain(segment.train())
    assert [entry[1] for entry in told if entry[0] == "saved"] == [2, 3, 4, 5]
    assert told[-1] == ("finished", 6, 0.015625, False)
    assert iterations_of(store) == [6, 5]


def test_a_segment_with_nothing_to_do_finishes_at_once(worker):
    list(worker(until=4).train())

    assert plain(worker(from_iteration=4, until=3, restore_from=0).train()) == [
        ("started", 4, 0.0625),
        ("finished", 4, 0.0625, False),
    ]


def test_a_truncated_checkpoint_is_skipped_and_its_work_is_done_again(worker, bench, store, tmp_path):
    list(worker(until=4, checkpoint_every=2).train())
    [newest] = (tmp_path / "trial-00000").glob("iteration-000004-*.ckpt")
    newest.write_bytes(newest.read_bytes()[:-1])
    told = plain(worker(from_iteration=4, until=6, restore_from=0).train())

    assert told == [("started", 2, 0.25), ("finished", 6, 0.015625, False)]
    assert len(bench.built[-1][0].history) == 6
    assert iterations_of(store) == [6, 2]


def test_without_any_readable_checkpoint_a_trial_starts_anew(worker, store, tmp_path):
    list(worker(until=4, checkpoint_every=2).train())
    for path in (tmp_path / "trial-00000").glob("*.ckpt"):
        path.write_bytes(b"")

    assert plain(worker(from_iteration=4, until=6, restore_from=0).train()) == [
        ("started", 0, None),
        ("finished", 6, 0.015625, False),
    ]
    assert iterations_of(store) == [6]


def test_a_checkpoint_that_the_trial_cannot_load_is_skipped(worker, store):
    store.save(0, 1, 0.5, lambda path: path.write_text('["trial 0"]'))
    store.save(0, 2, 0.25, lambda path: path.write_text("of another kind"))

    assert plain(worker(from_iteration=2, until=3, restore_from=0).train()) == [
        ("started", 1, 0.5),
        ("finished", 3, 0.125, False),
    ]


def test_a_trial_never_goes_on_from_beyond_what_the_controller_knows(worker, store):
    list(worker(until=6, checkpoint_every=3).train())

    # The event of iteration 6 never arrived: it is trained again, and what was saved there counts no more.
    segment = worker(from_iteration=3, until=5, restore_from=0)
    segment.end()
    assert plain(segment.train()) == [("started", 3, 0.125), ("finished", 3, 0.125, True)]
    assert iterations_of(store) == [3]


def test_what_an_earlier_run_left_under_the_number_of_a_new_trial_is_void(worker, store):
    list(worker(until=6).train())
    segment = worker(until=2)
    segment.end()
    list(segment.train())

    assert store.latest(0) is None


def test_a_clone_goes_on_from_its_source_with_its_own_configuration_and_what_it_had_itself_is_void(
    worker, bench, store
):
    list(worker(trial=0, until=3).train())
    list(worker(trial=1, until=6, checkpoint_every=5).train())
    told = plain(worker(trial=1, from_iteration=3, until=5, restore_from=0).train())

    assert told == [("started", 3, 0.125), ("finished", 5, 0.03125, False)]
    assert bench.built[-1][0].history == ["trial 0"] * 3 + ["trial 1"] * 2
    assert iterations_of(store, 1) == [5]
    assert iterations_of(store, 0) == [3]


def test_a_clone_that_has_done_nothing_still_borrows(worker, store):
    list(worker(trial=0, until=3).train())
    clone = worker(trial=1, from_iteration=3, until=5, restore_from=0)
    clone.end()

    assert plain(clone.train()) == [("started", 3, 0.125), ("finished", 3, 0.125, True)]
    assert iterations_of(store, 1) == []


def test_a_source_that_trains_on_keeps_what_was_promised_to_a_clone(worker, store):
    list(worker(trial=0, until=3).train())
    list(worker(trial=0, from_iteration=3, until=9, restore_from=0, checkpoint_every=1).train())

    assert iterations_of(store, 0) == [9, 8, 3]
    assert plain(worker(trial=1, from_iteration=3, until=4, restore_from=0).train())[0] == ("started", 3, 0.125)


def test_a_clone_whose_promise_is_gone_takes_the_next_checkpoint_of_its_source_and_makes_it_its_own(worker, store):
    list(worker(trial=0, until=6, checkpoint_every=5).train())
    clone = worker(trial=1, from_iteration=3, until=5, restore_from=0)

    assert plain(clone.train()) == [("started", 5, 0.03125), ("finished", 5, 0.03125, False)]
    assert iterations_of(store, 1) == [5]


def test_an_error_of_the_trial_is_the_error_of_the_segment(worker, bench):
    def fail(iteration):
        if iteration == 2:
            raise ZeroDivisionError("in the middle of it")

    bench.on_iteration = fail
    messages = worker(until=5, report_every=1).train()

    assert plain([next(messages), next(messages)])[-1] == ("trained", 1, 0.5, True)
    with pytest.raises(ZeroDivisionError, match="in the middle of it"):
        next(messages)


def test_where_no_process_group_is_needed_the_other_ranks_only_hold_their_slots(worker, bench):
    member = worker(rank=1, size=2)
    told = []
    holding = threading.Thread(target=lambda: told.extend(member.train()), daemon=True)
    holding.start()
    holding.join(0.2)
    assert holding.is_alive()
    member.end()
    holding.join(60)
    assert not holding.is_alive()
    assert told == []
    assert bench.built == []


def test_a_member_that_does_not_know_where_its_worker_group_meets_says_so(worker, bench):
    bench.needs_process_group = True
    with pytest.raises(WorkerError, match="trial 0: rank 1 does not know where its worker group meets"):
        next(worker(rank=1, size=2).train(None))
    with pytest.raises(WorkerError, match="trial 0: rank 0 does not know where its worker group meets"):
        next(worker(rank=0, size=2).train("127.0.0.1:1"))


def test_rank_0_can_be_met_on_the_address_it_was_given_and_nowhere_else(worker):
    segment = worker(size=2)
    host, port = segment.rendezvous().rsplit(":", 1)

    assert host == "127.0.0.1"
    assert segment._listening.getsockname() == ("127.0.0.1", int(port))
    segment._listening.close()


def test_assignments_and_messages_travel():
    assignment = Assignment(1, 2, 3, 4, 0, 0, 1, {"rate": 0.5}, 0, 1, 2)
    for thing in (assignment, Started(1.0, 2, None), Trained(1, 0.5, 1.0, 0.0, True), Saved(1, 1.0, 0.1)):
        assert pickle.loads(pickle.dumps(thing)) == thing
