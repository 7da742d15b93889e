"""SEER requests machines ahead of a barrier only where the plan that it makes at the barrier will use them."""

from __future__ import annotations

from elastune import RunSpec, execute
from elastune.policies.seer.director import SeerDirector

SPEC = RunSpec.of(
    job={"trials": 32, "max_iterations": 27, "deadline_s": 810, "budget_usd": 13.77},
    workload={"bundle": "mnist5k-cnn", "iteration_s": 60, "scaling": "gpt2-a100"},
    cloud={
        "instance_type": "p3.8xlarge",
        "billing": {"granularity_s": 1, "minimum_s": 60, "bills_startup": True},
        "startup": "typical",
        "sync_s": 2,
        "rescale_s": 10,
        "max_instances": 32,
    },
    policy="seer",
    seed=32000,
)


def never_used():
    """Machines that were launched and trained nothing."""
    tables = execute(SPEC, record_trajectory=True).recording.tables
    used = {lease.instance for segment in tables.segments for lease, _ in segment.held}
    return [lease.instance for lease in tables.leases if lease.launched_s >= 0 and lease.instance not in used]


def test_machines_that_the_next_plan_would_give_back_are_not_requested(monkeypatch):
    assert never_used() == []
    # The first plan asks for one that the plan at the barrier does without.
    monkeypatch.setattr(SeerDirector, "prefetched", lambda self, bracket, instances, view: instances)  # noqa: ARG005
    assert len(never_used()) == 1
