from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from record_syne_tune import OBJECTIVES, evaluations

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers import (
    BlackboxChoice,
    BlackboxFolder,
    CurveRules,
    blackbox_folder,
    from_blackbox,
    from_blackbox_folder,
)
from elastune.traces.importers import blackbox_folder as blackbox_folder_function

NAN = math.nan
CHOICE = BlackboxChoice(objective="loss", elapsed="elapsed")


@pytest.fixture
def blackbox():
    """Two configurations, two seeds, three epochs; loss, test loss and elapsed seconds."""
    array = np.zeros((2, 2, 3, 3))
    array[0, 0] = [[0.9, 1.9, 2], [0.8, 1.8, 4], [0.7, 1.7, 6]]
    array[0, 1] = [[0.5, 1.5, 1], [0.4, 1.4, 2], [0.3, 1.3, 3]]
    array[1, :] = [[0.6, 1.6, 4], [0.5, 1.5, 8], [0.4, 1.4, 12]]
    return SimpleNamespace(
        hyperparameters=pd.DataFrame({"lr": [0.1, 0.2], "layers": ["True", "2"]}),
        objectives_evaluations=array,
        fidelity_values=np.array([1, 2, 3]),
        objectives_names=["loss", "test_loss", "elapsed"],
        fidelity_space={"epoch": None},
    )


def test_one_seed_of_a_blackbox_becomes_a_bundle(blackbox, out, described):
    choice = replace(CHOICE, test_score="test_loss")
    bundle = from_blackbox(blackbox, out, replace(described, iteration=None), choice=choice)
    assert bundle.scores.tolist() == [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]
    assert bundle.test_scores.tolist() == [[1.9, 1.8, 1.7], [1.6, 1.5, 1.4]]
    assert bundle.seconds.tolist() == [[2.0] * 3, [4.0] * 3]
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (3.0, [2 / 3, 4 / 3])
    assert bundle.configurations == [{"lr": 0.1, "layers": "True"}, {"lr": 0.2, "layers": "2"}]
    assert bundle.iteration == "one epoch"
    noted = {"from": "Syne Tune blackbox", "training_seed": 0, "training_seeds_recorded": 2, "trials_recorded": 2}
    assert bundle.notes["imported"] == noted


def test_another_seed_gives_other_curves(blackbox, out, described):
    bundle = from_blackbox(blackbox, out, described, choice=replace(CHOICE, seed=1))
    assert bundle.scores[0].tolist() == [0.5, 0.4, 0.3]


def test_seconds_of_each_iteration_are_taken_as_they_are(blackbox, out, described):
    bundle = from_blackbox(blackbox, out, described, choice=BlackboxChoice(objective="loss", seconds="elapsed"))
    assert bundle.seconds[0].tolist() == [2.0, 4.0, 6.0]


def test_without_elapsed_time_it_says_what_would_do(blackbox, out, described):
    message = (
        r"the blackbox, column elapsed time: is not known: name the objective .*--elapsed .*--seconds.*its objectives: loss,"
        r" test_loss, elapsed; .*--untimed, and set workload\.iteration_s"
    )
    with pytest.raises(InvalidTraceError, match=message):
        from_blackbox(blackbox, out, described, choice=BlackboxChoice(objective="loss"))
    bundle = from_blackbox(blackbox, out, described, choice=BlackboxChoice(objective="loss", untimed=True))
    assert bundle.lacking()["seconds per iteration"] == "workload.iteration_s"


