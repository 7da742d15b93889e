"""Any policy under Ray Tune's loop, played on a clock of its own: no cluster, no waiting."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray Tune needs the tune extra")

from fake_tune import STEP_S, FakeTune

from elastune.experiments.real.ray_tune import tune_scheduler
from elastune.experiments.runs.replay import ledger_of, replay_journal
from elastune.policies.registry import POLICIES
from elastune.sim.control.journal import read_entries, read_header
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InfeasibleJobError, InputError, StalledRunError
from elastune.sim.model.events import ProgressReported, SegmentEnded, TimerFired, TrialSampled

ROOT = Path(__file__).parents[2]
JOB = {"max_iterations": 9, "reduction_factor": 3}
WORKLOAD = {"iteration_s": 1.0, "scaling": {1: 1, 2: 2, 4: 4}}
CLOUD = {"price_usd_per_hour": 3.6, "gpus_per_instance": 1, "billing": {"minimum_s": 0}, "rescale_s": 0.5}
CURVES = [[(trial % 5 + 1) / iteration for iteration in range(1, 10)] for trial in range(9)]
"""Trials 0 and 5 are the best ones."""


@pytest.fixture
def scheduler(tmp_path):
    def build(policy="asha-fixed", **changes):
        options = {"job": JOB, "workload": WORKLOAD, "cloud": CLOUD, "time_attr": "epoch"}
        return tune_scheduler(policy, journal=tmp_path / "journal.jsonl", **{**options, **changes})

    return build


@pytest.fixture
def entries(tmp_path):
    return lambda: list(read_entries(tmp_path / "journal.jsonl"))


def events(entries, kind):
    return [entry.event for entry in entries if isinstance(entry.event, kind)]


def commands(entries, kind):
    return [command for entry in entries for command in entry.commands if isinstance(command, kind)]


LIMITS = {"deadline_s": 25.0, "budget_usd": 0.04}
PLANNERS = {
    "seer", "seer-staged", "rubberband", "one-cut", "elasticflow", "hypersched-fixed", "sha-fixed-naive", "asha-fixed-naive",
}  # fmt: skip
"""They refuse a job that has neither deadline nor budget."""


@pytest.mark.parametrize("policy", [name for name, entry in POLICIES.items() if not entry.needs_real_workers])
def test_every_policy_keeps_its_limits_and_its_journal_replays(policy, scheduler, tmp_path, monkeypatch):
    tuner = scheduler(policy, job={**JOB, **LIMITS})
    best = FakeTune(tuner, CURVES, monkeypatch=monkeypatch, cpus=4).fit()
    assert best.metrics["loss"] == CURVES[int(best.trial_id[1:])][best.metrics["epoch"] - 1]
    assert tuner.run.makespan_s <= LIMITS["deadline_s"]
    assert tuner.run.cost_usd <= LIMITS["budget_usd"]
    assert replay_journal(tmp_path / "journal.jsonl")[1]
    ledger = ledger_of(tmp_path / "journal.jsonl")
    assert math.fsum(ledger.usd.values()) == pytest.approx(tuner.run.cost_usd)


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - PLANNERS - {"pbt"}))
def test_without_limits_a_policy_finds_a_best_trial_and_its_journal_replays(policy, scheduler, tmp_path, monkeypatch):
    tuner = scheduler(policy)
    assert FakeTune(tuner, CURVES, monkeypatch=monkeypatch, cpus=4).fit().trial_id in {"t0", "t5"}
    assert replay_journal(tmp_path / "journal.jsonl")[1]


def test_a_policy_of_ones_own_decides_and_its_journal_replays_where_it_is_named(
    scheduler, monkeypatch, entries, tmp_path
):
    own = f"{ROOT / 'docs' / 'examples' / 'median_stopping.py'}:MedianStopping"
    best = FakeTune(scheduler(f"{own}(least=2)"), CURVES, monkeypatch=monkeypatch, cpus=2).fit()
    assert best.trial_id == "t0"
    ends = {end.trial: end for end in events(entries(), SegmentEnded)}
    # Losses are (place + 1) / iteration. After 0 and 1, whoever is behind the median of the averages ends early.
    assert {trial for trial, end in ends.items() if end.outcome == "completed"} == {0, 1, 5}
    assert {trial: end.iteration for trial, end in ends.items() if end.outcome == "ended"} == {
        2: 1, 3: 1, 4: 1, 6: 2, 7: 1, 8: 1
    }  # fmt: skip
    assert replay_journal(tmp_path / "journal.jsonl", policy=own)[1]
    with pytest.raises(InputError, match="MedianStopping"):
        replay_journal(tmp_path / "journal.jsonl")


def test_no_trial_starts_before_the_policy_has_said_so(scheduler, monkeypatch, entries):
    tuner = scheduler()
    tune = FakeTune(tuner, CURVES, monkeypatch=monkeypatch)
    tune.fit()
    started = [number for kind, number, _ in tune.log if kind == "start"]
    assert started == [command.trial for command in commands(entries(), StartSegment)]


def test_a_trial_is_paused_where_its_rung_ends_and_goes_on_from_there(scheduler, monkeypatch):
    tune = FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch)
    tune.fit()
    assert [row for row in tune.log if row[1] == 0] == [
        ("start", 0, 1), ("PAUSE", 0, 1),
        ("start", 0, 1), ("CONTINUE", 0, 2), ("PAUSE", 0, 3),
        ("start", 0, 1), *[("CONTINUE", 0, n) for n in range(4, 9)], ("PAUSE", 0, 9),
    ]  # fmt: skip


def test_a_gang_asks_tune_for_as_many_resources_as_the_policy_gives_it(scheduler, monkeypatch, entries):
    tune = FakeTune(scheduler("sha-elastic:gpus_per_trial=2"), CURVES, monkeypatch=monkeypatch, cpus=4)
    tune.fit()
    assert {gpus for kind, _, gpus in tune.log if kind == "start"} == {2}
    assert {sum(n for _, n in command.placement) for command in commands(entries(), StartSegment)} == {2}


def test_seconds_of_a_segment_are_launch_training_and_checkpoint_and_nothing_else(scheduler, monkeypatch, entries):
    FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch, launch_s=0.5, iteration_s=1.0, save_s=0.25).fit()
    first = events(entries(), SegmentEnded)[0]
    assert first.launch_s == pytest.approx(0.5)
    assert first.train_s == pytest.approx(1.0)
    assert first.checkpoint_s == pytest.approx(0.25, abs=STEP_S)
    assert first.launch_s + first.train_s + first.checkpoint_s == pytest.approx(first.at_s, abs=1e-3)


def test_the_configuration_of_a_trial_is_told_once_before_it_starts(scheduler, monkeypatch, entries):
    FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch).fit()
    sampled = events(entries(), TrialSampled)
    assert sorted(event.trial for event in sampled) == list(range(9))
    assert all(event.configuration == {"lr": event.trial / 10} for event in sampled)


def test_the_deadline_stops_what_runs_and_what_was_saved_is_the_answer(scheduler, monkeypatch, entries):
    tuner = scheduler("random-fixed", job={"max_iterations": 9, "deadline_s": 12.0})
    best = FakeTune(tuner, CURVES, monkeypatch=monkeypatch, iteration_s=2.0).fit()
    fired = [event for event in events(entries(), TimerFired) if event.tag == "hard-stop"]
    assert tuner.run.makespan_s <= 12.0 + STEP_S
    assert best.metrics["epoch"] >= 1
    assert all(event.at_s >= 11.999 for event in fired)


@pytest.mark.parametrize(("policy", "every"), [("asha-fixed", 0), ("asha-stopping-fixed", 1)])
def test_reports_are_told_where_they_were_asked_for_but_for_the_last_iteration(
    policy, every, scheduler, monkeypatch, entries
):
    FakeTune(scheduler(policy), CURVES, monkeypatch=monkeypatch).fit()
    assert {command.report_every for command in commands(entries(), StartSegment)} == {every}
    ends = {command.segment: command.until_iteration for command in commands(entries(), StartSegment)}
    told = [(event.segment, event.iteration) for event in events(entries(), ProgressReported)]
    assert bool(told) == bool(every)
    assert all(iteration < ends[segment] for segment, iteration in told)


def test_a_trial_that_fails_goes_on_from_its_checkpoint_when_the_policy_says_so(scheduler, monkeypatch, entries):
    tuner = scheduler()
    tune = FakeTune(tuner, CURVES, monkeypatch=monkeypatch, retries=1, fails=[(0, 5)])
    assert tune.fit().metrics["epoch"] == 9
    failed = next(event for event in events(entries(), SegmentEnded) if event.outcome == "failed")
    assert (failed.trial, failed.iteration, failed.checkpoint_iteration) == (0, 4, 3)
    # Iteration 4 and the one that died, a second each.
    assert failed.lost_s == pytest.approx(2.0, abs=STEP_S)
    again = [command for command in commands(entries(), StartSegment) if command.trial == 0][-1]
    assert again.from_iteration == 3


def test_a_trial_that_tune_gives_up_counts_as_diverged_and_the_others_go_on(scheduler, monkeypatch, entries, tmp_path):
    tune = FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch, fails=[(0, 2), (5, 1)])
    best = tune.fit()
    assert best.trial_id in {"t1", "t6"}
    given_up = [event for event in events(entries(), SegmentEnded) if event.trial == 5]
    assert [(event.outcome, event.score) for event in given_up] == [("failed", None), ("completed", None)]
    assert replay_journal(tmp_path / "journal.jsonl")[1]


def test_a_trainable_that_ends_by_itself_keeps_its_last_score(scheduler, monkeypatch):
    tune = FakeTune(scheduler(job={**JOB, "checkpoint_every": 1}), CURVES, monkeypatch=monkeypatch, ends_after=4)
    assert tune.fit().metrics["epoch"] == 4


def test_checkpoints_are_written_as_often_as_the_job_says(scheduler, monkeypatch):
    tune = FakeTune(scheduler(job={**JOB, "checkpoint_every": 2}), CURVES, monkeypatch=monkeypatch)
    tune.fit()
    assert {iteration for kind, number, iteration in tune.log if kind == "save"} == {2, 4, 6, 8}


def test_a_trainable_without_checkpoints_is_refused_at_its_first_pause(scheduler, monkeypatch):
    tune = FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch, saves=False)
    with pytest.raises(InputError, match=r"t0 was paused at epoch 1, but it has no checkpoint: .*tune\.report"):
        tune.fit()


def test_a_trainable_that_starts_again_from_nothing_is_refused_when_it_is_resumed(scheduler, monkeypatch):
    tune = FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch, restores=False)
    with pytest.raises(
        InputError, match=r"reported epoch 1, but 2 comes next: it was resumed from its checkpoint of 1"
    ):
        tune.fit()


def test_a_class_without_save_checkpoint_is_refused_before_anything_starts(scheduler, monkeypatch):
    from ray.tune import Trainable

    class Forgetful(Trainable):
        pass

    tune = FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch)
    for trial in tune.trials:
        trial.trainable = Forgetful
    with pytest.raises(InputError, match="Forgetful does not have save_checkpoint"):
        tune.fit()
    assert not tune.log


def test_an_error_leaves_a_journal_that_replays_as_far_as_the_run_came(scheduler, monkeypatch, tmp_path):
    tune = FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch, restores=False)
    with pytest.raises(InputError):
        tune.fit()
    entries, is_closed = replay_journal(tmp_path / "journal.jsonl")
    assert entries > 3
    assert not is_closed


def test_a_job_that_no_plan_can_do_is_refused_with_nothing_written(scheduler, monkeypatch, tmp_path):
    tune = FakeTune(scheduler("seer", job={**JOB, "deadline_s": 0.5}), CURVES, monkeypatch=monkeypatch)
    with pytest.raises(InfeasibleJobError, match="seer"):
        tune.fit()
    assert not list(tmp_path.iterdir())


SILENT = """
class Silent:
    def __init__(self, job, profile, price_book, rng):
        pass

    def on_event(self, event, view):
        return ()
