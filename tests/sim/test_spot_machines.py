from __future__ import annotations

import pytest

from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer
from elastune.sim.model.capacity import Steps
from elastune.sim.model.events import ReclaimNoticed, SegmentEnded
from elastune.sim.model.prices import BillingRule
from elastune.sim.model.profile import Contention, Spot
from elastune.sim.model.reclaim import NodeChange, RecordedNodes

MACHINES = ("m", "spot")


def spot(*events, notice_s=0.0, length_s=1000.0):
    """A recorded market, events as `0 +a`."""
    changes = (NodeChange(float(at), word[0] == "+", word[1:]) for at, word in map(str.split, events))
    return Spot(RecordedNodes("test", tuple(changes), length_s), notice_s)


def test_on_notice_a_worker_saves_after_each_iteration_and_trains_on_until_the_machine_goes(simulate):
    # Iterations of 10 s from 5 s on, checkpoints of 1 s. Noticed at 18 s: iteration 2 ends at 25 s, is saved at 26, iteration 3
    # at 36 and 37; iteration 4 ends at 47, but would be saved at 48, when the machine is gone. It is done again.
    # The replacement is asked for with the notice; a resumed trial starts within 3 - 1 = 2 s.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9)],
            "ended 0": [RunTrial(0, 1, 9), SetTimer("end", 60)],
            "timer end": [FinishRun(0)],
        },
        spot=spot("0 +a", "0 +b", "47.5 -a", notice_s=29.5),
        market="spot",
        timings=(0, 1, 3),
        startup=(0, 5),
    )
    assert story.log == [
        "0 start -> +i0",
        "0 launched 0",
        "5 ready 0 -> s0: t0 0..9 on i0x1",
        "18 noticed i0 until 47.5 -> +i1",
        "18 launched 1",
        "23 ready 1",
        "47.5 instance_gone t0 s0 at 4/3 score 0.04 in 0+40+2.5 -> s1: t0 3..9 on i1x1, end at 60",
        "47.5 reclaimed i0",
        "60 timer end -> -i1",
        "(drained) 60 ended t0 s1 at 4/3 score 0.04 in 2+10.5+0",
        "(drained) 60 released i1",
    ]
    # 40 s of training, of which the first three iterations are durable.
    assert [entry.event.lost_s for entry in story.entries if isinstance(entry.event, SegmentEnded)] == [10.0, 10.5]
    # A quarter of 1 USD/s: 47.5 s of machine 0, 42 s of machine 1.
    assert story.bill_usd == (47.5 + 42) / 4


def test_a_segment_that_ends_before_its_machine_goes_pays_for_the_checkpoints_on_the_way(simulate):
    # Noticed at 12 s: checkpoints after iterations 2 and 3 put the end off from 41 to 43 s, and the third report to 31 s. Then
    # nothing is left on the machine, so it is given back.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 4, report_every=1)],
            "ended 0": [SetTimer("end", 50)],
            "timer end": [FinishRun(0)],
        },
        spot=spot("0 +a", "60 -a", notice_s=48.0),
        market="spot",
        timings=(0, 1, 1),
        waits=True,
    )
    assert story.log == [
        "0 start -> +i0",
        "0 launched 0",
        "0 ready 0 -> s0: t0 0..4 on i0x1",
        "10 report t0 s0 at 1 score 0.01",
        "12 noticed i0 until 60 -> +i1",
        "20 report t0 s0 at 2 score 0.02",
        "31 report t0 s0 at 3 score 0.03",
        "43 completed t0 s0 at 4/4 score 0.04 in 0+40+3 -> -i0, end at 50",
        "43 released i0",
        "50 timer end -> -i1",
        "(drained) 50 released i1",
    ]
    assert story.bill_usd == 43 / 4  # what only waited costs nothing


def test_checkpoints_after_a_notice_come_on_top_of_the_regular_ones_once(simulate):
    # Every second iteration is saved anyway: after 2, at 20 to 21 s, and 4. Noticed at 25 s: those after 3 and 5 come on top.
    # 6 x 10 s, checkpoints after 2, 3, 4, 5 and 6: 65 s.
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 6)], "ended 0": [FinishRun(0)]},
        spot=spot("0 +a", "80 -a", notice_s=55.0),
        market="spot",
        timings=(0, 1, 1),
        checkpoint_every=2,
    )
    assert story.log[-2] == "65 completed t0 s0 at 6/6 score 0.06 in 0+60+5 -> -i0"


