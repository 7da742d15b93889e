"""Sweeps on a real Ray cluster of two nodes: the same rows as in processes, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml
from test_sweep_spec import BASE, sweep_of

from experiments.store import Store
from experiments.sweep import plan, run_sweep

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
AXES = {"policy": ["seer", "sha-fixed", "asha-fixed"], "job.deadline_s": [300, 900]}
SEEDS = 200
STARTUP_S = 120
# Whoever runs the tests in the background may have Ctrl-C ignored, and children inherit that. Batches are short and parts are
# written often, so that the sweep is caught in the middle.
ELASTUNE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from experiments import cli, sweep, sweep_pools; sweep.PART_S = 0.05; sweep_pools.BATCH_S = 0.3; cli.main()"
)


class Nodes:
    """A cluster in a process of its own, which ends with it.

    Attributes:
        address: to be given as --ray.
    """

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("ray_cluster.py"), folder],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.address = self.process.stdout.readline().strip()

    def kill_a_worker(self):
        """End a process that runs what is asked for."""
        self._named("PoolActor")[0].kill()

    def kill_second(self):
        """End the second node, at once: its workers end with its raylet."""
        max(self._named("raylet/raylet"), key=psutil.Process.create_time).kill()

    def _named(self, part):
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if part in _command_of(process)]

    def close(self):
        """End it, and see that nothing of it is left."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        left = psutil.wait_procs(below, timeout=30)[1]
        assert not left, [process.cmdline() for process in left]


def _command_of(process):
    try:
        return process.cmdline()[0]
    except (psutil.Error, IndexError):
        return ""


@pytest.fixture(scope="module")
def cluster():
    # The paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(folder)
        yield nodes
        nodes.close()


@pytest.fixture
def command(tmp_path, cluster):
    """Starts `elastune sweep --ray` as a user does; waits until it has written some rows if asked to."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": BASE, "axes": AXES, "seeds": SEEDS}))

    def start(*, until_some=False):
        arguments = ("sweep", "sweep.yaml", "-o", "out", "--ray", cluster.address)
        process = subprocess.Popen(
            [sys.executable, "-c", ELASTUNE, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        seen = Store(tmp_path / "out").parts()
        ends_s = time.monotonic() + STARTUP_S
        while until_some and Store(tmp_path / "out").parts() == seen and process.poll() is None:
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        return process

    return start


def test_whatever_dies_on_a_cluster_the_rows_are_those_of_processes(tmp_path, cluster, command):
    counts = []

    def kept():
        counts.append(len(Store(tmp_path / "out").known()))
        return counts[-1]

    interrupted = command(until_some=True)
    interrupted.send_signal(signal.SIGINT)
    _, told = interrupted.communicate(timeout=60)
    assert (interrupted.returncode, told.splitlines()[-1]) == (130, "error: interrupted")
    assert "the same command goes on from there" in told
    assert 0 < kept() < 6 * SEEDS

    bereft = command(until_some=True)
    cluster.kill_a_worker()
    _, told = bereft.communicate(timeout=60)
    assert (bereft.returncode, told.count("\n")) == (1, 1), told
    assert "a worker or node of the Ray cluster died" in told
    assert counts[0] < kept() < 6 * SEEDS

    halved = command(until_some=True)
    cluster.kill_second()
    _, told = halved.communicate(timeout=120)
    assert (halved.returncode, told.count("\n")) == (1, 1), told
    assert counts[1] < kept() < 6 * SEEDS

    last = command()
    shown, told = last.communicate(timeout=120)
    assert (last.returncode, told) == (0, ""), told
    assert f"{6 * SEEDS - counts[2]} run now, {counts[2]} were there" in shown
    spec = sweep_of(axes=AXES, seeds=SEEDS)
    run_sweep(plan(spec, tmp_path / "processes"), tmp_path / "processes", jobs=2)
    assert Store(tmp_path / "out").read().equals(Store(tmp_path / "processes").read())
