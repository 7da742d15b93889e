"""Comparisons: paired seeds, policies that cannot or break, and the tables."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys

import pandas as pd
import pytest

from elastune import RunSpec, compare, execute
from elastune.experiments.cli.compare import named_error, say_who_keeps_limits
from elastune.experiments.comparisons.comparison import default_policies
from elastune.experiments.comparisons.paired_runs import Interrupted
from elastune.experiments.runs.ledger import PARTS
from elastune.experiments.runs.world import World
from elastune.policies.registry import POLICIES, RegisteredPolicy
from elastune.sim.model.actions import RunTrial
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.traces import synthetic_bundle

BUNDLE = synthetic_bundle(60, 9, seed=2, direction="maximize")
POLICY_NAMES = ("seer", "sha-fixed", "sha-elastic:gpus_per_trial=4")


def spec_of(**job):
    return RunSpec.of(
        job={"trials": 20, "max_iterations": 9, "deadline_s": 4000, "budget_usd": 20, **job},
        workload={"bundle": "digits-mlp", "scaling": "resnet50-v100", "iteration_s": 60, "straggler_cv": 0.1},
        cloud={"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
        policy="seer",
        seed=7,
    )


@pytest.fixture(scope="module")
def comparison():
    return compare(spec_of(), POLICY_NAMES, 4, jobs=1, bundle=BUNDLE)


def test_every_run_is_the_one_that_execute_gives(comparison):
    expected = [
        execute(spec_of().with_policy(policy).with_seed(seed), bundle=BUNDLE).to_json()
        for policy in POLICY_NAMES
        for seed in (7, 8, 9, 10)
    ]
    assert [{key: run[key] for key in expected[0]} for run in comparison.runs] == expected
    assert {run["status"] for run in comparison.runs} == {"done"}


def test_all_policies_draw_the_same_configurations_on_a_seed(comparison):
    by_seed = comparison.results.groupby("seed")["policy"].apply(list)
    assert list(by_seed.index) == [7, 8, 9, 10]
    assert all(policies == list(POLICY_NAMES) for policies in by_seed)
    worlds = [World.of(spec_of().with_policy(policy).with_seed(8), BUNDLE) for policy in POLICY_NAMES]
    assert all((world.truth.scores == worlds[0].truth.scores).all() for world in worlds)


@pytest.mark.slow
def test_processes_do_not_change_the_tables():
    spec = spec_of()
    alone, together = (compare(spec, ("seer", "sha-fixed"), 3, jobs=jobs) for jobs in (1, 2))
    for name in ("results", "summary", "paired", "ledger", "trajectories"):
        pd.testing.assert_frame_equal(getattr(alone, name), getattr(together, name))
    assert json.dumps(alone.to_json()) == json.dumps(together.to_json())


def test_the_summary_holds_means_with_intervals(comparison):
    results, summary = comparison.results, comparison.summary.set_index("policy")
    assert list(summary.index) == list(POLICY_NAMES)
    for policy in POLICY_NAMES:
        runs = results[results["policy"] == policy]
        row = summary.loc[policy]
        assert (row["runs"], row["infeasible"], row["failed"]) == (4, 0, 0)
        for measure in ("score", "regret", "cost_usd", "makespan_s", "gpu_utilisation"):
            assert row[measure] == pytest.approx(runs[measure].mean())
            assert runs[measure].min() <= row[f"{measure}_low"] <= row[measure] <= row[f"{measure}_high"]
        assert row["deadline_met"] == (runs["makespan_s"] <= 4000).mean()
        assert row["budget_met"] == (runs["cost_usd"] <= 20).mean()


def test_differences_are_paired_by_seed_and_to_the_first_policy(comparison):
    paired = comparison.paired.set_index(["policy", "measure"])
    scores = comparison.results.pivot_table(index="seed", columns="policy", values="score")
    difference = scores["sha-fixed"] - scores["seer"]
    row = paired.loc[("sha-fixed", "score")]
    assert row["against"] == "seer"
    assert row["mean"] == pytest.approx(difference.mean())
    assert (row["better"], row["ties"]) == ((difference > 0).mean(), (difference == 0).mean())
    cost = comparison.results.pivot_table(index="seed", columns="policy", values="cost_usd")
    assert paired.loc[("sha-fixed", "cost_usd")]["better"] == (cost["sha-fixed"] < cost["seer"]).mean()


def test_trajectories_lie_side_by_side(comparison):
    table = comparison.trajectories
    ends = table.groupby(["policy", "seed"])["spent_usd"].last()
    costs = comparison.results.set_index(["policy", "seed"])["cost_usd"]
    pd.testing.assert_series_equal(ends.sort_index(), costs.sort_index(), check_names=False)
    assert set(table["direction"]) == {"maximize"}


def test_json_has_no_nan(comparison):
    told = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert set(told) == {"runs", "summary", "paired", "ledger"}
    assert len(told["runs"]) == 12
    assert told["runs"][0]["deadline_met"] is True
    assert set(told["runs"][0]["ledger_usd"]) >= {"training", "idle"}


def test_a_policy_that_finds_no_plan_says_so_and_does_not_stop_the_others():
    # Without a deadline there is no floor(B / cT).
    found = compare(spec_of(deadline_s=None), ("sha-fixed-naive", "seer"), 2, jobs=1, bundle=BUNDLE)
    naive, seer = found.summary.to_dict("records")
    assert (naive["runs"], naive["infeasible"], seer["runs"]) == (0, 2, 2)
    assert "needs job.deadline_s and job.budget_usd" in naive["error"]
    assert math.isnan(naive["score"])
    assert seer["error"] == ""
    assert math.isnan(seer["deadline_met"])
    assert found.failed == 0
    assert set(found.paired["pairs"]) == {0}
    json.dumps(found.to_json(), allow_nan=False)


def test_no_policy_that_finds_a_plan_is_wrong_input():
    with pytest.raises(
        InfeasibleJobError,
        match=r"no policy finds a plan; the least that would do is a budget of .* USD with a deadline of",
    ) as raised:
        compare(spec_of(deadline_s=30), ("seer", "sha-fixed", "static"), 2, jobs=1, bundle=BUNDLE)
    assert raised.value.reasons.keys() == {"seer", "sha-fixed", "static"}
    budget_usd, deadline_s, policy = re.search(
        r"budget of (\S+) USD with a deadline of (\S+) s, by (\S+)$", str(raised.value)
    ).groups()
    enough = spec_of(deadline_s=float(deadline_s.replace(",", "")), budget_usd=float(budget_usd))
    assert compare(enough, (policy,), 2, jobs=1, bundle=BUNDLE).summary["runs"].tolist() == [2]


def test_a_policy_that_breaks_is_told_apart(monkeypatch):
    class Broken:
        def on_event(self, _event, _view):
            return (RunTrial(0, 99, 1),)

    monkeypatch.setitem(POLICIES, "broken", RegisteredPolicy(lambda *_: Broken(), "for tests"))
    found = compare(spec_of(), ("broken", "seer"), 2, jobs=1, bundle=BUNDLE)
    assert found.failed == 2
    assert "broken: RunTrial(trial=0, gpus=99" in found.summary["error"][0]
    monkeypatch.setitem(POLICIES, "wrong", RegisteredPolicy(lambda *_: 1 / 0, "for tests"))
    wrong = compare(spec_of(), ("wrong", "seer"), 2, jobs=1, bundle=BUNDLE)
    assert wrong.summary["error"][0].startswith("ZeroDivisionError: division by zero (test_compare.py, line ")
    assert wrong.summary["failed"].tolist() == [2, 0]
    only_broken = compare(spec_of(), ("broken",), 1, jobs=1, bundle=BUNDLE)
    assert only_broken.failed == 1
    assert only_broken.trajectories.empty


def test_progress_counts_runs():
    told = []
    compare(spec_of(), ("seer", "sha-fixed"), 3, jobs=1, bundle=BUNDLE, on_progress=lambda *now: told.append(now))
    assert told == [(done, 6) for done in range(1, 7)]


def test_ctrl_c_keeps_the_seeds_that_are_finished():
    def stop_at_the_fifth(done, _total):
        if done == 5:
            raise KeyboardInterrupt

    def stop_at_the_first(_done, _total):
        raise KeyboardInterrupt

    policies = ("seer", "sha-fixed")
    with pytest.raises(Interrupted, match="2 of 3 seeds are finished") as stopped:
        compare(spec_of(), policies, 3, jobs=1, bundle=BUNDLE, on_progress=stop_at_the_fifth)
    whole = compare(spec_of(), policies, 2, jobs=1, bundle=BUNDLE)
    for name in ("results", "summary", "paired", "ledger", "trajectories"):
        pd.testing.assert_frame_equal(getattr(stopped.value.finished, name), getattr(whole, name))
    with pytest.raises(KeyboardInterrupt) as nothing:
        compare(spec_of(), policies, 3, jobs=1, bundle=BUNDLE, on_progress=stop_at_the_first)
    assert type(nothing.value) is KeyboardInterrupt


INTERRUPTED = """
import os, signal, sys
from contextlib import contextmanager
from elastune.experiments.cli import app, options

