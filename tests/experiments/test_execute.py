"""Running a spec: equal bytes for equal seeds, replay, what a result says, and how a run went over time."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elastune import RunSpec, execute, replay_journal
from elastune.experiments.runs.ledger import PARTS
from elastune.experiments.runs.world import World
from elastune.policies.registry import POLICIES, RegisteredPolicy
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo, SetTimer
from elastune.sim.model.errors import (
    InfeasibleJobError,
    InputError,
    InvalidActionError,
    ReplayError,
    StalledRunError,
)
from elastune.sim.model.events import RunStarted, SegmentEnded, TimerFired
from elastune.sim.model.profile import Timings
from elastune.traces import synthetic_bundle, tiny_bundle

CONTRACT = (
    *("policy", "seed", "best_trial", "best_config", "score", "regret", "cost_usd", "makespan_s", "deadline_met"),
    *("budget_met", "trials_started", "iterations_trained", "gpu_utilisation", "ledger_usd", "digest"),
)
EXTRAS = (
    *("ledger_gpu_s", "test_score", "regret_sampling", "regret_selection", "regret_truncation"),
    *("placement", "provenance", "best_iteration", "best_is_complete", "best_was_earlier", "best_stopped_short"),
    *("some_is_complete", "completed", "completed_at_s", "late_probability", "plan_search_gap", "plan_left_out"),
    "unspent_because",
)

NOISY = synthetic_bundle(60, 9, seed=2, diverged_share=0.1)


def noisy_spec(**job):
    return RunSpec.of(
        job={"trials": 24, "max_iterations": 9, "deadline_s": 4000, "budget_usd": 30, **job},
        workload={"scaling": {1: 1, 2: 1.7, 4: 2.6}, "iteration_s": 60, "straggler_cv": 0.1},
        cloud={
            "instance_type": {"price_usd_per_hour": 10, "gpus_per_instance": 4},
            "startup": {"queue_s": 5, "init_s": {"mean_s": 60, "cv": 0.2}},
            "rescale_s": 5,
            "faults": {"segment_failure_per_hour": 0.5},
        },
        policy="seer",
        seed=3,
    )


def tiny_spec(policy, **job):
    return RunSpec.of(
        job={"max_iterations": 2, **job},
        workload={},
        cloud={"price_usd_per_hour": 3600, "gpus_per_instance": 1, "billing": {"minimum_s": 0, "granularity_s": 0}},
        policy=policy,
    )


class Answers:
    """Two trials one after the other on one machine; a timer at `stop_at_s` ends the run."""

    def __init__(self, trials, stop_at_s):
        self.waiting = list(trials)
        self.stop_at_s = stop_at_s

    def on_event(self, event, view):
        match event:
            case RunStarted():
                return (ScaleTo(1), SetTimer("stop", self.stop_at_s), RunTrial(self.waiting.pop(0), 1, 2))
            case SegmentEnded() if self.waiting:
                return (RunTrial(self.waiting.pop(0), 1, 2),)
            case TimerFired():
                done = [trial for trial in view.started_trials() if view.trial(trial).checkpoint_iteration]
                return (FinishRun(done[-1] if done else None),)
        return ()


@pytest.fixture
def answering(monkeypatch):
    def install(build):
        monkeypatch.setitem(POLICIES, "answers", RegisteredPolicy(lambda *_: build(), "for tests"))

    return install


def journal_of(spec, bundle=NOISY):
    stream = io.BytesIO()
    execute(spec, journal=stream, bundle=bundle)
    return stream.getvalue()


@pytest.mark.many(fast=7)
@pytest.mark.parametrize("policy", POLICIES)
def test_equal_seeds_give_equal_journals_byte_for_byte(policy):
    spec = noisy_spec().with_policy(policy)
    assert journal_of(spec) == journal_of(spec)
    assert journal_of(spec) != journal_of(spec.with_seed(4))


PROGRAM = """
import hashlib, io
from elastune import RunSpec, execute
spec = RunSpec.of(
    job={"trials": 40, "max_iterations": 27, "deadline_s": 3000, "budget_usd": 20},
    workload={"bundle": "digits-mlp", "scaling": "resnet50-v100", "iteration_s": 60},
    cloud={"instance_type": "p3.8xlarge", "startup": "typical"}, policy="seer")
