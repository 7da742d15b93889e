"""Speed-ups that depend on nodes: what was measured, what is read off it, and the all-reduce model by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import (
    AllReduceScaling,
    Link,
    OnMachines,
    PlacedTableScaling,
    knows_nodes,
)
from elastune.sim.model.scaling import AmdahlScaling, LinearScaling, TableScaling, kind_phrase

TABLE = PlacedTableScaling({(1, 1): 1.0, (2, 1): 1.8, (2, 2): 1.0, (4, 1): 3.0, (4, 2): 2.0, (4, 4): 1.0, (8, 2): 4.0})


@pytest.mark.parametrize(
    ("gpus", "nodes", "speedup", "is_measured"),
    [
        (1, 1, 1.0, True),
        (4, 2, 2.0, True),
        (4, 3, 1.5, False),  # half way between 2 and 4 nodes
        (8, 1, 4.0, False),  # as on the fewest measured nodes
        (8, 5, 4.0, False),  # as on the most
        (3, 1, 2.4, False),  # half way between 2 and 4 GPUs, both on 1 node
        (3, 2, 1.5, False),  # half way between 2 and 4 GPUs, both on 2 nodes
        (3, 3, 1.25, False),  # 2 GPUs as on 2 nodes, 4 GPUs half way between 2 and 4 nodes
        (6, 2, 3.0, False),
    ],
)
def test_what_was_not_measured_is_read_off_the_nearest_that_was(gpus, nodes, speedup, is_measured):
    assert TABLE.speedup(gpus, nodes) == pytest.approx(speedup)
    assert TABLE.is_measured(gpus, nodes) == is_measured
    assert TABLE.max_gpus == 8


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({(2, 1): 1.7}, "starts with 1 GPU on 1 node at 1.0"),
        ({(1, 1): 1.1}, "starts with 1 GPU on 1 node at 1.0"),
        ({(1, 1): 1.0, (2, 3): 1.1}, "2 GPUs asked for on 3 nodes, but they fit on 1 to 2"),
        ({(1, 1): 1.0, (2, 1): math.nan}, "the speed-up of 2 GPUs on 1 nodes is nan, but must be positive"),
    ],
)
def test_a_table_by_nodes_that_makes_no_sense_is_refused(points, message):
    with pytest.raises(InputError, match=message):
        PlacedTableScaling(points)


def test_a_gang_that_no_table_covers_is_refused():
    with pytest.raises(InputError, match="speed-up of 9 GPUs asked for; it is known for 1 to 8"):
        TABLE.speedup(9, 3)
    with pytest.raises(InputError, match="2 GPUs asked for on 3 nodes"):
        TABLE.speedup(2, 3)


@given(st.integers(1, 8), st.integers(1, 8))
def test_what_is_read_off_lies_between_what_was_measured(gpus, nodes):
    if nodes <= gpus:
        assert min(TABLE.points.values()) <= TABLE.speedup(gpus, nodes) <= max(TABLE.points.values())


def test_a_ring_sends_two_rounds_of_a_share_of_the_gradients_each():
    # 4 GPUs: 2 x 3 messages of a quarter of the gradients: 6 x (0.01 + 0.4 / 4).
    assert Link(0.01, 0.4).allreduce_s(4) == pytest.approx(0.66)
    assert Link(0.01, 0.4).allreduce_s(1) == 0.0


def test_the_all_reduce_model_by_hand():
    # Strong: a step of 8 s is 2 s of computing on 4 GPUs, and 6 x (0 + 4 / 4) = 6 s of a slow network, 0.6 s of a fast one.
    strong = AllReduceScaling(8.0, Link(0.0, 0.4), Link(0.0, 4.0), "strong")
    assert strong.step_s(4, nodes=1) == pytest.approx(2.6)
    assert strong.speedup(4, 1) == pytest.approx(8 / 2.6)
    assert strong.speedup(4, 2) == strong.speedup(4, 3) == pytest.approx(1.0)
    # Weak: every GPU computes 8 s and four times the samples are done.
    weak = AllReduceScaling(8.0, Link(0.0, 0.4), Link(0.0, 4.0), "weak")
    assert weak.speedup(4, 1) == pytest.approx(4 * 8 / 8.6)
    assert weak.speedup(1) == strong.speedup(1) == 1.0


def test_the_serial_part_of_a_step_is_not_divided():
    scaling = AllReduceScaling(6.0, Link(), Link(), "strong", serial_s=2.0)
    assert scaling.speedup(4) == pytest.approx(8.0 / 3.5)


@given(st.floats(0, 0.4), st.integers(1, 64))
def test_without_latency_the_strong_all_reduce_model_is_amdahls_law(transfer_s, gpus):
    # 1/p + 2 (p - 1)/p t = s + (1 - s)/p with s = 2 t.
    model = AllReduceScaling(1.0, Link(0.0, transfer_s), Link(), "strong")
    assert model.speedup(gpus) == pytest.approx(AmdahlScaling(2 * transfer_s).speedup(gpus))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AllReduceScaling(1.0, Link(), Link(), "unstated"), "kind is missing; it is weak .* or strong"),
        (lambda: AllReduceScaling(0.0, Link(), Link(), "weak"), "compute_s is 0.0, but must be a positive number"),
        (lambda: AllReduceScaling(1.0, Link(), Link(), "weak", serial_s=-1.0), "serial_s is -1.0"),
        (lambda: Link(latency_s=-1.0), "latency_s of a link is -1.0"),
        (lambda: Link(transfer_s=math.inf), "transfer_s of a link is inf"),
        (lambda: AllReduceScaling(1.0, Link(), Link(), "weak").speedup(2, 3), "2 GPUs asked for on 3 nodes"),
    ],
)
def test_an_all_reduce_model_that_makes_no_sense_is_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_on_machines_of_a_size_no_gang_is_on_fewer_than_it_needs():
    packed = OnMachines(TABLE, gpus_per_machine=4)
    assert packed.max_gpus == 8
    assert (packed.speedup(4), packed.speedup(8)) == (3.0, 4.0)
    assert packed.speedup(4, 2) == 2.0
    network = AllReduceScaling(8.0, Link(), Link(0.0, 4.0), "strong")
    assert network.speedup(8) == 8.0
    assert OnMachines(network, 4).speedup(8) == network.speedup(8, 2) < 2


def test_which_scalings_know_nodes():
    assert knows_nodes(TABLE)
    assert not knows_nodes(TableScaling({1: 1.0}))


def test_a_scaling_says_how_the_batch_was_held():
    assert kind_phrase(AmdahlScaling(0.1, kind="weak")) == "weak scaling, the batch grows with the gang"
    assert kind_phrase(TableScaling({1: 1.0}, "strong")) == "strong scaling, the gang's batch is fixed"
    assert kind_phrase(TABLE) == "weak or strong is not stated"
    assert kind_phrase(LinearScaling()) == ""
