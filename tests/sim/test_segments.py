from __future__ import annotations

import pytest

from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer, StopTrial
from elastune.sim.model.errors import InputError


def test_one_trial_on_one_gpu_takes_queue_init_launch_training_and_checkpoint(simulate):
    # 5 queue + 20 init + 2 launch + 3 x 10 + 1 checkpoint = 58 s; billed from the launch of the machine at 5 s.
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [FinishRun(0)]},
        startup=(5, 20),
        timings=(2, 1, 3),
    )
    assert story.log == [
        "0 start -> +i0",
        "5 launched 0",
        "25 ready 0 -> s0: t0 0..3 on i0x1",
        "58 completed t0 s0 at 3/3 score 0.03 in 2+30+1 -> -i0",
        "(drained) 58 released i0",
    ]
    assert (story.makespan_s, story.bill_usd, story.best) == (58.0, 53.0, 0)


def test_pausing_and_resuming_costs_a_checkpoint_and_the_rescale(simulate):
    # Told at 18 s, ends after iteration 2 at 2 + 20 = 22 s, durable at 23 s. Resuming takes rescale - checkpoint = 4 - 1 = 3 s,
    # one iteration on 2 GPUs 5 s, its checkpoint 1 s: 32 s. Without the pause 2 + 30 + 1 = 33 s on one GPU.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 3), SetTimer("pause", 18)],
            "timer pause": [PauseTrial(0)],
            "ended 0": [RunTrial(0, 2, 3), SetTimer("finish", 40)],
            "timer finish": [FinishRun(0)],
        },
        timings=(2, 1, 4),
    )
    assert story.log == [
        "0 start -> +i0, pause at 18",
        "0 launched 0",
        "0 ready 0 -> s0: t0 0..3 on i0x1",
        "18 timer pause -> end s0",
        "23 ended t0 s0 at 2/2 score 0.02 in 2+20+1 -> s1: t0 2..3 on i0x2, finish at 40",
        "32 completed t0 s1 at 3/3 score 0.03 in 3+5+1",
        "40 timer finish -> -i0",
        "(drained) 40 released i0",
    ]


def test_a_trial_paused_while_it_is_launched_ends_at_once(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 3), SetTimer("pause", 5)],
            "timer pause": [PauseTrial(0)],
            "ended 0": [FinishRun(None)],
        },
        timings=(8, 1, 9),
    )
    assert story.log[-3:-1] == ["5 timer pause -> end s0", "5 ended t0 s0 at 0/0 in 5+0+0 -> -i0"]


def test_a_trial_paused_during_its_closing_checkpoint_completes(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 2), SetTimer("pause", 23)],
            "timer pause": [PauseTrial(0)],
            "ended 0": [FinishRun(0)],
        },
        timings=(0, 5, 5),
    )
    assert story.log[-3:-1] == ["23 timer pause -> end s0", "25 completed t0 s0 at 2/2 score 0.02 in 0+20+5 -> -i0"]


@pytest.mark.parametrize("queue_s", [0.1, 0.7, 3.3])
@pytest.mark.parametrize("tau", [0.1, 0.3, 0.7])
def test_a_trial_paused_at_the_very_end_of_an_iteration_ends_there(simulate, queue_s, tau):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9, report_every=1)],
            "report 0@8": [PauseTrial(0)],
            "ended 0": [FinishRun(0)],
        },
        tau=tau,
        startup=(queue_s, 0),
    )
    assert story.makespan_s == pytest.approx(queue_s + 8 * tau)
    assert story.state.trials[0].checkpoint_iteration == 8


def test_finish_run_cuts_at_once_and_the_last_completed_iteration_counts(simulate):
    # At 37 s trial 1 is in its fourth iteration: 3 are complete, none of them durable.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 1), RunTrial(1, 1, 9), SetTimer("finish", 37)],
            "timer finish": [FinishRun(0)],
        },
    )
    assert story.log == [
        "0 start -> +i0, finish at 37",
        "0 launched 0",
        "0 ready 0 -> s0: t0 0..1 on i0x1, s1: t1 0..9 on i0x1",
        "10 completed t0 s0 at 1/1 score 0.01 in 0+10+0",
        "37 timer finish -> -i0",
        "(drained) 37 ended t1 s1 at 3/0 score 1.03 in 0+37+0",
        "(drained) 37 released i0",
    ]
    assert story.state.totals.iterations_trained == 4
    assert story.state.trials[1].checkpoint_iteration == 0


def test_events_after_the_end_neither_bill_nor_count(simulate):
    # Machine 1 is still queueing at 10 s; machine 0 is released with a latency of 30 s, which is billed at once.
    story = simulate(
        {"start": [ScaleTo(2), RunTrial(0, 1, 1)], "ended 0": [FinishRun(0)]},
        release_s=30.0,
    )
    assert story.log[-3:] == [
        "10 completed t0 s0 at 1/1 score 0.01 in 0+10+0 -> -i0, -i1",
        "(drained) 40 released i0",
        "(drained) 40 released i1",
    ]
    assert story.makespan_s == 10.0
    assert story.bill_usd == 2 * (10 + 30)
    assert story.state.totals.leased_gpu_s == 2 * 4 * 10


