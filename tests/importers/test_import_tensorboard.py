from __future__ import annotations

import math
import os
import shutil
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers import CurveRules, EventChoice, from_tensorboard

pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")

NAN = math.nan
CHOICE = EventChoice(tag="val/loss", test_tag="test/loss")


@pytest.fixture
def runs(fixtures, tmp_path):
    """A copy of the runs that a SummaryWriter wrote; record_tensorboard.py says what is in them."""
    return shutil.copytree(fixtures / "tensorboard", tmp_path / "runs")


def events_of(run):
    return sorted(run.glob("events*"))


def test_a_folder_of_runs_becomes_a_bundle(runs, out, described):
    bundle = from_tensorboard(runs, out, replace(described, score=None, iteration=None), choice=CHOICE)
    loss = np.array([[(run + 1) / step for step in (1, 2, 3, 4)] for run in range(3)])
    loss[1, 3] = NAN
    np.testing.assert_allclose(bundle.scores, loss, rtol=1e-7)
    np.testing.assert_allclose(bundle.test_scores, loss + 1, rtol=1e-7)
    assert bundle.configurations == [
        {"layers": 2, "lr": 0.1, "optimizer": "sgd"},
        {"layers": 3, "lr": 0.01, "optimizer": "sgd"},
        {"layers": 4, "lr": 0.001, "optimizer": "adam"},
    ]
    assert (bundle.score, bundle.iteration) == ("val/loss", "100 of the recorded step")
    assert (out / "trials.csv").read_text().split() == ["trial,recorded_as", "0,run-0", "1,run-1", "2,run-2"]


def test_the_hour_between_the_parts_of_a_restarted_run_is_no_iteration(runs, out, described):
    bundle = from_tensorboard(runs, out, described, choice=CHOICE)
    # Steps of run n took 1 + n seconds; the first of each file has no predecessor there: 4 of 12 points.
    assert bundle.seconds.tolist() == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (2.0, [0.5, 1.0, 1.5])
    assert bundle.notes["imported"]["points_redone_after_a_restart"] == 1
    assert bundle.provenance["iteration_s"] == (
        "measured elsewhere: wall time between points, assumed to be the median of its run at the first of a file (4 of 12),"
        " their mean"
    )


