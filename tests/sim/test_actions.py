from __future__ import annotations

import pytest

from elastune.sim.model.actions import (
    CloneTrial,
    FinishRun,
    PauseTrial,
    RunTrial,
    ScaleTo,
    SetTimer,
    StopTrial,
)
from elastune.sim.model.errors import InvalidActionError, StalledRunError
from elastune.sim.model.events import InstanceLaunched, InstanceReady, RunStarted, TimerFired


def test_what_waits_starts_in_the_order_of_the_actions_and_nothing_overtakes(simulate):
    # 4 GPUs. Trial 1 needs all of them and waits for trial 0 (until 20 s); trial 2 would fit at once but waits behind it.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 2, 4), RunTrial(1, 4, 4), RunTrial(2, 1, 1)],
            "ended 2": [FinishRun(2)],
        },
        trials=3,
    )
    assert story.log[2:-1] == [
        "0 ready 0 -> s0: t0 0..4 on i0x2",
        "20 completed t0 s0 at 4/4 score 0.04 in 0+20+0 -> s1: t1 0..4 on i0x4",
        "30 completed t1 s1 at 4/4 score 1.04 in 0+10+0 -> s2: t2 0..1 on i0x1",
        "40 completed t2 s2 at 1/1 score 2.01 in 0+10+0 -> -i0",
    ]


def test_a_later_action_that_would_fit_waits_behind_an_earlier_one_that_does_not(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 2, 4), RunTrial(1, 4, 4), SetTimer("later", 5)],
            "timer later": [RunTrial(2, 1, 1)],
            "ended 2": [FinishRun(2)],
        },
        trials=3,
    )
    assert story.log[3:6] == [
        "5 timer later",
        "20 completed t0 s0 at 4/4 score 0.04 in 0+20+0 -> s1: t1 0..4 on i0x4",
        "30 completed t1 s1 at 4/4 score 1.04 in 0+10+0 -> s2: t2 0..1 on i0x1",
    ]


def test_a_action_cancelled_while_it_waits_lets_the_next_one_start(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 2, 4), RunTrial(1, 4, 4), RunTrial(2, 1, 1), SetTimer("cancel", 5)],
            "timer cancel": [PauseTrial(1)],
            "ended 2": [FinishRun(2)],
        },
        trials=3,
    )
    assert story.log[3] == "5 timer cancel -> s1: t2 0..1 on i0x1"


def test_a_trial_requested_for_while_it_ends_runs_again_when_it_has_ended(simulate):
    # Told to end at 12 s, it ends at 20 s, and goes on at once on the larger gang it was asked for in the meantime.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 4), SetTimer("resize", 12)],
            "timer resize": [PauseTrial(0), RunTrial(0, 4, 4), SetTimer("finish", 25)],
            "timer finish": [FinishRun(0)],
        },
    )
    assert story.log[3:-1] == [
        "12 timer resize -> end s0, finish at 25",
        "20 ended t0 s0 at 2/2 score 0.02 in 0+20+0 -> s1: t0 2..4 on i0x4",
        "25 timer finish -> -i0",
        "(drained) 25 ended t0 s1 at 4/2 score 0.04 in 0+5+0",
    ]


