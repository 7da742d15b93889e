"""When a job counts as completed, by histories worked out by hand.

A GPU trains an iteration in 10 s, unless said otherwise of a trial; a segment takes 2 s (new) or 3 s (resumed) to launch and
1 s for its checkpoint; machines have one GPU. So one GPU takes 13 s for the first iteration of a trial and 14 s for its second.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from elastune.experiments.runs.accounts import DurableIterations
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.result import completed_at_s_of
from elastune.experiments.runs.simulate import execute
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.sweeps.paired import paired_table
from elastune.experiments.sweeps.rows import table_of
from elastune.policies.registry import factory
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo
from elastune.sim.model.events import RunStarted, SegmentEnded
from elastune.sim.model.profile import Timings
from elastune.traces import tiny_bundle

SLOW = 100.0


@pytest.fixture
def completed(world, play):
    """When a policy's job is completed: (if it is pre-determined, if it is not)."""

    def run(policy, iteration_s, parameters=None, **keywords):
        given = {"gpus": 1, "quota": 4, "timings": (2.0, 1.0, 4.0), "reduction_factor": 2, **keywords}
        tiny = world(trials=len(iteration_s), **given)
        tiny.truth = replace(tiny.truth, iteration_s=np.array(iteration_s))
        if isinstance(policy, str):
            policy = factory(policy, parameters or {})(tiny.job, tiny.profile, tiny.book, None)
        story = play(policy, tiny)
        durable = DurableIterations()
        durable.read(Tables.of(story.entries, tiny.book).changes)
        return story, tuple(
            completed_at_s_of(story.controller, durable, is_predetermined=fixed) for fixed in (True, False)
        )

    return run


def test_a_plan_that_is_followed_to_its_end_is_completed_with_its_last_checkpoint(completed):
    # Two trials to iteration 1, the better one to 2, all at once: 13 s, then 3 + 10/2 + 1 s on both machines, by the plan.
    story, when = completed("rubberband", [10.0, 10.0], iterations=2, deadline_s=25.0)
    assert when == (22.0, 22.0)
    assert story.makespan_s == 22.0


def test_machines_that_are_held_on_do_not_move_the_completion(completed):
    # 100 s x 1 USD x 2 machines of 250 USD: 13 + 14 s are enough, and the machines stay until T.
    story, when = completed("sha-fixed-naive", [10.0, 10.0], iterations=2, deadline_s=100.0, budget_usd=250.0)
    assert when == (22.0, 22.0)
    assert story.makespan_s == pytest.approx(100.0, abs=2e-3)


def test_a_rung_that_t_cuts_completes_nothing(completed):
    # Trial 3 would end the first rung at 103 s.
    story, when = completed("rubberband", [10.0, 10.0, 10.0, SLOW], iterations=4, deadline_s=100.0)
    assert when == (None, None)
    assert story.state.trials[story.best].checkpoint_iteration == 1


def test_a_rung_that_seer_cuts_is_no_stage_as_planned_but_the_winner_gets_to_its_target(completed):
    # As in test_seer_mechanisms: the first rung is cut for its slow trial, and the best one reaches R = 4 before T.
    limits = {"deadline_s": 100.0, "budget_usd": 900.0}
    parameters = {"reserve": True, "truncate": "never", "fill": False}
    story, (fixed, free) = completed("seer", [10.0, 10.0, 10.0, SLOW], parameters, iterations=4, **limits)
    assert (fixed, free) == (None, story.makespan_s)
    assert story.state.trials[story.best].checkpoint_iteration == 4


@pytest.mark.parametrize("policy", ["seer", "seer:fill=false", "seer-staged"])
def test_seer_completes_an_exact_job_whose_losers_are_dropped_at_barriers(policy):
    told = RunSpec.load("tight").to_dict()
    told["job"] |= {"trials": 9, "exact": True, "deadline_s": 1500.0, "budget_usd": 14.0}
    result = execute(RunSpec.of(**told).with_policy(policy).with_seed(60001))
    assert result.completed
    assert result.deadline_met


def test_seer_is_completed_at_the_target_of_its_plan_although_the_winner_goes_on_beyond_it(completed):
    # One machine and T = 70 s: 2 + 5 x 10 + 1 s to half of R = 10, as 7 take 73 s. The sixth iteration is saved at 67 s.
    limits = {"deadline_s": 70.0, "quota": 1}
    parameters = {"truncate": "always", "fill": False, "makespan": "mean"}
    story, (_, free) = completed("seer", [10.0], parameters, iterations=10, **limits)
    assert free == 53.0
    assert story.state.trials[story.best].checkpoint_iteration == 6


@pytest.mark.parametrize(("last_s", "fixed"), [(SLOW, None), (10.0, 53.0)])
def test_asha_is_completed_when_its_answer_is_at_r_although_others_are_cut(completed, last_s, fixed):
    # One machine: trial 0 until 13 s, trial 1 until 26 s, trial 0 to R until 40 s, then trial 2, which T = 100 s may cut.
    _, when = completed("asha-fixed", [10.0, 10.0, last_s], iterations=2, deadline_s=100.0, budget_usd=900.0)
    assert when == (fixed, 40.0)


