"""Where the time of a segment goes: each part of a run alone, fed with what the others did, in multiples of bare SimPy."""

# ruff: noqa: T201  it is here to print

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rows import bare_simpy, median_s

from elastune.experiments.runs.accounts import Accounts
from elastune.experiments.runs.fold import Tables
from elastune.policies.tuners.asha import asha_on
from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import JournalWriter, MemorySink
from elastune.sim.control.runner import run
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import InstanceType, PriceBook
from elastune.sim.model.profile import CloudTruth
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.traces import synthetic_bundle

pytestmark = pytest.mark.benchmark

TRIALS, ITERATIONS, WORKERS = 10_000, 81, 8


class Parts:
    """ASHA on one machine of eight GPUs, recorded once."""

    def __init__(self, folder):
        bundle = synthetic_bundle(TRIALS, ITERATIONS, seed=1)
        terms = bundle.terms()
        self.job = TuningJob(trials=TRIALS, min_iterations=1, max_iterations=ITERATIONS, deadline_s=3e6, budget_usd=3e4)
        self.truth, self.profile = bundle.truth_of(terms, self.job, seed=0), bundle.profile_of(terms)
        self.book = PriceBook((InstanceType("m", WORKERS, {"on-demand": 24.48}),), max_instances=1)
        self.journal = folder / "journal.jsonl"
        sink = MemorySink()
        run(self.controller(sink), self.backend())
        self.entries = sink.entries

    def controller(self, sink=None):
        policy = asha_on(1, self.job, self.profile, self.book, trials=TRIALS)
        return Controller(policy, self.job, self.book, name="asha", sink=sink)

    def backend(self):
        return SimulatedBackend(self.truth, CloudTruth(), Streams(0))

    def decide(self):
        controller = self.controller()
        for entry in self.entries:
            controller.handle(entry.event)

    def simulate(self):
        backend = self.backend()
        for entry in self.entries:
            backend.next_event()
            for command in entry.commands:
                backend.perform(command)

    def write(self):
        with self.journal.open("wb") as stream:
            writer = JournalWriter(stream)
            for entry in self.entries:
                writer.write(entry)

    def account(self):
        accounts = Accounts(SimpleNamespace(price_book=self.book, truth=self.truth))
        tables = Tables(self.book, accounts)
        for entry in self.entries:
            tables.write(entry)
        accounts.read(tables.changes)


def test_where_the_time_of_a_segment_goes(tmp_path):
    parts = Parts(tmp_path)
    segments = sum(len(entry.commands) for entry in parts.entries)
    bare_us = 1e6 * median_s(lambda: bare_simpy(segments)) / segments
    print(f"\nASHA, {TRIALS:,} trials, each part alone; bare SimPy takes {bare_us:.2f} us a segment")
    for name, work in {
        "the simulated world, SimPy included": parts.simulate,
        "writing the journal": parts.write,
        "tables, ledger, placement account": parts.account,
        "controller and policy": parts.decide,
    }.items():
        us = 1e6 * median_s(work) / segments
        print(f"  {name:36} {us:6.2f} us, {us / bare_us:.2f} times bare SimPy")
