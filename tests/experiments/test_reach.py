"""What is out of reach on a machine, whoever decides: it is left out, and no run would have reached it."""

from __future__ import annotations

import numpy as np
import pytest

from elastune import RunSpec, recommend
from elastune.experiments.comparisons.race import Candidate, CandidateRun, Goal
from elastune.experiments.comparisons.reach import OUT_OF_REACH, Reach, is_bounded, keep_nearest, leave_out
from elastune.experiments.runs.world import World
from elastune.experiments.sweeps.worker import row_of

SPEC = {
    "job": {"trials": 16, "max_iterations": 9, "deadline_s": 1800, "budget_usd": 20},
    "workload": {"bundle": "digits-mlp", "scaling": {1: 1, 2: 1.6, 4: 2.5}, "iteration_s": 60, "straggler_cv": 0},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 5},
    "policy": "sha-fixed",
}
SEEDS = range(24)


def spec_with(**job):
    return RunSpec.of(**{**SPEC, "job": {**SPEC["job"], **job}})


def reach_of(spec, goal):
    return Reach.of([World.of(spec.with_seed(seed)) for seed in SEEDS], goal)


def test_the_least_is_the_first_trial_that_has_the_score_on_its_best_gang():
    spec = spec_with()
    world = World.of(spec)
    world.recorded_scores[:] = 1.0
    world.recorded_scores[3, 4:] = 0.1
    reach = Reach.of([world], Goal("minimize", deadline_s=1800, score=0.2))
    seconds, usd = 5 * world.truth.iteration_s[3] / 2.5, 5 * world.truth.iteration_s[3] * 12.24 / 4 / 3600
    assert reach.least_s[0][3] == pytest.approx(seconds)
    assert reach.least_usd[0][3] == pytest.approx(usd)  # one GPU wastes least
    assert reach.runs_within(seconds, usd) == 1
    assert reach.runs_within(seconds * 0.99, None) == 0
    assert reach.runs_within(None, usd * 0.99) == 0
    assert Reach.of([world], Goal("minimize", deadline_s=1800, score=0.05)).runs_within(None, None) == 0


@pytest.mark.parametrize("policy", ["sha-fixed", "sha-elastic", "random-elastic", "oracle"])
@pytest.mark.parametrize("budget_usd", [0.1, 0.2, 1.0])
def test_no_policy_keeps_a_goal_in_a_run_in_which_it_is_out_of_reach(policy, budget_usd):
    goal = Goal("minimize", deadline_s=900, score=0.12)
    spec = spec_with(deadline_s=900, budget_usd=budget_usd)
    for seed in SEEDS[:8]:
        one = spec.with_seed(seed).with_policy(policy)
        if Reach.of([World.of(one)], goal).runs_within(900, budget_usd):
            continue
        _, result = row_of(one, one.bundle())
        assert result is None or not goal.is_kept_by(CandidateRun(result.score, result.cost_usd, result.makespan_s))


def test_where_durations_vary_a_trial_may_be_quicker():
    goal = Goal("minimize", deadline_s=1800, score=0.2)
    even = reach_of(spec_with(), goal)
    uneven = RunSpec.of(**{**SPEC, "workload": {**SPEC["workload"], "straggler_cv": 0.05}})
    for before_s, after_s in zip(even.least_s, reach_of(uneven, goal).least_s, strict=True):
        known = np.isfinite(before_s)
        assert (after_s[known] < before_s[known]).all()
        assert (after_s[known] > 0.7 * before_s[known]).all()


def test_what_too_few_draws_can_reach_is_left_out_with_the_reason():
    goal = Goal("minimize", deadline_s=1800, score=0.035)
    able = reach_of(spec_with(), goal).runs_within(1800, None)
    assert 0 < able < 0.95 * len(SEEDS)
    candidates = [Candidate(spec_with(budget_usd=None).with_policy(name)) for name in ("sha-fixed", "rubberband")]
    leave_out(candidates, reach_of(spec_with(), goal))
    assert [one.status for one in candidates] == [OUT_OF_REACH] * 2
    assert candidates[0].error.startswith(
        f"in {len(SEEDS) - able} of 24 runs no trial that is drawn can reach the goal by"
    )
    keep_nearest(candidates)
    assert [one.status for one in candidates] == ["done"] * 2


def test_what_varies_in_other_ways_leaves_nothing_out():
    assert is_bounded(World.of(spec_with()))
    for changed in (
        {"workload": {**SPEC["workload"], "scaling": {1: 1, "2x1": 1.5, "2x2": 1.7}}},
        {"cloud": {**SPEC["cloud"], "slow_nodes": {"cv": 0.2}}},
    ):
        assert not is_bounded(World.of(RunSpec.of(**{**SPEC, **changed})))


def test_the_choice_is_the_same_as_without_leaving_out(monkeypatch):
    spec = spec_with(budget_usd=None)
    slow = {
        "workload": {**SPEC["workload"], "iteration_s": 2000},
        "cloud": {**SPEC["cloud"], "instance_type": "g4dn.12xlarge"},
    }
    others = [RunSpec.of(**{**SPEC, **slow, "job": {**SPEC["job"], "budget_usd": None}})]

    def chosen():
        answer = recommend(spec, others=others, policies=["oracle", "sha-fixed"], score=0.2, levels=3, seeds=20, jobs=1)
        return answer.best.to_json(), int(answer.candidates["runs"].sum()), set(answer.candidates["status"])

    with_bound = chosen()
    monkeypatch.setattr("elastune.experiments.comparisons.candidates.leave_out", lambda _candidates, _reach: None)
    without = chosen()
    assert with_bound[0] == without[0]
    assert with_bound[1] < without[1]
    assert OUT_OF_REACH in with_bound[2] - without[2]
