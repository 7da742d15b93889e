"""Sweeps on a real Ray cluster of two nodes: the same rows as in processes, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from test_sweep_spec import BASE, sweep_of

from elastune.experiments.sweeps.run import plan, run_sweep
from elastune.experiments.sweeps.store import Store

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT / ".links"),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
OWN = ROOT / "docs" / "examples" / "median_stopping.py"
AXES = {"policy": ["seer", "sha-fixed", f"{OWN}:MedianStopping"], "job.deadline_s": [300, 900]}
SEEDS = 50
PATIENCE_S = 240
# Batches are short and parts are written often, so that the sweep is caught in the middle.
ELASTUNE = (
    "from elastune.experiments.cli import app; from elastune.experiments.sweeps import pools, run;"
    " run.PART_S = 0.05; pools.BATCH_S = 0.3; app.main()"
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
        """End the second node, with all that runs on it, at once."""
        raylet = max(self._named("raylet/raylet"), key=psutil.Process.create_time)
        for process in (raylet, *raylet.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # what raylet starts may have ended by itself
                process.kill()

    def _named(self, part):
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if part in _command_of(process)]

    def close(self):
        """End it, and see that nothing of it is left."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE_S)
        self.process.stdout.close()
        left = psutil.wait_procs(below, timeout=PATIENCE_S)[1]
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
        ends_s = time.monotonic() + PATIENCE_S
        while until_some and Store(tmp_path / "out").parts() == seen and process.poll() is None:
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        return process

    return start


@contextmanager
def held(process):
    """It hands out nothing while the block runs, so that it cannot be done before somebody has died."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def said(process):
    """Standard output, and standard error without the notes about the spec."""
    shown, told = process.communicate(timeout=PATIENCE_S)
    return shown, "".join(line for line in told.splitlines(keepends=True) if not line.startswith("note: "))


@pytest.mark.slow
def test_whatever_dies_on_a_cluster_the_rows_are_those_of_processes(tmp_path, cluster, command):
    counts = []

    def kept():
        counts.append(len(Store(tmp_path / "out").known()))
        return counts[-1]

    bereft = command(until_some=True)
    with held(bereft):
        cluster.kill_a_worker()
    shown, told = said(bereft)
    assert (bereft.returncode, told.count("\n")) == (1, 1), (shown, told)
    assert "a worker or node of the Ray cluster died" in told
    assert 0 < kept() < 6 * SEEDS

    halved = command(until_some=True)
    with held(halved):
        cluster.kill_second()
    shown, told = said(halved)
    if halved.returncode == 0:
        # Ray may have had nothing under way on that node: then the other one does the rest.
        assert kept() == 6 * SEEDS, (shown, told)
    else:
        assert (halved.returncode, told.count("\n")) == (1, 1), (shown, told)
        assert counts[0] < kept() < 6 * SEEDS

    last = command()
    shown, told = said(last)
    assert (last.returncode, told) == (0, ""), told
    assert halved.returncode == 0 or f"{6 * SEEDS - counts[1]} run now, {counts[1]} were there" in shown
    spec = sweep_of(axes=AXES, seeds=SEEDS)
    run_sweep(plan(spec, tmp_path / "processes"), tmp_path / "processes", jobs=2)
    assert Store(tmp_path / "out").read().equals(Store(tmp_path / "processes").read())
