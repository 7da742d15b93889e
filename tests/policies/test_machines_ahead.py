"""SEER's first plan, and the machines that it requests ahead of a barrier."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elastune import RunSpec, execute
from elastune.experiments.runs.world import World
from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.seer.director import SeerDirector
from elastune.policies.seer.mechanisms import TowardsR
from elastune.policies.seer.seer import best_plan

SPEC = RunSpec.of(
    job={"trials": 32, "max_iterations": 27, "deadline_s": 1296, "budget_usd": 27.54},
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
    # The first plan asks for two that the plan at the barrier does without.
    monkeypatch.setattr(SeerDirector, "prefetched", lambda self, bracket, instances, view: instances)  # noqa: ARG005
    assert len(never_used()) == 2


def test_a_plan_with_more_survivors_is_the_cheapest_of_its_stages_that_keeps_the_deadline():
    world = World.of(SPEC)
    terms = replace(Terms.of(world.job, world.profile, world.price_book), gives_back=True)
    filled = best_plan(world.job, terms, TowardsR())
    assert filled.stages != best_plan(world.job, terms, TowardsR(fill=False)).stages
    kept = [plan.cost_usd for plan in frontier(filled.stages, terms, makespan="p95") if terms.are_kept_by(plan)]
    assert filled.cost_usd == pytest.approx(min(kept))