"""


def test_a_policy_that_waits_for_nothing_is_an_error_and_not_a_hang(scheduler, monkeypatch, tmp_path):
    (tmp_path / "silent.py").write_text(SILENT)
    tune = FakeTune(scheduler(f"{tmp_path / 'silent.py'}:Silent"), CURVES, monkeypatch=monkeypatch)
    with pytest.raises(StalledRunError, match="nothing can happen any more"):
        tune.fit()


def test_tune_shows_where_a_run_stands_while_it_goes_on_and_no_stall(scheduler, monkeypatch):
    tuner, shown = scheduler(), []
    tune = FakeTune(tuner, CURVES, monkeypatch=monkeypatch)
    assert tuner.debug_string() == "elastune: not begun"
    step = tuner.choose_trial_to_run

    def watched(controller):
        step(controller)
        shown.append(tuner.debug_string())

    monkeypatch.setattr(tuner, "choose_trial_to_run", watched)
    tune.fit()
    assert shown[0].startswith("elastune: asha-fixed at 0 s: ")
    assert any(" trials running, 0 waiting for GPUs, 9 started, 0.0" in line for line in shown), shown[-3:]
    assert not [line for line in shown if "nothing can happen" in line]


def test_the_header_holds_the_job_as_tune_has_it(scheduler, monkeypatch, tmp_path):
    FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch, cpus=4).fit(mode="max")
    spec = read_header(tmp_path / "journal.jsonl").spec
    assert (spec["job"]["trials"], spec["job"]["direction"], spec["cloud"]["max_instances"]) == (9, "maximize", 4)


def test_a_bundle_gives_the_profile_whatever_its_curves_cover(scheduler, monkeypatch, tmp_path):
    tuner = scheduler(workload={"bundle": "digits-mlp", "scaling": "linear"})
    FakeTune(tuner, CURVES * 40, monkeypatch=monkeypatch).fit()
    assert replay_journal(tmp_path / "journal.jsonl")[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "sear"}, "did you mean 'seer'"),
        ({"policy": "oracle"}, "told the true curves"),
        ({"policy": "pbt"}, "PopulationBasedTraining of its own"),
        ({"job": {**JOB, "trials": 9}}, r"job\.trials is given, but under Ray Tune num_samples"),
        ({"job": {**JOB, "budget_usd": 1.0}, "cloud": None}, "machines cost nothing"),
        ({"job": {**JOB, "deadlines": 9}}, "deadline"),
        ({"cloud": {**CLOUD, "market": "spot"}}, r"cloud\.market is given"),
        ({"cloud": {**CLOUD, "max_instances": 0}}, "max_instances"),
        ({"workload": {"iteration_s": 1.0}}, r"workload\.scaling is missing"),
        ({"mode": "minimum"}, "must be min or max"),
        ({"resources_per_gpu": {"cpu": 0}}, "resources_per_gpu"),
        ({"resources_per_gpu": {"cpu": 1, "CPU": 2}}, "but CPU and cpu are the same, as are GPU and gpu: name one"),
        ({"resources_per_gpu": {"gpu": 1, "Gpu": 1, "cpu": 4}}, "are the same"),
        ({"job": [1]}, r"job is \[1\], but must be a mapping"),
        ({"job": {**JOB, "max_iterations": np.float64(2.5)}}, "max_iterations"),
    ],
)
def test_wrong_input_is_refused_before_tune_is_asked(changes, message, scheduler):
    with pytest.raises(InputError, match=message):
        scheduler(**changes)


def test_numpy_values_are_taken_wherever_a_number_or_text_is(scheduler, monkeypatch, tmp_path):
    tuner = scheduler(
        {"name": np.str_("sha-elastic"), "gpus_per_trial": np.int64(2)},
        job={"max_iterations": np.int64(9), "reduction_factor": np.array(3), "deadline_s": np.float32(900)},
        workload={"iteration_s": np.float64(1.0), "scaling": {np.int64(1): np.float64(1), np.int64(2): np.float32(2)}},
        resources_per_gpu={np.str_("cpu"): np.int8(1)},
        seed=np.uint8(3),
    )
    FakeTune(tuner, CURVES, monkeypatch=monkeypatch, cpus=4).fit()
    assert replay_journal(tmp_path / "journal.jsonl")[1]


@pytest.mark.parametrize("epoch", [math.nan, math.inf, "1", None, 1.5, True])
def test_an_iteration_that_is_no_whole_number_is_refused(epoch, scheduler, monkeypatch):
    tuner = scheduler()
    tune = FakeTune(tuner, CURVES, monkeypatch=monkeypatch)
    take = tuner.on_trial_result
    tuner.on_trial_result = lambda loop, trial, result: take(loop, trial, {**result, "epoch": epoch})
    with pytest.raises(InputError, match="time_attr must name the whole number"):
        tune.fit()


def test_a_journal_is_never_written_over(scheduler, tmp_path):
    (tmp_path / "journal.jsonl").write_text("paid for")
    with pytest.raises(InputError, match="there is a journal already"):
        scheduler()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"metric": None}, "metric is missing"),
        ({"num_samples": sys.maxsize}, "num_samples is -1"),
        ({"time_budget_s": 60}, "time_budget_s ends a run"),
    ],
)
def test_what_tune_is_told_must_leave_the_policy_in_charge(spec, message, scheduler, monkeypatch):
    with pytest.raises(InputError, match=message):
        FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch).fit(**spec)


def test_metric_and_mode_may_be_said_twice_but_not_in_two_ways(scheduler):
    tuner = scheduler(metric="loss", mode="min")
    assert tuner.set_search_properties("loss", "min")
    assert tuner.set_search_properties(None, None)
    assert not tuner.set_search_properties("accuracy", None)


def test_a_scheduler_has_one_run(scheduler, monkeypatch):
    tuner = scheduler()
    FakeTune(tuner, CURVES, monkeypatch=monkeypatch).fit()
    with pytest.raises(InputError, match="make a new one for each Tuner"):
        FakeTune(tuner, CURVES, monkeypatch=monkeypatch).fit()


def test_trials_that_come_after_the_run_has_begun_are_refused(scheduler, monkeypatch):
    tuner = scheduler()
    tune = FakeTune(tuner, CURVES, monkeypatch=monkeypatch)
    late = tune.trials.pop()
    choose = tuner.choose_trial_to_run
    tuner.choose_trial_to_run = lambda controller: (choose(controller), tuner.on_trial_add(controller, late))
    with pytest.raises(InputError, match="leave out max_concurrent_trials"):
        tune.fit()


def test_a_restored_experiment_is_refused(scheduler, monkeypatch):
    tune = FakeTune(scheduler(), CURVES, monkeypatch=monkeypatch)
    tune.trials[3].last_result = {"epoch": 2}
    with pytest.raises(InputError, match="t3 has been trained before"):
        tune.fit()


def test_a_cluster_without_the_resources_is_refused(scheduler, monkeypatch):
    tune = FakeTune(scheduler(resources_per_gpu={"gpu": 1}), CURVES, monkeypatch=monkeypatch)
    with pytest.raises(InputError, match="no node of the Ray cluster has"):
        tune.fit()


def test_without_ray_the_error_says_what_to_install():
    code = """
import sys
sys.modules["ray"] = None
from elastune.experiments.real.ray_tune import tune_scheduler
from elastune.sim.model.errors import InputError
try:
    tune_scheduler("seer", job={"max_iterations": 9}, workload={"iteration_s": 1.0, "scaling": "linear"})
except InputError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "pip install 'elastune[tune]'" in said
