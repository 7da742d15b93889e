"""One small world, and what each baseline does in it, worked out by hand.

Four trials, R = 4, eta = 2: rungs at iterations 1, 2 and 4. Machines of one GPU cost 1 USD a second, as used; a GPU trains an
iteration in 10 s. A segment takes 2 s (new) or 3 s (resumed) to launch and 1 s for its checkpoint, so on one GPU

    to iteration 1: 13 s    from 1 to 2: 14 s    from 2 to 4: 24 s    from 0 to 4: 43 s.

Scores (to be minimised) after 1, 2, 3 and 4 iterations. Successive halving keeps trials 1 (.5) and 3 (.6), then 1 (.45).
Trial 2 would have been the best at R, but is not to be seen after one iteration.
"""

from __future__ import annotations

import numpy as np
import pytest
from tiny_worlds import SCORES

from elastune.policies.tuners.asha import asha_elastic, asha_fixed
from elastune.policies.tuners.asha_stopping import asha_stopping_fixed
from elastune.policies.tuners.elasticflow import elasticflow
from elastune.policies.tuners.hyperband import hyperband_elastic, hyperband_fixed
from elastune.policies.tuners.hypersched import hypersched_fixed
from elastune.policies.tuners.one_cut import one_cut
from elastune.policies.tuners.oracle import oracle
from elastune.policies.tuners.pasha import pasha_fixed
from elastune.policies.tuners.random_search import random_elastic, random_fixed


@pytest.fixture
def history(world, play):
    """The history of a policy: everything but launches, the timers of its limits, and reports that change nothing."""

    def run(build, *, gpus=1, parameters=None, scores=SCORES, **keywords):
        tiny = world(
            scores=scores,
            timings=(2.0, 1.0, 4.0),
            gpus=gpus,
            usd_per_hour=3600.0 * gpus,
            **{"reduction_factor": 2, **keywords},
        )
        story = play(build(tiny.job, tiny.profile, tiny.book, None, **(parameters or {})), tiny)
        lines = [without_stops(text) for text in story.log if "launched" not in text and "drained" not in text]
        return story, [text for text in lines if "report" not in text or "->" in text]

    return run


def without_stops(text):
    event, _, orders = text.partition(" -> ")
    kept = ", ".join(order for order in orders.split(", ") if order and not order.startswith("hard-stop at"))
    return f"{event} -> {kept}" if kept else event


def outcome(story):
    return story.makespan_s, story.bill_usd, story.best


def test_random_search(history):
    # All four to R: 172 s on one machine, later than T; 86 s for 172 USD on two.
    story, lines = history(random_fixed, quota=2, deadline_s=90.0, budget_usd=200.0)
    assert lines == [
        "0 start -> +i0, +i1",
        "0 ready 0 -> s0: t0 0..4 on i0x1",
        "0 ready 1 -> s1: t1 0..4 on i1x1",
        "43 completed t0 s0 at 4/4 score 0.6 in 2+40+1 -> s2: t2 0..4 on i0x1",
        "43 completed t1 s1 at 4/4 score 0.35 in 2+40+1 -> s3: t3 0..4 on i1x1",
        "86 completed t2 s2 at 4/4 score 0.1 in 2+40+1",
        "86 completed t3 s3 at 4/4 score 0.5 in 2+40+1 -> -i0, -i1",
    ]
    assert outcome(story) == (86.0, 172.0, 2)


FIRST_BRACKET = [
    "0 start -> +i0",
    "0 ready 0 -> s0: t0 0..1 on i0x1",
    "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1 -> s1: t1 0..1 on i0x1",
    "26 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> s2: t2 0..1 on i0x1",
    "39 completed t2 s2 at 1/1 score 0.7 in 2+10+1 -> s3: t3 0..1 on i0x1",
    "52 completed t3 s3 at 1/1 score 0.6 in 2+10+1 -> s4: t1 1..2 on i0x1",
    "66 completed t1 s4 at 2/2 score 0.45 in 3+10+1 -> s5: t3 1..2 on i0x1",
    "80 completed t3 s5 at 2/2 score 0.5 in 3+10+1 -> s6: t1 2..4 on i0x1",
]
SEVEN = [*SCORES, [0.8, 0.20, 0.15, 0.12], [0.3, 0.25, 0.24, 0.23], [0.4, 0.35, 0.3, 0.05]]


