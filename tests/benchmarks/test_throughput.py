"""Segments per second, printed side by side with bare SimPy in one run; nothing is asserted about time.

`pytest -m benchmark -s tests/benchmarks`
"""

# ruff: noqa: T201  it is here to print

from __future__ import annotations

import io
import statistics
import time
from functools import partial

import pytest
from rows import bare_simpy, cpu_s

from elastune import RunSpec, execute
from elastune.policies.tuners.asha import asha_on
from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import JournalWriter
from elastune.sim.control.runner import run
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import InstanceType, PriceBook
from elastune.sim.model.profile import CloudTruth
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.traces import synthetic_bundle

pytestmark = pytest.mark.benchmark

WORKERS, ITERATIONS = 8, 81
REPETITIONS = 5


class Discard(io.RawIOBase):
    """Takes all bytes and counts them: the journal is encoded and streamed, and no disk is measured."""

    def __init__(self):
        self.bytes = 0

    def writable(self):
        return True

    def write(self, data):
        self.bytes += len(data)
        return len(data)


def prepared(trials):
    bundle = synthetic_bundle(trials, ITERATIONS, seed=1)
    job = TuningJob(trials=trials, min_iterations=1, max_iterations=ITERATIONS)
    terms = bundle.terms()
    return job, bundle.truth_of(terms, job, seed=0), bundle.profile_of(terms)


def elastune(job, truth, profile):
    """(seconds, segments, journal bytes) of ASHA on one machine of eight GPUs, journal on."""
    book = PriceBook((InstanceType("m", WORKERS, {"on-demand": 1.0}),))
    sink = Discard()
    started = time.process_time()
    policy = asha_on(1, job, profile, book, trials=job.trials)
    controller = Controller(policy, job, book, name="asha", sink=JournalWriter(sink))
    run(controller, SimulatedBackend(truth, CloudTruth(), Streams(0)))
    seconds = time.process_time() - started
    return seconds, controller._segments, sink.bytes


def test_segments_per_second_beside_bare_simpy():
    job, truth, profile = prepared(10_000)
    _, segments, journal_bytes = elastune(job, truth, profile)
    ours_s, bare_s = [], []
    for _ in range(REPETITIONS):
        ours_s.append(elastune(job, truth, profile)[0])
        bare_s.append(cpu_s(lambda: bare_simpy(segments)))
    ours, bare = statistics.median(ours_s), statistics.median(bare_s)
    print(
        f"\nASHA, {job.trials} configurations x {ITERATIONS}, {WORKERS} workers, journal on ({journal_bytes / 1e6:.1f} MB)"
    )
    print(
        f"  elastune    {segments / ours:10,.0f} segments/s  {ours / segments * 1e6:6.2f} us each  ({segments} segments)"
    )
    print(f"  bare SimPy  {segments / bare:10,.0f} segments/s  {bare / segments * 1e6:6.2f} us each")
    ratios = [one / other for one, other in zip(ours_s, bare_s, strict=True)]
    print(
        f"  ratio {ours / bare:.2f} (single repetitions {min(ratios):.2f} to {max(ratios):.2f}, medians of {REPETITIONS})"
    )


def test_what_users_call_beside_bare_simpy(tmp_path):
    bundle = synthetic_bundle(10_000, ITERATIONS, seed=1)
    spec = RunSpec.of(
        job={"trials": 10_000, "min_iterations": 1, "max_iterations": ITERATIONS, "deadline_s": 3e6, "budget_usd": 3e4},
        workload={"bundle": "digits-mlp", "scaling": "linear", "iteration_s": 60},
        cloud={"instance_type": "p3.16xlarge", "max_instances": 1},
        policy="asha-fixed-naive",
    )
    journal = tmp_path / "journal.jsonl"
    execute(spec, bundle=bundle, journal=journal)
    segments = journal.read_bytes().count(b'"type":"StartSegment"')
    ours_s, bare_s = [], []
    for _ in range(REPETITIONS):
        ours_s.append(cpu_s(lambda: execute(spec, bundle=bundle, journal=journal)))
        bare_s.append(cpu_s(lambda: bare_simpy(segments)))
    ours, bare = statistics.median(ours_s), statistics.median(bare_s)
    size_mb = journal.stat().st_size / 1e6
    print(
        f"\nasha-fixed-naive by execute(), {segments} segments, T and B, a journal of {size_mb:.1f} MB on disk, processor time"
    )
    print(
        f"  {ours / segments * 1e6:.1f} us a segment, bare SimPy {bare / segments * 1e6:.1f}, ratio {ours / bare:.1f}"
    )


def test_runs_of_a_small_job():
    spec = RunSpec.load("tight")
    print("\nexperiments/catalog/tight.yaml, 32 trials: milliseconds of CPU time a run, medians of 10 seeds")
    for policy in ("sha-fixed", "hyperband-fixed", "rubberband", "asha-fixed-naive", "explore-finish", "seer"):
        one = spec.with_policy(policy)
        execute(one)
        took_s = [cpu_s(partial(execute, one.with_seed(seed))) for seed in range(10)]
        print(f"  {policy:18} {statistics.median(took_s) * 1e3:6.1f}")


def test_the_time_of_a_segment_does_not_grow_with_the_number_of_trials():
    print()
    for trials in (1_000, 10_000, 100_000):
        prepared_world = prepared(trials)
        runs = [elastune(*prepared_world) for _ in range(3 if trials == 100_000 else REPETITIONS)]
        seconds, segments = statistics.median(one[0] for one in runs), runs[0][1]
        print(
            f"  {trials:7,} configurations: {seconds:7.3f} s, {segments:8,} segments, {seconds / segments * 1e6:6.2f} us each"
        )
