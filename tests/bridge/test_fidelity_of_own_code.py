"""A sitting of fidelity with training code of the user's own, also read where that code is not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

pytest.importorskip("ray", reason="real workers need the bridge extra")

from elastune import RunSpec
from elastune.experiments.cli.app import app
from elastune.experiments.fidelity.analysis import checked_runs
from elastune.experiments.fidelity.conduct import Measurement, measure
from elastune.experiments.profiling.curves import Effort, profile_workload
from elastune.experiments.profiling.timing_plan import TimingEffort
from elastune.experiments.profiling.work_folder import copy_bundle
from elastune.experiments.runs.configurations import own_workload_of
from elastune.sim.model.errors import InputError
from elastune.traces import bundle_folder
from tests.bridge.test_own_training_runs import CODE
from tests.bridge.test_own_training_runs import SPEC as TRAINED

SPEC = {
    "job": {
        "trials": 3,
        "min_iterations": 1,
        "max_iterations": 3,
        "deadline_s": 200,
        "budget_usd": 4,
        "direction": "minimize",
    },
    "workload": {
        "bundle": "recorded",
        "trainable": "code/mine.py:train",
        "space": {"rate": {"uniform": [0.5, 0.99]}},
        "scaling": {1: 1},
    },
    "cloud": TRAINED["cloud"],
    "policy": "sha-fixed",
}
LIGHT = Effort(probes=1, probe_training_s=0.05)


def of_sitting(spec):
    effort = TimingEffort(configurations=1, rounds=1, seconds=0.2, node_starts=0)
    return Measurement(specs={"own": spec}, policies=["sha-fixed"], effort=effort, draws=5)


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(CODE)
    return RunSpec.of(**SPEC)


@pytest.mark.slow
def test_own_code_is_profiled_predicted_run_and_read_elsewhere(spec, tmp_path, monkeypatch):
    profile_workload(own_workload_of(spec, "minimize"), 8, 3, 2, tmp_path / "recorded", 0, effort=LIGHT)
    told = []
    sitting = measure(of_sitting(spec), tmp_path / "sitting", lambda *progress: told.append(progress[2]))
    assert told[0] == "profile for own"
    (unit,) = sitting.units()
    began = json.loads((unit.folder / "began.json").read_text())
    assert began["before"]["iteration_s"] == pytest.approx(0.2, rel=0.3)  # the code's own seconds
    ended = (unit.folder / "ended.json").stat().st_mtime_ns
    measure(of_sitting(spec), tmp_path / "sitting", lambda *_: None)  # nothing is left to measure
    assert (unit.folder / "ended.json").stat().st_mtime_ns == ended

    (tmp_path / "code" / "mine.py").write_text(CODE.replace("0.2", "0.1"))
    with pytest.raises(InputError, match=r"bundle train was recorded with .*, but workload\.trainable is .* now"):
        measure(of_sitting(RunSpec.of(**SPEC)), tmp_path / "sitting", lambda *_: None)

    shutil.rmtree(tmp_path / "code")
    monkeypatch.chdir("/")
    (run,) = checked_runs([tmp_path / "sitting"])
    assert run.unit.spec.workload.code is None  # of a record nothing is run
    told = CliRunner().invoke(app, ["fidelity", "--from", str(tmp_path / "sitting"), "--json"])
    assert json.loads(told.stdout)["runs"] == 1


def test_what_cannot_be_measured_is_refused_before_anything_is_written(spec, tmp_path):
    with pytest.raises(
        InputError, match=r"there is no bundle 'recorded'.*; elastune profile, with the file of this spec, records"
    ):
        measure(of_sitting(spec), tmp_path / "sitting", lambda *_: None)
    copy_bundle(bundle_folder("digits-mlp"), tmp_path / "recorded")
    shipped = RunSpec.of(**SPEC | {"workload": {"bundle": "recorded", "scaling": {1: 1}}})
    wanted = replace(of_sitting(shipped), repeats=1000)
    with pytest.raises(
        InputError, match=r"1 configurations are timed that no run trains, but besides the 256 .* it has 0"
    ):
        measure(wanted, tmp_path / "sitting", lambda *_: None)
    copy_bundle(bundle_folder("digits-mlp"), tmp_path / "other")
    namesake = RunSpec.of(**SPEC | {"workload": {"bundle": "other", "scaling": {1: 1}}})
    with pytest.raises(InputError, match=r"b: its bundle .*other and .*recorded are both called digits-mlp"):
        measure(replace(wanted, repeats=1, specs={"a": shipped, "b": namesake}), tmp_path / "sitting", lambda *_: None)
    assert not (tmp_path / "sitting").exists()


def test_configurations_that_were_not_recorded_are_refused(spec, tmp_path):
    workload = spec.workload.model_copy(update={"configurations": "search-space"})
    asked = of_sitting(spec.model_copy(update={"workload": workload}))
    with pytest.raises(InputError, match=r"workload\.configurations is search-space, but curves are recorded"):
        measure(asked, tmp_path / "sitting", lambda *_: None)
    assert not (tmp_path / "sitting").exists()
