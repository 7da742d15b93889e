"""Placement as a switch of a run, and what it cost, by hand and adding up."""

from __future__ import annotations

import pytest

from elastune import RunSpec, execute
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.placements import PARTS, PlacementCount
from elastune.experiments.runs.replay import replay_journal
from elastune.experiments.runs.world import World
from elastune.sim.control.journal import Entry
from elastune.sim.model.commands import ProvisionInstance, StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import Outcome, RunStarted, SegmentEnded
from elastune.sim.model.node_scaling import OnMachines, PlacedTableScaling
from elastune.sim.model.prices import InstanceType, PriceBook
from elastune.sim.model.scaling import LinearScaling
from elastune.traces import synthetic_bundle
from elastune.traces.bundles.terms import EvaluatedScaling

TABLE = PlacedTableScaling({(1, 1): 1.0, (2, 1): 2.0, (2, 2): 1.5, (4, 1): 4.0, (4, 2): 2.0})


def start(segment, trial, placement, restore_from=None):
    return StartSegment(segment, trial, placement, 0, 3, restore_from=restore_from)


def end(segment, trial, launch_s=0.0, train_s=10.0):
    return SegmentEnded(100.0, trial, segment, 3, 3, 0.5, Outcome.COMPLETED, launch_s, train_s, 0.0)


def account_of(*entries, scaling=TABLE):
    requested = Entry(RunStarted(0.0), commands=[ProvisionInstance(number, "four", "on-demand") for number in range(3)])
    book = PriceBook((InstanceType("four", 4, {"on-demand": 1.0}),))
    count = PlacementCount(scaling, gpus_per_machine=4)
    count.read(Tables.of([requested, *entries], book).changes)
    return {part: number for part, number in count.account.items() if number}


def test_a_packed_gang_costs_nothing():
    found = account_of(Entry(RunStarted(0.0), commands=[start(0, 0, ((0, 4),))]), Entry(end(0, 0)))
    assert found == {"segments": 1}


def test_a_spread_gang_loses_what_a_packed_one_would_have_saved():
    # 4 GPUs over two machines run at half the speed: of 4 x 10 GPU-seconds, 20 are lost.
    found = account_of(Entry(RunStarted(0.0), commands=[start(0, 0, ((0, 3), (1, 1)))]), Entry(end(0, 0)))
    assert found == {"segments": 1, "spread_segments": 1, "spread_gpu_s": 40.0, "spread_lost_gpu_s": 20.0}


def test_a_gang_that_needs_several_machines_is_not_spread_on_them():
    # 8 GPUs need two machines of 4, three are spread; a linear speed-up loses nothing by it.
    packed = Entry(RunStarted(0.0), commands=[start(0, 0, ((0, 4), (1, 4)))])
    spread = Entry(end(0, 0), commands=[start(1, 1, ((0, 4), (1, 2), (2, 2)))])
    found = account_of(packed, spread, Entry(end(1, 1)), scaling=LinearScaling())
    assert found == {"segments": 2, "spread_segments": 1, "spread_gpu_s": 80.0}


def test_what_the_table_did_not_measure_is_counted():
    found = account_of(Entry(RunStarted(0.0), commands=[start(0, 0, ((0, 3),))]), Entry(end(0, 0)))
    assert found == {"segments": 1, "unmeasured_gpu_s": 30.0}


def test_a_table_of_training_is_looked_up_where_evaluation_is_serial_as_well():
    commands = [start(0, 0, ((0, 3),))]
    evaluated = EvaluatedScaling(TABLE, 0.2)
    found = account_of(Entry(RunStarted(0.0), commands=commands), Entry(end(0, 0)), scaling=evaluated)
    assert found == {"segments": 1, "unmeasured_gpu_s": 30.0}


def test_a_trial_migrates_where_it_goes_on_elsewhere():
    entries = [
        Entry(RunStarted(0.0), commands=[start(0, 0, ((0, 2),))]),
        Entry(end(0, 0, launch_s=7.0), commands=[start(1, 0, ((0, 1),), restore_from=0)]),  # fewer GPUs, same machine
        Entry(end(1, 0, launch_s=5.0), commands=[start(2, 0, ((1, 2),), restore_from=0)]),
        Entry(end(2, 0, launch_s=3.0)),
    ]
    assert account_of(*entries) == {"segments": 3, "resumed": 2, "migrations": 1, "migration_gpu_s": 6.0}


def test_a_stale_end_counts_for_nothing():
    stale = Entry(end(0, 0), status="stale")
    assert account_of(Entry(RunStarted(0.0), commands=[start(0, 0, ((0, 2),))]), stale) == {"segments": 1}


