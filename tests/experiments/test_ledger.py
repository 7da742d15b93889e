"""Where the dollars went: by hand, and adding up to the bill in worlds that go wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments import RunSpec, execute
from experiments.ledger import PARTS, Ledger
from policies.registry import POLICIES
from sim.journal import Entry
from sim.model.actions import FinishRun
from sim.model.commands import ProvisionInstance, StartSegment
from sim.model.events import (
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
from sim.model.prices import BillingRule, InstanceType, PriceBook
from traces import synthetic_bundle

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
    ledger = Ledger(PriceBook((PAIR,), billing, release_s=release_s))
    for entry in entries:
        ledger.write(entry)
    return {part: round(usd * 1000, 9) for part, usd in ledger.usd().items() if usd}


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


def test_a_stale_fact_costs_nothing():
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
            "instance_type": {"price_usd_per_hour": 9.0, "gpus_per_instance": int(rng.choice([1, 2, 4]))},
            "billing": billing,
            "startup": {"queue_s": {"mean_s": 10, "cv": 0.5}, "init_s": {"mean_s": 60, "cv": 0.5}},
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


@pytest.mark.parametrize("seed", range(60))
def test_the_parts_add_up_to_the_bill_whatever_happens(seed):
    result = execute(random_spec(seed), bundle=BUNDLE, record_trajectory=True)
    assert tuple(result.ledger_usd) == PARTS
    assert math.fsum(result.ledger_usd.values()) == pytest.approx(result.cost_usd, abs=1e-9)
    # Rounding may undo a billionth of a quantum; nothing else can be negative.
    assert all(usd >= -1e-9 for usd in result.ledger_usd.values())
    table = result.trajectory()
    assert table["spent_usd"].iloc[-1] == pytest.approx(result.cost_usd)
    assert table["at_s"].iloc[-1] == result.makespan_s
    assert table["at_s"].is_monotonic_increasing
    assert (table["gpus_held"] <= table["gpus_ready"]).all()
