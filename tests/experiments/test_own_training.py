"""Training code of the user's own: classes and functions as workloads, their spaces, and what goes wrong with them."""

from __future__ import annotations

import difflib
import gc
import json
import math
import pickle
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import elastune
from elastune import RunSpec
from elastune.experiments import reporting
from elastune.experiments.own_code import find
from elastune.experiments.own_training import own_workload, unpack
from elastune.experiments.real.trainables import WorkloadTrainables
from elastune.experiments.reporting import FunctionTrial
from elastune.experiments.runs.configurations import own_workload_of
from elastune.experiments.spec.space import search_space_of
from elastune.experiments.sweeps.grid import SweepSpec
from elastune.sim.model.errors import InputError, WorkerError
from elastune.traces import load_bundle
from elastune.traces.workloads import Categorical, Integer, LogUniform, Uniform

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CODE = """
import json
import elastune

def train(config, seed):
    error, done = 1.0, 0
    if (folder := elastune.checkpoint_folder()) is not None:
        error, done = json.loads((folder / "deep" / "state.json").read_text())

    def save(folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "state.json").write_text(json.dumps([error, done]))

    while done < 6:
        error, done = error * config["rate"], done + 1
        elastune.report(error, save=save, test_score=2 * error)

class Line:
    "A line that learns."

    direction = "minimize"

    def __init__(self, config, device="?", size=0):
        self.rate, self.error = config["rate"], 1.0
        assert (device, size) == ("cpu", 1)

    def train_iteration(self):
        self.error *= self.rate

    def evaluate(self):
        return self.error

    def save(self, folder):
        (folder / "error").write_text(repr(self.error))

    def load(self, folder):
        self.error = float((folder / "error").read_text())

class Together(Line):
    distributed = True

class Half:
    def train_iteration(self):
        pass

def failing(config):
    elastune.report(1.0)
    raise KeyError("layers")

def needy(config, depth):
    pass

def silent(config):
    pass

def leaving(config):
    import sys
    elastune.report(1.0)
    sys.exit(4)

def wordy(config):
    elastune.report(config["rate"])

class Odd(Line):
    given = None

    def train_iteration(self):
        import sys
        sys.exit(5)

    def evaluate(self):
        return self.given
"""
SPACE = {"rate": {"uniform": [0.5, 0.9]}}


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def workload(name, direction="minimize"):
    return own_workload(find(f"mine.py:{name}"), search_space_of(SPACE), direction, 6)


def scores_of(trial):
    """After one more iteration; None for a test score that there is not."""
    trial.train_iteration()
    test_score = trial.test_score()
    return trial.evaluate(), None if math.isnan(test_score) else test_score


def spec_of(name="train", **sections):
    return RunSpec.of(
        job={"trials": 3, "max_iterations": 6, "deadline_s": 900, **sections.pop("job", {})},
        workload={
            "bundle": "digits-mlp",
            "trainable": f"mine.py:{name}",
            "space": SPACE,
            "scaling": {1: 1},
            **sections,
        },
        cloud={"price_usd_per_hour": 3.06, "gpus_per_instance": 1},
        policy="sha-fixed",
    )


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["train", "Line"])
def test_a_trial_goes_on_from_its_checkpoint_as_if_nothing_had_happened(name, tmp_path):
    built = pickle.loads(pickle.dumps(WorkloadTrainables(workload(name), 3)))
    assert not built.needs_process_group
    whole, first, second = (built.workload.build({"rate": 0.5}, 7) for _ in range(3))
    scores = [scores_of(whole) for _ in range(5)]
    for _ in range(2):
        first.train_iteration()
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    assert [scores_of(second) for _ in range(3)] == scores[2:]
    assert scores[0] == (0.5, 1.0 if name == "train" else None)
    (tmp_path / "files").mkdir()
    unpack(tmp_path / "checkpoint", tmp_path / "files")
    assert [file.name for file in (tmp_path / "files").rglob("*") if file.is_file()] in (["state.json"], ["error"])


@pytest.mark.usefixtures("own")
def test_the_thread_of_a_function_ends_with_its_trial():
    before = threading.active_count()
    trials = [workload("train").build({"rate": 0.5}, 7) for _ in range(4)]
    for trial in trials[:3]:
        trial.train_iteration()
    del trial, trials
    gc.collect()
    assert threading.active_count() <= before