def test_a_run_that_has_one_point_is_taken_to_be_as_slow_as_the_middle_of_all(runs, out, described):
    bundle = from_tensorboard(runs, out, described, choice=CHOICE, rules=CurveRules(iterations=1))
    assert bundle.seconds[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_seconds_can_be_left_out(runs, out, described):
    assert from_tensorboard(runs, out, described, choice=CHOICE, untimed=True).seconds is None


def test_files_are_told_as_they_are_read(runs, out, described):
    told = []
    from_tensorboard(runs, out, described, choice=CHOICE, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]


def test_a_tag_that_no_run_has_is_an_error_that_names_the_nearest(runs, out, described):
    with pytest.raises(
        InvalidTraceError, match=r"runs, column val/los: no run has this tag; did you mean 'val/loss'\?"
    ):
        from_tensorboard(runs, out, described, choice=EventChoice(tag="val/los"))


def test_a_test_score_that_is_missing_somewhere_is_an_error(runs, out, described):
    with pytest.raises(
        InvalidTraceError, match=r"run-0, column best: has no such scalar at step 100, where it has a score"
    ):
        from_tensorboard(runs, out, described, choice=replace(CHOICE, test_tag="best"))


def test_a_tag_that_holds_no_scalar_is_an_error(runs, out, described):
    message = r"row 2, column _hparams_/experiment: is no scalar; name the tag of one"
    with pytest.raises(InvalidTraceError, match=message):
        from_tensorboard(runs, out, described, choice=EventChoice(tag="_hparams_/experiment"))


def test_scalars_of_tensorflow_2_are_tensors_and_are_read_too(tmp_path, out, described):
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    writer = EventFileWriter(str(tmp_path / "runs" / "only"))
    for step in (1, 2):
        value = summary_pb2.Summary.Value(tag="loss", tensor=make_tensor_proto(np.float32(1 / step)))
        event = event_pb2.Event(step=step, wall_time=10.0 * step, summary=summary_pb2.Summary(value=[value]))
        writer.add_event(event)
    writer.close()
    bundle = from_tensorboard(tmp_path / "runs", out, described, choice=EventChoice(tag="loss"))
    assert (bundle.scores.tolist(), bundle.seconds.tolist()) == ([[1.0, 0.5]], [[10.0, 10.0]])


def test_a_file_that_was_cut_short_counts_up_to_there_and_is_told(runs, out, described):
    file = events_of(runs / "run-0")[0]
    file.write_bytes(file.read_bytes()[:-1])
    bundle = from_tensorboard(runs, out, described, choice=EventChoice(tag="val/loss"))
    assert bundle.scores[0].tolist()[-1] == 0.25
    assert bundle.notes["imported"]["event_files_cut_short"] == 1


@pytest.mark.parametrize("place", range(1, 466, 31))
def test_a_damaged_byte_is_an_error_that_names_file_and_record(runs, out, described, place):
    file = events_of(runs / "run-0")[0]
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(InvalidTraceError, match=r"run-0/events\S+, row \d+: is damaged"):
        from_tensorboard(runs, out, described, choice=CHOICE)


def test_a_run_that_was_killed_early_is_incomplete(runs, out, described):
    events_of(runs / "run-2")[1].unlink()
    message = r"runs, column step: trial run-2: ends at iteration 3 of 4; 1 of 3 trials are incomplete"
    with pytest.raises(InvalidTraceError, match=message):
        from_tensorboard(runs, out, described, choice=CHOICE)
    bundle = from_tensorboard(runs, out, described, choice=CHOICE, rules=CurveRules(incomplete="drop"))
    assert bundle.notes["imported"]["trials_dropped_as_incomplete"] == ["run-2"]


def test_hyperparameters_may_stand_in_a_file_of_any_name_and_be_nested(runs, out, described):
    for number in range(3):
        text = f'{{"optimizer": {{"lr": 0.{number + 1}, "betas": [0.9, 0.99]}}, "seed": null}}'
        (runs / f"run-{number}" / "config.json").write_text(text)
    bundle = from_tensorboard(runs, out, described, choice=replace(CHOICE, hyperparameters="config.json"))
    assert bundle.configurations[1] == {"optimizer.lr": 0.2, "optimizer.betas": "[0.9, 0.99]", "seed": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"run-2: has no hyperparameters, but other runs have: .*hparams.yaml, hparams.json, params.json"),
        ("[]", r"run-2/hparams.yaml: holds a list, but must hold names and values"),
        ("a: [", r"run-2/hparams.yaml, line 1: malformed YAML"),
        ("!!python/object:os.system {}", r"run-2/hparams.yaml, line 1: malformed YAML"),
        ("lr: 1\nlr: 2", r"run-2/hparams.yaml, line 2: the key 'lr' is given twice"),
    ],
)
def test_missing_and_malformed_hyperparameters_are_an_error_that_names_the_run(runs, out, described, content, message):
    file = runs / "run-2" / "hparams.yaml"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidTraceError, match=message):
        from_tensorboard(runs, out, described, choice=CHOICE)


def test_a_missing_file_of_hyperparameters_is_named(runs, out, described):
    with pytest.raises(InvalidTraceError, match=r"run-0/config.json: cannot be read: No such file"):
        from_tensorboard(runs, out, described, choice=replace(CHOICE, hyperparameters="config.json"))


def test_a_folder_without_runs_is_an_error(tmp_path, out, described):
    with pytest.raises(InvalidTraceError, match=r"holds no event file \(\*tfevents\*\), nor do the folders below it"):
        from_tensorboard(tmp_path, out, described, choice=CHOICE)
    with pytest.raises(InputError, match=r"absent: there is no such folder"):
        from_tensorboard(tmp_path / "absent", out, described, choice=CHOICE)


def test_an_empty_event_file_is_no_harm(runs, out, described):
    (runs / "run-0" / "events.out.tfevents.1.machine.2.0").touch()
    assert from_tensorboard(runs, out, described, choice=CHOICE).trials == 3


