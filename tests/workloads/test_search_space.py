import numpy as np
import pytest

from elastune.sim.model.errors import InputError
from elastune.traces.workloads import (
    WORKLOAD_NAMES,
    Categorical,
    Integer,
    LogUniform,
    SearchSpace,
    Uniform,
    training_seed,
    workload_named,
)


def test_every_dimension_stays_in_its_range_and_reaches_both_ends_of_it():
    space = SearchSpace(
        {
            "rate": LogUniform(1e-4, 1.0),
            "share": Uniform(0.2, 0.4),
            "layers": Integer(1, 3),
            "width": Integer(8, 64, log=True),
            "kind": Categorical(("a", "b")),
        }
    )
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(2000)]

    assert all(1e-4 <= one["rate"] < 1.0 and 0.2 <= one["share"] < 0.4 for one in drawn)
    assert {one["layers"] for one in drawn} == {1, 2, 3}
    assert {one["width"] for one in drawn} <= set(range(8, 65))
    assert {8, 64} <= {one["width"] for one in drawn}
    assert {one["kind"] for one in drawn} == {"a", "b"}


def test_a_logarithmic_range_draws_every_decade_equally_often():
    rng = np.random.default_rng(0)
    decades = np.floor(np.log10([LogUniform(1e-4, 1.0).sample(rng) for _ in range(8000)]))

    counts = np.array([(decades == decade).sum() for decade in (-4, -3, -2, -1)])
    assert counts.sum() == 8000
    assert np.all(np.abs(counts - 2000) < 5 * np.sqrt(8000 * 0.25 * 0.75))


def test_an_empty_range_is_refused():
    with pytest.raises(InputError, match=r"from 2 to 1 is empty"):
        Integer(2, 1)
    with pytest.raises(InputError, match=r"must start above 0"):
        LogUniform(0.0, 1.0)
    with pytest.raises(InputError, match=r"must be distinct"):
        Categorical(("a", "a"))


def test_a_misspelt_hyperparameter_is_named_with_the_nearest_known_one():
    space = SearchSpace({"learning_rate": LogUniform(1e-4, 1.0)})
    with pytest.raises(InputError, match=r"no hyperparameter 'learning_rte'; did you mean 'learning_rate'\?"):
        space.require({"learning_rte": 0.1})
    with pytest.raises(InputError, match="lacks learning_rate"):
        space.require({})


def test_an_unknown_workload_is_named_with_the_nearest_known_one():
    with pytest.raises(InputError, match=r"no workload 'digits-mpl'; did you mean 'digits-mlp'\?"):
        workload_named("digits-mpl")


@pytest.mark.parametrize("name", WORKLOAD_NAMES)
def test_a_workload_describes_itself_and_draws_the_same_configuration_for_the_same_seed_and_trial(name):
    workload = workload_named(name)

    assert workload.name == name
    assert len(workload.search_space.dimensions) >= 5
    assert workload.schedule == ("two-stage" if name.startswith("deepmoe") else "constant")
    assert workload.configuration_of(3, 7) == workload.configuration_of(3, 7)
    assert workload.configuration_of(3, 7) != workload.configuration_of(3, 8) != workload.configuration_of(4, 8)
    assert training_seed(3, 7) == training_seed(3, 7) != training_seed(3, 8)


@pytest.mark.parametrize(
    ("dimension", "value", "factor", "scaled"),
    [
        (Uniform(0.0, 1.0), 0.5, 1.2, 0.6),
        (Uniform(0.0, 1.0), 0.9, 1.2, 1.0),
        (Uniform(-1.0, 1.0), -0.9, 1.2, -1.0),
        (LogUniform(1e-3, 1.0), 1e-2, 0.8, 8e-3),
        (LogUniform(1e-3, 1.0), 1.1e-3, 0.8, 1e-3),
        (Integer(1, 100), 50, 1.2, 60),
        (Integer(1, 100), 2, 1.2, 3),
        (Integer(1, 100), 2, 0.8, 1),
        (Integer(1, 100), 1, 0.8, 1),
        (Integer(1, 100), 7, 1.0, 7),
        (Categorical((16, 64, 32)), 32, 1.2, 64),
        (Categorical((16, 64, 32)), 32, 0.8, 16),
        (Categorical((16, 64, 32)), 64, 1.2, 64),
        (Categorical((16, 64, 32)), 32, 1.0, 32),
        (Categorical(("sgd", "adam")), "adam", 1.2, "adam"),
    ],
)
def test_a_scaled_value_stays_in_its_range_and_integers_and_choices_move_at_least_one_step(
    dimension, value, factor, scaled
):
    assert dimension.scaled(value, factor) == pytest.approx(scaled)
    assert type(dimension.scaled(value, factor)) is type(scaled)


@pytest.mark.parametrize("dimension", [Uniform(0.0, 1.0), LogUniform(0.1, 1.0), Integer(1, 9)])
@pytest.mark.parametrize("value", ["much", None, True])
def test_what_is_not_a_number_cannot_be_scaled(dimension, value):
    with pytest.raises(InputError, match=rf"^{value!r} is not a number"):
        dimension.scaled(value, 1.2)


def test_what_is_no_choice_cannot_be_scaled():
    with pytest.raises(InputError, match=r"^17 is none of the choices \(16, 32\)"):
        Categorical((16, 32)).scaled(17, 1.2)