@pytest.mark.parametrize(("later_s", "fixed"), [(SLOW, None), (10.0, 86.0)])
def test_hyperband_is_completed_when_its_answer_is_at_r_although_a_later_bracket_is_cut(completed, later_s, fixed):
    # The first bracket as of ASHA until 40 s; the second trains trials 2 and 3 to R, one after the other, 23 s each.
    speeds = [10.0, 10.0, later_s, later_s]
    _, when = completed("hyperband-fixed", speeds, iterations=2, deadline_s=150.0, budget_usd=900.0)
    assert when == (fixed, 40.0)


def test_of_a_policy_that_does_not_say_what_it_planned_the_answer_is_looked_at(completed):
    class Two:
        def on_event(self, event, _view):
            match event:
                case RunStarted():
                    return (ScaleTo(1), RunTrial(0, 1, 2))
                case SegmentEnded(trial=0):
                    return (RunTrial(1, 1, 1),)
                case SegmentEnded(trial=1):
                    return (FinishRun(self.best),)
            return ()

    two = Two()
    for two.best, expected in ((0, 23.0), (1, None)):
        _, when = completed(two, [10.0, 10.0], iterations=2)
        assert when == (expected, expected)


# Results. Trial 0 is best after one iteration, and all but useless at R.

CURVES = [[0.1, 0.9], [0.5, 0.4], [0.6, 0.5]]


def result_of_spec(policy, iteration_s=10.0, **job):
    bundle = tiny_bundle(CURVES, iteration_s=iteration_s, timings=Timings(1.0, 1.0, 2.0))
    cloud = {"price_usd_per_hour": 3600, "gpus_per_instance": 1, "billing": {"minimum_s": 0, "granularity_s": 0}}
    job = {"trials": 3, "max_iterations": 2, **job}
    workload = {"profile": {"iteration_s_error": -0.5}}
    return execute(RunSpec.of(job=job, workload=workload, cloud=cloud, policy=policy), bundle=bundle)


@pytest.mark.parametrize(
    ("policy", "deadline_s", "exact", "met"),
    [
        ("rubberband", 20.0, False, False),
        ("sha-fixed", 15.0, True, False),
        ("sha-fixed", 15.0, False, True),
        ("asha-fixed", 20.0, True, False),
    ],
)
def test_a_pre_determined_job_that_was_cut_has_not_met_its_deadline(policy, deadline_s, exact, met):
    # Every iteration takes twice as long as believed.
    result = result_of_spec(policy, deadline_s=deadline_s, exact=exact)
    assert (result.completed, result.completed_at_s) == (False, None)
    assert result.makespan_s <= deadline_s
    assert result.deadline_met is met
    assert result_of_spec(policy, deadline_s=400.0, exact=exact).deadline_met is True
    assert result_of_spec(policy, exact=exact).deadline_met is None


def test_an_answer_short_of_r_was_better_earlier_or_was_stopped():
    told = ("best_is_complete", "best_was_earlier", "best_stopped_short", "some_is_complete")

    def flags(policy, **job):
        result = result_of_spec(policy, **job)
        return tuple(getattr(result, name) for name in told)

    # Rungs: three trials to 1, then the best one to 2, where it has 0.9: the answer is the best of those that stay at 1.
    assert flags("rubberband", deadline_s=400.0) == (False, True, False, True)
    # Everybody goes to R.
    assert flags("random-fixed", deadline_s=400.0) == (True, False, False, True)
    # T cuts before anybody is there.
    assert flags("rubberband", deadline_s=20.0) == (False, False, True, False)


# Tables.


def row(policy, seed, cost_usd, *, completed=True):
    job = {"policy": policy, "seed": seed, "bundle_name": "b", "bundle_family": "f", "results_version": "1"}
    return {**job, "status": "done", "direction": "minimize", "cost_usd": cost_usd, "regret": 0.1} | {
        "completed": completed
    }


def test_costs_are_compared_where_both_completed_their_job():
    rows = [row("a", 0, 4.0), row("a", 1, 1.0, completed=False), row("a", 2, 5.0)]
    rows += [row("b", 0, 6.0), row("b", 1, 8.0), row("b", 2, 1.0, completed=False)]
    results = table_of(rows).to_pandas()
    (costs,) = paired_table(results, "a", measure="cost_usd", group=[]).to_dict("records")
    assert (costs["mean"], costs["pairs"], costs["unfinished"]) == (2.0, 1, 2)
    assert (costs["only"], costs["only_against"]) == (0, 0)
    # Of regret a run that was cut is an outcome as good as any.
    (regret,) = paired_table(results, "a", measure="regret", group=[]).to_dict("records")
    assert (regret["pairs"], regret["unfinished"]) == (3, 0)