def test_without_tensorboard_it_says_what_to_install(runs, out, described, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(InputError, match=r"reading event files takes tensorboard: pip install -e '\.\[tensorboard\]'"):
        from_tensorboard(runs, out, described, choice=CHOICE)


@pytest.fixture
def write_run(tmp_path):
    """An event file: points of (step, score, wall time), which begins at a second."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    def write(run, points, *, tag="loss", began=1000.0, name=None, sessions=()):
        folder = tmp_path / "made" / run
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / (name or f"events.out.tfevents.{began:.0f}.machine.1.0")
        assert not file.exists()
        events = [event_pb2.Event(wall_time=began, file_version="brain.Event:2")]
        for step, score, at_s in points:
            summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=score)])
            events.append(event_pb2.Event(step=step, wall_time=at_s, summary=summary))
        summaries = [summary_pb2.Summary(value=[value]) for value in sessions]
        events += [event_pb2.Event(wall_time=began, summary=summary) for summary in summaries]
        with file.open("wb") as opened:
            writer = RecordWriter(opened)
            for event in events:
                writer.write(event.SerializeToString())
            writer.flush()
        return tmp_path / "made"

    return write


def session(**hyperparameters):
    """What the hparams plugin records of a run."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData()
    for name, number in hyperparameters.items():
        data.session_start_info.hparams[name].number_value = number
    metadata = summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
    )
    return summary_pb2.Summary.Value(tag="_hparams_/session_start_info", metadata=metadata)


def points(first, last, score, from_s=0.0):
    return [(step, score / step, from_s + 10.0 * step) for step in range(first, last + 1)]


LOSS = EventChoice(tag="loss")


@pytest.mark.parametrize("from_s", [50.0, 5e6])
def test_the_later_part_of_a_restarted_run_counts_whatever_its_wall_times(write_run, out, described, from_s):
    write_run("only", points(1, 3, 8.0, from_s), began=1000.0)
    folder = write_run("only", points(2, 4, 4.0), began=2000.0)
    bundle = from_tensorboard(folder, out, described, choice=LOSS)
    np.testing.assert_allclose(bundle.scores, [[8.0, 2.0, 4.0 / 3, 1.0]])
    assert bundle.notes["imported"]["points_redone_after_a_restart"] == 2


def test_parts_that_began_in_one_second_are_told_apart_by_their_first_event(write_run, out, described):
    write_run("only", points(1, 2, 8.0), began=1000.2, name="events.out.tfevents.1000.machine.9.0")
    folder = write_run("only", points(2, 2, 4.0), began=1000.9, name="events.out.tfevents.1000.machine.10.0")
    assert from_tensorboard(folder, out, described, choice=LOSS).scores.tolist() == [[8.0, 2.0]]


@pytest.mark.parametrize(
    ("folders", "part", "labels"),
    [
        (("r1/train", "r1/validation", "r2/train", "r2/validation"), "validation", ["r1", "r2"]),
        (("train", "validation"), "validation", ["made"]),
        (("r1/loss_a", "r1/loss_b"), "loss_b", ["r1"]),
        (("r1/x", "r1/y", "r2/x", "r2/y"), "y", ["r1", "r2"]),
        (("r1", "r1/val"), "val", ["r1"]),
        (("Train_0", "r1/my-train", "r1/my-eval"), "each", ["Train_0", "r1/my-eval", "r1/my-train"]),
    ],
)
def test_parts_of_one_training_are_no_trials_until_one_of_them_is_named(
    write_run, out, described, folders, part, labels
):
    for number, folder in enumerate(folders):
        root = write_run(folder, points(1, 2, number + 1.0))
    with pytest.raises(
        InvalidTraceError, match=r"made, column loss: .* and .* look like parts of one training: .*--part"
    ):
        from_tensorboard(root, out, described, choice=LOSS)
    bundle = from_tensorboard(root, out, described, choice=replace(LOSS, part=part))
    scored = [number + 1.0 for number, folder in enumerate(folders) if part == "each" or folder.endswith(part)]
    assert sorted(bundle.scores[:, 0].tolist()) == scored
    named = (out / "trials.csv").read_text().splitlines()[1:]
    assert [line.partition(",")[2] for line in named] == labels