def test_free_gpus_count_what_is_free_after_the_actions_already_made(controlled):
    seen = []
    run = controlled(
        {
            "start": [ScaleTo(2)],
            "ready 0": lambda view: seen.append(view.free_gpus) or [RunTrial(0, 3, 5), RunTrial(1, 3, 5)],
            "ready 1": lambda view: seen.append(view.free_gpus) or [],
        }
    )
    run.handle(RunStarted(0.0))
    for number in (0, 1):
        run.handle(InstanceLaunched(0.0, number))
        run.handle(InstanceReady(0.0, number))
    # 4; then machine 1 comes up and the waiting trial takes 3 of its GPUs: 1 is left on each.
    assert seen == [4, 2]


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        (
            [RunTrial(0, 1, 3)],
            r"RunTrial\(trial=0, gpus=1.*ScaleTo's target holds 0 GPUs; a gang has between 1 and that many",
        ),
        ([ScaleTo(1), RunTrial(0, 5, 3)], r"RunTrial\(trial=0, gpus=5.*ScaleTo's target holds 4 GPUs"),
        ([ScaleTo(1), RunTrial(0, 0, 3)], r"gpus=0.*between 1 and that many"),
        ([ScaleTo(1), RunTrial(7, 1, 3)], r"trial=7.*the job has trials 0 to 1"),
        ([ScaleTo(1), RunTrial(-1, 1, 3)], r"trial=-1.*the job has trials 0 to 1"),
        ([ScaleTo(1), RunTrial(0, 1, 0)], r"has completed 0 iterations already"),
        ([ScaleTo(1), RunTrial(0, 1, 3, -1)], r"report_every must be >= 0"),
        (
            [ScaleTo(1), RunTrial(0, 1, 3), RunTrial(0, 1, 3)],
            r"the trial is waiting; only an idle or ending one can be run",
        ),
        ([ScaleTo(1), StopTrial(0), RunTrial(0, 1, 3)], r"the trial is stopped"),
        ([ScaleTo(9)], r"ScaleTo\(instances=9.*the quota is 8 instances, 0 of them held for other types"),
        ([ScaleTo(5), ScaleTo(4, "m", "spot")], r"the quota is 8 instances, 5 of them held for other types"),
        ([ScaleTo(-1)], r"instances=-1"),
        ([ScaleTo(1, "x")], r"there is no instance type 'x'; known: m"),
        ([ScaleTo(1, "m", "preemptible")], r"instance type m has no preemptible price"),
        ([SetTimer("t", 99.0)], r"SetTimer\(tag='t', at_s=99.0\).*that is in the past"),
        ([SetTimer("t", float("nan"))], r"that is in the past"),
        ([FinishRun(0)], r"FinishRun\(best=0\).*the trial has no durable checkpoint"),
        ([FinishRun(None), ScaleTo(1)], r"the run is finished"),
        ([CloneTrial(0, 1, {"x": 1})], r"CloneTrial\(source=0, target=1, .*the source has no durable checkpoint"),
    ],
)
def test_an_impossible_action_names_policy_action_and_time(controlled, actions, problem):
    run = controlled({"timer now": actions})
    run.handle(RunStarted(0.0))
    with pytest.raises(InvalidActionError, match=r"^script: .* at 100\.0 s: ") as error:
        run.handle(TimerFired(100.0, "now"))
    assert error.match(problem)


def test_a_trial_cannot_be_run_to_where_it_already_is(simulate):
    with pytest.raises(
        InvalidActionError, match=r"^script: RunTrial\(trial=0, .* at 30\.0 s: the trial has completed 3 iterations"
    ):
        simulate({"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [RunTrial(0, 1, 3)]})


def test_a_policy_that_does_nothing_more_is_told_where_the_run_stalled(simulate):
    with pytest.raises(
        StalledRunError,
        match=(
            r"^script: nothing can happen any more at 20\.0 s, and the policy has not finished the run: 0 trials running,"
            r" 0 waiting for GPUs, 1 instances, ScaleTo target 1; the last event was SegmentEnded\(at_s=20\.0, trial=0"
        ),
    ):
        simulate({"start": [ScaleTo(1), RunTrial(0, 1, 2)]})


def test_a_run_that_waits_for_refused_machines_stalls_with_who_waits(simulate):
    with pytest.raises(StalledRunError, match=r"0 trials running, 1 waiting for GPUs, 1 instances, ScaleTo target 2"):
        simulate({"start": [ScaleTo(2), RunTrial(0, 8, 2)]}, capacity=1)


def test_a_timer_that_is_set_again_moves(simulate):
    story = simulate(
        {
            "start": [SetTimer("a", 50), SetTimer("a", 10), SetTimer("b", 5)],
            "timer b": [SetTimer("a", 30)],
            "timer a": [FinishRun(None)],
        }
    )
    assert story.log == ["0 start -> a at 50, a at 10, b at 5", "5 timer b -> a at 30", "30 timer a"]


def test_stopping_a_stopped_trial_and_pausing_an_idle_one_change_nothing(simulate):
    story = simulate({"start": [StopTrial(0), StopTrial(0), PauseTrial(0), PauseTrial(1), FinishRun(None)]})
    assert story.log == ["0 start"]