def test_whoever_gives_a_trial_up_waits_until_its_function_has_tidied_up():
    tidied = []

    def train():
        try:
            elastune.report(1.0)
        finally:
            time.sleep(0.2)  # as if it freed what torch made; a process that ends meanwhile is aborted
            tidied.append(threading.current_thread().name)

    trial = FunctionTrial(train)
    trial.train_iteration()
    del trial
    gc.collect()
    assert tidied == ["training"]


def test_a_function_that_never_ends_is_left_behind(monkeypatch):
    monkeypatch.setattr(reporting, "_ENDS_WITHIN_S", 0.01)
    may_end = threading.Event()

    def train():
        try:
            elastune.report(1.0)
        finally:
            may_end.wait()

    trial = FunctionTrial(train)
    trial.train_iteration()
    thread = trial._talk._thread
    del trial
    gc.collect()
    assert thread.is_alive()
    may_end.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_trial_that_its_own_thread_gives_up_ends_without_waiting_for_itself():
    held, errors = [], []

    def train():
        try:
            held.clear()
            gc.collect()
            elastune.report(1.0)
        except Exception as error:
            errors.append(error)

    held.append(FunctionTrial(train))
    talk = held[0]._talk
    talk._wanted.release()
    talk._thread.join(10)
    assert not talk._thread.is_alive()
    assert not errors


def test_report_does_nothing_outside_of_a_run():
    assert elastune.checkpoint_folder() is None
    assert elastune.report(0.5) is None


@pytest.mark.usefixtures("own")
def test_what_the_code_does_wrong_is_told_with_file_and_line(own, tmp_path):
    failing = workload("failing").build({"rate": 0.5}, 7)
    failing.train_iteration()
    with pytest.raises(WorkerError, match="no save="):
        failing.save(tmp_path / "checkpoint")
    with pytest.raises(WorkerError, match=rf"mine\.py:failing: KeyError: 'layers' \({own}, line 48, in failing\)"):
        failing.train_iteration()
    short = workload("train").build({"rate": 0.5}, 7)
    for _ in range(6):
        short.train_iteration()
    with pytest.raises(WorkerError, match=r"ended after 6 reports, .* at least job\.max_iterations in all"):
        short.train_iteration()
    with pytest.raises(WorkerError, match=r"never called elastune\.report\(score"):
        workload("silent").build({"rate": 0.5}, 7).train_iteration()
    (tmp_path / "damaged").write_bytes(b"no archive")
    with pytest.raises(WorkerError, match="the checkpoint cannot be read"):
        workload("Line").build({"rate": 0.5}, 7).load(tmp_path / "damaged")


@pytest.mark.usefixtures("own")
def test_code_that_leaves_is_an_error_and_leaves_nobody_waiting():
    trial = workload("leaving").build({"rate": 0.5}, 7)
    trial.train_iteration()
    with pytest.raises(WorkerError, match=r"mine\.py:leaving: RuntimeError: SystemExit: 4 \(.*, in leaving\)"):
        trial.train_iteration()
    with pytest.raises(WorkerError, match=r"mine\.py:Odd: RuntimeError: SystemExit: 5 \(.*, in train_iteration\)"):
        workload("Odd").build({"rate": 0.5}, 7).train_iteration()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("given", [None, "0.5", b"1", [1.0], {}, 1j, np.arange(2), object()])
def test_a_score_that_is_no_number_is_refused(given):
    trial = workload("Odd").build({"rate": 0.5}, 7)
    trial._own.given = given
    with pytest.raises(WorkerError, match=r"what evaluate\(\) gives is .*, but must be a number"):
        trial.evaluate()
    with pytest.raises(WorkerError, match=r"mine\.py:wordy: ValueError: score is .*, but must be a number"):
        workload("wordy").build({"rate": given}, 7).train_iteration()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("given", [1, np.float32(0.5), np.array(2.0), float("nan"), -math.inf, 10**30, True])
def test_numbers_of_any_type_are_scores(given):
    trial = workload("Odd").build({"rate": 0.5}, 7)
    trial._own.given = given
    assert trial.evaluate() == pytest.approx(float(given), nan_ok=True)
    assert type(trial.evaluate()) is float


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Half", r"trainable .*Half lacks evaluate, save, load: it must be a class with train_iteration\(\)"),
        ("needy", r"cannot be called: missing a required argument: 'depth'; it is given the configuration, and seed"),
        ("SPACE", r"has no 'SPACE'; it has train, Line, Together, Half, .*, Odd$"),
    ],
)
def test_what_is_no_training_code_is_refused(name, problem):
    with pytest.raises(InputError, match=problem):
        workload(name)


