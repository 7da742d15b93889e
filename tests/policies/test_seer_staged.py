"""SEER that is planned from T and B: what it does in a small world, by hand, and what its rules choose, by brute force.

The world of the histories: four trials, eta = 2, machines of one GPU at 1 USD per second, as used. A segment takes 2 s (new)
or 3 s (resumed) to launch, 10 s per iteration and 1 s for its checkpoint, so that three stages (4, a), (2, b), (1, c) cost

    4 (3 + 10 a) + 2 (4 + 10 b) + (4 + 10 c)  USD  at one GPU each, and take  11 + 10 (a + b + c)  seconds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune.experiments.contracts.policies import check_policy, worlds
from elastune.policies.planning.bound import is_out_of_reach
from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.registry import factory
from elastune.policies.rules.halving import Stage
from elastune.policies.seer.mechanisms import Mechanisms
from elastune.policies.seer.staged import first_sizes, longest_plan, most_stages, schedules
from elastune.policies.sizing.curve_prior import prior_for
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import BillingRule
from elastune.sim.model.profile import GroundTruth, Stragglers
from elastune.sim.model.scaling import PowerScaling

LOSSES = [0.9, 0.5, 0.7, 0.6]


@pytest.fixture
def history(world, play):
    """The run of `seer-staged`, and its history without launches, the timers of its limits and reports that change nothing."""

    def run(*, parameters=None, **keywords):
        tiny = world(
            scores=[[loss - k / 100 for k in range(1, 21)] for loss in LOSSES],
            timings=(2.0, 1.0, 4.0),
            gpus=1,
            quota=4,
            reduction_factor=2,
            **keywords,
        )
        policy = factory("seer-staged", parameters or {"stages": 3})(tiny.job, tiny.profile, tiny.book, None)
        story = play(policy, tiny)
        lines = [without_stops(text) for text in story.log if "launched" not in text and "drained" not in text]
        return story, [
            text for text in lines if "->" in text or not any(word in text for word in ("report", "timer cut"))
        ]

    return run


TIMERS = ("hard-stop at", "cut-")


def without_stops(text):
    event, _, orders = text.partition(" -> ")
    kept = ", ".join(order for order in orders.split(", ") if order and not order.startswith(TIMERS))
    return f"{event} -> {kept}" if kept else event


STAGE_1 = [
    "0 start -> +i0, +i1, +i2, +i3",
    "0 ready 0 -> s0: t0 0..1 on i0x1",
    "0 ready 1 -> s1: t1 0..1 on i1x1",
    "0 ready 2 -> s2: t2 0..1 on i2x1",
    "0 ready 3 -> s3: t3 0..1 on i3x1",
]


def test_training_doubles_as_the_survivors_halve(history):
    # (4, 1), (2, 2), (1, 4) costs 144 USD; a fifth iteration at the end would cost 154. It takes 13 + 24 + 44 = 81 s.
    story, lines = history(deadline_s=100.0, budget_usd=150.0)
    assert lines == [
        *STAGE_1,
        "13 completed t0 s0 at 1/1 score 0.89 in 2+10+1 -> -i0",
        "13 released i0",
        "13 completed t1 s1 at 1/1 score 0.49 in 2+10+1 -> -i1",
        "13 released i1",
        "13 completed t2 s2 at 1/1 score 0.69 in 2+10+1",
        "13 completed t3 s3 at 1/1 score 0.59 in 2+10+1 -> s4: t1 1..3 on i2x1, s5: t3 1..3 on i3x1",
        "37 completed t1 s4 at 3/3 score 0.47 in 3+20+1 -> -i2",
        "37 released i2",
        "37 completed t3 s5 at 3/3 score 0.57 in 3+20+1 -> s6: t1 3..7 on i3x1",
        "81 completed t1 s6 at 7/7 score 0.43 in 3+40+1 -> -i3",
    ]
    assert (story.makespan_s, story.bill_usd, story.best) == (81.0, 144.0, 1)


# Iterations take 20 s, not 10 s as believed. With 200 USD the plan is (4, 1), (2, 3), (1, 7), 194 USD: (4, 2), (2, 4), (1, 8)
# would cost 264.
SLOW_STAGE_1 = [
    *STAGE_1,
    "23 completed t0 s0 at 1/1 score 0.89 in 2+20+1 -> -i0",
    "23 released i0",
    "23 completed t1 s1 at 1/1 score 0.49 in 2+20+1 -> -i1",
    "23 released i1",
    "23 completed t2 s2 at 1/1 score 0.69 in 2+20+1",
]
SLOW = {"tau": 20.0, "believed_tau": 10.0, "deadline_s": 130.0}


def test_what_the_first_stage_shows_shortens_the_others(history):
    # At 23 s 92 USD are spent. (2, 1), (1, 2) costs 48 + 44 of the 108 that are left, (2, 1), (1, 3) would cost 112. At 47 s
    # 60 USD are left, for two iterations (44 USD) as planned.
    story, lines = history(budget_usd=200.0, **SLOW)
    assert lines == [
        *SLOW_STAGE_1,
        "23 completed t3 s3 at 1/1 score 0.59 in 2+20+1 -> s4: t1 1..2 on i2x1, s5: t3 1..2 on i3x1",
        "47 completed t1 s4 at 2/2 score 0.48 in 3+20+1 -> -i2",
        "47 released i2",
        "47 completed t3 s5 at 2/2 score 0.58 in 3+20+1 -> s6: t1 2..4 on i3x1",
        "91 completed t1 s6 at 4/4 score 0.46 in 3+40+1 -> -i3",
    ]
    assert (story.makespan_s, story.bill_usd, story.best) == (91.0, 184.0, 1)


def test_survivors_are_dropped_where_not_even_an_iteration_of_each_is_paid_for(history):
    # At 23 s 58 of 150 USD are left. Two trials, then one need 92; one alone trains two iterations for 44, three cost 64.
    story, lines = history(budget_usd=150.0, **SLOW)
    assert lines == [
        *SLOW_STAGE_1,
        "23 completed t3 s3 at 1/1 score 0.59 in 2+20+1 -> -i2, s4: t1 1..3 on i3x1",
        "23 released i2",
        "67 completed t1 s4 at 3/3 score 0.47 in 3+40+1 -> -i3",
    ]
    assert (story.makespan_s, story.bill_usd, story.best) == (67.0, 136.0, 1)


def test_faster_training_than_believed_makes_the_later_stages_longer(history):
    # Believed 20 s: (4, 1), (2, 2), (1, 4) costs 264 USD. Really 52 USD are spent at 13 s, and for the other 218 there are
    # (2, 5), (1, 10), 108 + 104 USD; one more of the last would cost 222. T = 300.
    story, _ = history(tau=10.0, believed_tau=20.0, deadline_s=300.0, budget_usd=270.0)
    assert (story.makespan_s, story.bill_usd) == (13 + 54 + 104, 52 + 108 + 104)
    assert story.state.trials[1].checkpoint_iteration == 1 + 5 + 10


def test_without_replanning_the_limits_end_what_was_planned(history):
    # Stage 2 would train to iteration 4 by 87 s, 220 USD; its last durable iteration within 200 USD is the third, at 67 s.
    story, lines = history(parameters={"stages": 3, "replan": False}, budget_usd=200.0, **SLOW)
    assert "23 completed t3 s3 at 1/1 score 0.59 in 2+20+1 -> s4: t1 1..4 on i2x1, s5: t3 1..4 on i3x1" in lines
    assert (story.makespan_s, story.bill_usd, story.best) == (67.0, 180.0, 1)
    assert story.state.trials[1].checkpoint_iteration == 3


def test_the_survivors_are_planned_for_at_their_mean_speed(world, play):
    # Trial 3 takes 30 s an iteration, the others 10 s. (4, 1), (2, 3), (1, 7) is planned, as (4, 2), (2, 4), (1, 8) would
    # cost 264 USD. Two machines go at 13 s, as the second stage needs two only: at 33 s 92 USD are spent. At 20 s, (2, 1)
    # and (1, 3) cost 48 + 64 of the 168 that are left, (2, 2), (1, 4) 88 + 84. The two trials have a machine each, because that
    # of the faster one is given back: 14 + 34 = 48 USD, as in two waves on one machine, but 34 s and not 48 s. At 67 s the
    # winner turns out to take 10 s: of 120 USD, it trains 11 iterations for 114.
    tiny = world(
        scores=[[loss - k / 100 for k in range(1, 21)] for loss in LOSSES],
        timings=(2.0, 1.0, 4.0),
        gpus=1,
        quota=4,
        reduction_factor=2,
        deadline_s=300.0,
        budget_usd=260.0,
    )
    tiny.truth = replace(tiny.truth, iteration_s=np.array([10.0, 10.0, 10.0, 30.0]))
    story = play(factory("seer-staged", {"stages": 3})(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert [trial.checkpoint_iteration for trial in story.state.trials] == [1, 13, 1, 2]
    assert (story.makespan_s, story.bill_usd) == (33 + 34 + 114, 92 + 48 + 114)


def test_fewer_stages_than_cuts_leave_more_than_one_in_the_last(history):
    story, _ = history(parameters={"stages": 2}, deadline_s=300.0, budget_usd=200.0, exact=True)
    # (4, 2), (2, 4): 92 + 88 = 180 USD; one more iteration of two trials would cost 200, and leave nothing for the end.
    assert [trial.checkpoint_iteration for trial in story.state.trials] == [2, 6, 2, 6]
    assert story.bill_usd == 180


def test_nothing_trains_beyond_the_curves(history):
    story, _ = history(deadline_s=1e5, budget_usd=1e6)
    assert [trial.checkpoint_iteration for trial in story.state.trials] == [20] * 4
    assert story.best == 1


# What the rules choose.


def brute_stages(sizes, first, eta, most):
    """Stages from the first one's training, a fraction of iterations; written down a second time."""
    stages, until = [], 0
    for index, trials in enumerate(sizes):
        further = min(math.floor(first * eta**index + 1e-9), most - until)
        if further > 0:
            until += further
            stages.append(Stage(trials, further, until))
    return tuple(stages)