def test_a_trial_told_to_end_after_the_notice_ends_as_ever(simulate):
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 9), SetTimer("pause", 23)],
            "timer pause": [PauseTrial(0)],
            "ended 0": [FinishRun(0)],
        },
        spot=spot("0 +a", "80 -a", notice_s=65.0),
        market="spot",
        timings=(0, 1, 1),
    )
    # Noticed at 15 s, iteration 2 is saved at 21 s, and iteration 3, under way at 23 s, at 32 s.
    assert story.log[-2] == "32 ended t0 s0 at 3/3 score 0.03 in 0+30+2 -> -i0"


@pytest.mark.parametrize("noticed_s", [15.0, 20.0, 25.0, 39.0])
def test_where_nodes_and_stores_are_shared_but_nobody_is_there_to_share_a_notice_does_the_same(simulate, noticed_s):
    def told(**sharing):
        return simulate(
            {"start": [ScaleTo(1), RunTrial(0, 1, 6, report_every=1)], "ended 0": [FinishRun(0)]},
            spot=spot("0 +a", "47.5 -a", notice_s=47.5 - noticed_s),
            market="spot",
            timings=(0, 1, 1),
            checkpoint_every=3,
            **sharing,
        ).log

    # On a boundary (20 s), within iterations, and in the regular checkpoint's neighbourhood.
    assert told(contention=Contention(per_gang=0.5, store_writers=1)) == told()


def test_an_idle_machine_is_given_back_when_its_end_is_noticed_and_a_booting_one_as_well(simulate):
    story = simulate(
        {"start": [ScaleTo(2)], "noticed 0": [SetTimer("end", 45)], "timer end": [FinishRun(None)]},
        spot=spot("0 +a", "0 +b", "30 -a", "60 -b", notice_s=10.0),
        market="spot",
        startup=(5, 50),
        waits=True,
    )
    assert story.log == [
        "0 start -> +i0, +i1",
        "5 launched 0",
        "5 launched 1",
        "20 noticed i0 until 30 -> -i0, end at 45, +i2",
        "20 released i0",
        "45 timer end -> -i1, -i2",
        "(drained) 45 released i1",
        "(drained) 45 released i2",
    ]


def test_a_machine_that_goes_takes_no_new_gang_and_the_other_one_of_its_gang_comes_back(simulate):
    # At 10 s the end of machine 0 is noticed; the trial that waits must not start on its free GPUs.
    story = simulate(
        {
            "start": [ScaleTo(2), RunTrial(0, 6, 9), SetTimer("more", 15)],
            "timer more": [RunTrial(1, 3, 1)],
            "ended 1": [FinishRun(1)],
        },
        spot=spot("0 +a", "0 +b", "0 +c", "20 -a", notice_s=10.0),
        market="spot",
        startup=(0, 2),
        trials=2,
        iterations=99,
        tau=60.0,
    )
    assert story.log[4:11] == [
        "2 ready 1 -> s0: t0 0..9 on i0x4 i1x2",
        "10 noticed i0 until 20 -> +i2",
        "10 launched 2",
        "12 ready 2",
        "15 timer more -> s1: t1 0..1 on i2x3",
        "20 instance_gone t0 s0 at 1/1 score 0.01 in 0+18+0",
        "20 reclaimed i0",
    ]


def test_without_notice_a_machine_is_gone_at_once(simulate):
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 9)], "ended 0": [FinishRun(None)]},
        spot=spot("0 +a", "25 -a"),
        market="spot",
    )
    assert not any(isinstance(entry.event, ReclaimNoticed) for entry in story.entries)
    assert story.log[3] == "25 instance_gone t0 s0 at 2/0 score 0.02 in 0+25+0 -> -i0"


def test_on_demand_machines_are_not_taken_back(simulate):
    story = simulate(
        {"start": [ScaleTo(1), ScaleTo(1, "m", "spot"), RunTrial(0, 1, 9)], "ended 0": [FinishRun(0)]},
        spot=spot("0 +a", "25 -a", notice_s=5.0),
        waits=True,
    )
    assert [line for line in story.log if "i0" in line and "->" not in line] == ["(drained) 90 released i0"]
    assert "20 noticed i1 until 25 -> -i1, +i2" in story.log


def test_what_the_provider_has_not_waits_in_order_or_is_refused(simulate):
    actions = {"start": [ScaleTo(3), SetTimer("end", 100)], "timer end": [FinishRun(None)]}
    market = spot("0 +a", "30 +b", "60 +c", "60 -a")
    waiting = simulate(actions, spot=market, market="spot", waits=True)
    assert [text for text in waiting.log if "launched" in text] == [
        "0 launched 0",
        "30 launched 1",
        "60 launched 2",
    ]
    refused = simulate(actions, spot=market, market="spot")
    assert refused.log[:4] == [
        "0 start -> +i0, +i1, +i2, end at 100",
        "0 refused i1",
        "0 refused i2",
        "0 launched 0",
    ]
    assert refused.entries[1].event.reason == "no spot capacity now"