def test_hyperband(history):
    # Three rungs make brackets of ceil(3 x 4/3) = 4, ceil(3 x 2/2) = 3 and ceil(3 x 1/1) = 3 configurations. The second skips
    # the first rung: three trials to iteration 2 (23 s each), and the best of them (t4) to R. Seven configurations: no third
    # bracket.
    story, lines = history(hyperband_fixed, scores=SEVEN, quota=1, deadline_s=200.0)
    assert lines == [
        *FIRST_BRACKET,
        "104 completed t1 s6 at 4/4 score 0.35 in 3+20+1 -> s7: t4 0..2 on i0x1",
        "127 completed t4 s7 at 2/2 score 0.2 in 2+20+1 -> s8: t5 0..2 on i0x1",
        "150 completed t5 s8 at 2/2 score 0.25 in 2+20+1 -> s9: t6 0..2 on i0x1",
        "173 completed t6 s9 at 2/2 score 0.35 in 2+20+1 -> s10: t4 2..4 on i0x1",
        "197 completed t4 s10 at 4/4 score 0.12 in 3+20+1 -> -i0",
    ]
    assert outcome(story) == (197.0, 197.0, 4)


def test_a_bracket_that_is_too_long_for_what_is_left_starts_with_fewer(history):
    # After the first bracket 190 - 104 = 86 s are left: 3 x 23 + 24 = 93 s are too many, 2 x 23 + 24 = 70 s are not.
    # Then 16 s are left, and even one configuration of the third bracket needs 43 s.
    story, lines = history(hyperband_fixed, scores=SEVEN, quota=1, deadline_s=190.0)
    assert lines == [
        *FIRST_BRACKET,
        "104 completed t1 s6 at 4/4 score 0.35 in 3+20+1 -> s7: t4 0..2 on i0x1",
        "127 completed t4 s7 at 2/2 score 0.2 in 2+20+1 -> s8: t5 0..2 on i0x1",
        "150 completed t5 s8 at 2/2 score 0.25 in 2+20+1 -> s9: t4 2..4 on i0x1",
        "174 completed t4 s9 at 4/4 score 0.12 in 3+20+1 -> -i0",
    ]
    assert outcome(story) == (174.0, 174.0, 4)


# ASHA that stops, on two GPUs. A configuration takes 3 + 10 (1 + 1/2 + 2/4) = 23 s on average and 43 s at most: by T = 89 one
# GPU does 3 of them, two do min(4, (89 - 43/2) x 2 / 23) = 4.
#   iteration 1  t0 (.9) is alone; t1 (.5) is the first of two; t2 (.7) is the second of three and t3 (.6) the second of four:
#                the top ceil(3/2) and ceil(4/2) go on
#   iteration 2  t0 (.8) is alone; t1 (.45), then t2 (.3) are first; t3 (.5) is the third of four and is stopped
def test_asha_stopping(history):
    story, lines = history(asha_stopping_fixed, quota=2, deadline_s=89.0, budget_usd=200.0)
    assert lines == [
        "0 start -> +i0, +i1",
        "0 ready 0 -> s0: t0 0..4 on i0x1",
        "0 ready 1 -> s1: t1 0..4 on i1x1",
        "43 completed t0 s0 at 4/4 score 0.6 in 2+40+1 -> s2: t2 0..4 on i0x1",
        "43 completed t1 s1 at 4/4 score 0.35 in 2+40+1 -> s3: t3 0..4 on i1x1",
        "65 report t3 s3 at 2 score 0.5 -> end s3",
        "66 ended t3 s3 at 2/2 score 0.5 in 2+20+1",
        "86 completed t2 s2 at 4/4 score 0.1 in 2+40+1 -> -i0, -i1",
    ]
    assert outcome(story) == (86.0, 172.0, 2)


# PASHA on one GPU. t1 is promoted when it is the better of two, t3 when it is in the top 2 of four. The highest rung is the
# second.
PASHA = [
    "0 start -> +i0",
    "0 ready 0 -> s0: t0 0..1 on i0x1",
    "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1 -> s1: t1 0..1 on i0x1",
    "26 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> s2: t1 1..2 on i0x1",
    "40 completed t1 s2 at 2/2 score 0.45 in 3+10+1 -> s3: t2 0..1 on i0x1",
    "53 completed t2 s3 at 1/1 score 0.7 in 2+10+1 -> s4: t3 0..1 on i0x1",
    "66 completed t3 s4 at 1/1 score 0.6 in 2+10+1 -> s5: t3 1..2 on i0x1",
]