def test_a_score_without_elapsed_time_is_an_error_that_names_row_and_column(blackbox, out, described):
    blackbox.objectives_evaluations[1, 0, 1, 2] = NAN
    message = r"the blackbox, row 2, column elapsed: trial 1: iteration 2 has nan seconds, .*--untimed"
    with pytest.raises(InvalidTraceError, match=message):
        from_blackbox(blackbox, out, described, choice=CHOICE)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            BlackboxChoice(elapsed="elapsed"),
            r"names no objective to tune; name the score with --objective; .*loss, test_",
        ),
        (replace(CHOICE, objective="los"), r"column los: is no objective; did you mean 'loss'\?"),
        (replace(CHOICE, test_score="test"), r"column test: is no objective"),
        (replace(CHOICE, seed=2), r"asked for seed 2, but its seeds are 0 to 1"),
        (replace(CHOICE, seconds="elapsed"), r"not both: --elapsed or --seconds"),
    ],
)
def test_a_wrong_choice_is_refused(blackbox, out, described, choice, message):
    with pytest.raises(InputError, match=message):
        from_blackbox(blackbox, out, described, choice=choice)


def test_arrays_that_do_not_fit_are_an_error(blackbox, out, described):
    blackbox.fidelity_values = np.arange(1, 5)
    message = (
        r"evaluations are of shape \(2, 2, 3, 3\), but there are 2 configurations, some seeds, 4 fidelities and 3 obj"
    )
    with pytest.raises(InvalidTraceError, match=message):
        from_blackbox(blackbox, out, described, choice=CHOICE)


def test_what_is_no_tabular_blackbox_is_refused(blackbox, out, described):
    with pytest.raises(
        InputError, match=r"is a SimpleNamespace without objectives_evaluations, so no tabular blackbox"
    ):
        from_blackbox(SimpleNamespace(hyperparameters=None), out, described, choice=CHOICE)
    with pytest.raises(InputError, match=r"is a dict without .*it holds one for each task: pass that of 'a', 'b'"):
        from_blackbox({"a": blackbox, "b": blackbox}, out, described, choice=CHOICE)


def test_a_run_that_goes_on_without_a_score_diverged(blackbox, out, described):
    blackbox.objectives_evaluations[0, 0, 1:, 0] = NAN
    np.testing.assert_array_equal(from_blackbox(blackbox, out, described, choice=CHOICE).scores[0], [0.9, NAN, NAN])


def test_where_nothing_tells_whether_a_run_diverged_it_must_be_said(blackbox, out, described):
    blackbox.objectives_evaluations[0, 0, 1:, :] = NAN
    with pytest.raises(InvalidTraceError, match=r"row 1, column epoch: trial 0: ends at iteration 1 of 3"):
        from_blackbox(blackbox, out, described, choice=CHOICE)
    bundle = from_blackbox(blackbox, out, described, choice=CHOICE, rules=CurveRules(incomplete="diverged"))
    np.testing.assert_array_equal(bundle.scores[0], [0.9, NAN, NAN])
    assert bundle.relative_cost.tolist() == [2 / 3, 4 / 3]


def test_a_configuration_without_any_evaluation_is_dropped_or_diverged_at_once(blackbox, out, described):
    blackbox.objectives_evaluations[0] = NAN
    with pytest.raises(InvalidTraceError, match=r"trial 0: has no curve; 1 of 2 trials are incomplete"):
        from_blackbox(blackbox, out, described, choice=CHOICE)
    dropped = from_blackbox(blackbox, out, described, choice=CHOICE, rules=CurveRules(incomplete="drop"))
    assert dropped.notes["imported"]["trials_dropped_as_incomplete"] == ["0"]
    assert dropped.scores.tolist() == [[0.6, 0.5, 0.4]]
    rules = CurveRules(incomplete="diverged")
    diverged = from_blackbox(blackbox, out, described, choice=CHOICE, rules=rules, overwrite=True)
    assert np.isnan(diverged.scores[0]).all()


# What Syne Tune wrote, read without it.


def expected(task, shape):
    """What the script that wrote the fixture computed, as the serialiser stores it."""
    return evaluations(task, *shape).astype(np.float32).astype(np.float64)


