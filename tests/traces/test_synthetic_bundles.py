from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune import traces
from elastune.sim.model.errors import InputError
from elastune.sim.model.scaling import LinearScaling


def test_equal_seeds_give_equal_bundles_and_digests():
    first, again, other = (traces.synthetic_bundle(20, 5, seed, diverged_share=0.2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.scores, again.scores)
    assert first.sha256 == again.sha256 != other.sha256
    assert not np.array_equal(first.scores, other.scores, equal_nan=True)


def test_curves_without_noise_follow_the_power_law_of_their_configuration():
    bundle = traces.synthetic_bundle(10, 4, noise=0.0)
    for configuration, curve in zip(bundle.configurations, bundle.scores, strict=True):
        floor, gain, decay = (configuration[name] for name in ("floor", "gain", "decay"))
        assert curve.tolist() == pytest.approx([floor + gain * k**-decay for k in (1, 2, 3, 4)])


def test_accuracies_rise_where_losses_fall():
    losses = traces.synthetic_bundle(10, 4, noise=0.0).scores
    accuracies = traces.synthetic_bundle(10, 4, noise=0.0, direction="maximize").scores
    np.testing.assert_allclose(accuracies, 1.0 - losses)


def test_the_curves_of_different_configurations_cross():
    scores = traces.synthetic_bundle(200, 27, noise=0.0).scores
    assert np.argmin(scores[:, 0]) != np.argmin(scores[:, -1])


@settings(deadline=None)
@given(trials=st.integers(1, 60), iterations=st.integers(1, 8), share=st.floats(0.0, 1.0), seed=st.integers(0, 2**32))
def test_the_share_that_diverges_is_as_asked_for_and_stays_diverged(trials, iterations, share, seed):
    diverged = np.isnan(traces.synthetic_bundle(trials, iterations, seed, diverged_share=share).scores)
    assert diverged.any(axis=1).sum() == round(share * trials)
    assert (diverged[:, :-1] <= diverged[:, 1:]).all()


def test_configurations_behave_as_a_sequence():
    configurations = traces.synthetic_bundle(5, 1).configurations
    assert len(configurations) == 5
    assert list(configurations[1:3]) == [configurations[1], configurations[2]]
    assert len(list(configurations)) == 5


def test_more_trials_than_one_block_are_filled_to_the_end():
    bundle = traces.synthetic_bundle(70_000, 2, noise=0.0)
    assert (bundle.scores > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, r"0 trials x 3 iterations: both must be at least 1"),
        ({"iterations": 0}, r"2 trials x 0 iterations: both must be at least 1"),
        ({"noise": -1.0}, r"noise is -1.0"),
        ({"diverged_share": 1.5}, r"diverged_share 1.5"),
    ],
)
def test_a_number_out_of_range_is_an_error(arguments, message):
    with pytest.raises(InputError, match=message):
        traces.synthetic_bundle(**({"trials": 2, "iterations": 3} | arguments))


def test_a_tiny_bundle_is_what_was_given():
    bundle = traces.tiny_bundle([[3, 2], [1, math.nan]], direction="maximize")
    np.testing.assert_array_equal(bundle.scores, [[3.0, 2.0], [1.0, math.nan]])
    assert (bundle.direction, bundle.trials, bundle.max_iterations) == ("maximize", 2, 2)
    assert bundle.terms().scaling == LinearScaling()
    assert bundle.terms().timings.rescale_s == 0.0
    assert bundle.sha256 == traces.tiny_bundle([[3, 2], [1, math.nan]], direction="maximize").sha256


@pytest.mark.parametrize(
    ("scores", "cost", "message"),
    [
        ([1.0, 2.0], None, r"scores have the shape \(2,\)"),
        ([[]], None, r"scores have the shape \(1, 0\)"),
        ([[1.0]], [0.0], r"relative_cost is \[0.0\], but must be 1 positive numbers"),
        ([[1.0]], [1.0, 1.0], r"but must be 1 positive numbers"),
    ],
)
def test_a_tiny_bundle_of_the_wrong_shape_is_an_error(scores, cost, message):
    with pytest.raises(InputError, match=message):
        traces.tiny_bundle(scores, relative_cost=cost)
