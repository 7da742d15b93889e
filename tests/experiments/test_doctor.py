"""The doctor without a cluster: what each look says of what it finds, and how the command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.real import doctor
from elastune.experiments.real.doctor import Check, DoctorOptions
from elastune.sim.bridge.machines.embedded import visible_gpus
from elastune.sim.model.errors import InputError

pytest.importorskip("psutil", reason="the bridge extra is not installed")


@pytest.fixture
def elastune():
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])


def found(checks, name):
    return next(check for check in checks if check.name == name)


def test_missing_packages_are_named_and_nothing_is_started(monkeypatch):
    known = {"torch": "2.4", "psutil": "5.9", "fsspec": "2024.2", "optuna": "4.0", "mlxtend": "0.23"}
    monkeypatch.setattr(doctor, "_version", known.get)
    checks = list(doctor.examine(DoctorOptions()))
    assert [check.status for check in checks] == ["ok", "failed", "warning", "failed"]
    assert "ray missing" in checks[1].found
    assert "elastune[bridge]" in checks[1].advice
    assert "scikit-learn is missing" in checks[2].found
    assert checks[3].name == "ray"


@pytest.mark.parametrize(("version", "status"), [("3.10.14", "failed"), ("3.11.0", "ok"), ("4.0.1", "ok")])
def test_old_pythons_fail(monkeypatch, version, status):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: version)
    assert doctor._python().status == status


@pytest.mark.parametrize(("load", "status"), [(0.9, "ok"), (1.1, "warning")])
def test_a_busy_machine_is_a_warning(monkeypatch, load, status):
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 2)
    assert doctor._load().status == status


@pytest.mark.parametrize(("free_gib", "status"), [(3.9, "warning"), (4.1, "ok")])
def test_memory_is_counted_for_each_slot(monkeypatch, free_gib, status):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free_gib * 2**30))
    assert doctor._memory(4).status == status


@pytest.mark.parametrize(("free", "shared", "disk"), [(0.04, "warning", "warning"), (0.5, "ok", "ok")])
def test_little_shared_memory_and_full_disks_are_warnings(monkeypatch, free, shared, disk):
    total = 10 * 2**30
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(total=total, free=free * total))
    assert (doctor._shared_memory().status, doctor._disk().status) == (shared, disk)


def test_no_device_fails_where_one_was_asked_for(monkeypatch):
    monkeypatch.setattr(doctor, "slots_here", lambda device: {"cpu": 4, "cuda": 0}[device])
    assert doctor._slots("cpu") == Check("slots", "ok", "4 CPU cores, a slot each")
    assert doctor._slots("cuda").status == "failed"
    assert "--device cpu" in doctor._slots("cuda").advice


@pytest.mark.parametrize(
    ("there_s", "status"), [(98.5, "warning"), (99.5, "ok"), (102.0, "ok"), (104.5, "ok"), (106.5, "warning")]
)
def test_clocks_are_compared_within_the_time_of_an_answer(there_s, status):
    assert doctor._clocks(there_s, asked_s=100.0, answered_s=105.0).status == status


@pytest.mark.parametrize(("python", "status"), [("3.11.2", "ok"), ("3.12.2", "failed")])
def test_nodes_with_another_python_fail(monkeypatch, python, status):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.11.7")
    [worker, group] = doctor._worker({"python": python, "torch": "2.4"}, "cpu")
    assert (worker.status, group.status) == (status, "ok")


def test_a_device_that_something_else_uses_is_a_warning():
    used = {"python": doctor.platform.python_version(), "torch": "2.4", "nccl": "2.20.5", "gpu": "A100"}
    [_, group, gpu] = doctor._worker({**used, "free_bytes": 3 * 2**30, "total_bytes": 40 * 2**30}, "cuda")
    assert group.found == "nccl 2.20.5 connects workers"
    assert (gpu.status, gpu.found) == ("warning", "3.0 of 40.0 GiB free on A100")


@pytest.fixture
def lingering(tmp_path, monkeypatch):
    """Starts processes that wait, with these words in their command; ended with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started = []

    def start(*words):
        program = "import sys; sys.stdout.write('up'); sys.stdout.flush(); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout.read(2) == b"up"
        started.append(process)
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_processes_of_clusters_without_a_keeper_are_named(lingering, tmp_path):
    assert doctor._leftovers() == Check("leftovers", "ok", "none")
    lingering("-m", "elastune.sim.bridge.machines.keeper", f"{tmp_path}/elastune-kept")
    lingering(f"--session-dir={tmp_path}/elastune-kept/session_1/sockets")
    assert doctor._leftovers() == Check("leftovers", "ok", "none; 1 embedded clusters run")

    orphan = lingering(f"--raylet-socket={tmp_path}/elastune-lost/session_2/sockets/raylet")
    check = doctor._leftovers()
    assert check.status == "warning"
    assert check.advice.endswith(f"kill {orphan}")


def test_an_address_where_nobody_listens_fails_at_once(elastune):
    pytest.importorskip("ray", reason="the bridge extra is not installed")
    done = elastune("--ray", "127.0.0.1:9", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["is_ready"] is False
    last = told["checks"][-1]
    assert (last["name"], last["status"]) == ("ray", "failed")
    assert "no Ray cluster answers there" in last["found"]


def test_each_check_is_a_line_and_a_failure_the_exit_code(elastune, monkeypatch):
    checks = [Check("slots", "ok", "2 CPU cores"), Check("load", "warning", "9 on 2 cores", "wait")]
    told = []
    monkeypatch.setattr(doctor, "examine", lambda options: told.append(options) or iter(checks))
    done = elastune("--device", "cuda", "--checkpoints", "s3://bucket/here")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "ok       slots          2 CPU cores",
        "warning  load           9 on 2 cores: wait",
    ]
    assert told == [DoctorOptions("cuda", None, "s3://bucket/here")]

    checks.append(Check("ray", "failed", "it does not start", "see the message"))
    assert elastune().exit_code == 1
    assert json.loads(elastune("--json").stdout)["checks"][2]["advice"] == "see the message"


def test_slots_are_the_cores_this_process_may_use():
    assert doctor.slots_here("cpu") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("named", "there", "visible"),
    [
        (None, 2, ["0", "1"]),
        ("3,1,-1", 2, ["3", "1"]),
        ("-1", 0, []),
        ("", 0, []),
        ("0,1", 0, []),
        ("5, 6", 2, ["5", "6"]),
    ],
)
def test_devices_are_those_that_the_variable_names_and_that_are_there(monkeypatch, named, there, visible):
    torch = pytest.importorskip("torch", reason="the bridge extra is not installed")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert doctor.slots_here("cuda") == len(visible)
    if visible:
        assert visible_gpus() == visible
    else:
        with pytest.raises(InputError, match="this machine has no CUDA device"):
            visible_gpus()
