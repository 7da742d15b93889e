from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.model.capacity import Steps
from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import Delay
from elastune.sim.model.reclaim import Lifetimes, NodeChange, RecordedNodes
from elastune.sim.model.streams import Streams


def recording(*events, length_s=100.0, start_s=0.0):
    """Events as `0 +a`."""
    changes = (NodeChange(float(at), word[0] == "+", word[1:]) for at, word in map(str.split, events))
    return RecordedNodes("test", tuple(changes), length_s, start_s)


def test_a_machine_goes_with_the_node_it_is_on_and_the_oldest_free_node_comes_first():
    pool = recording("0 +a", "0 +b", "10 +c", "40 -a", "60 -b").begin(Streams(0), 0.0)
    assert pool.place(0, 0.0) == 40.0
    assert pool.place(1, 0.0) == 60.0
    assert pool.place(2, 5.0) is None
    assert pool.frees_at_s(5.0) == 10.0
    pool.vacate(0)
    assert pool.place(3, 8.0) == 40.0


def test_a_replacement_that_is_asked_for_at_a_bulk_reclaim_is_not_taken_by_it():
    pool = Lifetimes(bulk_per_hour=60.0).begin(Streams(0), 30.0)
    gone_s = pool.place(0, 0.0)
    # The moment of the notice as a clock may round it.
    for noticed_s in (gone_s - 30.0, math.nextafter(gone_s - 30.0, 0.0), gone_s - 30.0 - 1e-9):
        assert pool.place(1, noticed_s) > gone_s


def test_a_node_within_its_notice_takes_nothing():
    pool = recording("0 +a", "40 -a", "50 +a", "90 -a").begin(Streams(0), 10.0)
    assert pool.place(0, 29.0) == 40.0
    pool.vacate(0)
    assert pool.place(1, 30.0) is None
    assert pool.frees_at_s(30.0) == 50.0


def test_at_the_seam_as_many_nodes_go_on_as_the_recording_begins_with():
    # b and c are there at the end; the recording begins with one node, so the older one, b, goes on as a until 100 + 40.
    pool = recording("0 +a", "10 +b", "20 +c", "40 -a").begin(Streams(0), 0.0)
    assert pool.place(0, 50.0) == 140.0
    assert pool.place(1, 50.0) == 100.0
    # And the node that comes in each lap at 10 s goes through the next seam.
    assert pool.frees_at_s(50.0) == 110.0


def test_a_node_that_no_lap_takes_away_stays_for_ever():
    pool = recording("0 +a", "0 +b", "40 -b", "50 +b").begin(Streams(0), 0.0)
    assert pool.place(0, 0.0) == math.inf
    assert pool.place(1, 0.0) == 40.0
    assert recording("0 +a").begin(Streams(0), 0.0).frees_at_s(7.0) == math.inf


def test_a_recording_may_begin_in_its_middle():
    pool = recording("0 +a", "0 +b", "40 -a", "50 +c", "70 -c", start_s=45.0).begin(Streams(0), 0.0)
    assert pool.place(0, 0.0) > 55.0  # b; a has gone
    assert pool.place(1, 0.0) is None
    assert pool.place(1, 5.0) == 25.0


def test_where_it_begins_is_drawn_by_the_seed():
    trace = recording("0 +a", "50 -a", start_s=None)
    ends = {trace.begin(Streams(seed), 0.0).place(0, 0.0) for seed in range(20)}
    assert len(ends - {None}) > 5
    assert None in ends
    assert trace.begin(Streams(3), 0.0).place(0, 0.0) == trace.begin(Streams(3), 0.0).place(0, 0.0)


@given(st.lists(st.tuples(st.floats(0, 99), st.integers(0, 4)), max_size=12), st.floats(0, 99), st.floats(0, 400))
def test_never_more_machines_than_nodes_and_every_end_is_a_removal_or_a_seam(moves, start_s, at_s):
    there, changes, counts = set(), [], [(0.0, 0)]
    for when_s, node in sorted(moves):
        changes.append(NodeChange(when_s, node not in there, str(node)))
        there ^= {node}
        counts.append((when_s, len(there)))
    trace = RecordedNodes("any", tuple(changes), 100.0, start_s)
    pool = trace.begin(Streams(0), 0.0)
    ends = []
    while (end_s := pool.place(len(ends), at_s)) is not None:
        ends.append(end_s)
        assert end_s > at_s
        assert len(ends) <= 5
    now_s = (start_s + at_s) % 100.0
    if all(abs(now_s - when_s) > 1e-6 for when_s, _ in counts):
        assert len(ends) == [count for when_s, count in counts if when_s <= now_s][-1]
    marks = [0.0, *(change.at_s for change in changes if not change.is_added)]
    for end_s in ends:
        off_s = [(end_s + start_s - mark + 50.0) % 100.0 - 50.0 for mark in marks]
        assert math.isinf(end_s) or min(map(abs, off_s)) < 1e-6


