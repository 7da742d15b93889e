"""Small rules of the Ray Tune adapter that need no loop."""

import enum

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.bridge.tune.resources import bundles_for, gpus_on, ray_resources
from elastune.sim.bridge.tune.values import finite, plain_configuration
from elastune.sim.model.errors import InputError


@given(gpus=st.integers(1, 64), per_node=st.integers(1, 16))
def test_a_gang_asks_for_all_its_gpus_and_for_no_more_than_a_node_has_at_a_time(gpus, per_node):
    bundles = bundles_for(gpus, per_node, {"GPU": 1.0, "CPU": 4.0})
    assert sum(bundle["GPU"] for bundle in bundles) == gpus
    assert all(bundle["GPU"] <= per_node and bundle["CPU"] == 4 * bundle["GPU"] for bundle in bundles)
    assert len(bundles) == -(-gpus // per_node)


def test_the_scarcest_resource_says_how_many_gpus_a_node_has():
    assert gpus_on({"CPU": 16.0, "GPU": 8.0}, ray_resources({"gpu": 1, "cpu": 4})) == 4
    assert gpus_on({"CPU": 16.0}, ray_resources({"gpu": 1})) == 0
    assert gpus_on({"CPU": 1.0}, ray_resources({"cpu": 0.1})) == 10


def test_custom_resources_keep_their_names():
    assert ray_resources({"Cpu": 1, "slots": 2}) == {"CPU": 1.0, "slots": 2.0}


def test_a_configuration_is_written_down_as_plain_values():
    config = {"lr": 0.1, "net": {"width": 8, "act": "relu"}, "layers": [1, 2], "seed": None, "decay": float("inf")}
    assert plain_configuration(config) == {
        "lr": 0.1, "net/width": 8, "net/act": "relu", "layers": "[1, 2]", "seed": None, "decay": "inf",
    }  # fmt: skip


def test_a_diverged_score_is_none_and_a_word_is_refused():
    assert finite(float("nan")) is None
    assert finite(2) == 2.0
    for word in ("high", "0.5", "1_0", b"1", 10**400, None, np.array([1.0, 2.0])):
        with pytest.raises(InputError, match="a score is"):
            finite(word)


@pytest.mark.parametrize(
    "resources", [{}, {"cpu": 0}, {"cpu": "one"}, {"cpu": float("inf")}, {"cpu": 10**400}, ["cpu"], {"cpu": None}]
)
def test_resources_that_are_none_are_refused(resources):
    with pytest.raises(InputError, match="resources_per_gpu is"):
        ray_resources(resources)


class Optimizer(str, enum.Enum):  # noqa: UP042  as written before Python 3.11
    ADAM = "adam"


class Share(float):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Optimizer.ADAM, "adam"),
        (Share(0.5), 0.5),
        (np.array([1, 2]), "[1, 2]"),
        ([np.float64(0.5), (np.int32(3),)], "[0.5, [3]]"),
        ("\udc80", "\\udc80"),
        (2**70, 2**70),
        (np.datetime64("2020-01-01T00:00:00.000000001"), "2020-01-01T00:00:00.000000001"),
        (np.longdouble(1.5), "1.5"),
    ],
    ids=repr,
)
def test_whatever_a_search_space_holds_can_be_written_to_a_journal(value, expected):
    written = msgspec.json.encode(plain_configuration({"a": value, "b": {"c": value}}))
    assert msgspec.json.decode(written) == {"a": expected, "b/c": expected}


def test_a_configuration_may_have_tuples_as_keys():
    assert plain_configuration({("a", 1): np.float64(0.5)}) == {"('a', 1)": 0.5}


def test_numpy_scalars_of_a_search_space_are_the_plain_values_they_stand_for():
    config = {
        "lr": np.float64(0.1),
        "half": np.float32(0.5),
        "layers": np.int64(3),
        "bias": np.bool_(True),
        "name": np.str_("adam"),
        "nothing": np.float64("nan"),
        "zero": np.array(2),
        "inner": {"width": np.int32(7)},
    }
    plain = plain_configuration(config)
    expected = {
        "lr": 0.1,
        "half": 0.5,
        "layers": 3,
        "bias": True,
        "name": "adam",
        "nothing": "nan",
        "zero": 2,
        "inner/width": 7,
    }
    assert plain == expected
    assert {key: type(value) for key, value in plain.items()} == {key: type(value) for key, value in expected.items()}
    assert msgspec.json.decode(msgspec.json.encode(plain)) == expected
