from __future__ import annotations

from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer
from elastune.sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    Outcome,
    RunStarted,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.model.prices import BillingRule


def test_shrinking_cancels_requests_then_releases_idle_machines_then_drains(simulate):
    # Machine 0 (one trial) and 1 (idle) are up; 2 and 3 are asked for at 60 s and would launch at 90 s.
    # Down to 3: the latest request goes. Down to 2: the other one. Down to 1: the idle machine. Down to 0: machine 0 drains.
    story = simulate(
        {
            "start": [ScaleTo(2), RunTrial(0, 1, 9), SetTimer("grow", 60)],
            "timer grow": [ScaleTo(4), SetTimer("one", 70)],
            "timer one": [ScaleTo(3), SetTimer("two", 80)],
            "timer two": [ScaleTo(2), SetTimer("three", 100)],
            "timer three": [ScaleTo(1), SetTimer("four", 110)],
            "timer four": [ScaleTo(0)],
            "gone 0": [FinishRun(0)],
        },
        startup=(30, 0),
    )
    assert story.log == [
        "0 start -> +i0, +i1, grow at 60",
        "30 launched 0",
        "30 launched 1",
        "30 ready 0 -> s0: t0 0..9 on i0x1",
        "30 ready 1",
        "60 timer grow -> +i2, +i3, one at 70",
        "70 timer one -> -i3, two at 80",
        "70 released i3",
        "80 timer two -> -i2, three at 100",
        "80 released i2",
        "100 timer three -> -i1, four at 110",
        "100 released i1",
        "110 timer four",
        "120 completed t0 s0 at 9/9 score 0.09 in 0+90+0 -> -i0",
        "120 released i0",
    ]
    # Machine 0 from 30 to 120 s, machine 1 from 30 to 100 s; what was never launched costs nothing.
    assert story.bill_usd == 90 + 70


def test_of_two_idle_machines_the_one_with_less_paid_time_left_goes(simulate):
    # Hours of 3600 s: machine 0 is paid until 3600 s, machine 1 (launched at 1800 s) until 5400 s. At 2000 s machine 0 goes; at
    # 4000 s it would be machine 1, with 1400 s left against 3200 s.
    def script(shrink_s):
        return {
            "start": [ScaleTo(1), SetTimer("grow", 1800)],
            "timer grow": [ScaleTo(2), SetTimer("shrink", shrink_s)],
            "timer shrink": [ScaleTo(1), FinishRun(None)],
        }

    hourly = BillingRule(granularity_s=3600.0, minimum_s=60.0)
    assert simulate(script(2000), billing=hourly).log[6] == "2000 timer shrink -> -i0, -i1"
    assert simulate(script(4000), billing=hourly).log[6] == "4000 timer shrink -> -i1, -i0"


def test_a_draining_machine_takes_nothing_new_and_goes_with_its_last_gang(simulate):
    # Each machine runs one trial; the least used one, machine 1 with 1 of 4 GPUs, drains. Trial 2 must wait for machine 0.
    story = simulate(
        {
            "start": [ScaleTo(2), RunTrial(0, 3, 6), RunTrial(1, 2, 4), SetTimer("shrink", 5)],
            "timer shrink": [ScaleTo(1), RunTrial(2, 2, 2)],
            "gone 1": [SetTimer("finish", 30)],
            "timer finish": [FinishRun(0)],
        },
        trials=3,
    )
    assert story.log[3:-1] == [
        "0 ready 0 -> s0: t0 0..6 on i0x3",
        "0 ready 1 -> s1: t1 0..4 on i1x2",
        "5 timer shrink",
        "20 completed t0 s0 at 6/6 score 0.06 in 0+20+0 -> s2: t2 0..2 on i0x2",
        "20 completed t1 s1 at 4/4 score 1.04 in 0+20+0 -> -i1",
        "20 released i1 -> finish at 30",
        "30 completed t2 s2 at 2/2 score 2.02 in 0+10+0",
        "30 timer finish -> -i0",
    ]


