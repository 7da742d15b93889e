from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.placement import FreeGpus


def free(**counts):
    gpus = FreeGpus()
    for name, count in counts.items():
        gpus.admit(int(name[1:]), count)
    return gpus


@pytest.mark.parametrize(
    ("counts", "gang", "placement"),
    [
        ({"i0": 4, "i1": 2}, 2, ((1, 2),)),  # best fit: machine 0 stays whole
        ({"i0": 4, "i1": 3, "i2": 3}, 2, ((1, 2),)),  # ties by the lowest number
        ({"i0": 1, "i1": 3, "i2": 2}, 3, ((1, 3),)),  # one node rather than two
        ({"i0": 1, "i1": 3, "i2": 2}, 5, ((1, 3), (2, 2))),  # two nodes rather than three
        ({"i0": 4, "i1": 4, "i2": 1}, 5, ((0, 4), (2, 1))),  # the rest where it fits best
        ({"i0": 2, "i1": 2, "i2": 2}, 6, ((0, 2), (1, 2), (2, 2))),
        ({"i0": 2, "i1": 2}, 5, None),
        ({}, 1, None),
    ],
)
def test_a_gang_is_on_the_fewest_nodes_that_fit_it_best(counts, gang, placement):
    assert free(**counts).take(gang) == placement


def test_gpus_that_come_back_join_those_that_are_free():
    gpus = free(i0=4)
    assert gpus.take(3) == ((0, 3),)
    assert gpus.take(2) is None
    gpus.give_back(0, 3)
    assert (gpus.total, gpus.take(4)) == (4, ((0, 4),))


def test_nothing_is_placed_on_a_withdrawn_machine():
    gpus = free(i0=2, i1=4)
    gpus.withdraw(0)
    gpus.withdraw(7)
    assert (0 in gpus, gpus.total, gpus.take(1)) == (False, 4, ((1, 1),))


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.lists(st.integers(1, 12), max_size=8))
def test_gangs_use_the_fewest_nodes_and_never_more_than_is_free(sizes, gangs):
    gpus, left = FreeGpus(), dict(enumerate(sizes))
    for instance, count in left.items():
        gpus.admit(instance, count)
    for gang in gangs:
        placement = gpus.take(gang)
        if placement is None:
            assert gang > sum(left.values())
            continue
        assert sum(count for _, count in placement) == gang
        biggest = sorted(left.values(), reverse=True)
        fewest = next(nodes for nodes in range(1, len(biggest) + 1) if sum(biggest[:nodes]) >= gang)
        assert len(placement) == fewest
        for instance, count in placement:
            left[instance] -= count
        assert min(left.values()) >= 0
        assert gpus.total == sum(left.values())