def test_a_folder_of_syne_tunes_says_what_it_holds(fixtures):
    folder = BlackboxFolder.open(fixtures / "syne-tune")
    assert (folder.tasks, folder.objectives) == (["task-0", "task-1"], OBJECTIVES)
    assert (folder.default_objective, folder.elapsed) == ("metric_valid_loss", "metric_elapsed_time")


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_folder_that_syne_tune_wrote_becomes_a_bundle(fixtures, out, described, task, seed):
    choice = BlackboxChoice(test_score="metric_test_loss", seed=seed)
    description = replace(described, iteration=None, score=None)
    bundle = from_blackbox_folder(fixtures / "syne-tune", out, description, task=f"task-{task}", choice=choice)
    array = expected(task, (6, 2, 5))[:, seed]
    np.testing.assert_array_equal(bundle.scores, array[:, :, 0])
    np.testing.assert_array_equal(bundle.test_scores, array[:, :, 1])
    np.testing.assert_array_equal(bundle.seconds, np.arange(1.0, 7.0)[:, None] * np.ones(5))
    assert bundle.iteration_s == 3.5
    assert bundle.configurations[5] == {"hp_lr": 0.1, "hp_layers": "3"}
    assert (bundle.score, bundle.iteration, bundle.family) == ("metric_valid_loss", "one hp_epoch", "syne-tune")
    assert bundle.notes["imported"]["from"] == f"Syne Tune blackbox syne-tune, task task-{task}"


def test_numbers_of_the_fixture_worked_out_by_hand(fixtures, out, described):
    bundle = from_blackbox_folder(fixtures / "syne-tune", out, described, task="task-0")
    assert bundle.scores[0].tolist() == [1.0, 0.5, pytest.approx(1 / 3), 0.25, pytest.approx(0.2)]
    np.testing.assert_array_equal(bundle.scores[2], [3.0, 1.5, NAN, NAN, NAN])


def test_tasks_with_configurations_of_their_own_are_read_from_their_own_files(fixtures, out, described):
    bundle = from_blackbox_folder(fixtures / "syne-tune-pd1", out / "imagenet", described, task="imagenet")
    assert bundle.scores.shape == (3, 6)
    np.testing.assert_array_equal(bundle.scores, expected(1, (3, 1, 6))[:, 0, :, 0])
    assert bundle.configurations[0] == {"hp_lr": 0.001, "hp_layers": 2}
    with pytest.raises(
        InvalidTraceError, match=r"syne-tune-pd1, task cifar, row 2, column global_step: trial 1: ends at"
    ):
        from_blackbox_folder(fixtures / "syne-tune-pd1", out / "cifar", described, task="cifar")


def test_a_task_must_be_named_where_there_are_several(fixtures, out, described):
    with pytest.raises(InputError, match=r"holds several tasks; name one with --task: task-0, task-1"):
        from_blackbox_folder(fixtures / "syne-tune", out, described)
    with pytest.raises(InputError, match=r"there is no task 'tusk-0'; did you mean 'task-0'\?"):
        from_blackbox_folder(fixtures / "syne-tune", out, described, task="tusk-0")


def test_the_family_can_be_set(fixtures, out, described):
    description = replace(described, others={"family": "mine"})
    assert from_blackbox_folder(fixtures / "syne-tune", out, description, task="task-0").family == "mine"


@pytest.fixture
def copied(fixtures, tmp_path):
    """A copy of the fixture that can be damaged."""
    return shutil.copytree(fixtures / "syne-tune", tmp_path / "syne-tune")


