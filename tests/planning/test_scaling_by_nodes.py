"""Planners under scalings that know of nodes: only what rises is planned, and plans come out as priced."""

from __future__ import annotations

import numpy as np
import pytest

from elastune.experiments.spec.run import RunSpec
from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.control.controller import Controller
from elastune.sim.control.runner import run
from elastune.sim.model.job import TuningJob
from elastune.sim.model.node_scaling import AllReduceScaling, Link, OnMachines, PlacedTableScaling
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import CloudTruth, Delay, GroundTruth, Profile, Startup, Stragglers, Timings
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.traces import scaling_named

AS_USED = BillingRule(granularity_s=0.0, minimum_s=0.0)
# 8 GPUs on two machines are slower than 4 on one, 16 on four faster again.
FALLING = PlacedTableScaling(
    {(1, 1): 1.0, (2, 1): 1.9, (2, 2): 1.2, (4, 1): 3.8, (4, 2): 1.8, (8, 2): 3.0, (16, 4): 7.0}
)
NETWORK = AllReduceScaling(1.0, Link(0.0, 0.01), Link(0.002, 0.05), "strong", max_gpus=16)


def terms_of(scaling, *, gpus=4, quota=6):
    book = PriceBook((InstanceType("m", gpus, {"on-demand": 36.0}),), AS_USED, quota)
    startup = Startup(Delay(5.0), Delay(30.0))
    return Terms(Profile(10.0, scaling, Timings(1.0, 1.0, 3.0), startup, Stragglers()), book)


@pytest.mark.parametrize(
    ("scaling", "gpus", "sizes"),
    [
        (FALLING, 4, (1, 2, 4, 12, 16)),  # 8 GPUs are slower than 4; 12 are half way from 8 to 16
        (scaling_named("bert-t4"), 4, (1, 2, 4, 12, 16)),
        # Machines of 1 GPU: two are slower than one, three lie between two and four.
        (PlacedTableScaling({(1, 1): 1.0, (2, 2): 0.9, (4, 4): 1.3}), 1, (1, 3, 4)),
    ],
)
def test_only_gangs_that_are_faster_than_all_smaller_ones_are_planned(scaling, gpus, sizes):
    terms = terms_of(scaling, gpus=gpus)
    speedups = [terms.speedup(size) for size in terms.gang_sizes]
    assert speedups == sorted(set(speedups))
    assert set(terms.gang_sizes) <= set(terms.placeable_gang_sizes)
    assert terms.gang_sizes == sizes


def test_a_gang_is_priced_on_the_machines_it_fills():
    terms = terms_of(FALLING)
    assert (terms.speedup(4), terms.speedup(8)) == (3.8, 3.0)
    assert terms_of(FALLING, gpus=2).speedup(4) == 1.8


@pytest.mark.parametrize("scaling", [FALLING, NETWORK, scaling_named("bert-t4")], ids=["table", "allreduce", "bert-t4"])
@pytest.mark.parametrize("gpus", [2, 4])
def test_the_simulated_world_takes_as_long_as_the_plan_says(scaling, gpus):
    terms = terms_of(scaling, gpus=gpus)
    stages = explicit_stages([(8, 2), (4, 4), (1, 9)])
    plans = frontier(stages, terms)
    assert any(allocation.gpus_per_trial > gpus for plan in plans for allocation in plan.allocations)
    for plan in plans:
        made_s = played(plan, terms, OnMachines(scaling, gpus))
        # Machines that come early are used early: never later than planned.
        assert made_s <= plan.makespan_s + 1e-6
        if not any(plan.prefetch_after_s[:-1]) and len(set(plan.instances_per_stage)) == 1:
            assert made_s == pytest.approx(plan.makespan_s)


def played(plan, terms, believed):
    trials, iterations = plan.stages[0].trials, plan.stages[-1].until_iteration
    profile = Profile(10.0, believed, terms.profile.timings, terms.profile.startup)
    truth = GroundTruth(
        np.random.default_rng(0).random((trials, iterations)),
        np.full(trials, 10.0),
        terms.profile.scaling,
        terms.profile.timings,
        Stragglers(),
    )
    job = TuningJob(trials, 1, iterations)
    controller = Controller(run_plan(plan, job, profile, terms.price_book), job, terms.price_book, name="plan")
    run(controller, SimulatedBackend(truth, CloudTruth(terms.profile.startup), Streams(0)))
    return controller.finished_at_s


@pytest.mark.parametrize(
    ("scaling", "gangs"),
    [
        ({1: 1, 4: 2.6, 8: 3.4}, "gangs of 8 GPUs"),
        ({1: 1, 4: 2.6, 8: 3.4, 12: 3.0, 16: 4.0}, "gangs of 8, 16 GPUs"),
        ({"family": "power", "exponent": 0.8, "max_gpus": 32}, "gangs of 8 to 32 GPUs"),
    ],
)
def test_gangs_across_machines_that_nothing_measured_are_named(scaling, gangs):
    (note,) = (note for note in plan_spec(scaling).notes() if "network" in note)
    assert f"between machines of 4 GPUs costs, so {gangs} are believed as fast as on one machine" in note
    assert "state it as in {8x2: 4.0}" in note


@pytest.mark.parametrize(
    "scaling", ["linear", "bert-t4", {1: 1, 4: 2.6}, {1: 1, 4: 2.6, 8: 2.5}, {1: 1, 4: 2.6, "8x2": 2.9}]
)
def test_gangs_across_machines_that_are_stated_or_not_planned_are_not_named(scaling):
    assert not [note for note in plan_spec(scaling).notes() if "network" in note]


def plan_spec(scaling):
    workload = {"iteration_s": 60, "scaling": scaling}
    cloud = {"instance_type": "p3.8xlarge", "max_instances": 8}
    return RunSpec.of(job={"trials": 4, "max_iterations": 3}, workload=workload, cloud=cloud, policy="rubberband")