@contextmanager
def progress(_title):
    # As the terminal does: Ctrl-C goes to this process and its workers alike.
    yield lambda done, total: os.killpg(0, signal.SIGINT) if done == 9 else None

options.progress = progress
asked = ["--policies", "sha-fixed,rubberband", "--seeds", "40", "--jobs", sys.argv[2], "--json"]
sys.argv = ["elastune", "compare", sys.argv[1], *asked]
app.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_command_shows_what_is_finished_at_ctrl_c_and_exits_with_130(tmp_path, jobs):
    spec_of().save(tmp_path / "spec.yaml")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "spec.yaml"), str(jobs)],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 130
    *_, last = done.stderr.splitlines()
    message = json.loads(last)["error"]
    told = re.fullmatch(r"interrupted: (\d) of 40 seeds are finished, and the tables are of these", message)
    assert told, done.stderr
    assert 1 <= int(told[1]) <= 4
    assert [row["runs"] for row in json.loads(done.stdout)["summary"]] == [int(told[1])] * 2


def test_policies_may_be_one_text_with_commas_between():
    compared = compare(spec_of(), " sha-fixed, random-fixed,", 1, jobs=1, bundle=BUNDLE)
    assert compared.summary["policy"].tolist() == ["sha-fixed", "random-fixed"]