def damage(folder, file, content):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "metadata.json",
            None,
            r"metadata.json: cannot be read: No such file or directory; is this a folder of Syne Tune",
        ),
        ("metadata.json", b"{", r"metadata.json: is malformed JSON"),
        ("metadata.json", b"[]", r"metadata.json: holds a list, but must hold keys and values"),
        ("metadata.json", b'{"task_names": ["a"]}', r"metadata.json, column objectives_names: must be a list with at"),
        ("objectives_evaluations.npy", None, r"objectives_evaluations.npy: cannot be read: No such file"),
        ("objectives_evaluations.npy", b"no", r"objectives_evaluations.npy: is no array of numbers"),
        ("fidelities_values.npy", b"", r"fidelities_values.npy: is no array of numbers"),
        ("hyperparameters.parquet", b"PAR1", r"hyperparameters.parquet: is no parquet file"),
    ],
)
def test_a_damaged_folder_is_an_error_that_names_the_file(copied, out, described, file, content, message):
    damage(copied, file, content)
    with pytest.raises(InvalidTraceError, match=message):
        from_blackbox_folder(copied, out, described, task="task-0")


def test_metadata_and_arrays_must_agree(copied, out, described):
    metadata = json.loads((copied / "metadata.json").read_text())
    (copied / "metadata.json").write_text(json.dumps(metadata | {"task_names": ["task-0"]}))
    with pytest.raises(
        InvalidTraceError, match=r"objectives_evaluations.npy: holds 2 tasks, but metadata.json names 1"
    ):
        from_blackbox_folder(copied, out, described)


def test_an_objective_that_the_metadata_promise_and_nobody_recorded_is_an_error(copied, out, described):
    metadata = json.loads((copied / "metadata.json").read_text())
    (copied / "metadata.json").write_text(json.dumps(metadata | {"metric_elapsed_time": "time"}))
    with pytest.raises(InvalidTraceError, match=r"task task-0, column time: is no objective; .*metric_elapsed_time"):
        from_blackbox_folder(copied, out, described, task="task-0")
    del metadata["metric_elapsed_time"]
    (copied / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(InvalidTraceError, match=r"task task-0, column elapsed time: is not known"):
        from_blackbox_folder(copied, out, described, task="task-0")


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Where Syne Tune puts what it downloads, empty."""
    module = sys.modules[blackbox_folder_function.__module__]
    monkeypatch.setattr(module, "DOWNLOADS", tmp_path / "downloads")
    return tmp_path / "downloads"


def install_syne_tune(monkeypatch, load):
    """A module with the two functions of Syne Tune's repository that are called."""
    package, repository = ModuleType("syne_tune"), ModuleType("syne_tune.blackbox_repository")
    repository.blackbox_list, repository.load_blackbox = lambda: ["lcbench", "fcnet"], load
    monkeypatch.setitem(sys.modules, "syne_tune", package)
    monkeypatch.setitem(sys.modules, "syne_tune.blackbox_repository", repository)


def test_a_folder_and_what_was_downloaded_before_need_no_syne_tune(downloads, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "syne_tune", None)
    (downloads / "lcbench").mkdir(parents=True)
    assert blackbox_folder("lcbench") == downloads / "lcbench"
    assert blackbox_folder(str(tmp_path)) == tmp_path


def test_a_name_without_syne_tune_is_an_error_that_says_what_to_install(downloads, monkeypatch):  # noqa: ARG001
    monkeypatch.setitem(sys.modules, "syne_tune", None)
    with pytest.raises(
        InputError, match=r"no folder 'lcbench', .*network and Syne Tune.*pip install 'syne-tune\[extra\]'"
    ):
        blackbox_folder("lcbench")


def test_a_name_is_fetched_by_syne_tune(downloads, monkeypatch):
    install_syne_tune(monkeypatch, lambda name: (downloads / name).mkdir(parents=True))
    assert blackbox_folder("fcnet") == downloads / "fcnet"
    with pytest.raises(InputError, match=r"there is no blackbox 'lcbenc'; did you mean 'lcbench'\?"):
        blackbox_folder("lcbenc")


def test_a_download_that_fails_says_why(downloads, monkeypatch):  # noqa: ARG001
    def load(_name):
        raise ConnectionError("no route to host")

    install_syne_tune(monkeypatch, load)
    with pytest.raises(InputError, match=r"Syne Tune could not fetch lcbench: no route to host"):
        blackbox_folder("lcbench")