def test_pasha_whose_ranking_is_stable_promotes_nobody_further(history):
    # t1 before t3 in both rungs: the highest rung stays. Nothing is left to do, so what was found (t1) goes on to R.
    story, lines = history(pasha_fixed, quota=1, deadline_s=150.0, budget_usd=200.0)
    assert lines == [
        *PASHA,
        "80 completed t3 s5 at 2/2 score 0.5 in 3+10+1 -> s6: t1 2..4 on i0x1",
        "104 completed t1 s6 at 4/4 score 0.35 in 3+20+1 -> -i0",
    ]
    assert outcome(story) == (104.0, 104.0, 1)


def test_pasha_whose_ranking_has_changed_raises_its_highest_rung(history):
    # t3 (.4) is before t1 (.45) in the second rung: rung three opens, and takes the top 1 of 2, t3. At R it is worse than t1
    # was.
    changed = [*SCORES[:3], [0.60, 0.40, 0.50, 0.50]]
    story, lines = history(pasha_fixed, scores=changed, quota=1, deadline_s=150.0, budget_usd=200.0)
    assert lines == [
        *PASHA,
        "80 completed t3 s5 at 2/2 score 0.4 in 3+10+1 -> s6: t3 2..4 on i0x1",
        "104 completed t3 s6 at 4/4 score 0.5 in 3+20+1 -> -i0",
    ]
    assert outcome(story) == (104.0, 104.0, 1)


def test_one_cut(history):
    # Four for one iteration and one for three more: 4 x 13 + 34 = 86 USD. With a cut after two, 90 USD pay two of them only:
    # 2 x 23 + 24. By T = 55 only four machines end: two and three take 2 x 13 + 34 = 60 s.
    story, lines = history(one_cut, quota=4, deadline_s=55.0, budget_usd=90.0)
    assert lines == [
        "0 start -> +i0, +i1, +i2, +i3",
        "0 ready 0 -> s0: t0 0..1 on i0x1",
        "0 ready 1 -> s1: t1 0..1 on i1x1",
        "0 ready 2 -> s2: t2 0..1 on i2x1",
        "0 ready 3 -> s3: t3 0..1 on i3x1",
        "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1 -> -i0",
        "13 released i0",
        "13 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> -i1",
        "13 released i1",
        "13 completed t2 s2 at 1/1 score 0.7 in 2+10+1 -> -i2",
        "13 released i2",
        "13 completed t3 s3 at 1/1 score 0.6 in 2+10+1 -> s4: t1 1..4 on i3x1",
        "47 completed t1 s4 at 4/4 score 0.35 in 3+30+1 -> -i3",
    ]
    assert outcome(story) == (47.0, 86.0, 1)


def test_one_cut_after_two_iterations(history):
    story, lines = history(one_cut, quota=4, deadline_s=55.0, budget_usd=120.0, parameters={"iterations": 2})
    assert lines[5:12] == [
        "23 completed t0 s0 at 2/2 score 0.8 in 2+20+1 -> -i0",
        "23 released i0",
        "23 completed t1 s1 at 2/2 score 0.45 in 2+20+1 -> -i1",
        "23 released i1",
        "23 completed t2 s2 at 2/2 score 0.3 in 2+20+1 -> -i2",
        "23 released i2",
        "23 completed t3 s3 at 2/2 score 0.5 in 2+20+1 -> s4: t2 2..4 on i3x1",
    ]
    assert outcome(story) == (47.0, 4 * 23.0 + 24.0, 2)


def test_elasticflow(history):
    # On one GPU each: 13 + 14 + 24 = 51 s by T = 60, so that is the minimum share: two machines of two GPUs, then one. In the
    # last rung one GPU is spare and goes to the only trial: 3 + 20/2 + 1 = 14 s.
    story, lines = history(elasticflow, gpus=2, quota=4, deadline_s=60.0, budget_usd=200.0)
    assert lines == [
        "0 start -> +i0, +i1",
        "0 ready 0 -> s0: t0 0..1 on i0x1, s1: t1 0..1 on i0x1",
        "0 ready 1 -> s2: t2 0..1 on i1x1, s3: t3 0..1 on i1x1",
        "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1",
        "13 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> -i0",
        "13 released i0",
        "13 completed t2 s2 at 1/1 score 0.7 in 2+10+1",
        "13 completed t3 s3 at 1/1 score 0.6 in 2+10+1 -> s4: t1 1..2 on i1x1, s5: t3 1..2 on i1x1",
        "27 completed t1 s4 at 2/2 score 0.45 in 3+10+1",
        "27 completed t3 s5 at 2/2 score 0.5 in 3+10+1 -> s6: t1 2..4 on i1x2",
        "41 completed t1 s6 at 4/4 score 0.35 in 3+10+1 -> -i1",
    ]
    assert outcome(story) == (41.0, 13.0 * 2 + 41.0 * 2, 1)


