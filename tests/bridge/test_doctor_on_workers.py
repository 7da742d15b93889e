"""The doctor with workers: a cluster that works, places that cannot be written, and devices where there are any."""

from __future__ import annotations

import json
import statistics
import subprocess
from contextlib import nullcontext

import pytest

from elastune.experiments.real.doctor import DoctorOptions, examine
from elastune.experiments.real.probes import OpenCluster, Probes, form_group_alone
from elastune.sim.bridge.machines.nodes import Node
from elastune.sim.bridge.machines.remote_call import run_on
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.ids import InstanceId
from tests.bridge.command import terminal

torch = pytest.importorskip("torch", reason="the bridge extra is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture
def shell():
    with terminal() as there:
        yield there


@pytest.fixture(scope="module")
def node(cluster):
    number = InstanceId(800_000)
    yield cluster.acquire(number, 1, launched=lambda: None, is_cancelled=lambda: False)
    cluster.release(number)


def checks_on(node, place):
    """The checks on a node of a cluster that is up already."""
    probes = Probes(cluster=lambda *_: nullcontext(OpenCluster(node, (1,), None)))
    checks = {check.name: check for check in examine(DoctorOptions(checkpoints=place), probes)}
    return {name: checks[name] for name in list(checks)[list(checks).index("ray") + 1 :]}


def test_a_node_that_works_is_all_right(node, tmp_path):
    checks = checks_on(node, str(tmp_path / "there"))
    assert list(checks) == ["worker", "worker group", "clock", "checkpoints"]
    assert all(check.status == "ok" or check.name == "checkpoints" for check in checks.values())
    assert "MB/s" in checks["checkpoints"].found
    assert list((tmp_path / "there").iterdir()) == []  # nothing is left there


@pytest.mark.parametrize(
    ("place", "match"), [("/proc/nowhere", "cannot be saved"), ("memory://of-the-node", "cannot be read here")]
)
def test_a_place_that_does_not_serve_fails(node, place, match):
    check = checks_on(node, place)["checkpoints"]
    assert check.status == "failed"
    assert match in check.found
    assert "--checkpoints URL" in check.advice


def test_an_errand_that_fails_or_takes_too_long_says_so(node):
    assert run_on(node, "cpu", statistics.median, [3, 5, 9]) == 5
    with pytest.raises(WorkerError, match="no median for empty data"):
        run_on(node, "cpu", statistics.median, [])
    with pytest.raises(WorkerError, match=r"did not answer within 0\.5 s"):
        run_on(node, "cpu", subprocess.run, ["sleep", "30"], within_s=0.5)
    with pytest.raises(WorkerError):
        run_on(Node("0" * 56, "127.0.0.1", 1), "cpu", statistics.median, [1])


def test_the_command_examines_an_embedded_cluster_and_leaves_nothing(shell):
    done = shell.elastune("doctor", "--json")
    assert done.returncode == 0, done.stdout
    names = [check["name"] for check in json.loads(done.stdout)["checks"]]
    assert names[-5:] == ["ray", "worker", "worker group", "clock", "checkpoints"]
    assert shell.is_clean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_devices_are_examined(shell):
    assert form_group_alone("cuda").startswith("nccl ")
    done = shell.elastune("doctor", "--device", "cuda", "--json")
    assert done.returncode == 0, done.stderr
    assert {"worker group", "GPU"} <= {check["name"] for check in json.loads(done.stdout)["checks"]}
