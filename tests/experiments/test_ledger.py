"""Where the dollars went: by hand, and adding up to the bill in worlds that go wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from elastune import RunSpec, execute
from elastune.experiments.runs import fold
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.ledger import PARTS, Ledger
from elastune.experiments.runs.replay import ledger_of as ledger_of_journal
from elastune.experiments.runs.world import World
from elastune.policies.execution.limits import HARD_STOP
from elastune.policies.registry import POLICIES
from elastune.sim.control.journal import Entry, MemorySink, Sinks
from elastune.sim.control.runner import run
from elastune.sim.model.actions import FinishRun, ScaleTo
from elastune.sim.model.commands import ProvisionInstance, ReleaseInstance, StartSegment, StartTimer
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    RunStarted,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.traces import synthetic_bundle

# 2 GPUs at 7.20 USD/h: 0.1 cent per GPU-second, 0.2 cent per second.
PAIR = InstanceType("pair", 2, {"on-demand": 7.2})


def provision(instance):
    return ProvisionInstance(instance, "pair", "on-demand")


def one_gpu_segment_on_one_of_two_machines(finish):
    """Machine 0 boots from 10 to 40, trains one GPU from 40 to 100 (5 launch, 50 train, 5 checkpoint); machine 1 is refused."""
    start = StartSegment(0, 0, ((0, 1),), 0, 3)
    ended = SegmentEnded(100.0, 0, 0, 3, 3, 0.5, Outcome.COMPLETED, 5.0, 50.0, 5.0)
    return [
        Entry(RunStarted(0.0), commands=[provision(0), provision(1)]),
        Entry(InstanceRefused(0.0, 1, "no capacity")),
        Entry(InstanceLaunched(10.0, 0)),
        Entry(InstanceReady(40.0, 0), commands=[start]),
        Entry(ended, actions=[FinishRun(0)] if finish else []),
        Entry(InstanceGone(110.0, 0, GoneCause.RELEASED), status="drained" if finish else "handled"),
    ]


def ledger_of(entries, billing, release_s=0.0):
    ledger = Ledger.of(Tables.of(entries, PriceBook((PAIR,), billing, release_s=release_s)))
    return {part: round(usd * 1000, 9) for part, usd in ledger.usd.items() if usd}


def test_a_machine_that_is_billed_from_launch():
    found = ledger_of(one_gpu_segment_on_one_of_two_machines(finish=False), BillingRule(0.0, 0.0))
    # The other GPU idles for 60 s, both for 10 s.
    assert found == {"training": 50, "launch": 5, "checkpoint": 5, "startup": 60, "idle": 80}


def test_a_machine_that_is_billed_from_readiness():
    found = ledger_of(one_gpu_segment_on_one_of_two_machines(finish=False), BillingRule(0.0, 0.0, bills_startup=False))
    assert found == {"training": 50, "launch": 5, "checkpoint": 5, "idle": 80}


def test_rounding_holds_quantum_and_minimum():
    by_the_minute = ledger_of(one_gpu_segment_on_one_of_two_machines(finish=False), BillingRule(60.0, 0.0))
    assert by_the_minute["rounding"] == 2 * (120 - 100)
    at_least_an_hour = ledger_of(one_gpu_segment_on_one_of_two_machines(finish=False), BillingRule(1.0, 3600.0))
    assert at_least_an_hour["rounding"] == 2 * (3600 - 100)


def test_the_end_of_the_run_closes_every_lease():
    found = ledger_of(one_gpu_segment_on_one_of_two_machines(finish=True), BillingRule(0.0, 0.0), release_s=7.0)
    assert found == {"training": 50, "launch": 5, "checkpoint": 5, "startup": 60, "idle": 60 + 2 * 7}


def test_functions_are_billed_by_their_gpus_alone():
    billing = BillingRule(40.0, 0.0, model="per-function")
    found = ledger_of(one_gpu_segment_on_one_of_two_machines(finish=False), billing)
    assert found == {"training": 50, "launch": 5, "checkpoint": 5, "rounding": 20}


def test_a_stale_event_costs_nothing():
    entries = one_gpu_segment_on_one_of_two_machines(finish=False)
    late = Entry(SegmentEnded(105.0, 0, 0, 3, 3, 0.5, Outcome.FAILED, 5.0, 50.0, 5.0), status="stale")
    assert ledger_of([*entries[:5], late, entries[5]], BillingRule(0.0, 0.0)) == ledger_of(
        entries, BillingRule(0.0, 0.0)
    )


def test_a_cut_segment_is_paid_for_as_far_as_it_came():
    start = StartSegment(0, 0, ((0, 2),), 0, 9)
    cut = SegmentEnded(70.0, 0, 0, 2, 0, 0.5, Outcome.ENDED, 5.0, 25.0, 0.0)
    entries = [
        Entry(RunStarted(0.0), commands=[provision(0)]),
        Entry(InstanceLaunched(10.0, 0)),
        Entry(InstanceReady(40.0, 0), commands=[start]),
        Entry(TimerFired(70.0, "limit"), actions=[FinishRun(None)]),
        Entry(cut, status="drained"),
    ]
    assert ledger_of(entries, BillingRule(0.0, 0.0)) == {"training": 50, "launch": 10, "startup": 60}


def run_of_two_stages(cause=GoneCause.RELEASED):
    """One machine of 2 GPUs, ready at 0 s: two trials, a barrier of 10 s, the better one goes on, and fails once.

    Trial 1 ends at 30 s, trial 0 at 50 s; from 60 s trial 0 trains on both GPUs, fails at 80 s, and goes on until 105 s.
    """
    return [
        Entry(RunStarted(0.0), commands=[provision(0)]),
        Entry(InstanceLaunched(0.0, 0)),
        Entry(
            InstanceReady(0.0, 0),
            commands=[StartSegment(0, 0, ((0, 1),), 0, 2), StartSegment(1, 1, ((0, 1),), 0, 2)],
        ),
        Entry(SegmentEnded(30.0, 1, 1, 2, 2, 0.5, Outcome.COMPLETED, 5.0, 20.0, 5.0)),
        Entry(
            SegmentEnded(50.0, 0, 0, 2, 2, 0.4, Outcome.COMPLETED, 5.0, 40.0, 5.0),
            commands=[StartTimer("barrier", 60.0), StartTimer(HARD_STOP, 1000.0)],
        ),
        Entry(
            TimerFired(60.0, "barrier"),
            commands=[StartSegment(2, 0, ((0, 2),), 2, 6, checkpoint_every=1, restore_from=0)],
        ),
        # Two of three iterations were durable, and the third took 5 s.
        Entry(
            SegmentEnded(80.0, 0, 2, 5, 4, 0.3, Outcome.FAILED, 3.0, 15.0, 2.0, 5.0),
            commands=[StartSegment(3, 0, ((0, 2),), 4, 6, restore_from=0)],
        ),
        Entry(
            SegmentEnded(105.0, 0, 3, 6, 6, 0.2, Outcome.COMPLETED, 3.0, 20.0, 2.0),
            actions=[ScaleTo(0)],
            commands=[ReleaseInstance(0)],
        ),
        Entry(InstanceGone(112.0, 0, cause), actions=[FinishRun(0)]),
    ]


def filled_ledger(entries, book):
    tables = Tables.of(entries, book)
    assert tables.is_complete
    return Ledger.of(tables)


def test_waiting_for_others_is_told_from_idling_and_lost_work_from_training():
    ledger = filled_ledger(run_of_two_stages(), PriceBook((PAIR,), BillingRule(0.0, 0.0), release_s=7.0))
    assert {part: gpu_s for part, gpu_s in ledger.gpu_s.items() if gpu_s} == {
        "training": 20 + 40 + 2 * 10 + 2 * 20,
        "redone": 2 * 5,
        "launch": 5 + 5,
        "rescale": 2 * (3 + 3),
        "checkpoint": 5 + 5 + 2 * (2 + 2),
        # One GPU from 30 s to 50 s, both during the barrier.
        "idle_at_barriers": 20 + 2 * 10,
        # The release latency.
        "idle": 2 * 7,
    }
    # 0.1 cent per GPU-second.
    assert {part: usd * 1000 for part, usd in ledger.usd.items()} == pytest.approx(ledger.gpu_s)


def test_a_timer_of_the_limits_is_no_barrier():
    entries = run_of_two_stages()
    entries[4].commands.pop(0)
    ledger = filled_ledger(entries, PriceBook((PAIR,), BillingRule(0.0, 0.0), release_s=7.0))
    assert ledger.gpu_s["idle_at_barriers"] == 20
    assert ledger.gpu_s["idle"] == 2 * 10 + 2 * 7


def test_a_gpu_that_nobody_has_used_yet_waits_for_no_barrier():
    found = ledger_of(one_gpu_segment_on_one_of_two_machines(finish=False), BillingRule(0.0, 0.0))
    assert "idle_at_barriers" not in found


@pytest.mark.parametrize(("cause", "is_free"), [(GoneCause.RECLAIMED, True), (GoneCause.LOST, False)])
def test_a_reclaimed_machine_that_is_free_leaves_its_gpu_seconds_and_its_data(cause, is_free):
    rule = BillingRule(0.0, 600.0, free_if_reclaimed_within_s=3600.0)
    book = PriceBook((PAIR,), rule, data_gb=10.0, ingress_usd_per_gb=0.2, head_node_usd_per_hour=36.0)
    ledger = filled_ledger(run_of_two_stages(cause), book)
    usd = {part: usd for part, usd in ledger.usd.items() if usd}
    assert usd["data"] == 2.0
    assert usd["head_node"] == pytest.approx(1.12)
    assert (set(usd) == {"data", "head_node"}) is is_free
    assert usd.get("rounding", 0.0) == pytest.approx(0.0 if is_free else 2 * (600 - 112) / 1000)
    assert math.fsum(ledger.gpu_s.values()) == pytest.approx(2 * 112)


def test_parts_are_priced_when_they_happen():
    # 0.1 cent per GPU-second until 60 s, ten times as much from then on.
    changing = InstanceType("pair", 2, {"on-demand": PriceSeries((0.0, 60.0), (7.2, 72.0))})
    ledger = filled_ledger(run_of_two_stages(), PriceBook((changing,), BillingRule(0.0, 0.0), release_s=7.0))
    usd = {part: usd * 1000 for part, usd in ledger.usd.items() if usd}
    assert usd == pytest.approx(
        {
            "training": 60 + 10 * 60,
            "redone": 10 * 10,
            "launch": 10,
            "rescale": 10 * 12,
            "checkpoint": 10 + 10 * 8,
            "idle_at_barriers": 40,
            "idle": 10 * 14,
        }
    )


def test_what_is_done_after_the_run_has_ended_is_not_paid_for():
    start = StartSegment(0, 0, ((0, 2),), 0, 9)
    late = SegmentEnded(75.0, 0, 0, 2, 0, 0.5, Outcome.ENDED, 5.0, 30.0, 0.0)
    entries = [
        Entry(RunStarted(0.0), commands=[provision(0)]),
        Entry(InstanceLaunched(10.0, 0)),
        Entry(InstanceReady(40.0, 0), commands=[start]),
        Entry(TimerFired(70.0, "limit"), actions=[FinishRun(None)]),
        Entry(late, status="drained"),
    ]
    assert ledger_of(entries, BillingRule(0.0, 0.0)) == {"training": 50, "launch": 10, "startup": 60}


def test_the_ledger_of_a_journal_is_that_of_the_run(tmp_path):
    spec = random_spec(3)
    result = execute(spec, bundle=BUNDLE, journal=tmp_path / "journal.jsonl")
    found = ledger_of_journal(tmp_path / "journal.jsonl")
    assert (found.usd, found.gpu_s) == (result.ledger_usd, result.ledger_gpu_s)


def test_a_journal_that_was_cut_has_no_bill(tmp_path):
    path = tmp_path / "journal.jsonl"
    execute(random_spec(3), bundle=BUNDLE, journal=path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.raises(InputError, match="ends before its run did"):
        ledger_of_journal(path)


@pytest.mark.slow
def test_functions_cost_the_same_whatever_the_stragglers_and_machines_do_not():
    # Three of 8 trials at a time; stragglers last longer on average 1.0 times, but the slowest of a stage holds the others up.
    def mean_usd(model, spread):
        spec = RunSpec.of(
            job={"trials": 16, "max_iterations": 9, "deadline_s": 40_000, "exact": True},
            workload={
                "scaling": "linear",
                "iteration_s": 100,
                "straggler_cv": {"persistent": spread},
            },
            cloud={
                "instance_type": {"price_usd_per_hour": 4.0, "gpus_per_instance": 4},
                "billing": {"granularity_s": 0, "minimum_s": 0, "model": model},
                "max_instances": 4,
            },
            policy="sha-elastic",
        )
        runs = [execute(spec.with_seed(seed), bundle=BUNDLE) for seed in range(40)]
        return sum(run.cost_usd for run in runs) / len(runs), sum(run.iterations_trained for run in runs) / len(runs)

    machines, functions = (
        {spread: mean_usd(model, spread) for spread in (0.0, 0.3, 0.6)} for model in ("per-instance", "per-function")
    )
    trained = functions[0.0][1] * 100 / 3600
    assert functions[0.0][0] == pytest.approx(trained, rel=1e-9)
    # 40 seeds x 16 trials at a spread of 0.6: the standard error of the mean is 0.6 / sqrt(640) = 2.4 %.
    for spread in (0.3, 0.6):
        assert functions[spread][0] == pytest.approx(trained, rel=0.07)
        assert machines[spread][0] > 1.1 * functions[spread][0]
    assert machines[0.0][0] < machines[0.3][0] < machines[0.6][0]


def random_spec(seed):
    """A small world with something of everything: faults, stragglers, coarse bills, tight limits, both billing models."""
    rng = np.random.default_rng(seed)
    policy = str(rng.choice([*POLICIES, "sha-elastic:gpus_per_trial=2"]))
    billing = {
        "granularity_s": float(rng.choice([0.0, 1.0, 60.0, 3600.0])),
        "minimum_s": float(rng.choice([0.0, 60.0, 600.0])),
        "bills_startup": bool(rng.integers(2)),
        "model": str(rng.choice(["per-instance", "per-instance", "per-function"])),
    }
    if billing["bills_startup"] and rng.random() < 0.3:
        billing["bills_queue"] = True
    price = float(rng.choice([9.0, 4.0])) if rng.random() < 0.6 else [[0, 9.0], [600, 4.0], [1500, 12.0]]
    return RunSpec.of(
        job={
            "trials": int(rng.integers(3, 20)),
            "max_iterations": 9,
            "deadline_s": float(rng.integers(1500, 6000)),
            "budget_usd": float(rng.integers(20, 80)),
            "checkpoint_every": int(rng.choice([0, 2])),
        },
        workload={
            "scaling": {"amdahl": 0.1, "max_gpus": 8},
            "iteration_s": 40,
            "straggler_cv": {"persistent": 0.2, "per_iteration": 0.3},
        },
        cloud={
            "instance_type": {"price_usd_per_hour": price, "gpus_per_instance": int(rng.choice([1, 2, 4]))},
            "head_node_usd_per_hour": float(rng.choice([0.0, 0.5])),
            "data": {"gb": 20.0, "ingress_usd_per_gb": float(rng.choice([0.0, 0.01])), "storage_usd_per_gb_month": 0.1},
            "billing": billing,
            "startup": {"queue_s": {"mean_s": 10, "cv": 0.5}, "init_s": {"mean_s": 60, "cv": 0.5}, "setup_s": 20},
            "rescale_s": 8,
            "sync_s": float(rng.choice([0.0, 3.0])),
            "max_instances": 8,
            "faults": {
                "instance_loss_per_hour": float(rng.choice([0.0, 2.0, 10.0])),
                "segment_failure_per_hour": float(rng.choice([0.0, 5.0])),
            },
        },
        policy=policy,
        seed=seed,
    )


BUNDLE = synthetic_bundle(40, 9, seed=5, diverged_share=0.1)


@pytest.mark.many(fast=20)
@pytest.mark.parametrize("seed", range(60))
def test_the_parts_add_up_to_the_bill_whatever_happens(seed):
    result = execute(random_spec(seed), bundle=BUNDLE, record_trajectory=True)
    assert tuple(result.ledger_usd) == PARTS
    assert math.fsum(result.ledger_usd.values()) == pytest.approx(result.cost_usd, abs=1e-9)
    # A quantum that began before the price rose is cheaper than its seconds; nothing else can be negative.
    assert all(usd >= -1e-9 for part, usd in result.ledger_usd.items() if part != "rounding")
    assert result.cost_usd <= result.trajectory()["spent_usd"].max() + 1e-9
    assert result.budget_met
    table = result.trajectory()
    assert table["spent_usd"].iloc[-1] == pytest.approx(result.cost_usd)
    assert table["at_s"].iloc[-1] == result.makespan_s
    assert table["at_s"].is_monotonic_increasing
    assert (table["gpus_held"] <= table["gpus_ready"]).all()


@pytest.mark.parametrize("policy", ["rubberband", "asha-fixed-naive", "seer"])
@pytest.mark.parametrize("example", ["tight", "spot", "placement"])
def test_a_run_that_keeps_no_rows_counts_the_same(policy, example, monkeypatch):
    spec = RunSpec.load(example).with_policy(policy)
    kept = execute(spec, record_trajectory=True)
    monkeypatch.setattr(fold, "MOST_HELD", 3)
    handed_on = execute(spec)
    assert handed_on == kept


def test_tables_with_a_reader_hand_every_change_on_once_and_keep_few(monkeypatch):
    class Seen(list):
        def read(self, changes):
            self.extend(changes)

    monkeypatch.setattr(fold, "MOST_HELD", 10)
    world, entries, seen = World.of(RunSpec.load("tight")), MemorySink(), Seen()
    tables = Tables(world.price_book, seen)
    run(world.controller(Sinks(entries, tables)), world.backend())
    assert 0 < len(tables.changes) < 100 < len(seen)
    whole = [what for _, _, what, _ in Tables.of(entries.entries, world.price_book).changes]
    assert [what for _, _, what, _ in (*seen, *tables.changes)] == whole
