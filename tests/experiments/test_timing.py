"""Timing profiles without workers: what follows from timed segments, what is refused, and the bundle that is written."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from elastune import RunSpec
from elastune.experiments.cli import options as cli_options
from elastune.experiments.cli.app import app
from elastune.experiments.cli.profile import print_timing
from elastune.experiments.plans.plan_spec import planning_profile
from elastune.experiments.plans.planning import make_plans
from elastune.experiments.profiling.estimates import ALONE, Estimate, timing_of
from elastune.experiments.profiling.records import (
    GangShape,
    NodeStart,
    SegmentRecord,
    Surroundings,
)
from elastune.experiments.profiling.timed_bundle import SEGMENTS, TimingProfile, profile_timing, remarks, write_timing
from elastune.experiments.profiling.timing import is_enough, series_part, surroundings_part, time_workload
from elastune.experiments.profiling.timing_nodes import TimingNodes
from elastune.experiments.profiling.timing_plan import TimingEffort, TimingPlan, rows_to_time, series_of
from elastune.experiments.profiling.work_folder import WorkFolder
from elastune.experiments.spec.workload import WorkloadSpec
from elastune.sim.bridge.workers.measured import TimedSegment
from elastune.sim.model.errors import InputError
from elastune.traces import bundle_folder, load_bundle
from elastune.traces.workloads import workload_named

TWO, TWO_NODES = GangShape(2, 1), GangShape(2, 2)
QUIET = Surroundings({"cpu": "a processor"}, 0.1, 2, [NodeStart(0.0, 3.0), NodeStart(0.0, 5.0)])


def segment(series, row=0, round_=0, shape=ALONE, is_fresh=False, train_s=2.0, evaluate_s=0.5, **changes):
    told = {
        "iterations": 20,
        "launch_s": 6.0 if is_fresh else 8.0,
        "warm_up_s": 0.0,
        "mean_iteration_s": train_s + evaluate_s,
        "iteration_cv": 0.1,
        "checkpoint_s": 0.25,
        "checkpoint_bytes": 1000,
    }
    return SegmentRecord(
        series=series,
        row=row,
        round=round_,
        gpus=shape.gpus,
        nodes=shape.nodes,
        is_fresh=is_fresh,
        train_s=train_s,
        evaluate_s=evaluate_s,
        iteration_s=train_s + evaluate_s,
        **{**told, **changes},
    )


def all_series(rows, rounds, cost, *, speedup=1.6, worker=lambda _series: 1.0, configuration=lambda _row: 1.0):
    """Each configuration alone, then as two: training twice as long as evaluation takes four times, at its cost."""
    found = []
    for number, (round_, row) in enumerate(itertools.product(range(rounds), rows)):
        seconds = cost[row] * worker(number) * configuration(row)
        found.append(
            [
                segment(number, row, round_, is_fresh=True, train_s=2.0 * seconds, evaluate_s=0.5 * seconds),
                segment(number, row, round_, TWO, train_s=2.0 * seconds / speedup, evaluate_s=0.5 * seconds),
            ]
        )
    return found


def test_a_median_has_the_interval_of_order_statistics():
    assert Estimate.of([]) is None
    assert Estimate.of([3.0]) == (3.0, 3.0, 3.0, 0.0, 1)
    many = Estimate.of(
        range(1, 10_001)
    )  # 10,000 iterations of 1 ms are timed in 10 s; by the normal law, 98 on either side
    assert (many.value, many.low, many.high) == (5000.5, 4902, 5099)
    assert many.coverage == pytest.approx(0.95117, abs=1e-5)
    assert Estimate.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 0.75, 3)  # their range: 1 - 2 / 2^3
    assert Estimate.of(range(1, 7)) == (3.5, 1, 6, 1 - 2 / 64, 6)
    # The second of nine: 1 - 2 (1 + 9) / 2^9 = 0.961; the third would hold it with 0.82 only.
    assert Estimate.of(range(1, 10)) == (5, 2, 8, 1 - 20 / 512, 9)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=200))
def test_intervals_hold_their_median_and_are_as_sure_as_they_say(samples):
    found = Estimate.of(samples)
    assert found.low <= found.value <= found.high
    assert found.coverage >= 0.95 or len(samples) < 6


def test_intervals_hold_the_true_median_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = [
        abs(math.log(e.low)) < math.inf and e.low <= 1.0 <= e.high
        for e in (Estimate.of(rng.lognormal(0.0, 0.5, 12)) for _ in range(2000))
    ]
    assert np.mean(held) == pytest.approx(Estimate.of(range(12)).coverage, abs=0.01)


def test_seconds_and_speed_ups_come_out_of_the_segments():
    cost = {4: 0.5, 7: 1.0, 9: 3.0}
    timing = timing_of(all_series(cost, 2, cost), cost)

    assert timing.iteration_s.value == pytest.approx(2.5)
    assert timing.evaluate_s.value == pytest.approx(0.5)
    assert timing.speedups[ALONE].value == 1.0
    assert timing.speedups[TWO].value == pytest.approx(1.6)  # of training alone: of the iteration it would be 1.43
    assert timing.speedups[TWO].samples == 6
    assert timing.train_s[TWO].value == pytest.approx(1.25)
    assert (timing.launch_s.value, timing.resume_s.value, timing.checkpoint_s.value) == (6.0, 8.0, 0.25)
    assert timing.rescale_s.value == 0.25 + 8.0  # the checkpoint, and the launch from it
    assert timing.checkpoint_bytes == 1000
    assert timing.spread.per_iteration == 0.1
    assert timing.spread.workers == pytest.approx(0.0, abs=1e-6)
    assert timing.spread.configurations == pytest.approx(0.0, abs=1e-6)


def test_a_gang_is_compared_with_the_same_configuration_in_the_same_round():
    cost = {0: 1.0, 1: 1.0}
    # The second round runs on a machine that is three times as slow; each pair still says 1.6.
    timing = timing_of(all_series(cost, 2, cost, worker=lambda number: 3.0 if number >= 2 else 1.0), cost)
    assert timing.speedups[TWO].value == pytest.approx(1.6)
    assert timing.speedups[TWO].half_width == pytest.approx(0.0, abs=1e-9)


def test_the_spread_between_workers_and_between_configurations_is_told_apart():
    cost = dict.fromkeys(range(40), 1.0)
    rng = np.random.default_rng(0)
    workers, misfits = rng.lognormal(0, 0.1, 400), rng.lognormal(0, 0.3, 40)
    spread = timing_of(all_series(cost, 10, cost, worker=workers.item), cost).spread
    assert spread.workers == pytest.approx(0.1, abs=0.01)
    assert spread.configurations == pytest.approx(0.0, abs=0.03)

    both = timing_of(all_series(cost, 10, cost, worker=workers.item, configuration=misfits.item), cost).spread
    assert both.workers == pytest.approx(0.1, abs=0.01)
    assert both.configurations == pytest.approx(np.log(misfits).std(ddof=1), rel=0.1)
    assert both.persistent == pytest.approx(math.hypot(both.workers, both.configurations), rel=0.05)


def test_one_configuration_trained_once_says_nothing_about_what_persists():
    spread = timing_of(all_series({0: 1.0}, 1, {0: 1.0}), {0: 1.0}).spread
    assert (spread.workers, spread.configurations, spread.persistent) == (None, None, None)


def test_what_a_first_iteration_lasts_longer_belongs_to_the_launch():
    timed = TimedSegment(0, 5, 3.0, (1.5, 0.4, 0.5, 0.6, 0.5), (0.2, 0.1, 0.1, 0.1, 0.1), 0.3, 64)
    record = SegmentRecord.of(timed, TWO, series=3, row=8, round_=1)
    assert (record.shape, record.is_fresh, record.iterations) == (TWO, True, 4)
    assert record.iteration_s == pytest.approx(0.6)
    assert record.warm_up_s == pytest.approx(1.7 - 0.6)
    assert record.launch_s == pytest.approx(3.0 + 1.1)


def test_a_segment_is_long_enough_when_its_median_is_stable_or_it_never_will_be():
    steady, wild = [9.0] + [0.1] * 30, [9.0] + [0.05, 0.15] * 30
    assert not is_enough([9.0, 0.1, 0.1], 0.1)  # too few, the warm-up left out
    assert not is_enough(steady[:10], 1.0)
    assert is_enough(steady[:12], 1.0)
    assert not is_enough(wild[:20], 1.0)
    assert is_enough(wild[:34], 1.0)  # three times as long


def test_gangs_are_named_by_gpus_and_nodes():
    assert GangShape.parse("4", None) == (4, 1)
    assert GangShape.parse(" 4x2", None) == (4, 2)
    assert GangShape.parse("8", 4) == (8, 2)
    assert GangShape(7, 3).per_node == (3, 2, 2)
    assert [str(shape) for shape in (ALONE, GangShape(4, 2))] == ["1", "4x2"]
    with pytest.raises(InputError, match="8 GPUs do not fit on 1 nodes of 4"):
        GangShape.parse("8x1", 4)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ((TWO,), "--gpus 2: 1 is missing, with which speed-ups compare"),
        ((ALONE, TWO, TWO), "a gang is named twice"),
    ],
)
def test_gangs_that_say_nothing_are_refused(shapes, match):
    with pytest.raises(InputError, match=match):
        TimingPlan(shapes=shapes)


def test_more_slots_than_there_are_are_refused_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setattr("elastune.experiments.profiling.timing_plan.slots_here", lambda _device: 2)
    plan = TimingPlan(shapes=(ALONE, GangShape(3, 1)))
    with pytest.raises(InputError, match="a gang of 3 needs 3 slots, but this machine has 2 CPU cores"):
        profile_timing(workload_named("digits-mlp"), plan, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_configurations_stand_for_cheap_and_dear_ones():
    bundle = load_bundle("digits-mlp")
    rows = rows_to_time(bundle, TimingEffort(configurations=4))
    shares = [np.mean(bundle.relative_cost < bundle.relative_cost[row]) for row in rows]
    assert shares == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8], abs=0.01)
    with pytest.raises(InputError, match="digits-mlp has 256 that one GPU holds"):
        rows_to_time(bundle, TimingEffort(configurations=257))
    run = tuple(range(254))  # the rows that a run to be predicted trains
    with pytest.raises(
        InputError, match=r"3 configurations are timed that no run trains, but besides the 254 .* it has 2"
    ):
        rows_to_time(bundle, TimingEffort(configurations=3, left_out=run))
    assert set(rows_to_time(bundle, TimingEffort(configurations=2, left_out=run))) == {254, 255}


def test_each_gang_is_as_often_the_first_of_a_series():
    plan = TimingPlan(shapes=(ALONE, TWO, TWO_NODES), effort=TimingEffort(configurations=2, rounds=2))
    series = series_of(plan, [5, 9])
    assert [one.number for one in series] == list(range(8))
    assert [(one.row, one.round, one.shapes) for one in series[:4]] == [
        (5, 0, (ALONE, TWO)),
        (9, 0, (TWO, ALONE)),
        (5, 1, (TWO, ALONE)),
        (9, 1, (ALONE, TWO)),
    ]
    assert {one.shapes for one in series[4:]} == {(TWO_NODES, TWO_NODES)}  # restored, though on the same gang


def written(out_dir, base="digits-mlp", **named):
    """A bundle with made-up timings."""
    folder = WorkFolder(out_dir)
    folder.open({"asked": 1}, bundle_folder(base))
    bundle = load_bundle(base)
    cost = {row: float(bundle.relative_cost[row]) for row in rows_to_time(bundle, TimingEffort(configurations=3))}
    series = all_series(cost, 2, cost)
    timing = timing_of(series, cost)
    plan = TimingPlan(shapes=(ALONE, TWO))
    profile = TimingProfile(
        out_dir, bundle.name, plan, named.get("batch", "global"), timing, QUIET, remarks(timing, QUIET)
    )
    write_timing(profile, folder, series)
    return profile


def test_a_bundle_keeps_its_curves_and_gets_the_timings(tmp_path):
    profile = written(tmp_path / "mine")
    shipped, mine = load_bundle("digits-mlp"), load_bundle(tmp_path / "mine")

    assert np.array_equal(mine.scores, shipped.scores, equal_nan=True)
    assert mine.configurations == shipped.configurations
    assert mine.iteration_s == pytest.approx(2.5)
    assert mine.evaluate_s == pytest.approx(0.5)
    assert (mine.timings.launch_s, mine.timings.checkpoint_s, mine.timings.rescale_s) == (6.0, 0.25, 8.25)
    assert mine.scaling.speedup(2) == pytest.approx(1.6)
    assert mine.scaling.kind == "strong"
    assert all(
        mine.provenance[key].startswith("measured on Ray workers") for key in ("iteration_s", "launch_s", "scaling")
    )
    assert mine.provenance["curves"] == shipped.provenance["curves"]
    assert mine.notes["timing"]["command"].startswith("elastune profile digits-mlp --gpus 1,2 --device cpu")
    assert mine.notes["timing"]["medians"]["node_init_s"]["value"] == 4.0
    assert mine.notes["timing"]["node_starts_s"] == [start.init_s for start in QUIET.nodes]
    assert len((tmp_path / "mine" / SEGMENTS).read_text().splitlines()) == 1 + 12
    assert profile.remarks == ()
    assert not (tmp_path / "mine" / ".partial").exists()


def test_a_batch_for_each_worker_is_weak_scaling(tmp_path):
    written(tmp_path / "mine", batch="per-worker")
    assert load_bundle(tmp_path / "mine").scaling.kind == "weak"


def test_a_timed_bundle_is_all_that_a_plan_needs(tmp_path):
    written(tmp_path / "mine")
    machine = {"name": "m", "price_usd_per_hour": 3.6, "gpus_per_instance": 2}
    spec = RunSpec.of(
        job={"trials": 9, "max_iterations": 9, "deadline_s": 600, "budget_usd": 9},
        workload={"bundle": str(tmp_path / "mine")},
        cloud={"instance_type": machine, "max_instances": 1},
        policy="seer",
    )
    assert make_plans(spec).frontier
    believed = planning_profile(spec)
    assert believed.timings.rescale_s == 8.25
    assert believed.iteration_s == pytest.approx(2.5 * load_bundle("digits-mlp").relative_cost.mean())
    assert believed.scaling.speedup(2) == pytest.approx(2.5 / (2.0 / 1.6 + 0.5))  # one worker evaluates
    table = str(tmp_path / "mine" / "scaling.csv")
    apart = spec.model_copy(update={"workload": WorkloadSpec(bundle="digits-mlp", scaling=table, iteration_s=2.5)})
    assert planning_profile(apart).scaling.speedup(2) == pytest.approx(1.6)


def test_a_bundle_that_is_there_is_timed_again_and_a_bundle_of_another_workload_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("elastune.experiments.profiling.timing_plan.slots_here", lambda _device: 2)
    written(tmp_path / "mine")
    written(tmp_path / "mine", base=str(tmp_path / "mine"))
    assert load_bundle(tmp_path / "mine").iteration_s == pytest.approx(2.5)
    plan = TimingPlan(shapes=(ALONE,))
    with pytest.raises(InputError, match="is a bundle of digits-mlp, but mnist5k-cnn is to be timed"):
        profile_timing(workload_named("mnist5k-cnn"), plan, tmp_path / "mine")
    with pytest.raises(InputError, match="whose curves stay"):
        profile_timing(workload_named("digits-mlp"), plan, tmp_path / "mine", curves="digits-mlp")


def test_an_interrupted_profile_goes_on_and_another_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("elastune.experiments.profiling.timing_plan.slots_here", lambda _device: 2)
    bundle, effort = load_bundle("digits-mlp"), TimingEffort(configurations=1, rounds=2)
    plan = TimingPlan(shapes=(ALONE, TWO), effort=effort)
    folder = WorkFolder(tmp_path / "mine")
    folder.open(plan.asked(), bundle_folder("digits-mlp"))
    surroundings_part(folder).append(QUIET)
    cost = dict.fromkeys(rows_to_time(bundle, TimingEffort(configurations=1)), 1.0)
    first, second = all_series(cost, 2, cost)
    series_part(folder, 0).append(*first)
    series_part(folder, 1).append(second[0])  # cut short

    timed = []
    nodes = SimpleNamespace(acquire=lambda *_, launched, is_cancelled: launched() or is_cancelled(), close=lambda: None)
    told = []
    found = time_workload(
        plan,
        bundle,
        None,
        folder,
        connect=lambda _: nodes,
        time_one=lambda series, *_: timed.append(series.number) or second,
        on_progress=lambda *done: told.append(done),
    )
    assert timed == [1]
    assert found == [first, second]
    assert told == [(2, 4), (4, 4)]
    assert time_workload(plan, bundle, None, folder) == found  # all of it is there: no cluster is started
    assert timed == [1]
    with pytest.raises(InputError, match=r"holds another profile: seconds is 2\.0 there, asked was 3"):
        folder.open(TimingPlan(shapes=plan.shapes, effort=TimingEffort(configurations=1, seconds=3)).asked(), tmp_path)


def test_what_makes_the_numbers_doubtful_is_said():
    cost = dict.fromkeys(range(4), 1.0)
    series = all_series(cost, 2, cost, configuration=lambda row: 2.0**row)
    noisy = [[segment(0, is_fresh=True, mean_iteration_s=5.0), segment(0, shape=TWO, mean_iteration_s=5.0)]]
    busy = Surroundings({}, 3.0, 2, QUIET.nodes)
    assert "relative costs" in remarks(timing_of(series, cost), QUIET)[0]
    assert "100% longer on average" in remarks(timing_of(noisy, cost), QUIET)[0]
    assert "load 3.0 on 2 cores" in remarks(timing_of(all_series(cost, 1, cost), cost), busy)[0]


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--gpus", "1,2", "--trials", 3], "--trials: not here, as workers are timed"),
        (["--device", "cuda", "--rounds", 3], "--device, --rounds: not here, as curves are recorded"),
        (["--gpus", "1,two"], "'two' is no gang"),
        (["--gpus", "1", "--seconds", 0], "seconds is 0.0, but must be above 0"),
    ],
)
def test_options_of_the_other_profile_are_refused(tmp_path, monkeypatch, arguments, match):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("elastune.experiments.real.slots.find_spec", lambda _name: True)
    done = call("profile", "digits-mlp", *arguments)
    assert done.exit_code == cli_options.WRONG_INPUT
    assert match in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_hands_over_what_was_asked_for_and_prints_what_was_found(tmp_path, monkeypatch):
    told = {}
    profile = written(tmp_path / "mine")

    def time_it(workload, plan, out_dir, **named):
        told.update(workload=workload.name, plan=plan, out_dir=out_dir, **named)
        return profile

    monkeypatch.setattr("elastune.experiments.profiling.timed_bundle.profile_timing", time_it)
    monkeypatch.setattr("elastune.experiments.real.slots.find_spec", lambda _name: True)
    asked = ("profile", "digits-mlp", "--gpus", "1,2,4x2", "--gpus-per-node", 2, "--rounds", 3, "--batch", "per-worker")
    done = call(*asked, "-o", tmp_path / "mine")
    assert done.exit_code == 0
    assert told["plan"].shapes == (ALONE, TWO, GangShape(4, 2))
    assert told["plan"].effort == TimingEffort(rounds=3)
    assert (told["batch"], told["curves"], told["out_dir"]) == ("per-worker", None, tmp_path / "mine")
    assert "1.6" in done.stdout
    assert "init_s: 4" in done.stdout

    answer = json.loads(call(*asked, "-o", tmp_path / "mine", "--json").stdout)
    assert answer["scaling"][1]["value"] == pytest.approx(1.6)
    assert answer["launch_s"] == {"value": 6.0, "low": 6.0, "high": 6.0, "coverage": 1 - 2 / 64, "samples": 6}


def test_on_a_cluster_that_ran_already_no_start_of_a_node_is_timed_or_advised(tmp_path, capsys):
    """A node that is leased at once took no time to start, and a spec that says so would plan without start-ups."""

    def acquire(_number, _slots, *, launched, is_cancelled):
        del is_cancelled
        launched()
        return "a node"

    plans = [TimingPlan(shapes=(ALONE,), gpus_per_node=1, ray_address=address) for address in ("10.0.0.1:6379", None)]
    there, here = (TimingNodes(plan, SimpleNamespace(acquire=acquire)) for plan in plans)
    assert there.nodes_for([ALONE]) == here.nodes_for([ALONE]) == ["a node"]
    assert (len(there.starts), len(here.starts)) == (0, 1)

    profile = written(tmp_path / "mine")
    profile = dataclasses.replace(profile, surroundings=msgspec.structs.replace(QUIET, nodes=there.starts))
    assert profile.to_json()["startup"] == {}
    print_timing(profile)
    told = capsys.readouterr().out
    assert "init_s" not in told
    assert "cloud.startup: what machines of your provider take" in told


@pytest.mark.parametrize("text", ["", "{", "[]", "\x80"])
def test_a_damaged_request_is_told(tmp_path, text):
    folder = WorkFolder(tmp_path)
    folder.open({"profile": "timings"})
    (tmp_path / ".partial" / "job.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"job\.json is damaged: .*delete .*\.partial to start anew"):
        folder.open({"profile": "timings"})


def test_a_checkpoint_with_another_name_is_left_out(tmp_path):
    folder = WorkFolder(tmp_path)
    folder.open({})
    for name in ("part-00000-000003.ckpt", "part-00000-000012.ckpt", "part-00000-best.ckpt"):
        (folder.path / name).touch()
    assert [iteration for iteration, _ in folder.checkpoints(0)] == [12, 3]