def test_capacity_that_comes_and_goes_is_granted_as_it_is(simulate):
    # Two at first, none from 10 s on, one again from 50 s on: the machine asked for at 20 s is taken back with the other two at
    # 30 s, and the one asked for then waits for capacity.
    story = simulate(
        {
            "start": [ScaleTo(2), SetTimer("more", 20), SetTimer("less", 30), SetTimer("end", 90)],
            "timer more": [ScaleTo(3)],
            "timer less": [ScaleTo(0), ScaleTo(1)],
            "timer end": [FinishRun(None)],
        },
        capacity={("m", "on-demand"): Steps((0.0, 10.0, 50.0), (2, 0, 1))},
        waits=True,
    )
    assert [text.partition(" ->")[0] for text in story.log if "launched" in text or "refused" in text] == [
        "0 launched 0",
        "0 launched 1",
        "50 launched 3",
    ]


def test_what_can_never_be_granted_is_refused_although_requests_wait(simulate):
    story = simulate(
        {"start": [ScaleTo(1)], "refused 0": [FinishRun(None)]},
        capacity={("m", "on-demand"): Steps.constant(0)},
        waits=True,
    )
    assert story.log == ["0 start -> +i0", "0 refused i0"]
    assert story.entries[1].event.reason == "no capacity now"


def test_beyond_the_quota_of_the_moment_requests_wait(simulate):
    story = simulate(
        {"start": [ScaleTo(3), ScaleTo(1, "m", "spot"), SetTimer("end", 90)], "timer end": [FinishRun(None)]},
        quota_ramp=Steps((0.0, 40.0, 80.0), (1, 2, 4)),
    )
    assert [text for text in story.log if "launched" in text] == [
        "0 launched 0",
        "40 launched 1",
        "80 launched 2",
        "80 launched 3",
    ]
    assert story.bill_usd == 90 + 50 + 10 + 10 / 4


def test_a_request_that_waits_can_be_taken_back_and_makes_room_for_the_next(simulate):
    story = simulate(
        {
            "start": [ScaleTo(2), SetTimer("less", 10), SetTimer("more", 20), SetTimer("end", 60)],
            "timer less": [ScaleTo(1)],
            "timer more": [ScaleTo(2)],
            "timer end": [FinishRun(None)],
        },
        capacity={("m", "on-demand"): Steps((0.0, 50.0), (1, 2))},
        waits=True,
    )
    assert story.log[2:6] == [
        "0 ready 0",
        "10 timer less -> -i1",
        "10 released i1",
        "20 timer more -> +i2",
    ]
    assert story.log[6] == "50 launched 2"


def test_a_machine_that_will_be_free_is_kept_until_it_is_taken(simulate):
    # As EC2 bills it: a machine that is taken back within its first 50 s is free. The one that goes at 30 s is idle, but kept;
    # the one that goes at 70 s is not free, and so given back at its notice, at 60 s.
    def bill_and_log(gone_s):
        story = simulate(
            {"start": [ScaleTo(1), SetTimer("less", 5), SetTimer("end", 90)], "timer end": [FinishRun(None)]},
            spot=spot("0 +a", f"{gone_s} -a", notice_s=10.0),
            market="spot",
            waits=True,
            billing=BillingRule(granularity_s=0.0, minimum_s=0.0, free_if_reclaimed_within_s=50.0),
        )
        return story.bill_usd, [line.partition(" ->")[0] for line in story.log if "i0" in line.partition(" ->")[0]]

    assert bill_and_log(30) == (0.0, ["20 noticed i0 until 30", "30 reclaimed i0"])
    assert bill_and_log(70) == (60 / 4, ["60 noticed i0 until 70", "60 released i0"])


def test_equal_seeds_give_equal_histories_of_drawn_markets(simulate):
    from elastune.sim.model.reclaim import Lifetimes

    def history():
        return simulate(
            {"start": [ScaleTo(3), SetTimer("end", 5000)], "timer end": [FinishRun(None)]},
            spot=Spot(Lifetimes(400.0, bulk_per_hour=4.0, bulk_share=0.5, zones=2), 30.0),
            market="spot",
            startup=(3, 20),
        ).log

    first = history()
    assert sum("noticed" in text for text in first) > 20
    assert first == history()