def test_all_policies_are_the_default_and_elastic_ones_also_at_whole_machines():
    elastic = ("asha-elastic", "random-elastic", "hyperband-elastic", "sha-elastic")
    assert default_policies(spec_of()) == (*POLICIES, *(f"{name}:gpus_per_trial=4" for name in elastic))
    single = RunSpec.of(**{**spec_of().to_dict(), "cloud": {"instance_type": "p3.2xlarge"}})
    assert default_policies(single) == tuple(POLICIES)


@pytest.mark.parametrize(
    ("policies", "seeds", "message"),
    [
        (("seer", "seer"), 2, "policy seer is given twice"),
        (("seeer",), 2, "there is no policy 'seeer'; did you mean 'seer'"),
        (("seer",), 0, "at least one of each"),
        (("seer",), [1, 1], "no seed twice"),
        (("seer",), [0, 2**63], "the last of 2 seeds is 9223372036854775808, but a seed must be a whole number from 0"),
        (" ,", 2, "policies ' ,' holds no name: give names with commas between, or leave it out"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused(policies, seeds, message):
    with pytest.raises(InputError, match=message):
        compare(spec_of(), policies, seeds, jobs=1, bundle=BUNDLE)


def test_what_no_policy_can_help_stops_the_comparison():
    with pytest.raises(InputError, match="job longer than its curves"):
        compare(spec_of(max_iterations=10), ("seer",), 1, jobs=1, bundle=BUNDLE)


def test_the_ledger_table_holds_the_means_over_the_runs_of_each_policy(comparison):
    table, results = comparison.ledger, comparison.results
    assert list(table.columns) == ["policy", "part", "usd", "share", "gpu_hours", "budget_usd"]
    for policy, parts in table.groupby("policy"):
        done = results[(results["policy"] == policy) & (results["status"] == "done")]
        assert tuple(parts["part"]) == PARTS
        assert parts["usd"].sum() == pytest.approx(done["cost_usd"].mean())
        assert parts["share"].sum() == pytest.approx(1.0)
        training = parts.set_index("part").loc["training"]
        assert training["usd"] == pytest.approx(done["ledger_usd.training"].mean())
        assert training["gpu_hours"] == pytest.approx(done["ledger_gpu_s.training"].mean() / 3600)


def test_policies_may_be_one_text_with_commas():
    assert list(compare(spec_of(), "seer, sha-fixed", 1, jobs=1).summary["policy"]) == ["seer", "sha-fixed"]


def test_an_error_that_begins_with_its_policy_names_it_once():
    assert named_error("asha-fixed", "asha-fixed: no machine") == "asha-fixed: no machine"
    assert named_error("sha-fixed:x=1", "sha-fixed:x=1: no plan") == "sha-fixed:x=1: no plan"
    assert named_error("sha-elastic:gpus_per_trial=4", "out of memory") == "sha-elastic:gpus_per_trial=4: out of memory"


@pytest.mark.parametrize(
    ("deadline_met", "said"),
    [
        (
            [0.4, 0.9, 1.0],
            "static met T in 40 % and B in 100 % of its runs; sha-fixed has the least regret of those",
        ),
        ([0.4, 0.9, 0.9], "no policy met both in all runs."),
        ([1.0, 0.9, 1.0], ""),
        ([math.nan] * 3, ""),  # no limit
    ],
)
def test_who_is_first_by_missing_a_limit_is_told_beside_the_first_that_does_not(capsys, deadline_met, said):
    policies = ["static", "rubberband", "sha-fixed"]
    say_who_keeps_limits(pd.DataFrame({"policy": policies, "deadline_met": deadline_met, "budget_met": 1.0}))
    printed = capsys.readouterr().out
    assert said in printed
    assert bool(printed) == bool(said)
