"""What to run: the race that gives candidates up, the goal, and the command."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from elastune import RunSpec
from elastune.experiments.cli.app import app
from elastune.experiments.comparisons.comparison import compare
from elastune.experiments.comparisons.race import Candidate, CandidateRun, Goal, most_share, race
from elastune.experiments.comparisons.recommendation import Recommendation, recommend
from elastune.experiments.spec.offers import at_prices, believed_as_fast, scaling_in_use, within_machines
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.traces import bundle_folder

SPEC = {
    "job": {"trials": 16, "max_iterations": 9, "deadline_s": 1800, "budget_usd": 20},
    "workload": {"bundle": "digits-mlp", "scaling": "resnet50-v100", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
    "policy": "sha-fixed",
}
CHEAP = Goal("minimize", deadline_s=100, score=0.5)


def raced(costs, misses=(), seeds=16):
    """Race candidates that always cost the same; those in `misses` never reach the score."""
    candidates = [Candidate(spec=None) for _ in costs]

    def extend(some, count):
        for one in some:
            place = candidates.index(one)
            score = 0.9 if place in misses else 0.1
            one.outcomes += [CandidateRun(score, costs[place], 50.0)] * (count - len(one.outcomes))

    ranked = race(candidates, CHEAP, extend, seeds)
    return [candidates.index(one) for one in ranked], [len(one.outcomes) for one in candidates]


def test_the_best_few_run_on_all_seeds_and_the_others_are_given_up():
    ranked, runs = raced(range(40))
    assert ranked[:8] == list(range(8))
    assert runs == [16] * 10 + [8] * 10 + [4] * 20


def test_candidates_that_miss_the_goal_give_way_to_those_behind_them():
    ranked, runs = raced(range(40), misses=range(30))
    assert ranked[:3] == [30, 31, 32]
    assert runs[30] == 16
    assert runs[0] == 4


def test_of_equally_good_candidates_the_cheaper_is_taken_then_the_sooner():
    goal = Goal("minimize", deadline_s=100, budget_usd=9)
    outcomes = [(0.1, 3.0, 20.0), (0.1, 1.0, 30.0), (0.1, 1.0, 10.0), (0.05, 9.0, 90.0)]
    candidates = [Candidate(spec=None) for _ in outcomes]

    def extend(some, count):
        for one in some:
            one.outcomes += [CandidateRun(*outcomes[candidates.index(one)])] * (count - len(one.outcomes))

    assert [candidates.index(one) for one in race(candidates, goal, extend, 8)] == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("outcome", "is_kept"),
    [
        (CandidateRun(0.5, 1e9, 100.0), True),
        (CandidateRun(0.51, 1.0, 1.0), False),
        (CandidateRun(0.1, 1.0, 100.1), False),
        (CandidateRun(None, 1.0, 1.0), False),
    ],
)
def test_a_run_keeps_the_goal_with_the_score_by_the_deadline_whatever_it_costs(outcome, is_kept):
    assert CHEAP.is_kept_by(outcome) is is_kept


def test_of_four_runs_one_miss_leaves_95_percent_possible_and_two_do_not():
    assert most_share(3, 4) == pytest.approx(
        0.95**0.25
    )  # the share p at which at least one of four misses in 5 %: 1 - p^4
    assert most_share(2, 4) < 0.95 < most_share(4, 4)


@pytest.mark.parametrize("given", [{"score": 1.0}, {"score": 1.0, "deadline_s": 1.0, "budget_usd": 1.0}])
def test_exactly_two_limits_make_a_goal(given):
    with pytest.raises(InputError, match="--score"):
        Goal("minimize", **given)


def test_gangs_are_believed_within_a_machine_only_where_machines_are_chosen():
    spec = RunSpec.of(**{**SPEC, "cloud": {"instance_type": "p3.2xlarge"}})
    within, told = within_machines(spec, scaling_in_use(spec))
    assert scaling_in_use(within).max_gpus == 1
    assert told.startswith("p3.2xlarge: gangs of more than 1 GPU are left out")


def test_machines_whose_gpus_differ_are_told_to_be_believed_equally_fast():
    def on(machine, **workload):
        return RunSpec.of(**{**SPEC, "workload": SPEC["workload"] | workload, "cloud": {"instance_type": machine}})

    [told] = believed_as_fast([on("p3.8xlarge"), on("p3.2xlarge"), on("g5.xlarge")])
    assert told.startswith("V100-16GB (p3.8xlarge), A10G (g5.xlarge): an iteration is taken to last as long on each")
    assert believed_as_fast([on("p3.8xlarge"), on("p3.2xlarge")]) == [], "one kind of GPU"
    assert believed_as_fast([on("p3.8xlarge"), on("g5.xlarge", iteration_s=90)]) == [], "both were stated"
    own = {"name": "own", "gpus_per_instance": 1, "price_usd_per_hour": 1}
    assert believed_as_fast([on("p3.8xlarge"), on(own)]) == [], "nothing is known of it"


def test_prices_change_on_both_markets():
    machine = at_prices(RunSpec.of(**SPEC), 2.0).price_book().default_type
    assert (machine.name, machine.gpus_per_instance) == ("p3.8xlarge", 4)
    assert machine.usd_per_hour == pytest.approx({"on-demand": 24.48, "spot": 2.9188})


def asked(folder, *options):
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    command = [
        "recommend",
        str(folder / "spec.yaml"),
        "--policies",
        "sha-fixed,random-fixed",
        "--seeds",
        "20",
        "--jobs",
        "1",
    ]
    return CliRunner().invoke(app, [*command, *options])


@pytest.mark.slow
def test_the_command_writes_a_spec_that_runs_and_says_who_is_better(tmp_path):
    done = asked(tmp_path, "--json", "-o", str(tmp_path / "out"))
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    first, second = told["standings"]
    assert first["score"][0] < second["score"][0]
    assert RunSpec.load(tmp_path / "out" / "spec.yaml").policy.label == first["policy"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "kind.txt", "spec.yaml", "recommendation.json", "candidates.csv", "front.png"
    }  # fmt: skip


def test_a_score_nobody_reaches_is_said_with_exit_code_1(tmp_path):
    done = asked(tmp_path, "--set", "job.budget_usd=null", "--score", "0.000001", "--levels", "2")
    assert done.exit_code == 1
    assert "No candidate may keep it" in done.stdout
    assert "Nearest, by how often they kept it" in done.stdout


def test_the_nearest_kept_the_goal_most_often_and_are_of_different_policies_or_machines():
    columns = ["policy", "instance_type", "market", "runs", "kept", "cost_usd"]
    rows = [
        ("a", "m", "on-demand", 10, 8, 1.0),
        ("a", "m", "on-demand", 20, 18, 3.0),
        ("b", "m", "on-demand", 10, 9, 2.0),
        ("c", "m", "on-demand", 0, 0, float("nan")),
        ("a", "n", "spot", 10, 0, 0.5),
    ]
    goal = Goal("minimize", 100.0, None, 0.5)
    nearest = Recommendation(goal, (), False, (), pd.DataFrame(rows, columns=columns), ()).nearest()
    assert [(row.policy, row.instance_type, row.cost_usd) for row in nearest.itertuples()] == [
        ("b", "m", 2.0),
        ("a", "m", 3.0),
        ("a", "n", 0.5),
    ]


@pytest.mark.slow
def test_several_bundles_take_turns_and_each_is_shown(tmp_path):
    names = ("mnist5k-cnn", "deepmoe-mnist5k")
    options = ("--set", "workload.bundle=mnist5k-cnn", "--json", "--bundle", ",".join(names))
    done = asked(tmp_path, *options)
    assert done.exit_code == 0, done.stderr
    first = json.loads(done.stdout)["standings"][0]
    assert first["runs"] == 40
    shown = first["on_bundles"]
    assert [on["bundle"] for on in shown] == list(names)
    for measure in ("score", "cost_usd", "makespan_s"):
        assert sum(on[measure][0] for on in shown) / 2 == pytest.approx(first[measure][0])
    alone = json.loads(asked(tmp_path, "--set", "workload.bundle=deepmoe-mnist5k", "--json").stdout)["standings"]
    same = next(one for one in alone if one["policy"] == first["policy"])
    assert same["score"][0] == pytest.approx(shown[1]["score"][0])  # the same seeds on this bundle alone


def test_a_spec_may_name_several_bundles_and_they_must_agree_on_what_is_better(tmp_path):
    both = {**SPEC, "workload": {**SPEC["workload"], "bundle": ["mnist5k-cnn", "digits-mlp"]}}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(both))
    refused = CliRunner().invoke(app, ["recommend", str(tmp_path / "both.yaml")])
    assert refused.exit_code == 2
    assert "cannot be averaged (mnist5k-cnn: maximize, digits-mlp: minimize)" in refused.stderr
    twice = CliRunner().invoke(app, ["recommend", str(tmp_path / "both.yaml"), "--bundle", "mnist5k-cnn,mnist5k-cnn"])
    assert twice.exit_code == 2
    assert "given twice" in twice.stderr
    (tmp_path / "both.yaml").write_text(yaml.safe_dump({**both, "workload": {"bundle": [3]}}))
    wrong = CliRunner().invoke(app, ["recommend", str(tmp_path / "both.yaml")])
    assert wrong.exit_code == 2
    assert "workload.bundle is [3], but must be a name, a path, or a list of these" in wrong.stderr


def test_no_policy_that_finds_a_plan_is_told_as_compare_tells_it():
    hopeless = RunSpec.of(**{**SPEC, "job": {**SPEC["job"], "deadline_s": 30}})
    policies = ("seer", "sha-fixed", "static")
    with pytest.raises(InfeasibleJobError, match="the least that would do is a budget of") as recommending:
        recommend(hopeless, policies=policies, seeds=8, jobs=2)  # the errors come from other processes
    with pytest.raises(InfeasibleJobError) as comparing:
        compare(hopeless, policies, 2, jobs=1)
    assert str(recommending.value) == str(comparing.value)


def test_where_one_of_several_bundles_leaves_no_plan_its_reasons_are_told(tmp_path):
    slow = shutil.copytree(bundle_folder("digits-mlp"), tmp_path / "slow")
    manifest = yaml.safe_load((slow / "bundle.yaml").read_text()) | {"iteration_s": 10_000.0}
    (slow / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    spec = RunSpec.of(**{**SPEC, "workload": {"bundle": "digits-mlp", "scaling": "resnet50-v100"}})
    assert compare(spec, ["sha-fixed"], 1, jobs=1).summary["runs"].tolist() == [1]
    with pytest.raises(InfeasibleJobError, match=r"no policy finds a plan; sha-fixed: \S+") as raised:
        recommend(spec, policies=["sha-fixed"], bundles=["digits-mlp", str(slow)], seeds=8, jobs=1)
    assert raised.value.reasons.keys() == {"sha-fixed"}
