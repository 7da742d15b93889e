"""What runs side by side slows each other: nodes, the checkpoint store, slow machines, memory."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import ProgressReported, SegmentEnded
from elastune.sim.model.profile import CloudTruth, Contention, GroundTruth, SlowNodes
from elastune.sim.model.scaling import LinearScaling, TableScaling
from elastune.sim.model.streams import Streams
from elastune.sim.simulated.truth import Draws


def ends(story):
    return [text for text in story.log if any(word in text for word in ("completed", "ended t", "failed t"))]


# Gangs on a node.


def test_two_gangs_on_a_node_slow_each_other_until_one_is_gone(simulate):
    # Both go at 1 / 1.5: trial 0 has its 10 s after 15 s, and so has trial 1, which then does its other 20 s alone.
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 1), RunTrial(1, 1, 3)], "ended 1": [FinishRun(0)]},
        contention=Contention(per_gang=0.5),
    )
    assert ends(story) == [
        "15 completed t0 s0 at 1/1 score 0.01 in 0+15+0",
        "35 completed t1 s1 at 3/3 score 1.03 in 0+35+0 -> -i0",
    ]


def test_gangs_that_come_later_slow_those_that_run(simulate):
    # Alone until 4 s: 4 of 20 s. With one other until 4 + 12 = 16 s: 8 more. Trial 1 has 8 of 10 s, and the third comes:
    # at 1/2 trial 1 needs 4 s more, until 20 s, trial 0 has 14. Two until trial 2 has its 10 s: 2 by then, 8 x 1.5 = 12: 32 s;
    # trial 0 needs 6 x 1.5 = 9: 29 s. Then trial 2 has 2 + 6 = 8 and does the last 2 alone: 31 s.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 2), SetTimer("second", 4), SetTimer("third", 16)],
            "timer second": [RunTrial(1, 1, 1)],
            "timer third": [RunTrial(2, 1, 1)],
            "ended 2": [FinishRun(0)],
        },
        trials=3,
        contention=Contention(per_gang=0.5),
    )
    assert [text.split(" score")[0] for text in ends(story)] == [
        "20 completed t1 s1 at 1/1",
        "29 completed t0 s0 at 2/2",
        "31 completed t2 s2 at 1/1",
    ]


def test_launch_and_training_are_slowed_and_checkpoints_are_not(simulate):
    # Twice as slow: 2 x 2 s launch, 2 x 10 s training, 1 s checkpoint.
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 1), RunTrial(1, 2, 2)], "ended 1": [FinishRun(0)]},
        timings=(2, 1, 3),
        contention=Contention(per_gang=1.0),
    )
    assert ends(story) == [
        "25 completed t0 s0 at 1/1 score 0.01 in 4+20+1",
        "25 completed t1 s1 at 2/2 score 1.02 in 4+20+1 -> -i0",
    ]


def test_a_gang_on_two_nodes_goes_at_the_pace_of_the_fuller_one_and_slows_both(simulate):
    # Trial 0: 6 GPUs on i0 and i1, 60 s of work, 10 s alone. Trial 1 shares i1 with it; trial 2 has i2 for itself.
    story = simulate(
        {"start": [ScaleTo(3), RunTrial(0, 6, 6), RunTrial(1, 2, 4), RunTrial(2, 4, 4)], "ended 1": [FinishRun(0)]},
        trials=3,
        contention=Contention(per_gang=0.5),
    )
    assert any(text.endswith("s0: t0 0..6 on i0x4 i1x2, s1: t1 0..4 on i1x2") for text in story.log)
    # Trial 1 has 10 of its 20 s when trial 0 ends at 15 s.
    assert [text.split(" score")[0] for text in ends(story)] == [
        "10 completed t2 s2 at 4/4",
        "15 completed t0 s0 at 6/6",
        "25 completed t1 s1 at 4/4",
    ]


def test_reports_and_pauses_follow_the_pace(simulate):
    # Twice as slow: reports at 20 and 40 s instead of 10 and 20. Told at 45 s, trial 0 ends with its iteration at 60 s.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9, report_every=1), RunTrial(1, 1, 9), SetTimer("pause", 45)],
            "timer pause": [PauseTrial(0)],
            "ended 0": [SetTimer("finish", 75)],
            "timer finish": [FinishRun(0)],
        },
        timings=(0, 3, 3),
        contention=Contention(per_gang=1.0),
    )
    reports = [entry.event.at_s for entry in story.entries if isinstance(entry.event, ProgressReported)]
    assert reports == [20, 40]
    # The checkpoint takes its 3 s, until 63 s. Trial 1 has 31.5 s by then and 43.5 s at 75 s: four iterations.
    assert [text.split(" ->")[0] for text in ends(story)] == [
        "63 ended t0 s0 at 3/3 score 0.03 in 0+60+3",
        "(drained) 75 ended t1 s1 at 4/0 score 1.04 in 0+75+0",
    ]


def test_a_failing_segment_has_done_what_its_pace_allowed(simulate):
    # Dies after 50 s at half the pace: 25 s of work, two iterations, the first of which was saved.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9), RunTrial(1, 1, 9)],
            "ended 0": [FinishRun(0)],
        },
        checkpoint_every=1,
        timings=(0, 5, 5),
        failures={(0, 0): 50.0},
        contention=Contention(per_gang=1.0),
    )
    # 20 s for an iteration, 5 for its checkpoint, 20 for the second, 5 for its checkpoint, which is done as it dies.
    assert ends(story)[0].startswith("50 failed t0 s0 at 2/2 score 0.02 in 0+40+10")


@settings(max_examples=examples(200))
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([1, 1, 2, 3, 6]), st.integers(1, 9)), min_size=1, max_size=7
    ),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.sampled_from([1, 2, 3]),
)
def test_the_work_that_is_done_is_the_time_over_the_slowdown(simulate, gangs, per_gang, machines):
    # An independent account: between two changes each gang does dt / (1 + a x others on its fullest node).
    gangs = [(start_s, min(gpus, 4 * machines), iterations) for start_s, gpus, iterations in gangs]
    answers = {
        f"timer {trial}": [RunTrial(trial, gpus, iterations)] for trial, (_, gpus, iterations) in enumerate(gangs)
    }
    timers = [SetTimer(str(trial), start_s) for trial, (start_s, _, _) in enumerate(gangs)]
    story = simulate(
        {"start": [ScaleTo(machines), *timers, SetTimer("finish", 1e5)], **answers, "timer finish": [FinishRun(0)]},
        trials=len(gangs),
        contention=Contention(per_gang=per_gang),
    )
    running, work_s, last_s = {}, {}, 0.0
    for entry in story.entries:
        now_s = entry.event.at_s
        for segment, placement in running.items():
            others = max(sum(any(n == node for n, _ in p) for p in running.values()) for node, _ in placement) - 1
            work_s[segment] += (now_s - last_s) / (1 + per_gang * others)
        last_s = now_s
        if isinstance(entry.event, SegmentEnded):
            running.pop(entry.event.segment)
        for command in entry.commands:
            if isinstance(command, StartSegment):
                running[command.segment], work_s[command.segment] = command.placement, 0.0
    done = {entry.event.segment: entry.event for entry in story.entries if isinstance(entry.event, SegmentEnded)}
    assert len(done) == len(gangs)
    for segment, event in done.items():
        _, gpus, iterations = gangs[event.trial]
        assert work_s[segment] == pytest.approx(iterations * 10.0 / gpus, rel=1e-9)


@given(st.integers(2, 4), st.sampled_from([0.1, 1.0]), st.sampled_from([0.0, 3.0]))
def test_equal_gangs_slow_each_other_equally(simulate, gangs, per_gang, checkpoint_s):
    story = simulate(
        {
            "start": [ScaleTo(1), *(RunTrial(trial, 1, 3) for trial in range(gangs)), SetTimer("end", 1e4)],
            "timer end": [FinishRun(0)],
        },
        trials=gangs,
        timings=(2.0, checkpoint_s, checkpoint_s),
        contention=Contention(per_gang=per_gang, store_writers=1.0),
    )
    done = [entry.event for entry in story.entries if isinstance(entry.event, SegmentEnded)]
    slowdown = 1 + per_gang * (gangs - 1)
    for event in done:
        assert event.at_s == pytest.approx(slowdown * 32 + gangs * checkpoint_s)
        assert event.launch_s == pytest.approx(2 * slowdown)
        assert event.checkpoint_s == pytest.approx(gangs * checkpoint_s)


# Checkpoints on a store.


def three_writers(simulate, store_writers):
    # On 4, 2 and 1 GPUs an iteration takes 4, 8 and 10 s; each then writes for 6 s if alone.
    story = simulate(
        {
            "start": [ScaleTo(2), RunTrial(2, 4, 1), RunTrial(1, 2, 1), RunTrial(0, 1, 1), SetTimer("end", 99)],
            "timer end": [FinishRun(0)],
        },
        trials=3,
        timings=(0, 6, 6),
        scaling=TableScaling({1: 1.0, 2: 1.25, 4: 2.5}),
        contention=Contention(store_writers=store_writers),
    )
    return {
        e.event.trial: (e.event.at_s, e.event.checkpoint_s) for e in story.entries if isinstance(e.event, SegmentEnded)
    }


def test_checkpoints_share_the_bandwidth_of_the_store(simulate):
    # 4 to 8 s: trial 2 alone, 4 of 6 s done. 8 to 10 s: two, 1 s each. From 10 s three: trial 2's last second takes 3, until
    # 13 s; trials 1 and 0 have 4 and 5 s left, two by two: trial 1 until 21 s, trial 0's last second alone until 22 s.
    assert three_writers(simulate, 1) == {2: (13, 9), 1: (21, 13), 0: (22, 12)}


def test_a_store_that_serves_two_at_full_speed_slows_only_three(simulate):
    # Three write from 10 s on only if trial 2, which has 6 s from 4 s on, is still there: it is done at 10 s.
    assert three_writers(simulate, 2) == {2: (10, 6), 1: (14, 6), 0: (16, 6)}


def test_a_store_without_limits_and_interference_alone_leave_checkpoints_as_they_are(simulate):
    assert three_writers(simulate, 99) == {2: (10, 6), 1: (14, 6), 0: (16, 6)}


def test_the_next_iteration_waits_for_a_checkpoint_that_shares_the_store(simulate):
    # Both save 2 s at half the speed: 10 + 4, 10 + 4.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 2), RunTrial(1, 1, 2), SetTimer("end", 40)],
            "timer end": [FinishRun(0)],
        },
        checkpoint_every=1,
        timings=(0, 2, 2),
        contention=Contention(store_writers=1),
    )
    assert ends(story) == [
        "28 completed t0 s0 at 2/2 score 0.02 in 0+20+8",
        "28 completed t1 s1 at 2/2 score 1.02 in 0+20+8",
    ]


def test_a_writer_that_is_cut_leaves_the_store_to_the_others(simulate):
    # Both write from 10 s on, at half the speed. Trial 0 dies at 14 s with 2 of 6 s written, and nothing is durable;
    # trial 1 has 4 s left, alone.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 1), RunTrial(1, 1, 1)],
            "ended 1": [FinishRun(None)],
        },
        timings=(0, 6, 6),
        failures={(0, 0): 14.0},
        contention=Contention(store_writers=1),
    )
    assert [text.split(" ->")[0] for text in ends(story)] == [
        "14 failed t0 s0 at 1/0 score 0.01 in 0+10+4",
        "18 completed t1 s1 at 1/1 score 1.01 in 0+10+8",
    ]


def test_a_course_cut_short_saves_once_where_a_checkpoint_is_due_anyway(simulate):
    # Told at 13 s, in the second iteration (12 to 22 s after the first checkpoint), and saved from 22 to 24 s.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9), SetTimer("pause", 13)],
            "timer pause": [PauseTrial(0)],
            "ended 0": [FinishRun(0)],
        },
        checkpoint_every=1,
        timings=(0, 2, 2),
        contention=Contention(store_writers=1),
    )
    assert ends(story) == ["24 ended t0 s0 at 2/2 score 0.02 in 0+20+4 -> -i0"]


def test_sharing_that_slows_nobody_changes_nothing(simulate):
    answers = {
        "start": [ScaleTo(2), RunTrial(0, 4, 5, report_every=2), RunTrial(1, 3, 9), SetTimer("pause", 11)],
        "timer pause": [PauseTrial(1)],
        "ended 1": [RunTrial(1, 1, 9), SetTimer("end", 70)],
        "timer end": [FinishRun(0)],
    }
    literal = {"timings": (2, 1, 4), "checkpoint_every": 2, "failures": {(0, 0): 9.0}}
    shared = simulate(answers, **literal, contention=Contention(store_writers=99))
    assert shared.log == simulate(answers, **literal).log


# Slow machines.


def test_every_iteration_on_a_slow_machine_takes_longer(simulate):
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [FinishRun(0)]},
        timings=(2, 1, 3),
        slow_nodes=SlowNodes(share=1.0, slowdown=1.5),
    )
    assert ends(story) == ["48 completed t0 s0 at 3/3 score 0.03 in 2+45+1 -> -i0"]


def draws(slow_nodes, seed=0):
    truth = GroundTruth(np.ones((1, 1)), np.ones(1), LinearScaling())
    return Draws(truth, CloudTruth(slow_nodes=slow_nodes), Streams(seed))


def test_machines_are_as_slow_whatever_was_asked_before_and_the_share_is_that_of_the_spec():
    slow = SlowNodes(share=0.2, slowdown=1.5)
    first = draws(slow)
    forwards = [first.node_slowness(instance) for instance in range(2000)]
    later = draws(slow)
    assert [later.node_slowness(instance) for instance in reversed(range(2000))] == forwards[::-1]
    assert set(forwards) == {1.0, 1.5}
    assert forwards.count(1.5) / 2000 == pytest.approx(0.2, abs=0.03)


def test_more_slow_machines_are_slow_besides_and_none_becomes_fast():
    few, many = draws(SlowNodes(0.1, 1.5)), draws(SlowNodes(0.4, 1.5))
    assert all(few.node_slowness(number) <= many.node_slowness(number) for number in range(500))


def test_the_spread_of_machines_has_mean_1():
    spread = draws(SlowNodes(cv=0.3))
    factors = [spread.node_slowness(instance) for instance in range(3000)]
    assert sum(factors) / len(factors) == pytest.approx(1.0, abs=0.02)


def test_a_gang_goes_at_the_pace_of_its_slowest_node(simulate):
    # One of the two machines is slow: the gang of 8 takes 10 x 10 / 8 s x 1.5 although 4 of its GPUs are fast.
    def paces(slow):
        return {draws(slow).node_slowness(instance) for instance in (0, 1)}

    slow = next(slow for share in range(100) if paces(slow := SlowNodes(share / 100, 1.5)) == {1.0, 1.5})
    story = simulate(
        {"start": [ScaleTo(2), RunTrial(0, 8, 8)], "ended 0": [FinishRun(0)]},
        slow_nodes=slow,
    )
    assert story.makespan_s == pytest.approx(15.0)


def test_wrong_numbers_are_refused():
    with pytest.raises(InputError, match=r"slow_nodes\.share is 1\.5, but must be between 0 and 1"):
        SlowNodes(share=1.5)
    with pytest.raises(InputError, match=r"slow_nodes\.slowdown is 0\.5, but must be a number >= 1"):
        SlowNodes(slowdown=0.5)
    with pytest.raises(InputError, match="store_writers is 0, but must be a positive number"):
        Contention(store_writers=0)
    with pytest.raises(InputError, match="interference is -1, but must be a number >= 0"):
        Contention(per_gang=-1)


# Memory.


def test_a_gang_too_small_for_its_memory_is_an_error_and_not_a_training(simulate):
    answers = {"start": [ScaleTo(1), RunTrial(0, 2, 1), RunTrial(1, 2, 1)], "ended 1": [FinishRun(0)]}
    with pytest.raises(
        InputError, match=r"^trial 1 is to train on 2 GPUs, but its memory takes at least 4: the policy's"
    ):
        simulate(answers, min_gpus=[2, 4])
    assert simulate(answers, min_gpus=[2, 2]).makespan_s == 5.0
