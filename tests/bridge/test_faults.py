"""What goes wrong around workers, without any: nodes and gangs are stand-ins that fail where real ones hardly ever do."""

from __future__ import annotations

import json
import math
import threading
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError

pytest.importorskip("psutil", reason="real workers need the bridge extra")

from experiments.cli_live import Board
from experiments.real_run import Means, execute_real, resume_real
from experiments.real_state import cut_torn_note, leased_in, note_lease
from experiments.running import World
from sim.bridge import attached, backend, gang
from sim.bridge.backend import RayBackend
from sim.bridge.checkpoint import CheckpointStore
from sim.bridge.clock import Clock
from sim.bridge.injected import Fate, Weather
from sim.bridge.nodes import Node, NoNodeError
from sim.bridge.resumption import OpenInstance, OpenSegment, Resumption
from sim.bridge.setbacks import Setbacks
from sim.bridge.worker import Started, Workshop
from sim.journal import MemorySink
from sim.model.commands import ProvisionInstance, ReleaseInstance, StartSegment, StartTimer
from sim.model.errors import InputError, WorkerError
from sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    Outcome,
    SegmentEnded,
    TrialSampled,
)
from sim.model.ids import InstanceId, SegmentId, TrialId
from sim.model.protocols import InstanceStatus
from tests.bridge.conftest import Emulated, Table
from tests.bridge.test_real_runs import small

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