@pytest.mark.usefixtures("own")
def test_the_direction_is_said_by_the_class_or_the_job():
    assert workload("Line", None).direction == "minimize"
    with pytest.raises(InputError, match=r"give job\.direction"):
        workload("train", None)
    assert own_workload_of(spec_of(job={"direction": "maximize"}), "maximize").direction == "maximize"


def test_a_space_is_choices_and_ranges():
    space = search_space_of(
        {
            "optimizer": ["sgd", "adam"],
            "rate": {"log_uniform": ["1e-4", 1]},
            "depth": {"integer": [1, 4]},
            "width": {"log_integer": [8, 128]},
            "momentum": {"uniform": [0, 0.99]},
        }
    )
    assert space.dimensions == {
        "optimizer": Categorical(("sgd", "adam")),
        "rate": LogUniform(1e-4, 1),
        "depth": Integer(1, 4),
        "width": Integer(8, 128, log=True),
        "momentum": Uniform(0, 0.99),
    }
    assert set(space.sample(np.random.default_rng(0))) == set(space.dimensions)


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ({}, r"workload\.space is empty"),
        ({"rate": 3}, r"workload\.space\.rate: is 3, but must be a list of choices, or one of \{uniform"),
        ({"rate": {"logg_uniform": [1, 2]}}, r"there is no kind of range 'logg_uniform'; did you mean 'log_uniform'"),
        ({"rate": {"uniform": [2, 1]}}, r"a range from 2 to 1 is empty"),
        ({"rate": {"integer": [1.5, 2]}}, r"space\.rate: must be a whole number"),
        ({"rate": {"uniform": 1}}, r"uniform is 1, but must be \[low, high\]"),
    ],
)
def test_a_malformed_space_names_its_hyperparameter(space, problem):
    with pytest.raises(InputError, match=problem):
        search_space_of(space)


def test_a_spec_names_it_relative_to_its_file_and_a_record_does_not_look_at_it(own, tmp_path, monkeypatch):
    document = spec_of().to_dict()
    assert document["workload"]["trainable"] == f"{own}:train"
    document["workload"]["trainable"] = "mine.py:train"
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    spec = RunSpec.load("../spec.yaml")
    assert spec.workload.code == find(f"{own}:train")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": "spec.yaml", "axes": {"policy": ["seer"]}}))
    (cell,) = SweepSpec.load("../sweep.yaml").cells()
    assert cell.spec.workload.trainable == f"{own}:train"
    own.unlink()
    recorded = RunSpec.recorded(spec.to_dict())
    assert recorded.digest() == spec.digest()
    with pytest.raises(InputError, match="run only where you name it"):
        own_workload_of(recorded, "minimize")
    with pytest.raises(InputError, match="there is no file"):
        RunSpec.of(**spec.to_dict())
    only_half = document["workload"] | {"space": None}
    with pytest.raises(InputError, match="go together"):
        RunSpec.of(**{**document, "workload": only_half})


@pytest.mark.usefixtures("own")
def test_a_bundle_of_other_hyperparameters_is_refused():
    with pytest.raises(
        InputError, match=r"digits-mlp was not recorded with workload\.space: there is no hyperparameter"
    ):
        WorkloadTrainables.of_own(workload("train"), load_bundle("digits-mlp"), 3, 0)


def test_a_script_takes_part_with_at_most_ten_changed_lines():
    plain, tuned = ((EXAMPLES / f"digits_{kind}.py").read_text().splitlines() for kind in ("script", "tuned"))
    changed = [line for line in difflib.ndiff(plain[1:], tuned[1:]) if line[:2] == "+ " and line[2:].strip()]
    assert 0 < len(changed) <= 10
    guide = (EXAMPLES.parent / "train_your_own.md").read_text()
    assert all(f"+{line[2:]}".rstrip() in guide for line in changed)


@pytest.mark.slow
def test_the_script_trains_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the example trains with PyTorch")
    for file in EXAMPLES.glob("digits_tuned.*"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = RunSpec.load("digits_tuned.yaml")
    own = own_workload_of(spec, spec.job.direction)
    configuration = json.loads(json.dumps(own.configuration_of(0, 0)))
    first, second, whole = (own.build(configuration | {"learning_rate": 0.05}, 3) for _ in range(3))
    first.train_iteration()
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    second.train_iteration()
    whole.train_iteration()
    assert second.evaluate() > whole.evaluate() > 0.1
