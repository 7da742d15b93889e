"""Configurations that need several GPUs for their memory: who can train them, and who says that it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from elastune.experiments.contracts.policies import record
from elastune.experiments.contracts.worlds import worlds
from elastune.policies.planning.bound import Bound
from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.rubberband_search import rubberband_plan
from elastune.policies.planning.static import naive_plan, static_plan
from elastune.policies.registry import POLICIES, factory
from elastune.policies.rules.halving import rungs
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.scaling import LinearScaling

ON_ONE_GPU = {"asha-fixed", "asha-fixed-naive", "asha-stopping-fixed", "pasha-fixed", "hypersched-fixed"}


def needing(world, gpus):
    return replace(
        world,
        truth=replace(world.truth, min_gpus=np.full(len(world.truth.iteration_s), gpus)),
        profile=replace(world.profile, min_gpus=gpus),
    )


@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize("name", sorted(POLICIES.keys() - ON_ONE_GPU))
def test_gangs_are_no_smaller_than_the_memory_takes(name, gpus):
    parameters = {"gpus_per_trial": gpus} if "gpus_per_trial" in POLICIES[name].parameters else {}
    recording = record(name, factory(name, parameters), needing(worlds()[0], gpus))
    starts = [one for entry in recording.entries for one in entry.commands if isinstance(one, StartSegment)]
    assert starts
    assert min(sum(count for _, count in start.placement) for start in starts) >= gpus
    assert recording.controller.is_closed


@pytest.mark.parametrize("name", sorted(ON_ONE_GPU))
def test_policies_that_train_on_one_gpu_say_so(name):
    with pytest.raises(InfeasibleJobError, match=f"^{name}: trains a configuration on one GPU, but its memory takes 2"):
        record(name, factory(name), needing(worlds()[0], 2))


@pytest.mark.parametrize("name", ["asha-elastic", "hyperband-fixed", "sha-fixed", "rubberband", "seer"])
@pytest.mark.parametrize("world", ["lost instances", "no capacity beyond two small machines"])
def test_gangs_do_not_become_smaller_than_that_where_machines_are_gone(name, world):
    rough = next(one for one in worlds() if one.name == world)
    parameters = {"gpus_per_trial": 8} if name == "asha-elastic" else {}
    recording = record(name, factory(name, parameters), needing(rough, 8))
    starts = [one for entry in recording.entries for one in entry.commands if isinstance(one, StartSegment)]
    assert all(sum(count for _, count in start.placement) >= 8 for start in starts)
    assert bool(starts) == (world == "lost instances")
    assert recording.controller.is_closed


@pytest.mark.parametrize("name", [name for name, entry in POLICIES.items() if "gpus_per_trial" in entry.parameters])
def test_a_constant_gang_that_is_too_small_names_the_one_that_is_not(name):
    with pytest.raises(InfeasibleJobError, match=f"gpus_per_trial is 1, .*: set {name}:gpus_per_trial=4 or more$"):
        record(name, factory(name), needing(worlds()[0], 3))


def terms(world, gpus, **changes):
    return Terms(replace(world.profile, min_gpus=gpus, **changes), world.price_book)


def test_gangs_worth_planning_begin_with_the_least_that_fits():
    plain = worlds()[0]
    assert [terms(plain, gpus).gang_sizes for gpus in (1, 2, 3, 8)] == [(1, 2, 4, 8), (2, 4, 8), (4, 8), (8,)]
    assert terms(plain, 8).cluster_sizes == range(2, 9)
    assert terms(plain, 3).placeable_gang_sizes == tuple(g for g in terms(plain, 1).placeable_gang_sizes if g >= 3)


@pytest.mark.parametrize(("gpus", "most"), [(9, 8), (3, 3)])
def test_a_gang_that_cannot_be_had_is_refused_before_anything_is_planned(gpus, most):
    with pytest.raises(InfeasibleJobError, match=rf"^a configuration needs {gpus} GPUs for its memory \(min_gpus\)"):
        terms(worlds()[0], gpus, scaling=LinearScaling(most))


def test_all_planners_keep_to_it_and_the_bound_stays_below_them():
    plain = worlds()[0]
    stages, large = rungs(plain.job), terms(plain, 4)
    plans = [static_plan(stages, large), rubberband_plan(stages, large), *frontier(stages, large, space="wide")]
    bound = Bound(stages, large)
    for plan in plans:
        assert all(allocation.gpus_per_trial >= 4 for allocation in plan.allocations)
        assert plan.cost_usd >= bound.usd(plan.makespan_s)
    # What is excluded was cheaper, and the bound knows that it is.
    assert bound.usd(3600.0) > Bound(stages, terms(plain, 1)).usd(3600.0)
    assert naive_plan(stages, large, 2) is None
    assert naive_plan(stages, large, 4) is not None
