"""What each mechanism of SEER does, switched on and off, in worlds small enough to work out by hand.

A GPU trains an iteration in 10 s; a segment takes 2 s (new) or 3 s (resumed) to launch and 1 s for its checkpoint. Machines
have one GPU and cost 1 USD a second; speed-up is linear.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.registry import factory
from elastune.policies.rules.halving import Bracket, Stage, rungs
from elastune.policies.seer.director import ranked_shares
from elastune.policies.seer.mechanisms import TowardsR
from elastune.policies.seer.staged import StagedMechanisms
from elastune.sim.model.commands import EndSegment, ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import SegmentEnded
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import InstanceType, PriceBook
from elastune.sim.model.profile import Profile, Timings
from elastune.sim.model.scaling import LinearScaling

BARE = {"seer": {"truncate": "never", "fill": False, "reserve": True}}
"""What would change the rungs is off, and what is tried here is on."""


def run(world, play, name="seer", *, iteration_s=None, parameters=None, **keywords):
    """A run, with seconds per iteration by trial."""
    tiny = world(timings=(2.0, 1.0, 4.0), gpus=1, **{"reduction_factor": 2, "quota": 4, **keywords})
    if iteration_s is not None:
        tiny.truth = replace(tiny.truth, iteration_s=np.array(iteration_s))
    chosen = BARE.get(name, {}) | (parameters or {})
    return play(factory(name, chosen)(tiny.job, tiny.profile, tiny.book, None), tiny)


def commands(story, kind):
    return [
        (entry.event.at_s, command)
        for entry in story.entries
        for command in entry.commands
        if isinstance(command, kind)
    ]


# Rungs at 1, 2 and 4 of four trials, of which trial 3 takes 100 s an iteration. T = 100 s.
STUCK = {
    "trials": 4,
    "iterations": 4,
    "iteration_s": [10.0, 10.0, 10.0, 100.0],
    "deadline_s": 100.0,
    "budget_usd": 900.0,
}


def test_a_rung_is_cut_while_the_best_can_still_be_finished(world, play):
    story = run(world, play, **STUCK)
    # Alone on four GPUs the best needs 3 + 30/4 + 1 = 11.5 s from iteration 1 to R, so the rung must have ended by 88.498 s.
    # Whoever is cut may need 10 s to end an iteration and 1 s to save it.
    assert [(at_s, command.segment) for at_s, command in commands(story, EndSegment)] == [(pytest.approx(77.498), 3)]
    assert story.state.trials[story.best].checkpoint_iteration == 4
    assert story.makespan_s < 100.0


def test_the_barrier_takes_its_time_from_the_rung_that_is_cut(world, play):
    story = run(world, play, sync_s=5.0, **STUCK)
    # As above, but the best can go on only 5 s after the rung has ended.
    assert [(at_s, command.segment) for at_s, command in commands(story, EndSegment)] == [(pytest.approx(72.498), 3)]


def test_a_rung_is_not_cut_for_a_best_trial_that_is_too_slow_to_be_finished(world, play):
    # There is one machine, on which trial 0 is the first to report although it is slow: at 2 + 40 + 1 = 43 s. To train it to R
    # would take 3 + 3 x 40 + 1 = 124 s more, until after T = 150 s. So the others have their turn, and one of them wins.
    slow_first = {**STUCK, "iteration_s": [40.0, 10.0, 10.0, 10.0], "quota": 1, "deadline_s": 150.0, "exact": True}
    story = run(world, play, **slow_first, parameters={"replan": False}, believed_tau=10.0)
    assert not [command for at_s, command in commands(story, EndSegment) if at_s < 60]
    assert len(story.state.started) == 4
    assert story.state.trials[story.best].checkpoint_iteration > 1


def test_without_reserve_the_rung_waits_until_the_end(world, play):
    story = run(world, play, parameters={"reserve": False}, **STUCK)
    assert story.state.trials[story.best].checkpoint_iteration == 1
    assert story.makespan_s == pytest.approx(100.0, abs=2e-3)


def test_a_rung_of_which_nobody_has_reported_is_not_cut(world, play):
    # All are as slow: one of them is no better than another.
    story = run(world, play, **{**STUCK, "iteration_s": [100.0] * 4})
    assert not commands(story, EndSegment)


def test_the_reserve_is_of_money_too(world, play):
    # T is far away. The plan costs 52 + 28 + 24 = 104 of 120 USD. At 21.5 s trial 3 is cut: it takes its machine along, as its
    # first iteration does not end, but the best still comes to iteration 3.
    kept = run(world, play, **{**STUCK, "deadline_s": 1e4, "budget_usd": 120.0})
    spent = run(world, play, parameters={"reserve": False}, **{**STUCK, "deadline_s": 1e4, "budget_usd": 120.0})
    assert kept.state.trials[kept.best].checkpoint_iteration == 3
    assert spent.state.trials[spent.best].checkpoint_iteration == 1
    assert max(kept.bill_usd, spent.bill_usd) <= 120.0


# Two trials to iteration 8 and the better one to 16, on at most two machines; trial 1 takes 20 s an iteration. T = 200 s: the
# first stage has 200 - 84 = 116 s, and trial 1 would end at 163 s. Trial 0 ends at 83 s and leaves its GPU.
BEHIND = {
    "trials": 2,
    "iterations": 16,
    "iteration_s": [10.0, 20.0],
    "quota": 2,
    "stages": ((2, 8), (1, 8)),
    "deadline_s": 200.0,
    "budget_usd": 900.0,
}


def test_a_trial_that_is_late_for_the_rungs_to_come_gets_the_gpus_that_others_left(world, play):
    story = run(world, play, parameters={"reserve": False}, **BEHIND)
    # It ends its fifth iteration at 102 s, is saved at 103 s, and trains the other three on two GPUs: 3 + 30 + 1 s.
    assert [at_s for at_s, _ in commands(story, EndSegment)] == [83.0]
    assert [
        (at_s, one.trial, one.from_iteration, len(one.placement)) for at_s, one in commands(story, StartSegment)
    ] == [
        (0.0, 0, 0, 1),
        (0.0, 1, 0, 1),
        (103.0, 1, 5, 2),
        (137.0, 0, 8, 2),
    ]
    assert story.state.trials[0].checkpoint_iteration == 16
    assert story.makespan_s == pytest.approx(137 + 3 + 40 + 1)


def test_without_resizing_it_is_waited_for(world, play):
    story = run(world, play, parameters={"reserve": False, "resize_rule": "never"}, **BEHIND)
    # 163 s, then 3 s and as many iterations of 5 s as fit before the checkpoint: six.
    assert not [at_s for at_s, _ in commands(story, EndSegment) if at_s < 163]
    assert story.state.trials[0].checkpoint_iteration == 8 + 6


def test_the_gain_rule_wants_a_tenth_more_progress_and_always_wants_any(world, play):
    def resizes(rule, rescale_s):
        keywords = {key: value for key, value in BEHIND.items() if key != "iteration_s"}
        tiny = world(timings=(2.0, 1.0, rescale_s), gpus=1, reduction_factor=2, **keywords)
        tiny.truth = replace(tiny.truth, iteration_s=np.array(BEHIND["iteration_s"]))
        policy = factory("seer", BARE["seer"] | {"reserve": False, "resize_rule": rule})(
            tiny.job, tiny.profile, tiny.book, None
        )
        return [at_s for at_s, _ in commands(play(policy, tiny), EndSegment) if at_s < 150]

    # 30 s are saved by training three iterations twice as fast, so a resize of 30 s and more is never worth it.
    assert resizes("gain", 20.0) == resizes("always", 20.0) == [83.0]
    assert resizes("gain", 40.0) == resizes("always", 40.0) == []


def test_a_constant_cluster_neither_grows_nor_shrinks(world, play):
    story = run(world, play, parameters={"elastic": False}, trials=4, iterations=4, deadline_s=70.0, budget_usd=900.0)
    assert [at_s for at_s, _ in commands(story, ProvisionInstance)] == [0.0] * 2
    assert {at_s for at_s, _ in commands(story, ReleaseInstance)} == {story.makespan_s}
    # Two machines: 2 x 13 + 14 + 14, the winner on both.
    assert (story.makespan_s, story.bill_usd) == (54.0, 108.0)


def test_without_hard_stop_a_run_ends_when_it_is_done(world, play):
    slow = {"trials": 4, "iterations": 4, "tau": 30.0, "believed_tau": 10.0, "deadline_s": 60.0, "budget_usd": 150.0}
    stopped = run(world, play, **slow)
    late = run(world, play, parameters={"hard_stop": False}, **slow)
    assert stopped.makespan_s <= 60.0
    assert stopped.bill_usd <= 150.0
    assert late.makespan_s > 60.0
    assert late.state.trials[late.best].checkpoint_iteration == 4


def terms(gpus):
    book = PriceBook((InstanceType("m", gpus, {"on-demand": 3600.0}),), max_instances=8)
    return Terms(Profile(10.0, LinearScaling(8), Timings(2.0, 1.0, 4.0)), book)


def test_ranked_gangs_spend_what_whole_machines_leave_over_from_the_best_downwards():
    # Five trials on one GPU each, on two machines of four: three GPUs are left, for one more each.
    shares = ranked_shares(Allocation(5, 5, 1, 4), 3, 10.0, 0.0, terms(4))
    assert (shares.instances, shares.gpus) == (2, (2, 2, 2, 1, 1))


def test_ranked_gangs_take_from_the_worse_half_where_it_is_still_in_time():
    # Four trials on two GPUs each; on one GPU three iterations and a rescale take 34 s.
    in_time = ranked_shares(Allocation(4, 8, 2, 4), 3, 10.0, 34.0, terms(4))
    late = ranked_shares(Allocation(4, 8, 2, 4), 3, 10.0, 33.0, terms(4))
    assert in_time.gpus == (4, 2, 1, 1)
    assert late.gpus == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"resize_rule": "often"}, r"seer: resize_rule is 'often', but must be one of gain, never, always"),
        ({"parallelism": "equal"}, r"seer: parallelism is 'equal', but must be one of uniform, ranked"),
        ({"makespan": "p99"}, r"seer: makespan is 'p99', but must be one of mean, p95"),
        ({"replan": "maybe"}, r"seer: replan is 'maybe', but must be one of True, False"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(world, parameters, problem):
    tiny = world(deadline_s=100.0)
    with pytest.raises(InputError, match=problem):
        factory("seer", parameters)(tiny.job, tiny.profile, tiny.book, None)


def test_the_switches_that_an_ablation_tries_follow_from_the_list_of_mechanisms():
    common = ["solver=greedy", "makespan=mean", "replan=false"]
    rest = ["resize_rule=never", "resize_rule=always", "elastic=false", "parallelism=ranked", "hard_stop=false"]
    assert list(StagedMechanisms.switches()) == [*common, "reserve=true", *rest]
    towards_r = ["objective=largest_n", "truncate=prefix-only", "truncate=never", "fill=false"]
    assert list(TowardsR.switches()) == [*common, "reserve=true", *rest, *towards_r]


def test_a_cut_keeps_those_who_have_reported_or_the_best_of_the_stage_before():
    def bracket(index, reported):
        cut = Bracket([Stage(3, 1, 1), Stage(3, 1, 2)], [4, 5, 6], "minimize")
        if index:
            for trial, score in ((4, 0.3), (5, 0.1), (6, 0.2)):
                cut.record(trial, score)
            cut.advance()
        for trial in reported:
            cut.record(trial, 0.5)
        return sorted(cut.cut()), cut.trials

    assert bracket(0, [5]) == ([4, 6], [5])
    assert bracket(1, [4, 6]) == ([5], [6, 4])
    assert bracket(1, []) == ([4, 6], [5])
    assert bracket(0, []) == ([], [4, 5, 6])


def test_rubberband_keeps_its_plan_or_makes_a_new_one_where_reality_departs_from_it(world, play):
    # Iterations take 15 s, not 10 s. T = 60: (4, 2, 1) is planned, 51 s as believed, 18 + 19 + 34 = 71 s really. A new plan
    # at 18 s gives the last rung two GPUs: 18 + 19 + 19 s.
    slow = {"trials": 4, "iterations": 4, "tau": 15.0, "believed_tau": 10.0, "deadline_s": 60.0, "budget_usd": 150.0}
    paper = run(world, play, "rubberband", **slow)
    anew = run(world, play, "rubberband", parameters={"replan": True}, **slow)
    assert paper.state.trials[paper.best].checkpoint_iteration == 3
    assert (anew.makespan_s, anew.state.trials[anew.best].checkpoint_iteration) == (56.0, 4)
    as_planned = {**slow, "tau": 10.0}
    same = [run(world, play, "rubberband", parameters={"replan": r}, **as_planned).log for r in (False, True)]
    assert same[0] == same[1]


@pytest.mark.parametrize("makespan", ["mean", "p95"])
def test_rubberband_plans_anew_by_the_makespan_that_it_promises(world, makespan):
    tiny = world(trials=4, iterations=4, deadline_s=600.0, gpus=1, quota=4)
    chosen = {"replan": True, "makespan": makespan}
    policy = factory("rubberband", chosen)(tiny.job, tiny.profile, tiny.book, None)
    assert policy._director._planner.keywords["makespan"] == makespan


def test_no_event_is_lost_on_a_trial_that_was_cut(world, play):
    story = run(world, play, **STUCK)
    ends = [entry.event for entry in story.entries if isinstance(entry.event, SegmentEnded)]
    assert len(ends) == len(commands(story, StartSegment))
    assert story.state.trials[3].status == "stopped"


def planned(world, name="seer", *, parameters=None, **keywords):
    """The plan before the run, and its terms."""
    tiny = world(timings=(2.0, 1.0, 4.0), gpus=1, **{"reduction_factor": 2, "quota": 8, **keywords})
    chosen = BARE.get(name, {}) | (parameters or {})
    policy = factory(name, chosen)(tiny.job, tiny.profile, tiny.book, None)
    return policy._director.plan, Terms.of(tiny.job, tiny.profile, tiny.book)


@pytest.mark.parametrize("budget_usd", [61.0, 150.0, 400.0])
def test_without_a_deadline_it_is_the_cheapest_sha_of_the_most_configurations(world, budget_usd):
    plan, terms = planned(world, trials=9, iterations=4, budget_usd=budget_usd)
    trials = plan.stages[0].trials
    costs = [min(p.cost_usd for p in frontier(rungs(job_of(9), n), terms.without_limits())) for n in range(1, 10)]
    assert plan.cost_usd == pytest.approx(costs[trials - 1])
    assert all(cost > budget_usd for cost in costs[trials:])


def test_without_a_budget_it_is_the_fastest_plan_for_all_configurations(world):
    plan, terms = planned(world, trials=9, iterations=4, deadline_s=500.0)
    assert plan.stages[0].trials == 9
    assert plan.makespan_s == pytest.approx(min(p.makespan_s for p in frontier(plan.stages, terms.without_limits())))


@pytest.mark.parametrize("name", ["seer", "seer-staged"])
def test_where_speed_up_is_linear_and_time_plenty_every_trial_gets_one_gpu(world, name):
    plan, _ = planned(world, name, trials=9, iterations=9, deadline_s=1e5, budget_usd=500.0)
    assert {allocation.gpus_per_trial for allocation in plan.allocations} == {1}


def job_of(trials):
    return TuningJob(trials=trials, min_iterations=1, max_iterations=4, reduction_factor=2)


@pytest.mark.parametrize(
    ("is_prefix", "starts"),
    [
        # Only one can still be trained to R = 8 by T: (3 + 7 x 16 / 2 + 1 s) from 76 s on.
        (False, [(76.0, 0, 1, 8)]),
        # Half of R is on time for the four survivors, 40 s for them and 36 s for two: better by the curve model.
        (
            True,
            [(76.0, 0, 1, 2), (76.0, 1, 1, 2), (96.0, 2, 1, 2), (96.0, 3, 1, 2), (116.0, 0, 2, 4), (116.0, 1, 2, 4)],
        ),
    ],
)
def test_where_time_is_short_survivors_are_dropped_or_all_train_less(world, play, is_prefix, starts):
    # Eight trials, eta 2, two machines. Iterations take 16 s, not 10 s as believed: the first rung takes 76 of T = 160 s.
    tiny = world(
        trials=8,
        iterations=8,
        timings=(2.0, 1.0, 4.0),
        gpus=1,
        quota=2,
        reduction_factor=2,
        tau=16.0,
        believed_tau=10.0,
        deadline_s=160.0,
        budget_usd=2000.0,
        exact=True,
    )
    tiny.profile = replace(tiny.profile, is_prefix_schedule=is_prefix)
    parameters = {"makespan": "mean", "truncate": "prefix-only", "fill": False}
    policy = factory("seer", parameters)(tiny.job, tiny.profile, tiny.book, None)
    begun = commands(play(policy, tiny), StartSegment)
    later = [(at_s, one.trial, one.from_iteration, one.until_iteration) for at_s, one in begun if one.from_iteration]
    assert later == starts


# Two rungs of four trials, at 2 and 4 of R = 4, on machines of 1 USD a second. As planned, 4 x 23 + 2 x 24 = 140 USD.
ROOMY = {"trials": 4, "iterations": 4, "min_iterations": 2, "deadline_s": 1e4}


def trained(world, play, budget_usd, fill):
    """How far each trial is trained, and the bill."""
    story = run(world, play, parameters={"fill": fill, "reserve": False}, budget_usd=budget_usd, **ROOMY)
    return sorted(story.state.trials[trial].checkpoint_iteration for trial in story.state.started), story.bill_usd


def test_money_that_is_left_is_spent_on_more_survivors(world, play):
    # A third survivor costs 24 USD more, a fourth 48.
    assert trained(world, play, 141.0, fill=True) == ([2, 2, 4, 4], 140.0)
    assert trained(world, play, 165.0, fill=True) == ([2, 4, 4, 4], 164.0)
    assert trained(world, play, 1000.0, fill=True) == ([4, 4, 4, 4], 188.0)
    assert trained(world, play, 1000.0, fill=False) == ([2, 2, 4, 4], 140.0)


def test_money_that_a_rung_has_saved_is_spent_at_its_barrier(world, play):
    # Iterations take 5 s, not 10 s as believed: 4 x 13 are spent of 92, and 14 of 24 will be for each survivor.
    faster = {"tau": 5.0, "believed_tau": 10.0, "budget_usd": 141.0, **ROOMY}
    story = run(world, play, parameters={"fill": True, "reserve": False}, **faster)
    assert [story.state.trials[trial].checkpoint_iteration for trial in story.state.started] == [4, 4, 4, 4]


def test_without_a_budget_nothing_is_left_to_spend(world, play):
    story = run(world, play, parameters={"fill": True, "reserve": False}, **ROOMY)
    assert sorted(story.state.trials[trial].checkpoint_iteration for trial in story.state.started) == [2, 2, 4, 4]