def spec(**cloud):
    return RunSpec.of(
        job={"trials": 9, "max_iterations": 9, "deadline_s": 3000, "budget_usd": 20},
        workload={
            "iteration_s": 60,
            "scaling": {"1x1": 1, "2x1": 2, "2x2": 1.2, "4x1": 3.9, "4x2": 1.8, "4x4": 1.5, "kind": "weak"},
        },
        cloud={
            "price_usd_per_hour": 4,
            "gpus_per_instance": 4,
            "startup": {"queue_s": 5, "init_s": 60},
            "rescale_s": 10,
            "max_instances": 4,
            **cloud,
        },
        policy={"name": "sha-elastic", "gpus_per_trial": 3},
    )


BUNDLE = synthetic_bundle(trials=27, iterations=9, seed=1)


@pytest.mark.parametrize(("given", "kept"), [("on", None), ("off", "off"), (True, None), (False, "off")])
def test_yaml_may_read_on_and_off_as_true_and_false(given, kept, tmp_path):
    import yaml

    found = spec(placement=given)
    assert found.cloud.placement == kept
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(found.to_dict()))
    assert RunSpec.load(file) == found
    assert RunSpec.load(file).digest() == found.digest()
    assert RunSpec.load(file, ["cloud.placement=off"]).cloud.placement == "off"


def test_another_placement_is_refused():
    with pytest.raises(InputError, match=r"cloud.placement is 'random', but must be 'on', 'off' or 'spread'"):
        spec(placement="random")
    with pytest.raises(InputError, match=r"cloud.placement is 1, but must be 'on', 'off' or 'spread'"):
        spec(placement=1)


def test_placement_changes_the_digest_and_its_default_does_not():
    assert spec(placement="on").digest() == spec().digest() != spec(placement="off").digest()


@pytest.mark.parametrize("rule", ["on", "off", "spread"])
def test_a_run_keeps_its_account_and_replays(rule, tmp_path):
    journal = tmp_path / "run.jsonl"
    result = execute(spec(placement=rule), bundle=BUNDLE, journal=journal, record_trajectory=True)
    assert replay_journal(journal, bundle=BUNDLE) == (len(journal.read_text().splitlines()) - 1, True)
    told = result.to_json()["placement"]
    assert tuple(told) == PARTS
    segments = result.segments()
    assert told["segments"] == len(segments)
    assert 0 <= told["migrations"] <= told["resumed"] < told["segments"]
    assert told["spread_gpu_s"] >= told["spread_lost_gpu_s"] >= 0
    # 3 GPUs on one node were not measured: they lie between 2 and 4.
    assert told["unmeasured_gpu_s"] > 0


def test_gangs_that_do_not_tile_machines_lose_by_being_placed_blindly():
    lost = {}
    for rule in ("on", "off", "spread"):
        result = execute(spec(placement=rule), bundle=BUNDLE)
        lost[rule] = result.placement["spread_lost_gpu_s"] / result.placement["segments"]
    assert lost["on"] < lost["off"]
    assert lost["on"] < lost["spread"]


def test_the_world_charges_a_gang_for_the_nodes_it_is_on():
    one = spec(placement="spread")
    truth = World.of(one, BUNDLE).truth
    segments = execute(one, bundle=BUNDLE, record_trajectory=True).segments()
    whole = segments[segments["outcome"] == "completed"]
    for row in whole.to_dict("records"):
        speedup = truth.scaling.speedup(row["gpus"], len(row["instances"]))
        iteration_s = truth.iteration_s[row["trial"]] / speedup
        assert row["train_s"] == pytest.approx(iteration_s * (row["iteration"] - row["from_iteration"]))
    assert {len(instances) for instances in whole["instances"]} >= {1, 3}


def test_policies_are_told_of_packed_gangs_and_nothing_of_the_switch():
    believed = {rule: World.of(spec(placement=rule), BUNDLE).profile for rule in ("on", "off")}
    assert believed["on"] == believed["off"]
    # Four GPUs on one machine; with machines of 2 GPUs, on two.
    assert believed["on"].scaling == OnMachines(World.of(spec(), BUNDLE).truth.scaling, 4)
    small = spec(gpus_per_instance=2)
    assert World.of(small, BUNDLE).profile.scaling.speedup(4) == 1.8


def test_results_say_whether_scaling_was_weak_or_strong():
    assert execute(spec(), bundle=BUNDLE).to_json()["provenance"]["scaling"] == (
        "assumed: set by the run; weak scaling, the batch grows with the gang"
    )
    named = RunSpec.of(**{**spec().to_dict(), "workload": {"iteration_s": 60, "scaling": "bert-a100"}})
    assert World.of(named, BUNDLE).provenance["scaling"] == (
        "assumed: set by the run; strong scaling, the gang's batch is fixed; 32, 64 GPUs are slower than the next smaller gang;"
        " planners use the non-decreasing envelope"
    )