stream = io.BytesIO()
execute(spec, journal=stream)
print(hashlib.sha256(stream.getvalue()).hexdigest(), spec.digest())
"""


@pytest.mark.slow
def test_journals_do_not_depend_on_the_hash_seed():
    printed = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "4242")
    ]
    assert printed[0] == printed[1]
    assert len(printed[0].split()) == 2


@pytest.mark.parametrize("policy", [*POLICIES, "sha-elastic:gpus_per_trial=4"])
def test_a_journal_replays(tmp_path, policy):
    path = tmp_path / "deep" / "journal.jsonl"
    execute(noisy_spec().with_policy(policy), journal=path, bundle=NOISY)
    assert replay_journal(path, bundle=NOISY) == (len(path.read_bytes().splitlines()) - 1, True)
    assert [file.name for file in path.parent.iterdir()] == ["journal.jsonl"]


def test_the_header_builds_the_run_again_and_knows_no_clock(tmp_path):
    path = tmp_path / "journal.jsonl"
    spec = noisy_spec()
    execute(spec, journal=path, bundle=NOISY)
    header = json.loads(path.read_text().splitlines()[0])
    assert RunSpec.of(**header["spec"]) == spec
    assert header["digest"] == spec.digest()
    assert header["data_sha256"] == {NOISY.name: NOISY.sha256}
    assert set(header["versions"]) == {"elastune", "python", "numpy", "simpy", "msgspec"}


def test_a_changed_decision_does_not_replay(tmp_path):
    path = tmp_path / "journal.jsonl"
    execute(noisy_spec(), journal=path, bundle=NOISY)
    lines = path.read_text().splitlines(keepends=True)
    assert '"ScaleTo","instances":' in lines[1]
    lines[1] = lines[1].replace('"ScaleTo","instances":', '"ScaleTo","instances":1')
    path.write_text("".join(lines))
    with pytest.raises(ReplayError, match=r"entry 1 at 0\.000 s does not replay"):
        replay_journal(path, bundle=NOISY)


def test_a_journal_of_other_versions_says_so_where_it_does_not_replay(tmp_path):
    path = tmp_path / "journal.jsonl"
    execute(noisy_spec(), journal=path, bundle=NOISY)
    text = path.read_text().replace('"elastune":"', '"elastune":"0.0.1-').replace('"instances":', '"instances":1', 1)
    path.write_text(text)
    with pytest.raises(ReplayError, match=r"recorded with other versions: elastune 0\.0\.1-"):
        replay_journal(path, bundle=NOISY)


def test_a_journal_of_other_data_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    execute(noisy_spec(), journal=path, bundle=NOISY)
    other = dataclasses.replace(NOISY, sha256="other")
    with pytest.raises(InputError, match="is not the one that the journal was recorded with"):
        replay_journal(path, bundle=other)


def test_what_is_no_journal_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        replay_journal(tmp_path / "none")
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(InputError, match="line 1: not the header of a journal"):
        replay_journal(tmp_path / "text")


def test_a_result_has_the_fields_of_the_contract():
    told = execute(noisy_spec(), bundle=NOISY).to_json()
    assert set(told) == {*CONTRACT, *EXTRAS}
    assert tuple(told["ledger_usd"]) == tuple(told["ledger_gpu_s"]) == PARTS
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_a_result_agrees_with_the_recorded_curves(policy, seed):
    spec = noisy_spec().with_policy(policy).with_seed(seed)
    result = execute(spec, bundle=NOISY, record_trajectory=True)
    world = World.of(spec, NOISY)
    parts = (result.regret_sampling, result.regret_selection, result.regret_truncation)
    assert math.fsum(parts) == pytest.approx(result.regret, abs=1e-12)
    assert result.regret_sampling >= 0
    assert result.regret_selection >= 0
    assert result.score in world.truth.scores[result.best_trial]
    assert result.best_config == NOISY.drawn_configurations(24, seed)[result.best_trial]
    segments = result.segments()
    assert result.trials_started == segments["trial"].nunique()
    assert result.iterations_trained == (segments["iteration"] - segments["from_iteration"]).sum()
    assert result.deadline_met is (result.makespan_s <= 4000)
    assert result.budget_met is (result.cost_usd <= 30)


def test_a_run_by_hand(answering):
    answering(lambda: Answers([0, 1], stop_at_s=100.0))
    bundle = tiny_bundle([[0.5, 0.4], [0.3, 0.2], [0.9, 0.8]], iteration_s=10.0, timings=Timings(1.0, 1.0, 2.0))
    spec = tiny_spec("answers", trials=3, deadline_s=60, budget_usd=100)
    result = execute(spec, bundle=bundle, record_trajectory=True)
    order = list(bundle.draw(3, 0))
    scores = [[0.5, 0.4], [0.3, 0.2], [0.9, 0.8]]
    assert result.best_trial == 1
    assert result.score == scores[order[1]][1]
    assert (result.cost_usd, result.makespan_s) == (pytest.approx(100.0), 100.0)
    assert (result.deadline_met, result.budget_met) == (False, True)
    assert (result.trials_started, result.iterations_trained) == (2, 4)
    # Each segment: 1 s launch, 2 x 10 s training, 1 s checkpoint.
    assert result.gpu_utilisation == pytest.approx(40 / 100)
    assert {part: usd for part, usd in result.ledger_usd.items() if usd} == {
        "training": pytest.approx(40),
        "launch": pytest.approx(2),
        "checkpoint": pytest.approx(2),
        "idle_at_barriers": pytest.approx(56),
    }


def test_a_trajectory_by_hand(answering):
    answering(lambda: Answers([0, 1], stop_at_s=50.0))
    # The draw of seed 0 puts the rows in some order; equal rows make it not matter which.
    bundle = tiny_bundle([[0.5, 0.6]] * 2, iteration_s=10.0, timings=Timings(1.0, 1.0, 2.0))
    result = execute(tiny_spec("answers", trials=2), bundle=bundle, record_trajectory=True)
    table = result.trajectory()
    assert list(table.columns) == [
        *("at_s", "spent_usd", "best_score", "durable_score", "gpus_held", "gpus_ready", "instances", "running_trials")
    ]
    rows = [tuple(None if math.isnan(cell) else cell for cell in row) for row in table.itertuples(index=False)]
    assert rows == [
        (0.0, 0.0, None, None, 1, 1, 1, 1),
        # The first iteration is the best; only the second becomes durable.
        (11.0, 11.0, 0.5, None, 1, 1, 1, 1),
        (22.0, 22.0, 0.5, 0.6, 1, 1, 1, 1),
        (44.0, 44.0, 0.5, 0.6, 0, 1, 1, 0),
        (50.0, 50.0, 0.5, 0.6, 0, 0, 0, 0),
    ]
    assert (result.deadline_met, result.budget_met) == (None, None)


def test_segments_are_a_table(answering):
    answering(lambda: Answers([0], stop_at_s=15.0))
    bundle = tiny_bundle([[0.5, 0.6]], iteration_s=10.0, timings=Timings(1.0, 1.0, 2.0))
    result = execute(tiny_spec("answers", trials=1), bundle=bundle, record_trajectory=True)
    assert result.segments().to_dict("records") == [
        {
            "trial": 0,
            "segment": 0,
            "instances": [0],
            "gpus": 1,
            "start_s": 0.0,
            "end_s": 15.0,
            "from_iteration": 0,
            "iteration": 1,
            "outcome": "ended",
            "launch_s": 1.0,
            "train_s": 14.0,
            "checkpoint_s": 0.0,
        }
    ]


def test_a_run_without_anything_durable_has_no_answer(answering):
    answering(lambda: Answers([0], stop_at_s=15.0))
    bundle = tiny_bundle([[0.5, 0.6]], iteration_s=10.0, timings=Timings(1.0, 1.0, 2.0))
    told = execute(tiny_spec("answers", trials=1), bundle=bundle).to_json()
    missing = ("best_trial", "best_config", "score", "test_score", "regret", "regret_sampling")
    assert [told[key] for key in missing] == [None] * len(missing)
    assert told["iterations_trained"] == 1


def test_a_run_that_rents_nothing_has_no_utilisation(answering):
    class Leaves:
        def on_event(self, _event, _view):
            return (FinishRun(None),)

    answering(Leaves)
    told = execute(tiny_spec("answers", trials=1), bundle=tiny_bundle([[0.5, 0.6]])).to_json()
    assert (told["gpu_utilisation"], told["cost_usd"], told["makespan_s"]) == (None, 0.0, 0.0)


def test_a_diverged_answer_has_no_score(answering):
    answering(lambda: Answers([0], stop_at_s=30.0))
    bundle = tiny_bundle([[0.5, math.nan]] * 3 + [[0.4, 0.3], [0.4, 0.2], [0.4, 0.1]], iteration_s=10.0)
    seed = next(seed for seed in range(20) if bundle.draw(6, seed)[0] < 3)
    result = execute(tiny_spec("answers", trials=6).with_seed(seed), bundle=bundle)
    assert result.score is None
    assert result.regret is not None


def test_trajectories_are_only_kept_where_they_are_asked_for():
    result = execute(noisy_spec(), bundle=NOISY)
    with pytest.raises(InputError, match="record_trajectory=True"):
        result.trajectory()


@pytest.mark.parametrize("policy", POLICIES)
def test_trajectories_only_ever_improve_and_never_hold_more_than_they_have(policy):
    result = execute(noisy_spec().with_policy(policy), bundle=NOISY, record_trajectory=True)
    table = result.trajectory()
    assert table["at_s"].is_monotonic_increasing
    assert table["at_s"].is_unique
    assert (np.diff(table["spent_usd"]) >= -1e-9).all()
    for column in ("best_score", "durable_score"):
        assert (np.diff(table[column].dropna()) <= 0).all()
    assert (table["best_score"].fillna(math.inf) <= table["durable_score"].fillna(math.inf)).all()
    assert (table["gpus_held"] <= table["gpus_ready"]).all()
    assert (table["gpus_ready"] <= 4 * table["instances"]).all()
    assert tuple(table[["gpus_held", "instances", "running_trials"]].iloc[-1]) == (0, 0, 0)


def test_nothing_is_written_for_a_job_that_cannot_be_done(tmp_path):
    with pytest.raises(InfeasibleJobError):
        execute(noisy_spec(deadline_s=10), journal=tmp_path / "deep" / "journal", bundle=NOISY)
    with pytest.raises(InputError, match="job longer than its curves"):
        execute(noisy_spec(max_iterations=10), journal=tmp_path / "deep" / "journal", bundle=NOISY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        (lambda: Answers([0, 99], 100.0), InvalidActionError),
        (type("Sleeps", (), {"on_event": lambda *_: ()}), StalledRunError),
    ],
)
def test_the_journal_of_a_run_that_broke_is_kept(tmp_path, answering, policy, error):
    answering(policy)
    bundle = tiny_bundle([[0.5, 0.6]], iteration_s=10.0)
    with pytest.raises(error):
        execute(tiny_spec("answers", trials=1), journal=tmp_path / "journal", bundle=bundle)
    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


def test_an_older_journal_survives_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "journal"
    path.write_text("old")
    with pytest.raises(InfeasibleJobError):
        execute(noisy_spec(deadline_s=10), journal=path, bundle=NOISY)
    assert path.read_text() == "old"
    execute(noisy_spec(), journal=path, bundle=NOISY)
    assert replay_journal(path, bundle=NOISY)[0] > 10


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"bundle": "digits-mpl"}, r"there is no bundle 'digits-mpl'; did you mean 'digits-mlp'\?"),
        ({"bundle": "digits-mlp"}, r"bundle digits-mlp records no scaling: set workload\.scaling"),
    ],
)
def test_bundle_and_spec_must_fit(workload, message):
    spec = RunSpec.of(
        job={"trials": 4, "max_iterations": 3}, workload=workload, cloud={"instance_type": "p3.2xlarge"}, policy="seer"
    )
    with pytest.raises(InputError, match=message):
        execute(spec)


HEADLINE = Path(__file__).parents[2] / "experiments" / "catalog" / "headline.yaml"


def test_a_cut_journal_is_told_from_a_complete_one_and_a_changed_header_is_refused(tmp_path):
    whole, cut, changed = tmp_path / "whole", tmp_path / "cut", tmp_path / "changed"
    execute(RunSpec.load(HEADLINE), journal=whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:10]))
    assert replay_journal(cut) == (9, False)
    changed.write_bytes(lines[0].replace(b'"seed":0', b'"seed":4') + b"".join(lines[1:]))
    with pytest.raises(
        InputError, match=r"changed, line 1: its header was changed: the spec in it does not have the digest"
    ):
        replay_journal(changed)


def test_a_folder_is_no_journal(tmp_path):
    with pytest.raises(InputError, match=r"must be a file, a pipe or a character device, but is a folder"):
        execute(RunSpec.load(HEADLINE), journal=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("budget_usd", ["1e8", "1e12"])
def test_a_budget_without_end_ends(budget_usd):
    assert execute(RunSpec.load(HEADLINE, [f"job.budget_usd={budget_usd}"])).score > 0


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("policy", ["asha-fixed", "seer", "random-fixed"])
def test_a_trial_that_was_paused_for_the_limit_is_not_started_again_for_nothing(policy):
    for seed in range(20):
        result = execute(RunSpec.load(HEADLINE, [f"policy={policy}", f"seed={seed}"]), record_trajectory=True)
        segments = result.segments()
        paused = segments[(segments.outcome == "ended") & (segments.iteration > segments.from_iteration)]
        again = segments.merge(paused[["trial", "end_s"]], on="trial", suffixes=("", "_paused"))
        again = again[again.start_s >= again.end_s_paused]
        assert (again.iteration > again.from_iteration).all(), again


@pytest.mark.parametrize("budget_usd", [1e-9, 0.01, 0.2])
def test_a_budget_below_the_bill_of_any_machine_is_refused_with_what_is_possible(budget_usd):
    spec = RunSpec.of(
        job={"trials": 8, "max_iterations": 9, "deadline_s": 3600, "budget_usd": budget_usd},
        workload={"bundle": "digits-mlp", "scaling": "resnet50-v100", "iteration_s": 60},
        cloud={"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
        policy="seer",
    )
    with pytest.raises(InfeasibleJobError, match=r"the fastest takes \d+ s \(for [\d.]+ USD\), the cheapest costs"):
        execute(spec)
