"""Training code and a policy of the user's own, from a profile to a plan, a real run, its death, and its winner."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray", reason="real workers need the bridge extra")

from tests.bridge.chaos import wait_for
from tests.bridge.command import terminal

ROOT = Path(__file__).parents[2]
CODE = """
import json
import time

import elastune


def train(config):
    error, done = 1.0, 0
    if (folder := elastune.checkpoint_folder()) is not None:
        error, done = json.loads((folder / "state.json").read_text())

    def save(folder):
        (folder / "state.json").write_text(json.dumps([error, done]))

    while True:
        time.sleep(0.2)
        error, done = error * config["rate"], done + 1
        elastune.report(error, save=save)
"""
SPEC = {
    "job": {"trials": 5, "max_iterations": 6, "deadline_s": 2000, "direction": "minimize"},
    "workload": {
        "bundle": "results/bundles/train",
        "trainable": "code/mine.py:train",
        "space": {"rate": {"uniform": [0.5, 0.99]}},
        "configurations": "search-space",
        "scaling": {1: 1},
    },
    "cloud": {
        "instance_type": {"name": "slot", "price_usd_per_hour": 3.06, "gpus_per_instance": 1},
        "startup": {"queue_s": 0, "init_s": 3},
        "max_instances": 2,
    },
    "policy": "code/median_stopping.py:MedianStopping(least=2)",
}
NAMED = ("--trainable", "code/mine.py:train", "--policy", "code/median_stopping.py:MedianStopping")


@pytest.fixture
def shell():
    with terminal() as there:
        code = Path(there.folder) / "code"
        code.mkdir()
        (code / "mine.py").write_text(CODE)
        shutil.copy(ROOT / "docs" / "examples" / "median_stopping.py", code)
        (Path(there.folder) / "spec.yaml").write_text(yaml.safe_dump(SPEC))
        yield there


@pytest.mark.slow
def test_own_code_goes_from_a_profile_to_a_plan_a_real_run_its_death_and_its_winner(shell):
    folder = Path(shell.folder)
    profiled = shell.elastune("profile", "spec.yaml", "--trials", 2, "--iterations", 3, "--jobs", 2)
    assert profiled.returncode == 0, profiled.stderr
    planned = shell.elastune("plan", "spec.yaml", "--json")
    assert json.loads(planned.stdout)["static"]["gpus_per_stage"], planned.stderr

    run = folder / "run"
    journal = run / "journal.jsonl"
    program = [sys.executable, "-c", "from elastune.experiments.cli.app import main; main()"]
    driver = subprocess.Popen(
        [*program, "run", "spec.yaml", "--on", "ray", "-o", "run"],
        cwd=folder,
        env=os.environ | {"TMPDIR": shell.folder},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: journal.is_file() and journal.read_text().count("SegmentEnded") >= 1, within_s=240)
    assert driver.poll() is None
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    header = json.loads(journal.read_text().partition("\n")[0])
    assert {f"{folder}/code/mine.py:train", f"{folder}/code/median_stopping.py:MedianStopping"} < set(
        header["data_sha256"]
    )

    for left_out in range(0, len(NAMED), 2):
        refused = shell.elastune("run", "--resume", "run", *NAMED[:left_out], *NAMED[left_out + 2 :])
        assert refused.returncode == 2
        assert "run only where you name it" in refused.stderr
    (folder / "code" / "mine.py").write_text(CODE.replace("0.2", "0.1"))
    changed = shell.elastune("run", "--resume", "run", *NAMED)
    assert changed.returncode == 2
    assert "the training code" in changed.stderr
    assert "code/mine.py:train is not the one that the journal was recorded with" in changed.stderr
    (folder / "code" / "mine.py").write_text(CODE)

    resumed = shell.elastune("run", "--resume", "run", *NAMED, "--json")
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)
    assert result["trials_started"] == 5
    assert Path(result["checkpoint"]["path"]).is_file()
    unpacked = shell.elastune(*result["checkpoint"]["command"].split()[1:])
    assert unpacked.returncode == 0, unpacked.stderr
    error, done = json.loads((folder / "best" / "state.json").read_text())
    assert (error, done) == (pytest.approx(result["score"]), result["best_iteration"])
    assert json.loads((folder / "best" / "config.json").read_text()) == result["best_config"]
    assert error == pytest.approx(result["best_config"]["rate"] ** done)
    replayed = shell.elastune("replay", "run/journal.jsonl", "--policy", NAMED[3])
    assert replayed.returncode == 0, replayed.stderr
    assert shell.is_clean()
