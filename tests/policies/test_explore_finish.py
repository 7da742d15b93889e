"""`explore-finish`: how it shares time and money, whom it takes into the finals, and two histories worked out by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from tiny_worlds import SCORES

from elastune.policies.explore_finish.finals import ends_of_rounds, final_round, gangs_of_use, gangs_that_pay
from elastune.policies.explore_finish.phases import share_out
from elastune.policies.explore_finish.policy import explore_finish
from elastune.policies.planning.plan import Terms
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.prices import BillingRule
from elastune.sim.model.scaling import LinearScaling, TableScaling


@pytest.fixture
def tiny(world):
    """Four trials, R = 4, eta = 2, 10 s an iteration, machines of one GPU for 1 USD a second."""

    def of(**keywords):
        defaults = {
            "scores": SCORES,
            "timings": (2.0, 1.0, 4.0),
            "gpus": 1,
            "usd_per_hour": 3600.0,
            "reduction_factor": 2,
        }
        return world(**{**defaults, **keywords})

    return of


def terms_of(tiny):
    return Terms.of(tiny.job, tiny.profile, tiny.book)


def phases_of(tiny, **shares):
    return share_out("x", tiny.job, terms_of(tiny), **{"time_share": 0.4, "money_share": 0.7, **shares})


def test_the_machines_are_those_that_the_money_pays_for_while_it_explores(tiny):
    # 40 % of 100 s is 40 s; 70 % of 150 USD pays 2.6 machines for 40 s.
    phases = phases_of(tiny(quota=8, deadline_s=100.0, budget_usd=150.0))
    assert (phases.gpus, phases.instances) == (1, 2)
    assert (phases.explores_until_s, phases.ends_s) == pytest.approx((40.0, 100.0), abs=0.01)


def test_all_of_the_money_is_for_exploring_where_no_time_is_left_for_the_finals(tiny):
    # 250 USD pay two machines for 100 s; 70 % of it would pay one.
    assert phases_of(tiny(quota=8, deadline_s=100.0, budget_usd=250.0), time_share=1.0).instances == 2


def test_start_up_is_no_time_to_explore(tiny):
    phases = phases_of(tiny(quota=8, deadline_s=125.0, budget_usd=150.0, startup=(5.0, 20.0)))
    assert phases.explores_until_s == pytest.approx(25 + 40, abs=0.01)


@pytest.mark.parametrize(("quota", "instances"), [(8, 4), (3, 3)])
def test_no_more_machines_than_configurations_or_than_the_quota(tiny, quota, instances):
    assert phases_of(tiny(quota=quota, deadline_s=100.0, budget_usd=1000.0)).instances == instances


def test_a_budget_that_ends_before_the_deadline_ends_the_plan(tiny):
    # 60 USD pay one machine for 60 of 100 s.
    phases = phases_of(tiny(quota=8, deadline_s=100.0, budget_usd=60.0))
    assert (phases.instances, phases.ends_s) == (1, 60.0)


def test_without_a_deadline_it_plans_two_trainings_to_the_end(tiny):
    # 2 + 40 + 1 s each.
    assert phases_of(tiny(quota=8)).ends_s == 86.0


def test_all_configurations_are_started_where_the_job_says_so(tiny):
    # One machine starts all four, 13 s each, in 52 s. By T = 35 it takes two: 4 x 13 / 2 + 13 / 2 = 32.5 s at worst.
    # Both are held, though the money for exploring pays for one only.
    assert phases_of(tiny(quota=8, deadline_s=60.0, budget_usd=60.0, exact=True)).instances == 1
    assert phases_of(tiny(quota=2, deadline_s=35.0, budget_usd=66.0, exact=True), money_share=0.2).instances == 2
    with pytest.raises(InfeasibleJobError, match=r"x: with 1 GPU per trial, no number.* 4 configurations to 1 iter"):
        phases_of(tiny(quota=2, deadline_s=25.0, exact=True))


def test_a_gang_pays_while_twice_the_size_is_15_percent_faster(tiny):
    terms = terms_of(tiny(gpus=4, quota=4))
    # 1.5 / 1 and 2 / 1.5 pay; 2.2 / 2 does not.
    table = TableScaling({1: 1.0, 2: 1.5, 4: 2.0, 8: 2.2})
    terms = replace(terms, profile=replace(terms.profile, scaling=table))
    assert tuple(gangs_that_pay(terms, widens=True)) == (1, 2, 4)
    assert tuple(gangs_that_pay(terms, widens=False)) == (1,)


@pytest.mark.parametrize(
    ("seconds", "gangs"), [(44.0, (1,)), (43.9, (1, 2)), (24.0, (1, 2)), (14.0, (1, 2, 4)), (1.0, (1, 2, 4))]
)
def test_no_gang_is_larger_than_takes_the_best_trial_to_the_end_in_time(tiny, seconds, gangs):
    # 3 + 40 / gpus + 1 s for four iterations, resumed.
    assert gangs_of_use((1, 2, 4), terms_of(tiny(quota=8)), iterations=4, seconds=seconds) == gangs


def round_of(terms, **given):
    defaults = {"candidates": 9, "live": 8, "now_s": 40.0, "ends_s": [70.0, 100.0], "left_usd": math.inf}
    return final_round((1, 2), terms, **{**defaults, **given})


@pytest.mark.parametrize(
    ("given", "finalists", "gpus", "instances"),
    [
        # 8 machines of one GPU hold four gangs of two.
        ({}, 4, 2, 8),
        ({"candidates": 3}, 3, 2, 6),
        # Three gangs of two for 30 s and then two of them for 30 s cost 180 + 120 USD; two and one cost 120 + 60.
        ({"left_usd": 299.0}, 2, 2, 4),
        ({"left_usd": 300.0}, 3, 2, 6),
        # One gang of two for 60 s costs 120 USD. With less, single GPUs: 60 USD for one.
        ({"left_usd": 119.0}, 2, 1, 2),
        ({"left_usd": 89.0}, 1, 1, 1),
        # Not even one is paid to the end: it trains until the money ends.
        ({"left_usd": 10.0}, 1, 1, 1),
    ],
)
def test_a_round_takes_the_largest_gang_and_the_most_finalists_that_are_paid(tiny, given, finalists, gpus, instances):
    terms = replace(terms_of(tiny(quota=8)), profile=replace(tiny().profile, scaling=LinearScaling(8)))
    assert round_of(terms, **given) == (finalists, gpus, instances, 70.0)


def test_rounds_are_equally_long():
    assert list(ends_of_rounds(40.0, 100.0, 3)) == [60.0, 80.0, 100.0]


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"time_share": 0.0}, "explore-finish: time_share is 0.0, but must be above 0 and at most 1"),
        ({"money_share": 1.1}, "explore-finish: money_share is 1.1, but must be above 0 and at most 1"),
        ({"rounds": 0}, "explore-finish: rounds is 0, but must be 1 to 100"),
        ({"rounds": 101}, "explore-finish: rounds is 101, but must be 1 to 100"),
    ],
)
def test_parameters_out_of_range_are_refused(tiny, parameters, problem):
    world = tiny(deadline_s=100.0)
    with pytest.raises(InputError, match=problem):
        explore_finish(world.job, world.profile, world.book, None, **parameters)


SIX = [*SCORES, [0.80, 0.20, 0.15, 0.12], [0.30, 0.25, 0.24, 0.23]]


@pytest.fixture
def history(tiny, play):
    """The history: everything but launches, the timers of the limits, and reports that change nothing."""

    def run(*, parameters=None, **keywords):
        world = tiny(**keywords)
        story = play(explore_finish(world.job, world.profile, world.book, None, **(parameters or {})), world)
        lines = [
            re.sub(r"hard-stop at [\d.]+(, )?", "", text).removesuffix(", ").removesuffix(" -> ") for text in story.log
        ]
        kept = [text for text in lines if "launched" not in text and "drained" not in text]
        return story, [text for text in kept if "report" not in text or "->" in text]

    return run


# On one GPU: to iteration 1 13 s, from 1 to 2 14 s, from 2 to 4 24 s. Half of 140 USD pays three machines for 40 % of 56 s.
#   When the finals begin, t1 (.5) leads; 3 more iterations on one GPU would take 34 s, later than T. So the gang is one of two,
#   which 73 USD pay for 33.6 s. One machine is given back. t1 reports on its way out that it is still the best (.45).
#   It goes on as soon as two GPUs are free. Then the next best, t3, which is paused when its next iteration would end after T.
def test_the_best_go_on_with_larger_gangs_on_fewer_machines(history):
    story, lines = history(
        scores=SIX, quota=4, deadline_s=56.0, budget_usd=140.0, parameters={"money_share": 0.5, "time_share": 0.4}
    )
    assert lines == [
        "0 start -> +i0, +i1, +i2, final-round at 22.3992",
        "0 ready 0 -> s0: t0 0..1 on i0x1",
        "0 ready 1 -> s1: t1 0..1 on i1x1",
        "0 ready 2 -> s2: t2 0..1 on i2x1",
        "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1 -> s3: t3 0..1 on i0x1",
        "13 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> s4: t1 1..2 on i1x1",
        "13 completed t2 s2 at 1/1 score 0.7 in 2+10+1 -> s5: t4 0..1 on i2x1",
        "22.3992 timer final-round -> end s4, end s3, end s5, final-round at 39.1986",
        "26 completed t3 s3 at 1/1 score 0.6 in 2+10+1 -> -i0",
        "26 released i0",
        "26 completed t4 s5 at 1/1 score 0.8 in 2+10+1",
        "27 completed t1 s4 at 2/2 score 0.45 in 3+10+1 -> s6: t1 2..4 on i1x1 i2x1",
        "39.1986 timer final-round",
        "41 completed t1 s6 at 4/4 score 0.35 in 3+10+1 -> s7: t3 1..4 on i1x1 i2x1",
        "54 report t3 s7 at 3 score 0.5 -> end s7",
        "55 ended t3 s7 at 3/3 score 0.5 in 3+10+1 -> -i1, -i2",
    ]
    assert (story.makespan_s, story.bill_usd, story.best) == (55.0, 26 + 2 * 55, 1)


# 150 USD pay one machine for all of 100 s. There is no time for finals: it is ASHA until nothing more would be durable.
def test_without_time_for_the_finals_it_is_asha(history):
    story, lines = history(scores=SIX, quota=4, deadline_s=100.0, budget_usd=150.0, parameters={"time_share": 1.0})
    assert lines == [
        "0 start -> +i0, final-round at 99.998",
        "0 ready 0 -> s0: t0 0..1 on i0x1",
        "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1 -> s1: t1 0..1 on i0x1",
        "26 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> s2: t1 1..2 on i0x1",
        "40 completed t1 s2 at 2/2 score 0.45 in 3+10+1 -> s3: t2 0..1 on i0x1",
        "53 completed t2 s3 at 1/1 score 0.7 in 2+10+1 -> s4: t3 0..1 on i0x1",
        "66 completed t3 s4 at 1/1 score 0.6 in 2+10+1 -> s5: t3 1..2 on i0x1",
        "80 completed t3 s5 at 2/2 score 0.5 in 3+10+1 -> s6: t1 2..4 on i0x1",
        "93 report t1 s6 at 3 score 0.4 -> end s6",
        "94 ended t1 s6 at 3/3 score 0.4 in 3+10+1 -> -i0",
    ]
    assert (story.makespan_s, story.best) == (94.0, 1)


# Three machines have nothing to try after 13 s but t1, the best of three: two of three GPUs are idle. All trials are durable at
# iteration 1, and the finals begin at once instead of at 40 % of 60 s. One GPU each is enough to train to R by T.
def test_the_finals_begin_early_when_half_of_the_gpus_have_nothing_to_try(history):
    story, lines = history(scores=[[0.9] * 4, [0.5, 0.4, 0.3, 0.2], [0.7] * 4], quota=3, deadline_s=60.0)
    assert lines[4:8] == [
        "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1",
        "13 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> s3: t1 1..2 on i0x1",
        "13 completed t2 s2 at 1/1 score 0.7 in 2+10+1 -> s4: t2 1..4 on i1x1, s5: t0 1..4 on i2x1, final-round at 36.499",
        "27 completed t1 s3 at 2/2 score 0.4 in 3+10+1 -> s6: t1 2..4 on i0x1",
    ]
    assert story.best == 1


def test_the_finals_do_not_begin_early_while_a_new_configuration_is_tried(history):
    # At 27 s one of two GPUs has nothing to try, but t3 has not yet reached iteration 1.
    _, lines = history(quota=2, deadline_s=86.0)
    assert "26 completed t2 s2 at 1/1 score 0.7 in 2+10+1 -> s4: t3 0..1 on i0x1" in lines
    assert "27 completed t1 s3 at 2/2 score 0.45 in 3+10+1" in lines


# Four machines; gangs of two, two finalists. At 26 s two GPUs are free, but t1 and t3 are better than all who could start. They
# are on their way out.
def test_a_finalist_that_is_on_its_way_out_has_its_place(history):
    scores = [*SCORES, [0.8, 0.7, 0.6, 0.6], [0.95, 0.9, 0.9, 0.9]]
    _, lines = history(scores=scores, quota=4, deadline_s=56.0, budget_usd=300.0, parameters={"money_share": 0.5})
    assert lines[10:14] == [
        "26 completed t4 s4 at 1/1 score 0.8 in 2+10+1",
        "26 completed t5 s6 at 1/1 score 0.95 in 2+10+1",
        "27 completed t1 s5 at 2/2 score 0.45 in 3+10+1 -> s8: t1 2..4 on i0x1 i1x1",
        "27 completed t3 s7 at 2/2 score 0.5 in 3+10+1 -> s9: t3 2..4 on i2x1 i3x1",
    ]


def test_the_timer_for_the_finals_does_not_fire_in_the_last_round(history):
    scores = [[0.9] * 4, [0.5, 0.4, 0.3, 0.2], [0.7] * 4]
    story, lines = history(scores=scores, quota=3, deadline_s=60.0, parameters={"rounds": 1})
    assert "23.9992 timer final-round" in lines
    assert story.best == 1


# T is 120 s, and the finals would begin at 48 s. Six configurations on one GPU take 78 s, and no one is promoted before.
def test_an_exact_job_starts_all_its_configurations_first(history):
    _, lines = history(scores=SIX, quota=1, deadline_s=120.0, exact=True)
    assert lines[7:10] == [
        "65 completed t4 s4 at 1/1 score 0.8 in 2+10+1 -> s5: t5 0..1 on i0x1",
        "78 completed t5 s5 at 1/1 score 0.3 in 2+10+1 -> s6: t5 1..4 on i0x1, final-round at 98.999",
        "98.999 timer final-round",
    ]


def test_without_limits_it_ends_after_the_time_of_two_trainings(history):
    # 2 x (2 + 40 + 1) s. What has begun before then trains to R; nothing begins after it.
    story, lines = history(scores=[[0.9 - trial / 10] * 4 for trial in range(6)], quota=1)
    assert story.makespan_s >= 86
    assert all(float(line.split()[0]) < 86 for line in lines if "-> s" in line)
    assert sum(trial.checkpoint_iteration == 4 for trial in story.state.trials) < 4


def test_no_more_machines_are_rented_than_b_pays_quanta_for(world, play):
    # Two hourly machines would commit 7,200 USD; B = 3,600 USD pays for one, which trains both trials.
    hourly = BillingRule(3600.0, 0.0, bills_startup=False)
    tiny = world(trials=2, iterations=1, gpus=1, quota=2, timings=(0.0, 0.0, 0.0), billing=hourly, budget_usd=3600.0)
    story = play(explore_finish(tiny.job, tiny.profile, tiny.book, None), tiny)
    assert story.best is not None
    assert story.bill_usd == 3600.0
