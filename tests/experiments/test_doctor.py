"""The doctor without a cluster: what each check says of what was found, and how the command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.real import doctor
from elastune.experiments.real.doctor import Check, DoctorOptions, examine
from elastune.experiments.real.probes import (
    CheckpointTrip,
    ClockReading,
    FoundWorker,
    Gpu,
    Leftovers,
    OpenCluster,
    Probes,
    Space,
    leftovers,
    version_of,
)
from elastune.experiments.real.slots import slots_here
from elastune.sim.bridge.machines.embedded import visible_gpus
from elastune.sim.bridge.machines.nodes import Node
from elastune.sim.model.errors import InputError, WorkerError

pytest.importorskip("psutil", reason="the bridge extra is not installed")

GIB = 2**30
ROOMY = Space("/there", 5 * GIB, 10 * GIB)
OPENED = OpenCluster(Node("node", "127.0.0.1", 1), (1,), None)


@contextmanager
def opened(_device, _address):
    yield OPENED


def broken(*_):
    raise WorkerError("it broke")


HEALTHY = Probes(
    python=lambda: "3.11.7",
    version=lambda _: "1.0",
    slots=lambda _: ["A100"] * 4,
    load=lambda: 0.5,
    cores=lambda: 2,
    memory_bytes=lambda: 4 * GIB,
    shared_memory=lambda: ROOMY,
    disk=lambda: ROOMY,
    leftovers=lambda: Leftovers((), 0),
    cluster=opened,
    worker=lambda *_: FoundWorker("3.11.2", "2.4"),
    group=lambda *_: "gloo",
    clock=lambda *_: ClockReading(100.0, 101.0, 105.0),
    checkpoint=lambda *_: CheckpointTrip(0.1, 0.1, is_read_here=True),
)


def checks(options=DoctorOptions(), **changes):  # noqa: B008  frozen
    return list(examine(options, replace(HEALTHY, **changes)))


def status(name, **changes):
    """Of the one check of this name."""
    [check] = [check for check in checks(**changes) if check.name == name]
    return check.status


def found(name, **changes):
    [check] = [check for check in checks(**changes) if check.name == name]
    return check.found


def test_where_all_is_well_every_check_is_and_none_has_advice():
    told = checks()
    assert [check.name for check in told] == [
        "python", "packages", "slots", "load", "memory", "shared memory", "disk", "leftovers",
        "ray", "worker", "worker group", "clock", "checkpoints",
    ]  # fmt: skip
    assert {(check.status, check.advice) for check in told} == {("ok", "")}


def test_missing_packages_are_named_and_nothing_is_started():
    known = {"torch": "2.4", "psutil": "5.9", "fsspec": "2024.2", "optuna": "4.0", "mlxtend": "0.23"}
    told = checks(version=known.get, cluster=broken)
    assert [check.status for check in told] == ["ok", "failed", "warning", "failed"]
    assert "ray missing" in told[1].found
    assert "elastune[bridge]" in told[1].advice
    assert "scikit-learn is missing" in told[2].found
    assert told[3].name == "ray"


@pytest.mark.parametrize(
    ("name", "probe", "value", "expected"),
    [
        ("python", "python", "3.10.14", "failed"),
        ("python", "python", "4.0.1", "ok"),
        ("load", "load", 0.9, "ok"),
        ("load", "load", 1.1, "warning"),
        ("memory", "memory_bytes", 3.9 * GIB, "warning"),
        ("memory", "memory_bytes", 4.1 * GIB, "ok"),
        ("shared memory", "shared_memory", None, "warning"),
        ("shared memory", "shared_memory", Space("/dev/shm", 511 * 2**20, GIB), "warning"),
        ("shared memory", "shared_memory", Space("/dev/shm", 513 * 2**20, GIB), "ok"),
        ("disk", "disk", Space("/tmp", 4, 100), "warning"),
        ("disk", "disk", Space("/tmp", 6, 100), "ok"),
    ],
)
def test_thresholds_of_this_machine(name, probe, value, expected):
    assert status(name, **{probe: lambda: value}) == expected


def test_slots_are_counted_and_no_device_fails_where_one_is_asked_for():
    cuda = DoctorOptions("cuda")
    assert checks()[2] == Check("slots", "ok", "4 CPU cores, a slot each")
    assert checks(cuda)[2] == Check("slots", "ok", "4 x A100")
    none = checks(cuda, slots=lambda _: [])[2]
    assert none.status == "failed"
    assert "--device cpu" in none.advice


def test_this_machine_is_not_examined_where_a_cluster_is_named():
    names = [check.name for check in checks(DoctorOptions(ray_address="there:1"))]
    assert names[:3] == ["python", "packages", "leftovers"]


def test_processes_that_are_left_are_named():
    assert found("leftovers", leftovers=lambda: Leftovers((), 1)) == "none; 1 embedded clusters run"
    [check] = [check for check in checks(leftovers=lambda: Leftovers((7, 9), 0)) if check.name == "leftovers"]
    assert check.status == "warning"
    assert check.advice.endswith("kill 7 9")


@pytest.mark.parametrize(
    ("there_s", "expected"), [(98.5, "warning"), (99.5, "ok"), (102.0, "ok"), (104.5, "ok"), (106.5, "warning")]
)
def test_clocks_are_compared_within_the_time_of_an_answer(there_s, expected):
    assert status("clock", clock=lambda *_: ClockReading(100.0, there_s, 105.0)) == expected


def test_nodes_with_another_python_fail():
    assert status("worker", worker=lambda *_: FoundWorker("3.12.2", "2.4")) == "failed"


@pytest.mark.parametrize(("free_gib", "expected"), [(3, "warning"), (30, "ok")])
def test_a_device_that_something_else_uses_is_a_warning(free_gib, expected):
    used = FoundWorker("3.11.2", "2.4", Gpu("A100", free_gib * GIB, 40 * GIB))
    told = {"worker": lambda *_: used, "group": lambda *_: "nccl 2.20.5"}
    assert status("GPU", **told) == expected
    assert found("GPU", **told) == f"{free_gib}.0 of 40.0 GiB free on A100"
    assert found("worker group", **told) == "nccl 2.20.5 connects workers"


@pytest.mark.parametrize(
    ("trip", "expected"),
    [
        (CheckpointTrip(1.0, 0.1, is_read_here=True), "ok"),
        (CheckpointTrip(2.0, 0.1, is_read_here=True), "warning"),
        (CheckpointTrip(0.1, 2.0, is_read_here=True), "warning"),
        (CheckpointTrip(0.1, 0.1, is_read_here=False), "failed"),
    ],
)
def test_checkpoints_of_16_mib_are_saved_and_read_within_a_second_or_two(trip, expected):
    assert status("checkpoints", checkpoint=lambda *_: trip) == expected


@pytest.mark.parametrize(
    ("probe", "names"),
    [
        ("cluster", ["ray"]),
        ("worker", ["ray", "worker"]),
        ("group", ["ray", "worker", "worker group", "checkpoints"]),
        ("clock", ["ray", "worker", "worker group", "clock", "checkpoints"]),
        ("checkpoint", ["ray", "worker", "worker group", "clock", "checkpoints"]),
    ],
)
def test_what_breaks_is_one_failed_check_of_its_own(probe, names):
    told = checks(**{probe: broken})[8:]
    assert [check.name for check in told] == names
    [failed] = [check for check in told if check.status == "failed"]
    assert "it broke" in failed.found
    assert failed.advice


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


def test_processes_of_clusters_without_a_keeper_are_found(lingering, tmp_path):
    assert leftovers() == Leftovers((), 0)
    lingering("-m", "elastune.sim.bridge.machines.keeper", f"{tmp_path}/elastune-kept")
    lingering(f"--session-dir={tmp_path}/elastune-kept/session_1/sockets")
    assert leftovers() == Leftovers((), 1)
    orphan = lingering(f"--raylet-socket={tmp_path}/elastune-lost/session_2/sockets/raylet")
    assert leftovers() == Leftovers((orphan,), 1)


def test_a_package_that_is_missing_has_no_version():
    assert version_of("pytest") == pytest.__version__
    assert version_of("no-such-package") is None


@pytest.fixture
def elastune():
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])


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
    results = [Check("slots", "ok", "2 CPU cores"), Check("load", "warning", "9 on 2 cores", "wait")]
    told = []
    monkeypatch.setattr(doctor, "examine", lambda options: told.append(options) or iter(results))
    done = elastune("--device", "cuda", "--checkpoints", "s3://bucket/here")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "ok       slots          2 CPU cores",
        "warning  load           9 on 2 cores: wait",
    ]
    assert told == [DoctorOptions("cuda", None, "s3://bucket/here")]

    results.append(Check("ray", "failed", "it does not start", "see the message"))
    assert elastune().exit_code == 1
    assert json.loads(elastune("--json").stdout)["checks"][2]["advice"] == "see the message"


def test_slots_are_the_cores_this_process_may_use():
    assert slots_here("cpu") == len(os.sched_getaffinity(0))


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
    assert slots_here("cuda") == len(visible)
    if visible:
        assert visible_gpus() == visible
    else:
        with pytest.raises(InputError, match="this machine has no CUDA device"):
            visible_gpus()
