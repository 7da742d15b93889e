"""Runs per second and memory of a sweep, and what three kills cost; printed, only the equality of the tables is asserted.

`pytest -m benchmark -s tests/benchmarks/test_sweep_speed.py`; ELASTUNE_SEEDS=1000 for all 10,000 runs of sweep.yaml (three
minutes on 2 cores).
"""

# ruff: noqa: T201  it is here to print

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from rows import children_s, show

from elastune.experiments.sweeps.grid import SweepSpec
from elastune.experiments.sweeps.store import Store

pytestmark = pytest.mark.benchmark

SEEDS = int(os.environ.get("ELASTUNE_SEEDS", "20"))
FILE = Path(__file__).with_name("sweep.yaml")
MIB = 2**20


class Sweep:
    """One `elastune sweep`, on two processes unless said otherwise, watched.

    Attributes:
        peak: MiB, of the parent, of its largest worker, and of all together, what they share counted once.
    """

    def __init__(self, folder, out, jobs=2):
        command = [
            "-c",
            "from elastune.experiments.cli.app import main; main()",
            "sweep",
            "sweep.yaml",
            "-o",
            out,
            "--jobs",
            str(jobs),
        ]
        self.process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.peak = {"parent": 0.0, "worker": 0.0, "together": 0.0}

    def watch(self, until_s=float("inf")):
        """Follow its memory to its end, or to this moment."""
        while self.process.poll() is None and time.monotonic() < until_s:
            together = 0
            for number, process in enumerate(self.tree()):
                try:
                    memory = process.memory_full_info()
                except psutil.Error:
                    continue
                name = "worker" if number else "parent"
                self.peak[name] = max(self.peak[name], memory.rss / MIB)
                together += memory.pss / MIB
            self.peak["together"] = max(self.peak["together"], together)
            time.sleep(0.5)
        return self.process.poll()

    def tree(self):
        """The process and all below it."""
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return []

    def kill(self):
        """`kill -9` of all of it."""
        tree = self.tree()
        for process in tree:
            process.kill()
        self.process.wait()
        psutil.wait_procs(tree, timeout=10)


def test_runs_per_second_memory_and_three_kills(tmp_path):
    document = {**SweepSpec.load(FILE, []).to_dict(), "seeds": SEEDS}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
    runs = 10 * SEEDS
    began_s = time.monotonic()
    undisturbed = Sweep(tmp_path, "undisturbed")
    assert undisturbed.watch() == 0
    seconds = time.monotonic() - began_s
    load = os.getloadavg()[0]
    peak = ", ".join(f"{name} {mib:.0f}" for name, mib in undisturbed.peak.items())
    print(f"\n{runs} runs in {seconds:.0f} s, {runs / seconds:.1f} runs/s (load {load:.1f}); peak MiB: {peak}")

    moments = random.Random(1)
    for number in range(3):
        killed = Sweep(tmp_path, "killed")
        killed.watch(time.monotonic() + moments.uniform(0.25, 0.45) * seconds)
        killed.kill()
        print(f"kill {number + 1}: {len(Store(tmp_path / 'killed').known())} rows are there")
    assert Sweep(tmp_path, "killed").watch() == 0
    tables = []
    for folder in ("undisturbed", "killed"):
        table = Store(tmp_path / folder).read()
        pq.write_table(table, tmp_path / f"{folder}.parquet")
        tables.append((tmp_path / f"{folder}.parquet").read_bytes())
        assert table.num_rows == runs
    assert tables[0] == tables[1]


@pytest.mark.parametrize(("policy", "target"), [("sha-fixed", 500), ("seer", 200)])
def test_runs_per_second_of_one_policy(policy, target, tmp_path):
    document = SweepSpec.load(FILE, []).to_dict()
    axes = {**document["axes"], "policy": [policy]}
    runs = 50 * SEEDS
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**document, "axes": axes, "seeds": runs}))
    rates = []
    for jobs in (1, 2):
        began_s, cpu_before_s = time.monotonic(), children_s()
        assert Sweep(tmp_path, f"jobs-{jobs}", jobs).watch() == 0
        rates.append(runs / (time.monotonic() - began_s))
        cpu_ms = 1e3 * (children_s() - cpu_before_s) / runs
        print(
            f"\n  {policy}, {runs} runs of 64 trials, jobs {jobs}: {rates[-1]:.0f} runs/s, {cpu_ms:.1f} ms of a core a run"
        )
    show(f"{policy}, runs a second on two cores", rates[1], target, "runs/s", is_least=True)
    show(f"{policy}, two processes over one", rates[1] / rates[0], 1.8, "times", is_least=True)
