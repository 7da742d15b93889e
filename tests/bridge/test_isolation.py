"""Nothing of the folder in which a command is given, and nobody without the token, runs code in our processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray import cloudpickle

from elastune.sim.bridge.machines import isolation
from elastune.sim.bridge.machines.connection import ENVIRONMENT
from elastune.sim.bridge.machines.remote_call import run_on
from elastune.sim.model.ids import InstanceId

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests
TRAPS = ("sim", "policies", "traces", "experiments", "elastune", "ray", "numpy", "sklearn")
FILES = ("logging", "json", "pickle", "socket", "secrets", "sitecustomize", "usercustomize", "torch", "joblib")
# Emulated seconds pass 30 times as fast, those of Ray do not: the limits leave room for a slow start.
SPEC = {
    "job": {"trials": 2, "max_iterations": 3, "deadline_s": 40_000, "budget_usd": 100},
    "workload": {"bundle": "digits-mlp", "iteration_s": 10, "scaling": {1: 1}},
    "cloud": {
        "instance_type": {"name": "slot", "price_usd_per_hour": 3.06, "gpus_per_instance": 1},
        "billing": {"granularity_s": 1, "minimum_s": 60},
        "startup": {"queue_s": 0, "init_s": 0},
        "max_instances": 1,
    },
    "policy": "sha-fixed",
}


@pytest.fixture
def trapped(tmp_path):
    """A folder full of modules that note that they were executed."""
    trap = f"open({str(tmp_path / 'EXECUTED')!r}, 'a').write(__name__ + chr(10))\n"
    for name in TRAPS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(trap)
    for name in FILES:
        (tmp_path / f"{name}.py").write_text(trap)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    return tmp_path


def give(folder, *arguments):
    """Give a command there, as the installed program is started: its own folder is the first on the search path."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "elastune", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    executed = folder / "EXECUTED"
    assert not executed.exists(), executed.read_text()
    return done


@pytest.mark.slow
def test_a_real_run_executes_nothing_of_the_folder_it_is_started_in(trapped):
    done = give(trapped, "run", "spec.yaml", "--on", "ray", "--emulate", "30", "-o", "r")
    assert done.returncode == 0, done.stderr
    assert (trapped / "r" / "result.json").is_file()


@pytest.mark.slow
def test_processes_that_simulate_execute_nothing_of_the_folder_they_are_started_in(trapped):
    done = give(trapped, "compare", "spec.yaml", "--policies", "sha-fixed,random-fixed", "--seeds", "2", "--jobs", "2")
    assert done.returncode == 0, done.stderr


def test_children_search_everything_but_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    inner = str(tmp_path / "inner")
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path), f"{tmp_path}/inner/..", inner, "relative"])
    search = isolation.child_environment()["PYTHONPATH"].split(os.pathsep)
    assert search == [inner, isolation._ROOT]
    assert Path(isolation._ROOT, "elastune").is_dir()

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path), inner]))
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    isolation.isolate_children()
    assert os.environ["PYTHONPATH"] == inner
    assert os.environ["PYTHONSAFEPATH"] == "1"


def where():
    return str(Path.cwd()), sys.path, sys.flags.safe_path


def test_workers_import_nothing_of_the_drivers_folders_and_lie_in_a_private_one(cluster):
    node = cluster.acquire(InstanceId(10**6), 1, launched=lambda: None, is_cancelled=lambda: False)
    try:
        folder, search, is_safe = run_on(node, "cpu", where)
    finally:
        cluster.release(InstanceId(10**6))
    assert folder == str(cluster.folder.path)
    assert cluster.folder.path.stat().st_mode & 0o777 == 0o700
    assert str(Path.cwd()) not in search
    assert is_safe


def enter(address, then, environment):
    """What a program says that connects to the cluster, or tries twice; Ray would try for 20 s."""
    program = f"import ray; ray.init('{address}', logging_level=50); print({then})"
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment | ENVIRONMENT | {"RAY_NUM_REDIS_GET_RETRIES": "2"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("token", [None, "0" * 64], ids=["none", "another one"])
def test_who_does_not_know_the_token_cannot_enter_the_cluster(cluster, token):
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    if token is not None:
        stranger |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    done = enter(cluster.address, "len(ray.nodes())", stranger)
    assert (done.returncode, done.stdout) == (1, "")
    assert "token" in done.stderr


def test_who_knows_the_token_can_enter_the_cluster(cluster):
    """The test above would pass where nobody can."""
    done = enter(cluster.address, "len(ray.nodes()) > 0", dict(os.environ))
    assert done.stdout == "True\n", done.stderr
