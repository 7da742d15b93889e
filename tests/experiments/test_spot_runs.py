"""Every policy on machines that are taken back: nothing durable is lost, and the limits are kept or said to be missed."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from elastune import RunSpec, execute
from elastune.experiments.runs.replay import replay_journal
from elastune.policies.registry import POLICIES
from elastune.sim.control.journal import read_entries
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.events import GoneCause, InstanceGone, Outcome, ReclaimNoticed, SegmentEnded

SHARED = Path(os.environ.get("ELASTUNE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
BAMBOO = SHARED / "cloud" / "spot_events_bamboo.csv"


@pytest.fixture(scope="module")
def few_nodes(tmp_path_factory):
    """Six nodes; every five minutes, three of them go at once and come back four minutes later."""
    path = tmp_path_factory.mktemp("traces") / "nodes.csv"
    lines = [f"0,add,{node}" for node in range(6)]
    for turn in range(1, 24):
        nodes = [(turn + offset) % 6 for offset in range(3)]
        lines += [f"{turn * 300},remove,{node}" for node in nodes]
        lines += [f"{turn * 300 + 240},add,{node}" for node in nodes]
    path.write_text("\n".join(["t_s,op,node", *lines]) + "\n", encoding="utf-8")
    return path


def spec_of(policy, **spot):
    return RunSpec.of(
        job={"trials": 16, "max_iterations": 27, "deadline_s": 5400, "budget_usd": 5},
        workload={"bundle": "mnist5k-cnn", "scaling": "resnet50-v100", "iteration_s": 60},
        cloud={
            "instance_type": "p3.8xlarge",
            "market": "spot",
            "spot": spot,
            "when_refused": "wait",
            "startup": "typical",
            "sync_s": 2,
            "rescale_s": 10,
        },
        policy=policy,
    )


def check(spec, journal):
    """Play it and return its events; every promise is checked on the way."""
    result = execute(spec, journal=journal)
    assert execute(spec) == result
    assert replay_journal(journal)[1]
    assert result.score is not None
    assert result.best_trial is not None
    assert (result.deadline_met, result.budget_met) == (True, True)
    assert math.fsum(result.ledger_usd.values()) == pytest.approx(result.cost_usd)
    durable, trained = {}, 0
    entries = list(read_entries(journal))
    for entry in entries:
        event = entry.event
        if isinstance(event, SegmentEnded):
            assert event.checkpoint_iteration >= durable.get(event.trial, 0), "a checkpoint was lost"
            trained += event.iteration - durable.get(event.trial, 0)
            durable[event.trial] = event.checkpoint_iteration
        for order in entry.commands:
            if isinstance(order, StartSegment):
                assert order.from_iteration == durable.get(order.trial, 0)
    assert result.iterations_trained == trained
    events = [entry.event for entry in entries if entry.status == "handled"]
    # What was trained on machines that went, and is not durable, is done again, and stands in the ledger.
    lost = [event for event in events if isinstance(event, SegmentEnded) and event.outcome is Outcome.INSTANCE_GONE]
    assert (result.ledger_usd["redone"] > 0) == any(event.train_s > 0 for event in lost)
    return events


@pytest.mark.many(fast=6)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_survives_waves_of_reclaims(policy, few_nodes, tmp_path):
    events = check(spec_of(policy, trace=str(few_nodes), notice_s=30), tmp_path / "run.jsonl")
    assert any(isinstance(event, ReclaimNoticed) for event in events)


@pytest.mark.many(fast=6)
@pytest.mark.skipif(not BAMBOO.exists(), reason="the shared data folder is absent; ELASTUNE_SHARED_DATA can name it")
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_survives_the_recorded_p3_market(policy, tmp_path):
    # From 2,800 s on: six of 32 nodes go at 260 s, two more at 380 s.
    spec = spec_of(policy, trace=str(BAMBOO), recording="p3-trace", start_s=2800, notice_s=0)
    events = check(spec, tmp_path / "run.jsonl")
    gone = [event for event in events if isinstance(event, InstanceGone) and event.cause is GoneCause.RECLAIMED]
    cut = [event for event in events if isinstance(event, SegmentEnded) and event.outcome is Outcome.INSTANCE_GONE]
    assert gone
    # HyperSched holds all 32 machines, and of its 16 trials none happens to be on those that go.
    assert cut or policy == "hypersched-fixed"