def test_elastic_random_search(history):
    # Four at once to R, 43 s each: 172 USD; 171 USD would pay three.
    story, lines = history(random_elastic, quota=4, deadline_s=45.0, budget_usd=172.1)
    assert lines == [
        "0 start -> +i0, +i1, +i2, +i3",
        "0 ready 0 -> s0: t0 0..4 on i0x1",
        "0 ready 1 -> s1: t1 0..4 on i1x1",
        "0 ready 2 -> s2: t2 0..4 on i2x1",
        "0 ready 3 -> s3: t3 0..4 on i3x1",
        "43 completed t0 s0 at 4/4 score 0.6 in 2+40+1 -> -i0",
        "43 released i0",
        "43 completed t1 s1 at 4/4 score 0.35 in 2+40+1 -> -i1",
        "43 released i1",
        "43 completed t2 s2 at 4/4 score 0.1 in 2+40+1 -> -i2",
        "43 released i2",
        "43 completed t3 s3 at 4/4 score 0.5 in 2+40+1 -> -i3",
    ]
    assert outcome(story) == (43.0, 172.0, 2)


def test_elastic_hyperband_goes_on_with_a_second_bracket(history):
    # The first bracket takes all four machines: 13 + 14 + 24 = 51 s, 4 x 13 + 2 x 14 + 24 = 104 USD. The second begins at
    # iteration 2 with what is left, two of its three configurations: one machine is there, another comes. 23 + 24 s, 70 USD.
    scores = [*SCORES, [0.95, 0.40, 0.30, 0.20], [0.95, 0.60, 0.50, 0.50]]
    story, lines = history(hyperband_elastic, scores=scores, quota=4, deadline_s=99.0, budget_usd=175.0)
    assert lines[-6:] == [
        "51 completed t1 s6 at 4/4 score 0.35 in 3+20+1 -> +i4, s7: t4 0..2 on i3x1",
        "51 ready 4 -> s8: t5 0..2 on i4x1",
        "74 completed t4 s7 at 2/2 score 0.4 in 2+20+1 -> -i3",
        "74 released i3",
        "74 completed t5 s8 at 2/2 score 0.6 in 2+20+1 -> s9: t4 2..4 on i4x1",
        "98 completed t4 s9 at 4/4 score 0.2 in 3+20+1 -> -i4",
    ]
    assert outcome(story) == (98.0, 104.0 + 46.0 + 24.0, 4)


# Elastic ASHA on two GPUs: by T = 80 the four configurations, 13 + 14/2 + 24/4 = 26 s each and 51 s for the longest, are done
# by 4 x 26/2 + 51/2 = 77.5 s. At 27 s nobody is promotable and none is new, so the idle machine goes.
@pytest.mark.parametrize(
    ("build", "segments", "makespan_s"),
    [(asha_fixed, ["0..1", "1..2", "2..4"], 13.0 + 14 + 24), (asha_elastic, ["0..1", "1..4"], 13.0 + 34)],
)
def test_a_configuration_that_is_alone_reaches_the_end(history, build, segments, makespan_s):
    # One is never in the top half of its rung. On a fixed cluster it goes on rung by rung, on an elastic one in one segment.
    story, lines = history(build, scores=SCORES[:1], quota=1, deadline_s=99.0)
    assert [text.split(": t0 ")[1].split()[0] for text in lines if ": t0" in text] == segments
    assert story.makespan_s == makespan_s
    assert story.state.trials[0].checkpoint_iteration == 4


def test_elastic_asha_gives_idle_machines_back(history):
    story, lines = history(asha_elastic, quota=2, deadline_s=80.0, budget_usd=120.0)
    assert lines == [
        "0 start -> +i0, +i1",
        "0 ready 0 -> s0: t0 0..1 on i0x1",
        "0 ready 1 -> s1: t1 0..1 on i1x1",
        "13 completed t0 s0 at 1/1 score 0.9 in 2+10+1 -> s2: t2 0..1 on i0x1",
        "13 completed t1 s1 at 1/1 score 0.5 in 2+10+1 -> s3: t1 1..2 on i1x1",
        "26 completed t2 s2 at 1/1 score 0.7 in 2+10+1 -> s4: t3 0..1 on i0x1",
        "27 completed t1 s3 at 2/2 score 0.45 in 3+10+1 -> -i1",
        "27 released i1",
        "39 completed t3 s4 at 1/1 score 0.6 in 2+10+1 -> s5: t3 1..2 on i0x1",
        "53 completed t3 s5 at 2/2 score 0.5 in 3+10+1 -> s6: t1 2..4 on i0x1",
        "77 completed t1 s6 at 4/4 score 0.35 in 3+20+1 -> -i0",
    ]
    assert outcome(story) == (77.0, 27.0 + 77.0, 1)


