from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.control.placement import FreeGpus, QueuedGpus, free_pool


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


def test_with_placement_off_a_gang_takes_what_has_been_free_for_longest():
    gpus = QueuedGpus()
    gpus.admit(0, 4)
    gpus.admit(1, 4)
    assert gpus.take(3) == ((0, 3),)
    assert gpus.take(3) == ((0, 1), (1, 2))  # a fragment and the beginning of the next machine
    gpus.give_back(0, 3)
    assert gpus.take(4) == ((1, 2), (0, 2))  # what never was taken is free for longer than what came back
    assert (gpus.total, gpus.take(2)) == (1, None)


def test_with_placement_off_gangs_that_tile_machines_stay_whole():
    gpus = QueuedGpus()
    for machine in range(2):
        gpus.admit(machine, 4)
    assert [gpus.take(2) for _ in range(4)] == [((0, 2),), ((0, 2),), ((1, 2),), ((1, 2),)]


def test_spread_puts_each_worker_where_most_is_free():
    gpus = free_pool("spread")
    for machine, count in ((0, 4), (1, 2), (2, 4)):
        gpus.admit(machine, count)
    assert gpus.take(4) == ((0, 2), (2, 2))  # 4 and 4 free, then 3 and 3, then 2 everywhere
    assert gpus.take(3) == ((0, 1), (1, 1), (2, 1))
    assert gpus.take(4) is None


@given(
    st.sampled_from(["on", "off", "spread"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(["take", "give", "withdraw", "admit"]), st.integers(0, 9)), max_size=30),
)
def test_whatever_the_rule_no_gpu_is_held_twice_or_lost(rule, sizes, steps):
    pool, left, held, whole = free_pool(rule), dict(enumerate(sizes)), [], dict(enumerate(sizes))
    for machine, count in left.items():
        pool.admit(machine, count)
    for step, number in steps:
        if step == "take":
            placement = pool.take(number + 1)
            free = sum(count for machine, count in left.items() if machine in pool)
            assert (placement is None) == (number + 1 > free)
            for machine, count in placement or ():
                assert machine in pool
                left[machine] -= count
            held += [placement] if placement else []
            assert sum(count for _, count in placement or ((0, number + 1),)) == number + 1
            assert len({machine for machine, _ in placement or ()}) == len(placement or ())
        elif step == "give" and held:
            for machine, count in held.pop(number % len(held)):
                left[machine] += count
                if machine in pool:
                    pool.give_back(machine, count)
        elif step == "withdraw":
            pool.withdraw(number)
        elif step == "admit" and number in left and number not in pool:
            pool.admit(number, left[number])
        assert pool.total == sum(count for machine, count in left.items() if machine in pool)
        assert all(0 <= left[machine] <= whole[machine] for machine in whole)