def is_affordable(stages, terms):
    return bool(frontier(stages, terms))


jobs = st.builds(
    TuningJob,
    trials=st.integers(1, 9),
    min_iterations=st.integers(1, 2),
    max_iterations=st.integers(3, 9),
    reduction_factor=st.integers(2, 3),
    deadline_s=st.one_of(st.none(), st.floats(40, 400)),
    budget_usd=st.floats(20, 1500),
    exact=st.booleans(),
)


def plan_of(job, tiny, **parameters):
    """The plan before the run; None where there is none."""
    try:
        policy = factory("seer-staged", parameters)(job, tiny.profile, tiny.book, None)
    except InfeasibleJobError:
        return None
    return policy._director.plan


@settings(max_examples=examples(60))
@given(job=jobs, stages=st.integers(1, 3), startup_s=st.sampled_from([0.0, 30.0]))
def test_the_first_stage_is_the_longest_that_can_be_paid_for(world, job, stages, startup_s):
    tiny = world(timings=(2.0, 1.0, 4.0), gpus=2, quota=3, startup=(0.0, startup_s), scaling=PowerScaling(0.8, 6))
    terms = Terms.of(job, tiny.profile, tiny.book)
    stages = min(stages, most_stages(job))
    plan = plan_of(job, tiny, stages=stages)
    eta, unit = job.reduction_factor, job.reduction_factor ** (stages - 1)
    for sizes in all_sizes(job, stages):
        # A first stage of r iterations, in fractions that are whole iterations of the last one.
        firsts = [last / unit for last in range(job.max_iterations * unit, job.min_iterations * unit - 1, -1)]
        found = next(
            (s for r in firsts if is_affordable(s := brute_stages(sizes, r, eta, job.max_iterations), terms)), None
        )
        if found is not None:
            assert plan.stages == found
            assert terms.are_kept_by(plan)
            return
    assert plan is None