def test_halves_that_hold_the_runs_are_imported_alone(write_run, out, described):
    for folder in ("train/r1", "train/r2", "validation/r1", "validation/r2"):
        root = write_run(folder, points(1, 2, 1.0))
    with pytest.raises(
        InvalidTraceError, match=r"train and validation look like parts .*: import \S+/made/validation alone"
    ):
        from_tensorboard(root, out, described, choice=LOSS)
    assert from_tensorboard(root / "validation", out, described, choice=LOSS).trials == 2


def test_a_part_must_be_there_in_every_run(write_run, out, described):
    for folder in ("r1/train", "r1/val", "r2/train"):
        root = write_run(folder, points(1, 2, 1.0))
    with pytest.raises(
        InvalidTraceError, match=r"r2/train, column loss: has this tag, but no folder 'val' that has it"
    ):
        from_tensorboard(root, out, described, choice=replace(LOSS, part="val"))
    with pytest.raises(InvalidTraceError, match=r"no folder 'vol' has this tag; folders that do: train, val"):
        from_tensorboard(root, out, described, choice=replace(LOSS, part="vol"))


def test_hyperparameters_that_stand_beside_their_last_scores_are_no_part(write_run, out, described):
    for run in ("r1", "r2"):
        write_run(run, points(1, 2, 1.0))
        root = write_run(f"{run}/1700000000.5", [(0, 9.0, 0.0)], sessions=[session(lr=0.5)])
    bundle = from_tensorboard(root, out, described, choice=LOSS)
    assert (bundle.trials, bundle.configurations) == (2, [{"lr": 0.5}] * 2)


def test_two_values_of_one_hyperparameter_or_score_are_refused(write_run, out, described):
    write_run("r1", points(1, 2, 1.0), sessions=[session(lr=0.5)])
    root = write_run("r1", points(3, 3, 1.0), began=2000.0, sessions=[session(lr=0.25)])
    with pytest.raises(InvalidTraceError, match=r"2000.machine.1.0, column lr: is both '0.5' and '0.25'; keep one"):
        from_tensorboard(root, out, described, choice=LOSS)
    root = write_run("r2", [*points(1, 2, 1.0), (2, 7.0, 30.0)])
    with pytest.raises(InvalidTraceError, match=r"trial r2: iteration 2 was already given"):
        from_tensorboard(root / "r2", out, described, choice=LOSS)


def test_folders_that_belong_to_no_run_are_named(write_run, out, described):
    write_run("r1", points(1, 2, 1.0))
    root = write_run("crashed", points(1, 2, 1.0), tag="lr")
    bundle = from_tensorboard(root, out, described, choice=LOSS)
    assert bundle.notes["imported"]["folders_without_the_tag"] == ["crashed"]


def test_two_runs_in_one_folder_are_refused(runs, out, described):
    """The later one would leave nothing of the first, as where both begin at step 1."""
    events = max((runs / "run-0").rglob("events*"), key=lambda file: file.stat().st_size)
    shutil.copy(events, runs / "run-1" / events.name.replace("tfevents.1", "tfevents.9"))
    with pytest.raises(InvalidTraceError, match="so that nothing is left of the event files before it in this folder"):
        from_tensorboard(runs, out, described, choice=CHOICE)


def test_a_name_that_is_given_plainly_and_with_dots_is_refused(runs, out, described):
    (runs / "run-2" / "hparams.yaml").write_text("opt.lr: 1\nopt: {lr: 2}\n")
    with pytest.raises(InvalidTraceError, match=r"hparams\.yaml, column opt\.lr: is given twice"):
        from_tensorboard(runs, out, described, choice=CHOICE)


def test_symbolic_links_are_not_followed_and_told(runs, out, described):
    (runs / "run-9").symlink_to(runs / "run-0")
    (runs / "loop").symlink_to(runs)
    bundle = from_tensorboard(runs, out, described, choice=CHOICE)
    assert bundle.trials == 3
    assert bundle.notes["imported"]["symbolic_links_not_followed"] == ["loop", "run-9"]


def tensor(dtype, *axes, **content):
    """One of a summary: of this type number of TensorFlow's, and these axes."""
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    made = TensorProto(dtype=dtype, **content)
    for size in axes:
        made.tensor_shape.dim.add().size = size
    return made


