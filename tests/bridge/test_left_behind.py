"""What a driver that died has left, and the files of a run, without any workers."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("psutil", reason="real workers need the bridge extra")


from elastune.experiments.cli.app import app
from elastune.experiments.cli.live import Board
from elastune.experiments.real.options import RealRunOptions
from elastune.experiments.real.resume import cut_torn_note, leased_in, note_lease
from elastune.experiments.real.run import CLUSTER_FILE, execute_real, resume_real
from elastune.experiments.runs.run_folder import claim_folder, require_inside, require_same_spec
from elastune.experiments.runs.world import World
from elastune.experiments.spec.run import RunSpec
from elastune.sim.bridge.machines import attached
from elastune.sim.bridge.machines.nodes import Node, NoNodeError
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.bridge.workers.resumption import OpenSegment, Resumption
from elastune.sim.control.journal import MemorySink
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import Outcome
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
from tests.bridge.test_real_runs import RECORDED, small

ZERO, ONE = InstanceId(0), TrialId(1)


def save(store, trial, iteration, score, segment=0):
    store.save(TrialId(trial), iteration, score, lambda path: path.write_text("x"), segment=SegmentId(segment))


# What a driver that died has left.


def settled(store, segment, **known):
    left = Resumption(90.0, segments=[segment], **known)
    return left.settling(store, {})[0](100.0)


def open_segment(since=3, until=5, iteration=3, score=0.5):
    return OpenSegment(ONE, SegmentId(8), ((ZERO, 1),), 80.0, since, until, iteration, score)


def test_a_segment_that_had_saved_all_when_the_driver_died_is_complete(tmp_path):
    store = CheckpointStore(str(tmp_path))
    save(store, 1, 5, 0.125, segment=8)
    event = settled(store, open_segment(), configurations={ONE: {"x": 1}})
    assert (event.outcome, event.checkpoint_iteration, event.score, event.lost_s) == (Outcome.COMPLETED, 5, 0.125, 0.0)


def test_what_was_saved_with_a_configuration_that_was_never_told_is_void(tmp_path):
    store = CheckpointStore(str(tmp_path))
    save(store, 1, 2, 0.125, segment=8)
    event = settled(store, open_segment(since=0, iteration=0, score=None))
    assert (event.outcome, event.iteration, event.checkpoint_iteration) == (Outcome.INSTANCE_GONE, 0, 0)
    assert math.isclose(event.lost_s, 20.0)


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
    waiting.join(60)
    assert refused == ["cancelled"]
    assert cluster[-1] == []


def test_what_a_dead_driver_asked_the_autoscaler_for_is_taken_back_by_the_next(cluster):
    attached.AttachedNodes("auto").adopt({ZERO: Node("not there any more", "127.0.0.1", 4)})
    assert cluster == [[]]


# Files of a run.


def test_a_note_that_was_not_written_to_its_end_does_not_spoil_the_next(tmp_path):
    nodes_file = tmp_path / "nodes.jsonl"
    note_lease(nodes_file, ZERO, Node("a", "127.0.0.1", 1))
    with nodes_file.open("a") as stream:
        stream.write('{"instance": 1, "node')
    cut_torn_note(nodes_file)
    note_lease(nodes_file, InstanceId(2), Node("c", "127.0.0.1", 1))
    assert [json.loads(line)["instance"] for line in nodes_file.read_text().splitlines()] == [0, 2]
    assert set(leased_in(nodes_file)) == {0, 2}
    assert cut_torn_note(tmp_path / "none") == 0


def nobody_answers(**options):
    return RealRunOptions(speed=1.0, ray_address="127.0.0.1:1", **options)


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


@pytest.mark.parametrize(
    "text",
    [
        '{"device": "cp',
        '{"device": "cpu", "of_another_version": 1}',
        '{"device": "tpu"}',
        '{"keep": "2"}',
        "[]",
        '{"speed": 0}',
        '{"speed": 1e300}',
        '{"speed": Infinity}',
        '{"speed": NaN}',
        '{"keep": 1e999}',
        '{"checkpoints": 5}',
        '{"ray_address": ["x"]}',
    ],
)
def test_a_note_of_how_a_run_was_run_that_cannot_be_read_is_told(tmp_path, text):
    (tmp_path / "journal.jsonl").write_text("{}\n")
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(InputError, match="does not say how the run was run"):
        resume_real(tmp_path)


def test_a_run_whose_bundle_has_changed_does_not_go_on_as_another_run(tmp_path):
    text = RECORDED[0].read_text().splitlines(keepends=True)
    header = json.loads(text[0])
    header["data_sha256"] = dict.fromkeys(header["data_sha256"], "of another bundle")
    (tmp_path / "journal.jsonl").write_text("".join([json.dumps(header) + "\n", *text[1:5]]))
    (tmp_path / "real.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"journal.jsonl: bundle digits-mlp is not the one that the journal was recorded with"
    ):
        resume_real(tmp_path)


# What somebody hands over.


@pytest.fixture
def handed(tmp_path):
    """A run folder of a real run that has begun, as somebody may hand it over."""
    folder = tmp_path / "run"
    folder.mkdir()
    lines = RECORDED[0].read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:5]))
    (folder / "real.json").write_text('{"speed": 1.0}')
    RunSpec.of(**json.loads(lines[0])["spec"]).save(folder / "spec.yaml")
    return folder


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/trial-00000", "result.json", ".lock", "nodes.jsonl"])
def test_links_out_of_the_folder_are_refused_before_anything_is_written(handed, tmp_path, name):
    elsewhere = tmp_path / "precious"
    elsewhere.mkdir()
    (elsewhere / "iteration-000001.json").write_text("precious")
    target = elsewhere if "checkpoints" in name else elsewhere / "iteration-000001.json"
    (handed / name).parent.mkdir(exist_ok=True)
    (handed / name).symlink_to(target)
    with pytest.raises(InputError, match=rf"{name} is a link to .*precious.*, outside of the folder"):
        resume_real(handed)
    assert (elsewhere / "iteration-000001.json").read_text() == "precious"


@pytest.mark.parametrize("name", ["result.json", "nodes.jsonl", "cluster.json", "spec.yaml"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_before_anything_starts(handed, name, make):
    (handed / name).unlink(missing_ok=True)
    make(handed / name)
    with pytest.raises(InputError, match=rf"{name} must be a file"):
        resume_real(handed)


def test_a_folder_of_another_kind_is_not_resumed(handed):
    (handed / "kind.txt").write_text("comparison\n")
    with pytest.raises(InputError, match="holds a comparison, but a real run needs a folder of its own"):
        resume_real(handed)


def test_a_link_within_the_folder_is_fine(handed):
    (handed / "newest").symlink_to("journal.jsonl")
    require_inside(handed)


@pytest.mark.parametrize(
    ("noted", "told"),
    [
        (
            {"ray_address": "10.0.0.1:6379"},
            r"the run used --ray 10\.0\.0\.1:6379.*: add --ray .* if you trust it",
        ),
        ({"checkpoints": "/home/me/models"}, r"the run used --checkpoints /home/me/models.*: add --checkpoints /home"),
    ],
)
def test_a_cluster_or_a_place_that_only_the_folder_names_is_not_used(handed, noted, told):
    (handed / "real.json").write_text(json.dumps({"speed": 1.0} | noted))
    with pytest.raises(InputError, match=told):
        resume_real(handed)


def test_a_cluster_that_is_named_again_is_used(handed):
    (handed / "real.json").write_text(json.dumps({"speed": 1.0, "ray_address": "127.0.0.1:1"}))
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        resume_real(handed, ray_address="127.0.0.1:1")


@pytest.mark.parametrize(
    "line", ["[]", '{"instance": 1}', '{"instance": "x", "node_id": 1, "host": 2, "gpus": 3}', "{"]
)
def test_a_damaged_list_of_nodes_is_named_with_its_line(tmp_path, line):
    note_lease(tmp_path / "nodes.jsonl", ZERO, Node("a", "127.0.0.1", 1))
    with (tmp_path / "nodes.jsonl").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(InputError, match=r"nodes.jsonl:2 does not say which node"):
        leased_in(tmp_path / "nodes.jsonl")


def test_a_cluster_of_somebody_else_is_neither_ended_nor_removed(handed, tmp_path):
    theirs = tmp_path / "elastune-theirs"
    theirs.mkdir()
    (handed / CLUSTER_FILE).write_text(json.dumps({"folder": str(theirs), "secret": "guessed"}))
    with pytest.raises(InputError, match="is no embedded Ray cluster of this run and this user"):
        resume_real(handed)
    assert theirs.is_dir()


def test_a_spec_that_was_edited_is_refused_with_the_keys_that_changed(handed):
    spec = RunSpec.load(handed / "spec.yaml")
    job = spec.to_dict()["job"]
    edited = spec.to_dict() | {"job": job | {"deadline_s": 123.0}, "seed": spec.seed + 1}
    RunSpec.of(**edited).save(handed / "spec.yaml")
    told = rf"spec.yaml has changed since the run began: job.deadline_s was {job['deadline_s']} and is 123.0; seed was"
    with pytest.raises(InputError, match=told):
        resume_real(handed)


def test_a_spec_that_runs_code_is_only_read(handed, tmp_path):
    (handed / "spec.yaml").write_text(f"job: !!python/object/apply:os.mkdir ['{tmp_path}/executed']\n")
    with pytest.raises(InputError, match=r"spec\.yaml"):
        resume_real(handed)
    assert not (tmp_path / "executed").exists()


def test_a_missing_spec_is_written_again(handed):
    spec = RunSpec.load(handed / "spec.yaml")
    (handed / "spec.yaml").unlink()
    require_same_spec(handed, spec)
    assert RunSpec.load(handed / "spec.yaml") == spec


def test_folders_refuse_a_run_of_the_other_kind(handed, tmp_path):
    with pytest.raises(
        InputError, match=r"holds a real run, but a simulated run needs a folder of its own: choose another"
    ):
        claim_folder(handed, "simulated run")
    claim_folder(tmp_path / "new", "simulated run")
    claim_folder(tmp_path / "new", "simulated run")
    with pytest.raises(InputError, match="holds a simulated run, but a real run needs a folder of its own"):
        execute_real(small(), tmp_path / "new", RealRunOptions(speed=1.0))


def test_a_simulated_run_leaves_the_folder_of_a_real_run_as_it_is(handed, tmp_path):
    small().save(tmp_path / "spec.yaml")
    before = {path.name: path.read_bytes() for path in handed.iterdir()}
    done = CliRunner().invoke(app, ["run", str(tmp_path / "spec.yaml"), "-o", str(handed)])
    assert done.exit_code == 2
    assert "holds a real run" in done.output
    assert {path.name: path.read_bytes() for path in handed.iterdir()} == before


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
