"""The rows of the table of targets that no other benchmark here measures; printed, not asserted. See docs/performance.md.

ELASTUNE_TRIALS=1000000 for the largest run of `growth`, a minute or two on a quiet core.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monte_carlo import sample
from rows import children_s, median_s, show
from test_planning_speed import HALVED, SMALL_GANGS, terms, with_spread_starts

from elastune import RunSpec, execute, load_bundle
from elastune.policies.planning.frontier import frontier
from elastune.sim.model.profile import Stragglers
from elastune.traces import synthetic_bundle
from elastune.traces.bundles.writer import write_files

pytestmark = pytest.mark.benchmark

ROOT = Path(__file__).parents[2]
LARGEST = int(os.environ.get("ELASTUNE_TRIALS", "100000"))


def grown(trials, report_every=0):
    """What `growth` prints of a run in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.growth", str(trials), str(report_every)]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_growth():
    small = statistics.median(grown(10_000)["seconds"] for _ in range(3)) / 10_000
    large = grown(LARGEST)
    show(f"time a trial, {LARGEST:,} trials over 10,000", large["seconds"] / LARGEST / small, 1.3, "times")
    show(f"peak memory of {LARGEST:,} trials", large["peak_mib"], 1024, "MiB")


def test_a_score_each_epoch():
    runs = [grown(10_000, 1) for _ in range(3)]
    rate = statistics.median(run["iterations"] / run["seconds"] for run in runs)
    show("ASHA, 10,000 trials, a score each epoch", rate, 300_000, "epochs/s", is_least=True)


@pytest.mark.parametrize(
    ("policy", "target_ms"),
    [("sha-fixed", 50), ("rubberband", 50), ("hypersched-fixed", 50), ("hyperband-fixed", 50), ("seer", 250)],
)
def test_a_run_of_1000_trials(policy, target_ms):
    bundle = synthetic_bundle(1_000, 81, seed=1)
    spec = RunSpec.of(
        job={"trials": 1_000, "max_iterations": 81, "deadline_s": 14_400, "budget_usd": 300},
        workload={"bundle": "digits-mlp", "scaling": "bert-a100", "iteration_s": 60},
        cloud={"instance_type": "p3.8xlarge", "startup": "fast", "max_instances": 64},
        policy=policy,
    )
    took_s = median_s(lambda: execute(spec, bundle=bundle), repeats=3)
    started = execute(spec, bundle=bundle).trials_started
    show(f"{policy}, {started} of 1,000 trials, planning included", 1e3 * took_s, target_ms, "ms")


@pytest.mark.parametrize(("waves", "target_ms"), [(False, 10), (True, 60)], ids=["at once", "in waves"])
def test_monte_carlo(waves, target_ms):
    known = with_spread_starts(terms(SMALL_GANGS, Stragglers(0.1, 0.3)), 0.1)
    plan = frontier(HALVED, known)[-1 if waves else 0]
    rng = np.random.default_rng(1)
    took_s = median_s(lambda: sample(plan, known, 1_000, rng))
    show(
        f"Monte Carlo, 1,000 samples, 10 stages, {plan.instances_per_stage[0]} machines first",
        1e3 * took_s,
        target_ms,
        "ms",
    )


def test_loading_a_bundle(tmp_path):
    small, trials = synthetic_bundle(1_000, 1_000, seed=1), np.arange(1_000)
    curves = {"trial": trials.repeat(1_000), "iteration": np.tile(trials + 1, 1_000), "score": small.scores.ravel()}
    header = {
        "name": "large",
        **dict.fromkeys(("iteration", "score", "source", "licence"), "made up"),
        "direction": "minimize",
        "max_iterations": 1_000,
        "trials": 1_000,
        "iteration_s": 60.0,
        "scaling": None,
        "provenance": dict.fromkeys(("curves", "iteration_s", "scaling"), "assumed"),
    }
    write_files(
        tmp_path, header, pd.DataFrame(curves), {"configs.csv": pd.DataFrame({"trial": trials, "x": trials / 7})}
    )
    show("loading a bundle of 1,000 x 1,000", 1e3 * median_s(lambda: load_bundle(tmp_path)), 50, "ms")


ELASTUNE = str(Path(sys.executable).with_name("elastune"))


@pytest.mark.parametrize(
    ("what", "arguments", "environment", "target_s"),
    [
        ("elastune --help", ["--help"], {}, 0.25),
        ("elastune run tight", ["run", "tight", "--json"], {}, 0.8),
        (
            "tab completion of a policy",
            [],
            {"_ELASTUNE_COMPLETE": "complete_bash", "COMP_WORDS": "elastune run tight --policy se", "COMP_CWORD": "4"},
            0.15,
        ),
    ],
)
def test_from_the_shell(what, arguments, environment, target_s, tmp_path, monkeypatch):
    """With compiled modules, as whoever types finds them after the first time; tests may run where none are kept."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    monkeypatch.chdir(tmp_path)
    took_s = []
    for _ in range(6):
        before_s = children_s()
        subprocess.run([ELASTUNE, *arguments], check=True, capture_output=True, env=os.environ | environment)
        took_s.append(children_s() - before_s)
    show(what, statistics.median(took_s[1:]), target_s, "s")
