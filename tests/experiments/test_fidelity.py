"""Predictions against real runs: the split of errors, their statistics, and folders that prove nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.fidelity.analysis import checked_runs
from elastune.experiments.fidelity.calibrating import calibrate
from elastune.experiments.fidelity.conduct import Measurement, _job
from elastune.experiments.fidelity.draws import Noise, NoisyDraws
from elastune.experiments.fidelity.measures import RunNumbers, first_difference, in_common
from elastune.experiments.fidelity.pack import pack
from elastune.experiments.fidelity.pictures import draw
from elastune.experiments.fidelity.prediction import machine_cv_of, predict
from elastune.experiments.fidelity.report import FidelityReport, equivalence
from elastune.experiments.fidelity.simulations import with_noise
from elastune.experiments.fidelity.sitting import NO_FAULTS, Calibration, Sitting, faults_of, node_starts_s, profile_in
from elastune.experiments.fidelity.trainings import differences, trained_again
from elastune.experiments.profiling.records import SegmentRecord
from elastune.experiments.profiling.work_folder import copy_bundle
from elastune.experiments.runs.world import World
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import CloudTruth, Startup
from elastune.sim.model.streams import Streams
from elastune.traces import bundle_folder, load_bundle
from elastune.traces.bundles.replicates import Replicates
from elastune.traces.formats.yaml_text import dump_yaml, parse_yaml
from tests.experiments.fidelity_sittings import SPEC, sitting_in


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fidelity") / "sitting"
    sitting_in(folder, repeats=6, policies=("sha-fixed", "asha-fixed"))
    return folder


@pytest.fixture
def copied(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "copy")


def test_with_the_seconds_of_a_run_the_simulation_is_that_run(recorded):
    for run in checked_runs([recorded]):
        for name in ("makespan_s", "cost_usd", "score"):
            split = run.split(name)
            assert split.structure == pytest.approx(0, abs=1e-9), name
            assert split.parameters + split.structure == pytest.approx(split.total)
        assert run.difference_measured.number == 0
        assert run.measured.quantities == pytest.approx(run.real.quantities, nan_ok=True)


def test_a_machine_at_half_speed_is_an_error_of_parameters_alone(tmp_path):
    sitting_in(tmp_path / "s", repeats=2, pace=2.0)
    [group, of_all] = FidelityReport.of(checked_runs([tmp_path / "s"])).groups
    makespan = group.heads["makespan_s"]
    assert makespan.bias < -0.2
    assert makespan.parameters == pytest.approx(makespan.bias)
    assert makespan.structure == pytest.approx(0, abs=1e-9)
    assert (of_all.policy, of_all.runs) == ("", 2)
    assert group.equivalence == {}, "two repeats are too few for the test"


def test_drift_stands_beside_the_error_and_not_in_it(recorded):
    report = FidelityReport.of(checked_runs([recorded]))
    assert report.groups[0].drift == pytest.approx((0.1, 0.0))
    makespan = report.groups[0].heads["makespan_s"]
    assert makespan.bias == pytest.approx(makespan.parameters + makespan.structure)


def test_the_report_counts_every_run_and_pairs_the_policies(recorded):
    runs = checked_runs([recorded])
    report = FidelityReport.of(runs)
    assert report.runs == len(runs) == 12
    assert [group.policy for group in report.groups] == ["sha-fixed", "asha-fixed", ""]
    assert set(report.groups[0].equivalence) == {"makespan_s", "cost_usd"}
    [pair] = report.pairs["small makespan_s"]
    by = {policy: [run for run in runs if run.unit.policy == policy] for policy in ("sha-fixed", "asha-fixed")}
    means = [np.mean([run.real.quantities["makespan_s"] for run in by[policy]]) for policy in by]
    assert pair.real == pytest.approx(means[0] / means[1] - 1)
    assert json.loads(json.dumps(report.to_json(runs), allow_nan=False))["each"][0]["survivors_in_common"]


def test_sittings_of_several_people_are_one_report(recorded, tmp_path):
    sitting_in(tmp_path / "other", pace=1.3)
    assert FidelityReport.of(checked_runs([recorded, tmp_path / "other"])).runs == 13


def test_a_run_counts_once_however_often_its_sitting_is_given(recorded, copied, tmp_path):
    pack(recorded, tmp_path / "packed")
    for other in (recorded, copied, tmp_path / "packed"):
        with pytest.raises(InputError, match=r"is the same run as .*: name each sitting once, or one of its copies"):
            checked_runs([recorded, other])
    twice = CliRunner().invoke(app, ["calibrate", str(recorded), str(copied), "-o", str(tmp_path / "b")])
    assert (twice.exit_code, (tmp_path / "b").exists()) == (2, False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--rows", "fidelity.json"), "by the same command, which would replace it"),
        (("--figures", "fidelity.json"), "is not a folder"),
    ],
)
def test_outputs_are_checked_before_a_sitting_is_read_and_never_replace_it(copied, options, told):
    before = (copied / "fidelity.json").read_bytes()
    option, name = options
    done = CliRunner().invoke(app, ["fidelity", "--from", str(copied), option, str(copied / name)])
    assert (done.exit_code, (copied / "fidelity.json").read_bytes()) == (2, before)
    assert told in done.stderr


@pytest.mark.parametrize("speed", ["0", "-1"])
def test_a_speed_that_none_is_refused_before_anything_is_written(tmp_path, speed):
    done = CliRunner().invoke(app, ["fidelity", "tight", "--emulate", speed, "-o", str(tmp_path / "sitting")])
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, []), done.output


def test_intervals_hold_what_they_were_drawn_from(recorded):
    [unit, *_] = Sitting.load(recorded).units()
    spread = predict(unit, 0.0, [Calibration(1, 1, 0), Calibration(1.5, 1, 0)], 40).guesses["makespan_s"]
    narrow = predict(unit, 0.0, [], 40).guesses["makespan_s"]
    assert spread.high - spread.low > 2 * (narrow.high - narrow.low), "a machine that varied is believed to vary"
    assert narrow.low < narrow.value < narrow.high
    assert predict(unit, 0.0, [], 40) == predict(unit, 0.0, [], 40)


def test_the_spread_of_the_machine_is_that_of_its_calibrations():
    ones = [Calibration(seconds, 1.0, 0.0) for seconds in (1.0, np.e, 1 / np.e)]
    assert machine_cv_of(ones) == pytest.approx(1.0)
    assert machine_cv_of(ones[:1]) == machine_cv_of([]) == 0


def test_equivalence_needs_a_small_mean_and_a_small_spread():
    assert equivalence([0.01, -0.01, 0.02, 0.0, 0.01, -0.02]).is_equal
    assert not equivalence([0.06, 0.07, 0.06, 0.05, 0.06, 0.07]).is_equal
    wide = equivalence([0.3, -0.3, 0.2, -0.2, 0.1, -0.1])
    assert not wide.is_equal
    assert wide.low < -0.05 < 0.05 < wide.high
    # By hand: mean 0.01, standard error 0.01, so t = 4 on one side with 3 degrees of freedom.
    step = 0.02 * np.sqrt(0.75)
    by_hand = equivalence([0.01 - step, 0.01 + step] * 2)
    assert by_hand.p == pytest.approx(0.01400, abs=1e-4)


def test_the_first_decision_that_differs_is_named(recorded):
    first, second = (run.real for run in checked_runs([recorded])[:2])
    assert first_difference(first, first).number == 0
    found = first_difference(first, second)
    assert found.number > 0
    assert found.real != found.simulated
    assert set(in_common(first, first).values()) == {1.0}
    nobody = RunNumbers({}, (), {})
    assert first_difference(first, nobody).simulated == "nothing more"
    assert set(in_common(first, nobody).values()) == {0.0}


# Folders that prove nothing.


def _some_run(folder):
    return min((folder / "runs").iterdir())


def _edit(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_a_folder_of_another_version_is_refused(copied):
    _edit(copied / "fidelity.json", format=99)
    with pytest.raises(
        InputError, match=r"fidelity.json is of another version: its format is 99, but this version reads 1"
    ):
        checked_runs([copied])


def test_a_journal_without_its_prediction_is_refused(copied):
    (_some_run(copied) / "prediction.json").unlink()
    with pytest.raises(InputError, match=r"prediction.json is missing: a run without its prediction tests nothing"):
        checked_runs([copied])


def test_a_prediction_made_after_the_run_began_is_refused(copied):
    _edit(_some_run(copied) / "prediction.json", made_at_s=1e6)
    with pytest.raises(InputError, match=r"s after its run began, so it is no prediction"):
        checked_runs([copied])


def test_a_prediction_that_was_edited_is_refused(copied):
    _edit(_some_run(copied) / "prediction.json", draws=7)
    with pytest.raises(InputError, match=r"is not what the run began with: its sha256 was"):
        checked_runs([copied])


@pytest.mark.parametrize("cut", [-1, -40])
def test_a_truncated_journal_is_refused(copied, cut):
    journal = _some_run(copied) / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-3]) if cut == -1 else journal.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"journal.jsonl"):
        checked_runs([copied])


def test_a_journal_of_another_run_is_refused(copied):
    first, second = sorted((copied / "runs").iterdir())[:2]
    shutil.copyfile(second / "run" / "journal.jsonl", first / "run" / "journal.jsonl")
    with pytest.raises(InputError, match=r"is of another run than its folder says"):
        checked_runs([copied])


def test_another_profile_is_refused(copied):
    with (copied / "bundles" / "digits-mlp" / "bundle.yaml").open("a") as stream:
        stream.write("remark: changed\n")
    with pytest.raises(InputError, match=r"was made from another profile than"):
        checked_runs([copied])


def test_a_folder_without_a_sitting_and_one_without_a_finished_run_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no sitting of fidelity"):
        checked_runs([tmp_path])
    sitting_in(tmp_path / "s")
    for ended in (tmp_path / "s").rglob("ended.json"):
        ended.unlink()
    with pytest.raises(InputError, match=r"no run of this sitting has ended"):
        checked_runs([tmp_path / "s"])


# Packing, pictures and the command line.


def test_a_packed_folder_gives_the_same_report_needs_nothing_else_and_is_small(recorded, tmp_path):
    small = tmp_path / "small"
    size = pack(recorded, small)
    bundle = list((small / "bundles" / "digits-mlp").iterdir())
    assert "curves.parquet" in {path.name for path in bundle}, "the shipped bundle may be another one tomorrow"
    assert size - sum(path.stat().st_size for path in bundle) < 150_000
    runs, again = checked_runs([recorded]), checked_runs([small])
    assert FidelityReport.of(again).to_json(again)["groups"] == FidelityReport.of(runs).to_json(runs)["groups"]
    pack(small, tmp_path / "smaller")
    assert len(checked_runs([tmp_path / "smaller"])) == len(runs)
    with pytest.raises(InputError, match=r"is there already"):
        pack(recorded, small)


def test_the_pictures_are_drawn(recorded, tmp_path):
    runs = checked_runs([recorded])
    paths = list(draw(runs, tmp_path / "pictures"))
    assert [path.name for path in paths] == ["gantt.png", "predicted.png", "errors.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_the_command_line_reports_and_refuses(recorded):
    said = CliRunner().invoke(app, ["fidelity", "--from", str(recorded)])
    assert said.exit_code == 0
    for word in ("Prediction less reality", "makespan_s", "in 90 %", "Differences between policies", "12 real runs"):
        assert word in said.output
    told = json.loads(CliRunner().invoke(app, ["fidelity", "--from", str(recorded), "--json"]).stdout)
    assert (told["runs"], len(told["each"])) == (12, 12)
    nothing = CliRunner().invoke(app, ["fidelity"])
    assert nothing.exit_code == 2
    assert "name the YAML files of the jobs" in nothing.stderr
    mixed = CliRunner().invoke(app, ["fidelity", "--from", str(recorded), "--repeats", "3"])
    assert mixed.exit_code == 2
    assert "--repeats: not here" in mixed.stderr
    assert CliRunner().invoke(app, ["fidelity", "--pack", str(recorded)]).exit_code == 2


def test_a_sitting_of_something_else_is_not_gone_on_with(copied):
    asked = Sitting.load(copied).asked
    with pytest.raises(InputError, match=r"holds a sitting that differs in repeats"):
        Sitting.begin(copied, type(asked)(asked.jobs, asked.policies, 9))


# Calibration.


@pytest.mark.slow
def test_runs_at_another_pace_calibrate_the_profile_and_others_are_predicted_better(tmp_path):
    slow = Noise(launches={1: ((12.0, 0.01), (14.0, 0.02))}, resumes={1: ((9.0, 0.01), (10.0, 0.03))}, paces=(1.0,))
    sitting_in(tmp_path / "slow", repeats=6, pace=2.0, own_pace=True, noise=slow)
    found = calibrate([tmp_path / "slow"], tmp_path / "better")
    assert found.used == 4
    changes = {one.name: (one.before, one.after) for one in found.changes}
    assert changes["iteration_s"][1] == pytest.approx(2 * changes["iteration_s"][0], rel=0.15)
    assert 12 <= changes["launch_s"][1] <= 14
    assert (found.cloud.queue_s, found.cloud.segment_failure_per_hour) == (pytest.approx(1.0), 0.0)
    assert found.cloud.init_s == pytest.approx(3.0, rel=0.3)
    before, after = found.means()["makespan_s"]
    assert before > 0.4
    assert after < 0.05
    better = load_bundle(tmp_path / "better")
    starts_s = node_starts_s(better)
    assert len(starts_s) >= found.used  # each run started a machine
    assert np.mean(starts_s) == pytest.approx(found.cloud.init_s, rel=1e-3)
    assert faults_of(better) == NO_FAULTS
    assert better.provenance["launch_s"].startswith("measured: journals of 4 real runs")
    assert len(profile_in(tmp_path / "better")[1]) > 20
    with pytest.raises(InputError, match=r"is there already"):
        calibrate([tmp_path / "slow"], tmp_path / "better")


def test_runs_with_added_delays_teach_nothing_about_machines(tmp_path):
    sitting_in(tmp_path / "delayed", repeats=3, own_pace=True, injects=True)
    calibrate([tmp_path / "delayed"], tmp_path / "better")
    assert node_starts_s(load_bundle(tmp_path / "better")) == ()


def test_a_sitting_takes_from_its_profile_what_it_does_not_add(tmp_path):
    calibrated = tmp_path / "bundles" / "digits-mlp"
    copy_bundle(bundle_folder("digits-mlp"), calibrated)
    faults = {"instance_loss_per_hour": 0.5, "segment_failure_per_hour": 2.0}
    told = parse_yaml((calibrated / "bundle.yaml").read_text(), "bundle.yaml")
    (calibrated / "bundle.yaml").write_text(
        dump_yaml(told | {"timing": {"node_starts_s": [2.0, 4.0], "faults": faults}})
    )
    asked = SPEC | {"cloud": SPEC["cloud"] | {"faults": {"segment_failure_per_hour": 9.0}}}
    job = partial(_job, name="small", spec=RunSpec.of(**asked), folder=tmp_path)
    bundle = str(calibrated)
    taken = job(Measurement(specs={}, policies=[], bundle=bundle)).spec["cloud"]
    assert taken["faults"] == faults
    assert taken["startup"]["init_s"]["mean_s"] == 3.0
    added = job(Measurement(specs={}, policies=[], bundle=bundle, injects=True)).spec["cloud"]
    assert added["faults"]["segment_failure_per_hour"] == 9.0
    assert added["startup"]["queue_s"]["mean_s"] == 1.0


def test_the_command_line_calibrates(recorded, tmp_path):
    said = CliRunner().invoke(app, ["calibrate", str(recorded), "-o", str(tmp_path / "b")])
    assert said.exit_code == 0, said.output
    assert "over 4 runs not used" in said.output
    sitting_in(tmp_path / "one")
    refused = CliRunner().invoke(app, ["calibrate", str(tmp_path / "one"), "-o", str(tmp_path / "c")])
    assert refused.exit_code == 2
    assert "is too few" in refused.stderr


def test_what_earlier_trainings_differed_by_widens_the_interval_of_the_score(recorded):
    [unit, *_] = Sitting.load(recorded).units()
    none, some = (predict(unit, 0.0, [], 40, known) for known in ((), (-0.05, 0.0, 0.05)))
    assert none.guesses["score"].low == none.guesses["score"].high
    assert some.guesses["score"].high - some.guesses["score"].low > 0.03
    assert (none.training_noise, some.training_noise) == ("none is known", "3 trials of earlier runs")


def test_the_difference_of_a_training_is_that_of_its_last_score(tmp_path):
    same, other = (sitting_in(tmp_path / str(by), better_by=by) for by in (0.0, 0.02))
    assert differences(next(same.units())) == pytest.approx([0.0] * 6, abs=1e-12)
    assert differences(next(other.units())) == pytest.approx([0.02] * 6)


def test_where_a_bundle_has_replicates_each_draw_takes_others_of_them(recorded):
    [unit, *_] = Sitting.load(recorded).units()
    bundle, _ = profile_in(unit.bundle)
    second = bundle.scores + 1.0
    replicates = Replicates(
        trial=np.repeat(np.arange(bundle.trials), 2),
        number=np.tile([0, 1], bundle.trials),
        scores=np.stack([bundle.scores, second], axis=1).reshape(-1, bundle.scores.shape[1]),
        test_scores=None,
        slowness=np.ones(2 * bundle.trials),
    )
    world = World.of(unit.spec, replace(bundle, replicates=replicates))
    rows = bundle.draw(6, unit.spec.seed)
    drawn = [trained_again(world, (9.0,), np.random.default_rng(number)).scores for number in range(20)]
    second_of = np.array([(scores[:, 0] == second[rows, 0]) for scores in drawn])
    for scores, is_second in zip(drawn, second_of, strict=True):
        assert np.allclose(scores, np.where(is_second[:, None], second[rows], bundle.scores[rows]), equal_nan=True)
    assert 0.2 < second_of.mean() < 0.8


def test_machines_start_as_those_of_the_profile_did(recorded):
    [unit, *_] = Sitting.load(recorded).units()
    bundle, _ = profile_in(unit.bundle)
    world = World.of(unit.spec, bundle)

    def starts_s(noise):
        leases = [lease for number in range(20) for lease in with_noise(world, noise, number).leases]
        return {round(lease.ready_s - lease.launched_s, 6) for lease in leases if lease.ready_s == lease.ready_s}

    assert starts_s(Noise(starts=(1.0, 2.0))) == {1.0, 2.0}
    assert len(starts_s(Noise())) > 10, "those of the spec are drawn from its distribution"
    timed = replace(bundle, notes={**bundle.notes, "timing": {"node_starts_s": [1.0, 2.0]}})
    assert (node_starts_s(bundle), node_starts_s(timed)) == ((), (1.0, 2.0))


def test_a_launch_is_drawn_from_those_of_gangs_of_its_size(recorded):
    """Two workers that start side by side on one machine are slower than one."""
    [unit, *_] = Sitting.load(recorded).units()
    world = World.of(unit.spec, profile_in(unit.bundle)[0])
    noise = Noise.of([timed(gpus=1, launch_s=5.0), timed(gpus=2, launch_s=8.0)], [1.0], 1.0, 0.0)
    draws = NoisyDraws(noise, world.truth, CloudTruth(Startup()), Streams(0))

    def launch_s(*placement):
        segment = StartSegment(segment=0, trial=0, placement=placement, from_iteration=0, until_iteration=1)
        return draws.around_s(segment)[0]

    assert (launch_s((0, 1)), launch_s((0, 1), (1, 1)), launch_s((0, 2))) == (5.0, 8.0, 8.0)
    assert launch_s((0, 16)) == 8.0, "of the nearest size that was timed"


def timed(*, gpus, launch_s):
    """A segment of a profile."""
    seconds = dict.fromkeys(
        ("warm_up_s", "train_s", "evaluate_s", "iteration_s", "mean_iteration_s", "iteration_cv"), 0.1
    )
    counts = {"series": 0, "row": 0, "round": 0, "nodes": 1, "iterations": 9, "checkpoint_bytes": 1}
    return SegmentRecord(**counts, **seconds, gpus=gpus, launch_s=launch_s, checkpoint_s=0.01, is_fresh=True)