def test_reports_come_on_request_only_and_never_for_the_last_iteration(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 6, report_every=3), RunTrial(1, 1, 4)],
            "ended 0": [FinishRun(0)],
        },
    )
    assert story.log[2:-1] == [
        "0 ready 0 -> s0: t0 0..6 on i0x1, s1: t1 0..4 on i0x1",
        "30 report t0 s0 at 3 score 0.03",
        "40 completed t1 s1 at 4/4 score 1.04 in 0+40+0",
        "60 completed t0 s0 at 6/6 score 0.06 in 0+60+0 -> -i0",
    ]


def test_reports_of_a_resumed_trial_count_from_its_first_iteration(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 2)],
            "ended 0": [RunTrial(0, 1, 7, report_every=3), SetTimer("finish", 70)],
            "timer finish": [FinishRun(0)],
        },
    )
    assert [text for text in story.log if "report" in text] == [
        "30 report t0 s1 at 3 score 0.03",
        "60 report t0 s1 at 6 score 0.06",
    ]


def test_a_failed_segment_without_checkpoints_within_starts_over(simulate):
    # The first segment dies 35 s after its start, in iteration 4; the second does all nine.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9)],
            "ended 0": [RunTrial(0, 1, 9), SetTimer("finish", 125)],
            "timer finish": [FinishRun(0)],
        },
        failures={(0, 0): 35.0},
    )
    assert story.log[2:-2] == [
        "0 ready 0 -> s0: t0 0..9 on i0x1",
        "35 failed t0 s0 at 3/0 score 0.03 in 0+35+0 -> s1: t0 0..9 on i0x1, finish at 125",
        "125 completed t0 s1 at 9/9 score 0.09 in 0+90+0",
    ]
    assert story.state.totals.iterations_trained == 12


@pytest.mark.parametrize(
    ("fails_after_s", "ended"),
    [
        # Iterations end at 10, 20, (1 s checkpoint) 31, 41, (1 s) 52, 62: checkpoints are durable at 21, 42 and 63.
        (15.0, "15 failed t0 s0 at 1/0 score 0.01 in 0+15+0"),
        (20.5, "20.5 failed t0 s0 at 2/0 score 0.02 in 0+20+0.5"),
        (25.0, "25 failed t0 s0 at 2/2 score 0.02 in 0+24+1"),
        (35.0, "35 failed t0 s0 at 3/2 score 0.03 in 0+34+1"),
        (50.0, "50 failed t0 s0 at 4/4 score 0.04 in 0+48+2"),
        # The closing checkpoint, from 62 to 63 s, is torn.
        (62.5, "62.5 failed t0 s0 at 6/4 score 0.06 in 0+60+2.5"),
        (80.0, "63 completed t0 s0 at 6/6 score 0.06 in 0+60+3"),
    ],
)
def test_a_failure_loses_what_came_after_the_last_written_checkpoint(simulate, fails_after_s, ended):
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 6)], "ended 0": [FinishRun(None)]},
        timings=(0, 1, 1),
        checkpoint_every=2,
        failures={(0, 0): fails_after_s},
    )
    assert story.log[3] == f"{ended} -> -i0"


def test_a_trial_that_goes_on_after_a_failure_starts_from_its_checkpoint(simulate):
    # Durable at 21 s: 2 iterations. Resuming 1 s, 4 iterations, one checkpoint within (after the fourth) and one at the end.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 6)],
            "ended 0": [RunTrial(0, 1, 6), SetTimer("finish", 90)],
            "timer finish": [FinishRun(0)],
        },
        timings=(0, 1, 2),
        checkpoint_every=2,
        failures={(0, 0): 35.0},
    )
    assert story.log[3:5] == [
        "35 failed t0 s0 at 3/2 score 0.03 in 0+34+1 -> s1: t0 2..6 on i0x1, finish at 90",
        "78 completed t0 s1 at 6/6 score 0.06 in 1+40+2",
    ]


def test_a_diverged_score_is_told_as_none(simulate):
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 2)], "ended 0": [FinishRun(0)]},
        scores=[[1.0, float("nan")]],
    )
    assert story.entries[3].event.score is None


def test_a_stopped_trial_ends_with_a_checkpoint_and_gives_its_gpus_to_who_waits(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 4, 8), SetTimer("stop", 4)],
            "timer stop": [StopTrial(0), RunTrial(1, 4, 4)],
            "ended 1": [FinishRun(1)],
        },
    )
    # On 4 GPUs an iteration takes 2.5 s; told at 4 s, trial 0 ends at 5 s.
    assert story.log[3:-1] == [
        "4 timer stop -> end s0",
        "5 ended t0 s0 at 2/2 score 0.02 in 0+5+0 -> s1: t1 0..4 on i0x4",
        "15 completed t1 s1 at 4/4 score 1.04 in 0+10+0 -> -i0",
    ]


def test_training_beyond_the_recorded_curve_is_an_input_error(simulate):
    with pytest.raises(InputError, match=r"trial 0 is to train for 10 iterations, but its curve ends at 9"):
        simulate({"start": [ScaleTo(1), RunTrial(0, 1, 10)]}, iterations=9)
