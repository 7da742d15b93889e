"""`elastune audit` on logs that Optuna, Ray Tune and TensorBoard write themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from tests.bridge.command import terminal

TRIALS, R = 8, 4
TUNED = 4
"""Trials under Ray Tune, each a process of its own."""
TUNE = f"""
import os, sys, time

os.environ |= {{"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}}

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback

def train(config):
    for step in range({R}):
        time.sleep(0.1)
        tune.report({{"loss": (1 + config["place"] % 5) / (step + 1)}})

ray.init(
    "local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, _node_ip_address="127.0.0.1",
    _temp_dir=sys.argv[2] + "/ray", logging_level="ERROR", log_to_driver=False,
)
tune.Tuner(
    train,
    param_space={{"place": tune.grid_search(list(range({TUNED})))}},
    run_config=tune.RunConfig(storage_path=sys.argv[1], name="search", verbose=0, callbacks=[TBXLoggerCallback()]),
).fit()
ray.shutdown()
"""


def audited(*arguments):
    options = ["--machine", "p3.8xlarge", "--policies", "sha-fixed", "--seeds", "2", "--jobs", "1", "--json"]
    done = CliRunner().invoke(app, ["audit", *map(str, arguments), *options])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def loss(trial, step):
    return (1 + trial % 5) / (step + 1)


def test_a_study_that_optuna_has_run_and_pruned(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def train(trial):
        trial.suggest_float("lr", 0.0, 1.0)
        for step in range(R):
            trial.report(loss(trial.number, step), step)
            if trial.number == 3 and step == 1:
                raise optuna.TrialPruned
        return loss(trial.number, R - 1)

    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", direction="minimize")
    study.optimize(train, n_trials=TRIALS)
    counted_from_0 = CliRunner().invoke(app, ["audit", str(tmp_path / "study.db"), "--machine", "p3.8xlarge"])
    assert (counted_from_0.exit_code, "--iteration-zero first" in counted_from_0.stderr) == (2, True)
    told = audited(tmp_path / "study.db", "--iteration-zero", "first")
    assert (told["past"]["trials"], told["past"]["complete"]) == (TRIALS, TRIALS - 1)
    assert told["past"]["best_score"] == pytest.approx(loss(0, R - 1))
    assert "no plan trains 1 configuration" in told["no_plan"]  # it took less than a machine takes to come


def test_runs_that_the_summary_writer_of_pytorch_wrote(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs torch and tensorboard")
    for trial in range(TRIALS):
        with tensorboard.SummaryWriter(str(tmp_path / "runs" / f"run-{trial}")) as writer:
            for step in range(R):
                writer.add_scalar("val/loss", loss(trial, step), step, walltime=1_767_268_800.0 + 300 * step)
    told = audited(tmp_path / "runs", "--tag", "val/loss", "--direction", "minimize", "--iteration-zero", "first")
    assert told["past"]["trials"] == told["past"]["complete"] == TRIALS
    assert told["past"]["gpu_s"] == pytest.approx(300 * R * TRIALS)
    assert told["no_plan"] is None
    assert [row["policy"] for row in told["summary"]] == ["sha-fixed"]


@pytest.mark.slow
def test_the_results_folder_of_ray_tune(tmp_path):
    for package in ("ray", "tensorboardX"):
        pytest.importorskip(package, reason=f"{package} writes the folder")
    with terminal() as shell:  # Ray's sockets need a short path, and its workers a process of their own
        program = Path(shell.folder) / "search.py"
        program.write_text(TUNE)
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path), shell.folder],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told = audited(tmp_path / "search", "--tag", "ray/tune/loss", "--direction", "minimize")
    assert (told["past"]["trials"], told["past"]["complete"]) == (TUNED, TUNED)
    assert told["past"]["best_score"] == pytest.approx(1 / R)