def all_sizes(job, stages):
    """Trials of each stage, most configurations first; written down a second time."""
    for trials in range(job.trials, 0, -1):
        sizes = [max(1, trials // job.reduction_factor**k) for k in range(stages)]
        is_whole = sizes[-1] == 1 and (stages == 1 or sizes[-2] > 1)
        if job.exact or is_whole:
            yield sizes
        if job.exact:
            return


@settings(max_examples=examples(30))
@given(job=jobs)
def test_the_rule_takes_the_number_of_stages_with_the_best_expected_score(world, job):
    tiny = world(timings=(2.0, 1.0, 4.0), gpus=2, quota=3, scaling=PowerScaling(0.8, 6))
    prior = prior_for(tiny.profile.family)
    given_k = [plan_of(job, tiny, stages=k) for k in range(1, most_stages(job) + 1)]
    expected = {plan: prior.expected_regret(plan.stages, job.max_iterations) for plan in given_k if plan is not None}
    plan = plan_of(job, tiny)
    assert (plan is None) == (not expected)
    if plan is not None:
        assert expected[plan] == pytest.approx(min(expected.values()), abs=1e-9)


def test_the_rule_prefers_many_configurations_where_there_is_much_to_spend_and_few_where_little(world):
    tiny = world(timings=(2.0, 1.0, 4.0), gpus=2, quota=8)
    job = TuningJob(trials=27, min_iterations=1, max_iterations=40, deadline_s=1500.0, budget_usd=1000.0)
    assert [
        len(plan_of(msgspec.structs.replace(job, budget_usd=usd), tiny).stages) for usd in (60.0, 250.0, 1000.0)
    ] == [
        2,
        3,
        4,
    ]


def test_schedules_run_from_the_whole_of_the_curves_down_to_the_least():
    job = TuningJob(trials=4, min_iterations=1, max_iterations=5, reduction_factor=2)
    pairs = [[(stage.trials, stage.iterations) for stage in stages] for stages in schedules((4, 2, 1), job)]
    # The last of three stages would train 20, 16, 12, 8, 7 or 5 iterations, each between the same as the next below.
    assert pairs == [
        [(4, 5)],
        [(4, 4), (2, 1)],
        [(4, 3), (2, 2)],
        [(4, 2), (2, 3)],
        [(4, 1), (2, 3), (1, 1)],
        [(4, 1), (2, 2), (1, 2)],
    ]


def test_as_many_configurations_start_as_are_one_in_the_last_stage():
    job = TuningJob(trials=9, min_iterations=1, max_iterations=5, reduction_factor=2)
    assert [list(sizes) for sizes in first_sizes(job, 3)] == [
        [7, 3, 1],
        [6, 3, 1],
        [5, 2, 1],
        [4, 2, 1],
    ]


def test_long_curves_are_searched_in_steps_of_at_most_two_percent():
    job = TuningJob(trials=81, min_iterations=1, max_iterations=10_000)
    lasts = [stages[0].iterations for stages in schedules((81, 27, 9, 3, 1), job)]
    assert len(lasts) < 600
    assert all(after >= before - max(before // 50, 1) - 1 for before, after in pairwise(lasts))


@given(
    sizes=st.sampled_from([(1,), (3, 1), (9, 3, 1)]),
    deadline_s=st.floats(10, 500),
    budget_usd=st.floats(10, 1500),
    live=st.integers(0, 3),
    cv=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    startup=st.sampled_from([(0.0, 0.0), (5.0, 20.0)]),
    model=st.sampled_from(["per-instance", "per-function"]),
)
def test_what_is_said_to_be_out_of_reach_has_no_plan(world, sizes, deadline_s, budget_usd, live, cv, startup, model):
    billing = BillingRule(0.0, 0.0, model=model)
    tiny = world(gpus=2, quota=3, scaling=PowerScaling(0.8, 6), startup=startup, billing=billing)
    profile = replace(tiny.profile, stragglers=Stragglers(cv, cv / 3), sync_s=2.0)
    terms = Terms(profile, tiny.book, deadline_s, budget_usd, gives_back=True)
    state = {"live_instances": live, "is_resumed": live > 0}
    for stages in schedules(sizes, TuningJob(trials=9, min_iterations=1, max_iterations=9)):
        if is_out_of_reach(stages, terms, **state):
            assert frontier(stages, terms, **state) == []


def test_the_greedy_solver_finds_a_plan_that_keeps_the_limits(world):
    tiny = world(timings=(2.0, 1.0, 4.0), gpus=2, quota=3)
    job = TuningJob(trials=9, min_iterations=1, max_iterations=9, deadline_s=200.0, budget_usd=400.0)
    terms = Terms.of(job, tiny.profile, tiny.book)
    greedy, exact = plan_of(job, tiny, stages=3, solver="greedy"), plan_of(job, tiny, stages=3)
    assert terms.are_kept_by(greedy)
    assert greedy.stages[0].iterations <= exact.stages[0].iterations
    assert (
        longest_plan(
            schedules((9, 3, 1), job), replace(terms, budget_usd=1.0), Mechanisms(policy="seer-staged", solver="greedy")
        )
        is None
    )


# Whatever is believed wrongly.


@pytest.mark.many(fast=8)
@pytest.mark.parametrize("stages", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("deadline_s", "budget_usd"), [(200.0, 1e4), (1e4, 600.0), (300.0, 700.0), (120.0, None), (None, 400.0)]
)
@pytest.mark.parametrize("believed_tau", [5.0, 20.0])
def test_a_wrong_belief_ends_by_t_within_b_with_a_durable_winner(
    world, play, stages, deadline_s, budget_usd, believed_tau
):
    tiny = world(
        trials=9,
        iterations=27,
        timings=(2.0, 1.0, 4.0),
        startup=(5.0, 10.0),
        believed_tau=believed_tau,
        scaling=PowerScaling(0.8, 16),
        believed_scaling=PowerScaling(0.95, 16),
        stragglers=Stragglers(0.3, 0.2),
        deadline_s=deadline_s,
        budget_usd=budget_usd,
    )
    assert isinstance(tiny.truth, GroundTruth)
    policy = factory("seer-staged", {"stages": stages})(tiny.job, tiny.profile, tiny.book, None)
    story = play(policy, tiny)
    assert story.makespan_s <= (deadline_s or math.inf)
    assert story.bill_usd <= (budget_usd or math.inf)
    assert story.state.trials[story.best].checkpoint_iteration >= 1


@pytest.mark.many(fast=1)
@pytest.mark.parametrize(
    "parameters",
    [{"replan": False}, {"stages": 2}, {"solver": "greedy"}, {"elastic": False}, {"parallelism": "ranked"}],
    ids=str,
)
def test_every_variant_keeps_every_promise(parameters):
    findings = check_policy("seer-staged", factory("seer-staged", parameters), where=worlds()[::3])
    assert [finding for finding in findings if finding.status == "broken"] == []


# What it says no to.


def refusal(world, parameters=None, **job):
    tiny = world(trials=9, iterations=9, timings=(2.0, 1.0, 4.0), startup=(5.0, 20.0), quota=4, **job)
    with pytest.raises((InfeasibleJobError, InputError)) as error:
        factory("seer-staged", parameters)(tiny.job, tiny.profile, tiny.book, None)
    return str(error.value)


def test_an_infeasible_job_is_told_what_could_be_achieved(world):
    # One iteration of one configuration, on one machine of 4 GPUs: 25 + 2 + 10/4 + 1 = 30.5 s, billed without the queue.
    assert refusal(world, deadline_s=27.0) == (
        "seer-staged: no plan trains 1 configuration to 1 iterations within a deadline of 27 s; the fastest takes 29 s (for"
        " 94.51 USD), the cheapest costs 25.51 USD (in 31 s)"
    )
    # Nine at once on one machine: 3 waves of 2 + 10 + 1 s.
    problem = refusal(world, budget_usd=30.0, exact=True)
    assert problem.startswith(
        "seer-staged: no plan trains 9 configurations to 1 iterations within a budget of 30 USD; the fastest takes"
    )


def test_the_least_first_stage_is_that_of_the_job(world):
    assert "trains 1 configuration to 3 iterations within" in refusal(world, deadline_s=27.0, min_iterations=3)


@pytest.mark.parametrize(
    ("parameters", "job", "problem"),
    [
        (
            {"stages": 4},
            {},
            "seer-staged: stages is 4, but must be between 0 and 3: 9 configurations cannot be cut by 3 more often",
        ),
        ({"stages": -1}, {}, "seer-staged: stages is -1, but must be between 0 and 3"),
        ({"solver": "magic"}, {}, "seer-staged: solver is 'magic', but must be one of frontier, greedy"),
        (
            {"stages": 2},
            {"stages": ((9, 1), (1, 8))},
            "seer-staged: stages is 2, but the job gives the stages itself (job.stages)",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(world, parameters, job, problem):
    assert refusal(world, parameters, **job).startswith(problem)


def test_stages_given_by_the_job_are_run_as_seer_runs_them(world, play):
    logs = []
    for name in ("seer", "seer-staged"):
        tiny = world(trials=9, iterations=9, stages=((9, 1), (4, 2), (1, 6)), deadline_s=300.0, budget_usd=500.0)
        policy = factory(name, {"reserve": True})(tiny.job, tiny.profile, tiny.book, None)
        logs.append(play(policy, tiny).log)
    assert logs[0] == logs[1]