@pytest.mark.parametrize(
    ("dtype", "axes", "content"),
    [
        (14, (), {"tensor_content": b"\x66\x3f"}),  # bfloat16, which numpy does not have
        (0, (), {}),
        (99, (), {}),
        (1, (), {"tensor_content": b"\x00"}),
        (1, (2**40,), {"float_val": [0.9]}),
        (1, (-1,), {"float_val": [0.9]}),
        (1, (2, 1), {"float_val": [0.9, 0.8]}),
        (8, (1,), {"float_val": [0.9, 0.8]}),
    ],
)
def test_tensors_that_are_no_scalars_are_told_whatever_they_are(
    write_run, tmp_path, out, described, dtype, axes, content
):
    from tensorboard.compat.proto.summary_pb2 import Summary

    write_run("a", [], sessions=[Summary.Value(tag="loss", tensor=tensor(dtype, *axes, **content))])
    with pytest.raises(InvalidTraceError, match="row 2, column loss: is no scalar; name the tag of one"):
        from_tensorboard(tmp_path / "made", out, described, choice=EventChoice(tag="loss"))


def test_a_last_record_that_says_it_is_longer_than_memory_is_cut_short(write_run, tmp_path, out, described):
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    (file,) = (write_run("a", [(1, 0.9, 1.0), (2, 0.8, 2.0)]) / "a").iterdir()
    length = struct.pack("<Q", 2**62)
    with file.open("ab") as opened:
        opened.write(length + struct.pack("<I", masked_crc32c(length)))
    bundle = from_tensorboard(tmp_path / "made", out, described, choice=EventChoice(tag="loss"))
    assert bundle.scores.tolist() == [pytest.approx([0.9, 0.8])]
    assert bundle.notes["imported"]["event_files_cut_short"] == 1


def test_hyperparameters_that_are_no_message_are_told(write_run, tmp_path, out, described):
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    damaged = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=b"\xff\xff"))
    session = Summary.Value(tag="_hparams_/session_start_info", metadata=damaged)
    write_run("a", [(1, 0.9, 1.0)], sessions=[session])
    with pytest.raises(InvalidTraceError, match="row 3, column _hparams_/session_start_info: holds no hyperparameters"):
        from_tensorboard(tmp_path / "made", out, described, choice=EventChoice(tag="loss"))


def test_a_folder_whose_name_is_no_text_is_told(write_run, tmp_path, out, described):
    (write_run("a", [(1, 0.9, 1.0)]) / "a").rename(tmp_path / "made" / os.fsdecode(b"\xff\xfe"))
    write_run("b", [(1, 0.9, 1.0)])
    with pytest.raises(InvalidTraceError, match=r"its name is \\udcff\\udcfe, which is no UTF-8 text: rename it"):
        from_tensorboard(tmp_path / "made", out, described, choice=EventChoice(tag="loss"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": "\\ud800"}', r"a hyperparameter of trial a is \\ud800, which is no UTF-8 text"),
        ('{"lr": 0.3}', r"params\.json, column lr: is both '0.1' and '0.3'; keep one"),
    ],
)
def test_hyperparameters_of_files_that_disagree_or_are_no_text_are_told(
    write_run, tmp_path, out, described, text, problem
):
    folder = write_run("a", [(1, 0.9, 1.0)]) / "a"
    (folder / "params.json").write_text(text)
    (folder / "hparams.yaml").write_text("lr: 0.1")
    with pytest.raises(InvalidTraceError, match=problem):
        from_tensorboard(tmp_path / "made", out, described, choice=EventChoice(tag="loss"))


def test_hyperparameters_of_files_that_agree_are_joined(write_run, tmp_path, out, described):
    folder = write_run("a", [(1, 0.9, 1.0)]) / "a"
    (folder / "params.json").write_bytes(b'\xef\xbb\xbf{"lr": 1e-1, "depth": 3}')  # as Windows writes it
    (folder / "hparams.yaml").write_text("lr: 0.1")
    bundle = from_tensorboard(tmp_path / "made", out, described, choice=EventChoice(tag="loss"))
    assert bundle.configurations == [{"lr": 0.1, "depth": 3}]


def test_the_score_is_no_test_score(runs, out, described):
    with pytest.raises(InputError, match="--test-tag val/loss: is the tag of the score; name another one"):
        from_tensorboard(runs, out, described, choice=EventChoice(tag="val/loss", test_tag="val/loss"))
