"""What only real workers can do is refused by everything that simulates, before anything starts."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from elastune import RunSpec, execute
from elastune.experiments.cli.app import app
from elastune.experiments.comparisons.comparison import compare, default_policies
from elastune.experiments.real import slots
from elastune.experiments.runs.world import World
from elastune.experiments.sweeps.grid import SweepSpec
from elastune.experiments.sweeps.run import plan
from elastune.policies.registry import ON_REAL_WORKERS
from elastune.sim.model.errors import InputError

DOCUMENT = {
    "job": {"trials": 6, "max_iterations": 9, "budget_usd": 10.0},
    "workload": {"bundle": "digits-mlp", "iteration_s": 10.0, "scaling": "linear"},
    "cloud": {"price_usd_per_hour": 1.0, "gpus_per_instance": 2, "max_instances": 2},
    "policy": "sha-fixed",
}
NEEDS = r"needs real workers: run it with --on ray"


def spec_of(policy="sha-fixed", **workload):
    return RunSpec.of(**{**DOCUMENT, "policy": policy, "workload": {**DOCUMENT["workload"], **workload}})


@pytest.fixture
def spec_file(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(DOCUMENT), encoding="utf-8")
    return file


@pytest.mark.parametrize("policy", ON_REAL_WORKERS)
def test_a_policy_that_needs_real_workers_is_not_simulated(policy):
    problem = rf"^policy {policy} changes configurations while they train, of which nothing is recorded; it {NEEDS}"
    with pytest.raises(InputError, match=problem):
        execute(spec_of(policy))
    with pytest.raises(InputError, match=problem):
        compare(spec_of(), ["sha-fixed", policy], 1)
    assert policy not in default_policies(spec_of())


@pytest.mark.parametrize(("key", "value"), [("configurations", "tpe"), ("batch", "per-worker")])
def test_keys_of_real_runs_are_not_ignored_in_simulation(key, value):
    with pytest.raises(InputError, match=rf"^workload\.{key} is {value}, but .* it {NEEDS}, or leave it out$"):
        execute(spec_of(**{key: value}))


def test_a_sweep_names_the_cell_that_cannot_be_simulated(tmp_path):
    sweep = SweepSpec.of({"base": DOCUMENT, "axes": {"policy": ["sha-fixed", "pbt"]}, "seeds": 1})
    with pytest.raises(InputError, match=rf"^cell .*pbt.*: policy pbt .* it {NEEDS}"):
        plan(sweep, tmp_path / "out")


@pytest.mark.parametrize("command", [["run"], ["compare", "--policies", "sha-fixed,pbt"]])
def test_the_command_line_refuses_with_code_2_and_writes_nothing(command, spec_file, tmp_path):
    name, *options = command
    policy = ["--policy", "pbt"] if name == "run" else []
    result = CliRunner().invoke(app, [name, str(spec_file), *policy, *options, "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "policy pbt changes configurations while they train" in result.output
    assert "--on ray" in result.output
    assert not (tmp_path / "out").exists()


def test_the_contract_check_says_that_its_worlds_are_simulated():
    result = CliRunner().invoke(app, ["check-policy", "pbt"])
    assert result.exit_code == 2
    assert "policy pbt needs real workers, and the worlds of this check are simulated" in result.output


def test_a_real_run_gets_a_controller_that_knows_what_may_change():
    controller = World.of(spec_of("pbt:interval=3")).controller(None)
    assert controller.name == "pbt:interval=3"


def test_the_hyperparameters_that_are_handed_in_are_no_parameter_of_the_spec():
    assert "hyperparameters" not in ON_REAL_WORKERS["pbt"].parameters
    with pytest.raises(InputError, match=r"there is no pbt parameter 'hyperparameters'; known: gpus_per_trial"):
        spec_of({"name": "pbt", "hyperparameters": 3})


def test_noise_on_recorded_scores_is_refused_where_workers_measure_them(spec_file, tmp_path):
    command = ["run", str(spec_file), "--on", "ray", "--set", "workload.score_noise=0.1", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "workload.score_noise is 0.1, but workers report what they measure: leave it out" in result.output
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_named_before_anything_is_written(spec_file, tmp_path, monkeypatch):
    monkeypatch.setattr(slots, "find_spec", lambda name: None if name == "psutil" else name)
    result = CliRunner().invoke(app, ["run", str(spec_file), "--on", "ray", "-o", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "a run on real workers needs psutil: pip install 'elastune[bridge]'" in result.output
    assert not (tmp_path / "run").exists()