class Breaking(gang.Gang):
    """A gang that breaks as soon as it starts; nothing of Ray is there."""

    launches = None
    aborts_badly = False

    def _train(self):
        if self.launches is not None:
            self._hear(self.launches)
        raise RayTaskError("train", "", RuntimeError("out of memory"))

    def _dismiss(self):
        pass

    def _kill(self):
        if self.aborts_badly:
            raise RuntimeError("the head is gone")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A backend on stand-ins: it, its nodes, its store, and the configurations that it asks."""
    built = []

    def build(gangs=Breaking, fate=None, speed=100.0, resumption=None):
        monkeypatch.setattr(backend, "Gang", gangs)
        weather = Weather()
        if fate is not None:
            weather.fate = lambda *_: fate
        nodes, table = Nodes(), Table()
        workshop = Workshop(Emulated(), str(tmp_path / "checkpoints"))
        one = RayBackend(
            nodes,
            workshop,
            gpus_of={"m": 2},
            configurations=table,
            clock=Clock(speed, 0.0 if resumption is None else resumption.at_s),
            weather=weather,
            resumption=resumption,
        )
        built.append(one)
        return SimpleNamespace(backend=one, nodes=nodes, table=table, store=CheckpointStore(workshop.checkpoints))

    yield build
    for one in built:
        one.close()


def hear(one, kind, within=200):
    """The next fact of this kind."""
    for _ in range(within):
        fact = one.next_event()
        assert fact is not None, f"nothing can happen any more, without {kind}"
        if isinstance(fact, kind):
            return fact
    raise AssertionError(f"no {kind}")


def rent(one):
    one.perform(ProvisionInstance(ZERO, "m", "on-demand"))
    hear(one, InstanceReady)


def start(segment=0, trial=1, since=0, until=5, instance=ZERO, restore_from=None):
    source = restore_from if restore_from is not None else (TrialId(trial) if since else None)
    return StartSegment(SegmentId(segment), TrialId(trial), ((instance, 1),), since, until, restore_from=source)


def save(store, trial, iteration, score, segment=0):
    store.save(TrialId(trial), iteration, score, lambda path: path.write_text("x"), segment=SegmentId(segment))


@pytest.mark.parametrize("instance", [ZERO, InstanceId(7)], ids=["the gang breaks", "its machine is gone"])
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
    monkeypatch.setattr(Breaking, "launches", Started(0.0, 3, 0.25))
    one = world()
    save(one.store, 1, 5, 0.125)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start(since=3, until=5))
    end = hear(one.backend, SegmentEnded)
    assert (end.outcome, end.iteration, end.checkpoint_iteration, end.score) == (Outcome.COMPLETED, 5, 5, 0.125)


class Unreadable(Breaking):
    """The store cannot be read when the gang asks what of it is durable."""

    def _last_fact(self):
        raise PermissionError("checkpoints: permission denied")


def test_a_gang_whose_end_cannot_be_found_out_breaks_the_run_instead_of_being_silent(world):
    one = world(Unreadable)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    with pytest.raises(WorkerError, match="PermissionError: checkpoints: permission denied"):
        hear(one.backend, SegmentEnded)


def test_a_gang_can_be_waited_for_as_soon_as_it_can_be_found(world):
    found = []

    class Slow(Breaking):
        def start(self):
            found.append(one.backend._lock._is_owned())
            super().start()

    one = world(Slow)
    one.backend.next_event()
    rent(one.backend)
    one.backend.perform(start())
    hear(one.backend, SegmentEnded)
    assert found == [True], "a machine that dies now would wait for a thread that has not started"


class Endless(Breaking):
    """Trains until it is told to stop."""

    def _train(self):
        self._broken.wait()


def test_machines_are_given_back_even_where_gangs_cannot_be_ended(world, monkeypatch):
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
    ("fate", "at_s", "cause"),
    [
        (Fate(boot_s=50, lost_after_s=20), 20, GoneCause.LOST),
        (Fate(queue_s=10, boot_s=50, reclaimed_at_s=40, notice_s=5), 40, GoneCause.RECLAIMED),
        (Fate(queue_s=60, reclaimed_at_s=30), 30, GoneCause.RECLAIMED),
    ],
)
def test_a_machine_that_is_fated_to_end_while_it_comes_up_is_never_ready(world, fate, at_s, cause):
    one = world(fate=fate)
    one.backend.next_event()
    one.backend.perform(ProvisionInstance(ZERO, "m", "spot"))
    facts = []
    while not isinstance(facts[-1] if facts else None, InstanceGone):
        facts.append(one.backend.next_event())
    assert not [fact for fact in facts if isinstance(fact, InstanceReady)]
    assert facts[-1].cause is cause
    assert at_s <= facts[-1].at_s < at_s + 8


def test_a_machine_that_is_released_while_it_comes_up_is_given_back(world):
    one = world(fate=Fate(boot_s=1e6))
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
    one = world(fate=Fate(lost_after_s=30), resumption=left)
    gone = hear(one.backend, InstanceGone)
    assert 1030 <= gone.at_s < 1045


def test_timers_and_facts_come_in_order_of_time(world):
    one = world(fate=Fate(queue_s=5, boot_s=10))
    one.backend.next_event()
    one.backend.perform(ProvisionInstance(ZERO, "m", "on-demand"))
    for number in range(30):
        one.backend.perform(StartTimer(f"t{number}", number * 1.0))
    told = [one.backend.next_event().at_s for _ in range(32)]
    assert told == sorted(told)


# A trial that fails by itself.


def end(trial, outcome, durable=0, segment=0):
    return SegmentEnded(0.0, TrialId(trial), SegmentId(segment), durable, durable, None, outcome, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("raises", "times"), [(True, 5), (False, 20)])
def test_a_trial_that_only_fails_while_others_get_on_counts_as_diverged(raises, times):
    setbacks = Setbacks()
    if raises:
        setbacks.raised.add(SegmentId(0))
    for number in range(times):
        assert not setbacks.is_hopeless(start())
        setbacks.hear(end(1, Outcome.FAILED))
        setbacks.hear(end(2, Outcome.ENDED, durable=number + 1))
    assert setbacks.is_hopeless(start())
    assert not setbacks.is_hopeless(start(trial=2))
    setbacks.forgive(ONE)
    assert not setbacks.is_hopeless(start()), "as a clone it is another trial"


def test_a_trial_that_makes_something_durable_between_its_failures_goes_on():
    setbacks = Setbacks()
    setbacks.raised.add(SegmentId(0))
    for number in range(40):
        setbacks.hear(end(1, Outcome.FAILED, durable=number // 4))
        setbacks.hear(end(1, Outcome.INSTANCE_GONE, durable=number // 4))
        assert not setbacks.is_hopeless(start())


def test_where_nothing_but_failures_happens_the_run_stops_and_says_so(world):
    one = world()
    one.backend.next_event()
    rent(one.backend)
    for number in range(4):
        one.backend.perform(start(number))
        hear(one.backend, SegmentEnded)
    one.backend.perform(start(4))
    with pytest.raises(WorkerError, match="trial 1 failed again and again at iteration 0, and no other trial got on"):
        hear(one.backend, SegmentEnded)


def test_a_hopeless_trial_is_told_as_diverged_and_costs_nothing(world):
    one = world()
    one.backend.next_event()
    rent(one.backend)
    for _ in range(5):
        one.backend._setbacks.hear(end(2, Outcome.COMPLETED, durable=1))
        one.backend._setbacks.raised.add(SegmentId(1))
        one.backend._setbacks.hear(end(1, Outcome.FAILED, segment=1))
        one.backend._setbacks.hear(end(2, Outcome.COMPLETED, durable=1))
    one.backend.perform(start(9, until=4))
    assert isinstance(one.backend.next_event(), TrialSampled)
    told = one.backend.next_event()
    assert (told.outcome, told.iteration, told.score, told.train_s) == (Outcome.COMPLETED, 4, None, 0.0)
    assert told.launch_s >= 0, "what passed since it was ordered is accounted for"


# What a driver that died has left.


def settled(store, segment, **known):
    left = Resumption(90.0, segments=[segment], **known)
    return left.settling(store, {})[0](100.0)


def open_segment(since=3, until=5, iteration=3, score=0.5):
    return OpenSegment(ONE, SegmentId(8), ((ZERO, 1),), 80.0, since, until, iteration, score)


def test_a_segment_that_had_saved_all_when_the_driver_died_is_complete(tmp_path):
    store = CheckpointStore(str(tmp_path))
    save(store, 1, 5, 0.125, segment=8)
    fact = settled(store, open_segment(), configurations={ONE: {"x": 1}})
    assert (fact.outcome, fact.checkpoint_iteration, fact.score, fact.lost_s) == (Outcome.COMPLETED, 5, 0.125, 0.0)


def test_what_was_saved_with_a_configuration_that_was_never_told_is_void(tmp_path):
    store = CheckpointStore(str(tmp_path))
    save(store, 1, 2, 0.125, segment=8)
    fact = settled(store, open_segment(since=0, iteration=0, score=None))
    assert (fact.outcome, fact.iteration, fact.checkpoint_iteration) == (Outcome.INSTANCE_GONE, 0, 0)
    assert math.isclose(fact.lost_s, 20.0)


# Nodes of a cluster with an autoscaler.


@pytest.fixture
def cluster(monkeypatch):
    """A cluster without nodes, and what its autoscaler was asked for last."""
    import ray
    from ray.autoscaler import sdk

    asked = []
    monkeypatch.setattr(attached, "connect", lambda _: None)
    monkeypatch.setattr(attached, "alive_nodes", dict)
    monkeypatch.setattr(sdk, "request_resources", lambda bundles: asked.append(bundles))  # noqa: PLW0108  called by name
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return asked


def test_closing_takes_back_what_the_autoscaler_was_asked_for_even_if_it_has_not_come_yet(cluster):
    nodes = attached.AttachedNodes("auto", patience_s=60.0)
    cancelled, refused = threading.Event(), []

    def wait():
        try:
            nodes.acquire(ZERO, 4, launched=lambda: None, is_cancelled=cancelled.is_set)
        except NoNodeError as error:
            refused.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not cluster:
        threading.Event().wait(0.01)
    assert cluster[-1] == [{"CPU": 4.0}]
    nodes.close()
    assert cluster[-1] == []
    cancelled.set()
    waiting.join(10)
    assert refused == ["cancelled"]
    assert cluster[-1] == []


def test_what_a_dead_driver_asked_the_autoscaler_for_is_taken_back_by_the_next(cluster):
    attached.AttachedNodes("auto").adopt({ZERO: Node("not there any more", "127.0.0.1", 4)})
    assert cluster == [[]]


# Files of a run.


def test_a_note_that_was_not_written_to_its_end_does_not_spoil_the_next(tmp_path):
    notebook = tmp_path / "nodes.jsonl"
    note_lease(notebook, ZERO, Node("a", "127.0.0.1", 1))
    with notebook.open("a") as stream:
        stream.write('{"instance": 1, "node')
    cut_torn_note(notebook)
    note_lease(notebook, InstanceId(2), Node("c", "127.0.0.1", 1))
    assert [json.loads(line)["instance"] for line in notebook.read_text().splitlines()] == [0, 2]
    assert set(leased_in(notebook)) == {0, 2}
    assert cut_torn_note(tmp_path / "none") == 0


def nobody_answers(**means):
    return Means(speed=1.0, ray_address="127.0.0.1:1", **means)


def test_a_run_whose_cluster_does_not_answer_has_not_begun_and_can_be_started_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    for _ in range(2):
        with pytest.raises(InputError, match="no Ray cluster answers there"):
            execute_real(small(), folder, nobody_answers(checkpoints="saved"))
    assert not (folder / "journal.jsonl").exists()
    how = json.loads((folder / "real.json").read_text())
    assert how["checkpoints"] == str(tmp_path / "saved"), "workers have working directories of their own"


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_checkpoints_of_another_run_are_not_taken_for_those_of_this_one(tmp_path, scheme):
    place = f"{scheme}{tmp_path}/shared"
    store = CheckpointStore(place)
    assert store.is_empty()
    save(store, 0, 81, 0.01)
    with pytest.raises(InputError, match="holds checkpoints of another run"):
        execute_real(small(), tmp_path / "run", nobody_answers(checkpoints=place))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ['{"device": "cp', '{"device": "cpu", "of_another_version": 1}'])
def test_a_note_of_how_a_run_was_run_that_cannot_be_read_is_told(tmp_path, text):
    (tmp_path / "journal.jsonl").write_text("{}\n")
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(InputError, match="does not say how the run was run"):
        resume_real(tmp_path)


class OfOneThread:
    """A controller that only the thread that changes it may read."""

    def __init__(self, controller):
        self._controller, self._thread = controller, threading.current_thread()

    @property
    def state(self):
        assert threading.current_thread() is self._thread, "what is read here is half changed"
        return self._controller.state


def test_what_is_drawn_was_read_in_the_thread_of_the_run():
    board = Board(OfOneThread(World.of(small()).controller(MemorySink())))
    board.write(None)
    drawn = []
    drawing = threading.Thread(target=lambda: drawn.append(board.__rich__().row_count))
    drawing.start()
    drawing.join()
    assert drawn == [len(board.fields())]