def test_elastic_asha_starts_only_what_reaches_the_next_rung(history):
    # An iteration takes 12 s instead of the 10 s believed: at 61 s the last promotion would end at 61 + 24 = 85 s.
    story, lines = history(asha_elastic, quota=2, deadline_s=80.0, budget_usd=120.0, tau=12.0, believed_tau=10.0)
    assert lines[-2:] == [
        "45 completed t3 s4 at 1/1 score 0.6 in 2+12+1 -> s5: t3 1..2 on i0x1",
        "61 completed t3 s5 at 2/2 score 0.5 in 3+12+1 -> -i0",
    ]
    assert outcome(story) == (61.0, 31.0 + 61.0, 1)


def test_the_oracle_trains_only_the_best_reachable_configuration(history):
    # t2 to R: 43 s on one machine, 23 s for 46 USD on two, as T = 40 asks for.
    knows = {"scores": np.array(SCORES)}
    story, lines = history(oracle, quota=4, deadline_s=40.0, budget_usd=60.0, parameters=knows)
    assert lines == [
        "0 start -> +i0, +i1",
        "0 ready 0",
        "0 ready 1 -> s0: t2 0..4 on i0x1 i1x1",
        "23 completed t2 s0 at 4/4 score 0.1 in 2+20+1 -> -i0, -i1",
    ]
    assert outcome(story) == (23.0, 46.0, 2)


def test_where_r_is_not_reachable_the_oracle_takes_the_best_of_what_is(history):
    # 30 USD pay two iterations on one machine (23 USD): t2 (.3).
    story, lines = history(oracle, quota=1, budget_usd=30.0, parameters={"scores": np.array(SCORES)})
    assert lines[1:] == [
        "0 ready 0 -> s0: t2 0..2 on i0x1",
        "23 completed t2 s0 at 2/2 score 0.3 in 2+20+1 -> -i0",
    ]
    assert outcome(story) == (23.0, 23.0, 2)


# HyperSched on two GPUs, R = 12, rungs at 1, 2, 4 and 8, T = 140. Scores fall by .01 an iteration; means are of the last five.
#   22 s  t0 at iteration 2: its .9 in rung 1 misses the cutoff, the median .7 of {.5, .9}: it pauses
#   23 s  117 s are left, (20 - 2) x 2 = 36 s are asked for (longest trial 20 s, start-up 2 s): t2 starts; t0 still misses .7
#   35 s  t2 at 1: .68 is within .7; at 2: the mean .675 is within the median .695 of {.895, .495}
#   65 s  t2 comes to rung 4 second, so there is no cutoff yet; at iteration 5 it is .585 = median of {.485, .685}: it pauses
#   76 s  64 s are left; asked for are min((70 - 2) x 2, 12 x 10) = 120 s: t0 and t2 are ended
#   82 s  t1 is alone and may have both GPUs, and 2 x (58 - 2) > 1.1 x 58. It has had more than five results: it grows
#   83 s  3 s to launch, then 5 s an iteration: 91, 96, 101, 106, and the checkpoint
def test_hypersched(history):
    curves = [[start - 0.01 * k for k in range(12)] for start in (0.9, 0.5, 0.68)]
    story, lines = history(hypersched_fixed, scores=curves, quota=2, deadline_s=140.0, budget_usd=290.0)
    assert lines == [
        "0 start -> +i0, +i1",
        "0 ready 0 -> s0: t0 0..12 on i0x1",
        "0 ready 1 -> s1: t1 0..12 on i1x1",
        "22 report t0 s0 at 2 score 0.89 -> end s0",
        "23 ended t0 s0 at 2/2 score 0.89 in 2+20+1 -> s2: t2 0..12 on i0x1",
        "75 report t2 s2 at 5 score 0.64 -> end s2",
        "76 ended t2 s2 at 5/5 score 0.64 in 2+50+1",
        "82 report t1 s1 at 8 score 0.43 -> end s1",
        "83 ended t1 s1 at 8/8 score 0.43 in 2+80+1 -> s3: t1 8..12 on i0x1 i1x1",
        "107 completed t1 s3 at 12/12 score 0.39 in 3+20+1 -> -i0, -i1",
    ]
    assert outcome(story) == (107.0, 214.0, 1)
    stopped = [number for number, trial in enumerate(story.state.trials) if trial.status == "stopped"]
    assert stopped == [0, 2]
