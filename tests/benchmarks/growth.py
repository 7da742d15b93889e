"""One run of ASHA on any number of configurations, in a process of its own: `python -m tests.benchmarks.growth TRIALS [EVERY]`.

All that `execute()` does around a run is on: T and B, the bill, both tables, ledger, placement account and a journal that is
written to a file. Only the curves are not kept in memory: each score is computed when it is asked for. With EVERY, scores are
reported at each multiple of so many iterations. Prints one line of JSON.
"""

# ruff: noqa: T201  it is here to print

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from elastune.experiments.runs.accounts import Accounts
from elastune.experiments.runs.fold import Tables
from elastune.policies.execution.asynchronous import AsynchronousPolicy
from elastune.policies.execution.limits import Limits
from elastune.policies.tuners.promotion import PromotionRule
from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import JournalWriter, Sinks
from elastune.sim.control.runner import run
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import InstanceType, PriceBook
from elastune.sim.model.profile import CloudTruth
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.traces import synthetic_bundle

WORKERS, ITERATIONS = 8, 81


class Curves:
    """Power laws whose two numbers come from the trial's own; what the simulated world uses of an array of scores."""

    def __init__(self, trials: int) -> None:
        self.shape = trials, ITERATIONS

    def item(self, trial: int, k: int) -> float:
        """The score after k + 1 iterations."""
        floor, decay = trial * 0.6180339887498949 % 1.0, trial * 0.7548776662466927 % 1.0
        return 0.05 + 0.35 * floor + 0.4 * (k + 1) ** -(0.3 + decay)


def peak_mib() -> float:
    """The most memory that this process held; `getrusage` would count that of the process which started it, too."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed_run(trials: int, report_every: int = 0) -> dict[str, float]:
    """What one run took."""
    small = synthetic_bundle(1, ITERATIONS, seed=1)
    terms = small.terms()
    job = TuningJob(
        trials=trials, min_iterations=1, max_iterations=ITERATIONS, deadline_s=300.0 * trials, budget_usd=3.0 * trials
    )
    one = small.truth_of(terms, TuningJob(trials=1, min_iterations=1, max_iterations=ITERATIONS), seed=0)
    truth = replace(one, scores=Curves(trials), iteration_s=np.full(trials, terms.iteration_s))
    book = PriceBook((InstanceType("m", WORKERS, {"on-demand": 24.48}),), max_instances=1)
    began_s = time.process_time()
    limits = Limits(job, small.profile_of(terms), book)
    policy = AsynchronousPolicy(PromotionRule(job, trials, report_every=report_every, climbs=True), limits, instances=1)
    accounts = Accounts(SimpleNamespace(price_book=book, truth=truth))
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "journal.jsonl").open("wb") as stream:
        tables = Tables(book, accounts)
        controller = Controller(policy, job, book, name="asha", sink=Sinks(tables, JournalWriter(stream)))
        run(controller, SimulatedBackend(truth, CloudTruth(), Streams(0)))
        stream.flush()
        journal_mb = stream.tell() / 1e6
    accounts.read(tables.changes)
    seconds = time.process_time() - began_s
    return {
        "trials": trials,
        "segments": accounts.placement.account["segments"],
        "iterations": controller.state.totals.iterations_trained,
        "seconds": seconds,
        "journal_mb": journal_mb,
        "peak_mib": peak_mib(),
    }


if __name__ == "__main__":
    print(json.dumps(timed_run(*map(int, sys.argv[1:]))))