def test_growing_again_takes_a_draining_machine_back_before_it_asks_for_new_ones(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9), SetTimer("shrink", 5), SetTimer("grow", 6)],
            "timer shrink": [ScaleTo(0)],
            "timer grow": [ScaleTo(2), RunTrial(1, 1, 1)],
            "ended 1": [FinishRun(1)],
        },
    )
    assert story.log[3:-2] == [
        "5 timer shrink",
        "6 timer grow -> +i1, s1: t1 0..1 on i0x1",
        "6 launched 1",
        "6 ready 1",
        "16 completed t1 s1 at 1/1 score 1.01 in 0+10+0 -> -i0, -i1",
        "(drained) 16 ended t0 s0 at 1/0 score 0.01 in 0+16+0",
    ]


def test_a_lost_machine_is_asked_for_again_after_its_gangs_have_ended(simulate):
    # Lost 35 s after its launch at 5 s; the next one queues for 5 s and boots for 20 s.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 3), RunTrial(1, 1, 9)],
            "ended 1": [RunTrial(1, 1, 1), SetTimer("finish", 80)],
            "timer finish": [FinishRun(1)],
        },
        startup=(5, 20),
        losses={0: 35.0},
    )
    assert story.log == [
        "0 start -> +i0",
        "5 launched 0",
        "25 ready 0 -> s0: t0 0..3 on i0x1, s1: t1 0..9 on i0x1",
        "40 instance_gone t0 s0 at 1/0 score 0.01 in 0+15+0",
        "40 instance_gone t1 s1 at 1/0 score 1.01 in 0+15+0 -> finish at 80",
        "40 lost i0 -> +i1",
        "45 launched 1",
        "65 ready 1 -> s2: t1 0..1 on i1x1",
        "75 completed t1 s2 at 1/1 score 1.01 in 0+10+0",
        "80 timer finish -> -i1",
        "(drained) 80 released i1",
    ]
    assert story.bill_usd == 35 + 35


def test_a_machine_can_be_lost_while_it_boots(simulate):
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 1)], "ended 0": [FinishRun(0)]}, startup=(5, 20), losses={0: 15.0}
    )
    assert story.log[:5] == [
        "0 start -> +i0",
        "5 launched 0",
        "20 lost i0 -> +i1",
        "25 launched 1",
        "45 ready 1 -> s0: t0 0..1 on i1x1",
    ]


def test_a_policy_that_lowers_its_target_gets_no_replacement(simulate):
    story = simulate(
        {"start": [ScaleTo(1)], "gone 0": [ScaleTo(0), FinishRun(None)]},
        losses={0: 15.0},
    )
    assert story.log[-1] == "15 lost i0"


def test_a_gang_over_two_machines_ends_when_one_is_lost_and_leaves_the_other_whole(simulate):
    story = simulate(
        {
            "start": [ScaleTo(2), RunTrial(0, 8, 9)],
            "ended 0": [RunTrial(1, 4, 2)],
            "ended 1": [FinishRun(1)],
        },
        losses={0: 5.0},
        startup=(3, 0),
    )
    # The survivor is offered again with InstanceGone, which tells which machine it was.
    assert story.log[4:9] == [
        "3 ready 1 -> s0: t0 0..9 on i0x4 i1x4",
        "8 instance_gone t0 s0 at 4/0 score 0.04 in 0+5+0",
        "8 lost i0 -> s1: t1 0..2 on i1x4, +i2",
        "11 launched 2",
        "11 ready 2",
    ]


def test_a_refused_request_is_void_and_free(simulate):
    story = simulate(
        {"start": [ScaleTo(2), RunTrial(0, 1, 1)], "ended 0": [FinishRun(0)]},
        capacity=1,
    )
    assert story.log == [
        "0 start -> +i0, +i1",
        "0 refused i1",
        "0 launched 0",
        "0 ready 0 -> s0: t0 0..1 on i0x1",
        "10 completed t0 s0 at 1/1 score 0.01 in 0+10+0 -> -i0",
        "(drained) 10 released i0",
    ]
    assert story.bill_usd == 10