def test_the_mean_time_between_losses_of_a_recording_is_node_seconds_per_removal():
    # a 40 s, b 100 s, c 90 s: 230 node-seconds, one removal.
    assert recording("0 +a", "0 +b", "10 +c", "40 -a").mtbf_s == 230.0
    assert recording("0 +a").mtbf_s == math.inf


def test_lifetimes_have_their_mean_and_are_keyed_by_instance():
    pool = Lifetimes(600.0, shape=2.0).begin(Streams(1), 30.0)
    lives_s = [pool.place(number, 100.0) - 130.0 for number in range(2000)]
    assert np.mean(lives_s) == pytest.approx(600.0, rel=0.04)
    # Weibull of shape 2: sd / mean = sqrt(4 / pi - 1) = 0.5227.
    assert np.std(lives_s) / np.mean(lives_s) == pytest.approx(0.5227, rel=0.06)
    assert Lifetimes(600.0, shape=2.0).begin(Streams(1), 30.0).place(7, 100.0) == lives_s[7] + 130.0


def test_bulk_reclaims_take_the_machines_of_a_zone_together():
    pool = Lifetimes(bulk_per_hour=1.0, zones=2).begin(Streams(4), 120.0)
    ends = [pool.place(number, 0.0) for number in range(6)]
    assert ends[0] == ends[2] == ends[4] != ends[1] == ends[3] == ends[5]
    assert pool.place(8, ends[0] - 120.0) > ends[0]  # it comes after the notice of that one


def test_a_bulk_reclaim_may_take_a_share_only():
    pool = Lifetimes(bulk_per_hour=1.0, bulk_share=0.25).begin(Streams(4), 0.0)
    ends = [pool.place(number, 0.0) for number in range(4000)]
    first_s = min(ends)
    assert ends.count(first_s) / 4000 == pytest.approx(0.25, abs=0.03)


def test_rates_add_up_to_the_mean_time_between_losses():
    # 1 / 7200 + 0.5 x 1 / 3600 per second.
    assert Lifetimes(7200.0, bulk_per_hour=1.0, bulk_share=0.5).mtbf_s == pytest.approx(3600.0)
    assert Lifetimes().mtbf_s == math.inf


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ({"mean_s": 0.0}, r"lifetime\.mean_s is 0"),
        ({"shape": -1.0}, r"lifetime\.shape is -1"),
        ({"bulk_per_hour": -1.0}, r"bulk\.per_hour is -1"),
        ({"bulk_share": 0.0}, r"bulk\.share is 0"),
        ({"zones": 0}, r"bulk\.zones is 0"),
    ],
)
def test_impossible_lifetimes_are_refused(numbers, problem):
    with pytest.raises(InputError, match=problem):
        Lifetimes(**numbers)


def test_steps_say_how_many_there_are_and_when_there_are_more():
    steps = Steps((0.0, 60.0, 90.0, 120.0), (4, 0, 2, 8))
    assert [steps.at(at_s) for at_s in (0, 59.9, 60, 100, 1e9)] == [4, 4, 0, 2, 8]
    assert [steps.rises_at_s(at_s) for at_s in (0, 60, 90, 120)] == [120.0, 90.0, 120.0, math.inf]


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([], "at least one pair"),
        ([(5.0, 1)], "begins at 5 s"),
        ([(0.0, 1), (9.0, 2), (7.0, 3)], "goes from 9 s to 7 s, but its times must rise"),
        ([(0.0, -1)], "names -1 instances"),
    ],
)
def test_impossible_steps_are_refused(pairs, problem):
    with pytest.raises(InputError, match=problem):
        Steps(tuple(at_s for at_s, _ in pairs), tuple(count for _, count in pairs))


def test_recorded_waits_are_drawn_between_the_least_and_the_largest_with_their_own_mean():
    # Uniform on [0, 10] and on [10, 40] with half of the weight each: mean 15, E[x^2] = (100/3 + 700) / 2.
    wait = Delay.recorded([40.0, 0.0, 10.0])
    assert wait.mean_s == 15.0
    assert wait.cv == pytest.approx(math.sqrt((100 / 3 + 700) / 2 - 225) / 15)
    rng = np.random.default_rng(0)
    drawn_s = [wait.draw_s(rng) for _ in range(4000)]
    assert 0.0 <= min(drawn_s) <= max(drawn_s) <= 40.0
    assert np.mean(drawn_s) == pytest.approx(15.0, rel=0.03)
    assert np.std(drawn_s) / 15.0 == pytest.approx(wait.cv, rel=0.03)
    with pytest.raises(InputError, match="fewer than two"):
        Delay.recorded([1.0])
