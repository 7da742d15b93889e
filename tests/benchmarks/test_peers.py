"""The same ASHA on other simulators, each in an environment of its own (`make bench-peers`), run in turn with ours."""

# ruff: noqa: T201  it is here to print

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from rows import show

pytestmark = pytest.mark.benchmark

HERE = Path(__file__).parent
ENVIRONMENTS = Path(os.environ.get("ELASTUNE_PEERS", Path(sys.prefix) / "peers"))
EPOCHS, WORKERS = 81, 8


def seconds(command, folder):
    """What the last line that a process prints says, after its start."""
    found = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return json.loads(found.stdout.splitlines()[-1])["seconds"]


def theirs(peer, trials):
    """Processor seconds of a peer."""
    python = ENVIRONMENTS / peer / "bin" / "python"
    return seconds([str(python), f"{peer}.py", str(trials), str(EPOCHS), str(WORKERS)], HERE / "peers")


def ours(trials):
    """Processor seconds of the same work with machines, bills, T and B, tables, and a journal on disk."""
    return seconds([sys.executable, "-m", "tests.benchmarks.growth", str(trials)], HERE.parents[1])


@pytest.mark.parametrize(
    ("peer", "trials", "target", "repeats"),
    [("mfhpo", 1_000, 2, 5), ("mfhpo", 10_000, 2, 5), ("synetune", 1_000, 50, 3), ("synetune", 10_000, 500, 1)],
)
def test_asha_beside(peer, trials, target, repeats):
    if not (ENVIRONMENTS / peer).exists():
        pytest.skip(f"{peer} is not installed: make bench-peers")
    pairs = [(theirs(peer, trials), ours(trials)) for _ in range(repeats)]
    print(f"\n  {peer}, {trials:,} trials: " + ", ".join(f"{one:.3f} s to our {other:.3f} s" for one, other in pairs))
    ratio = statistics.median(one / other for one, other in pairs)
    show(f"{peer}'s time over ours, {trials:,} trials", ratio, target, "times", is_least=True)