def test_machines_of_two_markets_have_targets_and_prices_of_their_own(simulate):
    # 10 s on demand at 1 USD/s; spot at a quarter of it from 4 to 10 s.
    story = simulate(
        {
            "start": [ScaleTo(1), SetTimer("spot", 4), SetTimer("finish", 10)],
            "timer spot": [ScaleTo(1, "m", "spot"), RunTrial(0, 8, 1)],
            "timer finish": [FinishRun(0)],
        },
    )
    assert story.log == [
        "0 start -> +i0, spot at 4, finish at 10",
        "0 launched 0",
        "0 ready 0",
        "4 timer spot -> +i1",
        "4 launched 1",
        "4 ready 1 -> s0: t0 0..1 on i0x4 i1x4",
        "5.25 completed t0 s0 at 1/1 score 0.01 in 0+1.25+0",
        "10 timer finish -> -i0, -i1",
        "(drained) 10 released i0",
        "(drained) 10 released i1",
    ]
    assert story.bill_usd == 10 + 6 / 4
    assert [command.market for entry in story.entries for command in entry.commands if hasattr(command, "market")] == [
        "on-demand",
        "spot",
    ]


def test_releasing_machines_count_for_the_quota_until_they_are_gone(simulate):
    # Quota 2; at 10 s one of two machines is given back (gone at 40 s). Asking for two again must wait for that.
    story = simulate(
        {
            "start": [ScaleTo(2), SetTimer("shrink", 10), SetTimer("grow", 20)],
            "timer shrink": [ScaleTo(1)],
            "timer grow": [ScaleTo(2)],
            "ready 2": [FinishRun(None)],
        },
        quota=2,
        release_s=30.0,
    )
    assert [text for text in story.log if "i" in text.partition("->")[2]] == [
        "0 start -> +i0, +i1, shrink at 10, grow at 20",
        "10 timer shrink -> -i0",
        "40 released i0 -> +i2",
        "40 ready 2 -> -i1, -i2",
    ]


def test_a_machine_given_back_earlier_is_billed_to_its_own_end(simulate):
    # Given back at 100 s with a latency of 40 s: billed until 140 s, although the run ends at 130 s; the other until 170 s.
    story = simulate(
        {
            "start": [ScaleTo(2), SetTimer("shrink", 100), SetTimer("finish", 130)],
            "timer shrink": [ScaleTo(1)],
            "timer finish": [FinishRun(None)],
        },
        release_s=40.0,
    )
    assert story.bill_usd == 140 + 170


def test_the_end_of_a_gang_may_come_after_the_end_of_its_machine(controlled):
    """A command that crosses a loss on its way is answered late; nothing may break."""
    run = controlled({"start": [ScaleTo(1), RunTrial(0, 2, 3)], "timer end": [FinishRun(None)]})
    run.handle(RunStarted(0.0))
    run.handle(InstanceLaunched(1.0, 0))
    assert len(run.handle(InstanceReady(1.0, 0))) == 1
    handle = type(run.controller).handle  # between these two events the gang still holds GPUs that are gone
    handle(run.controller, InstanceGone(5.0, 0, GoneCause.LOST))
    handle(run.controller, SegmentEnded(5.0, 0, 0, 0, 0, None, Outcome.INSTANCE_GONE, 0.0, 0.0, 0.0))
    assert run.state.running_trials == 0
    run.state.check_invariants()


def test_events_of_a_superseded_segment_are_stale_and_change_nothing(controlled):
    run = controlled(
        {"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [RunTrial(0, 1, 3)], "timer late": [PauseTrial(0)]}
    )
    run.handle(RunStarted(0.0))
    run.handle(InstanceLaunched(0.0, 0))
    run.handle(InstanceReady(0.0, 0))
    failed = SegmentEnded(7.0, 0, 0, 0, 0, None, Outcome.FAILED, 0.0, 7.0, 0.0)
    assert len(run.handle(failed)) == 1  # segment 1 starts
    before = (run.state.totals.trained_gpu_s, run.state.running_trials, run.state.free.total)
    assert run.handle(failed) == []
    assert run.entries[-1].status == "stale"
    assert run.entries[-1].actions == []
    assert (run.state.totals.trained_gpu_s, run.state.running_trials, run.state.free.total) == before
    run.handle(TimerFired(8.0, "late"))
    assert run.entries[-1].commands[0].segment == 1
