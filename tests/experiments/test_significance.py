"""P-values by sign flips, Holm's correction and sample sizes, against hand-computed and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_1samp

from elastune.experiments.statistics.significance import holm, seeds_needed, sign_flip_p_each

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("parts", "p"),
    [
        ([1.0], 1.0),
        ([1.0, 2.0], 0.5),
        ([1.0, -2.0], 1.0),
        ([1.0, 2.0, 3.0], 0.25),
        ([0.0, 0.0], 1.0),
        ([3, 3, -1], 0.5),
    ],
)
def test_few_units_by_hand(parts, p):
    assert sign_flip_p(parts) == p


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=8))
@settings(max_examples=examples(30), deadline=None)
def test_exact_p_values_are_those_of_scipy(parts):
    sample = np.array(parts, dtype=float)
    expected = permutation_test((sample,), np.mean, permutation_type="samples", n_resamples=math.inf).pvalue
    assert sign_flip_p(parts) == pytest.approx(expected)


def test_many_units_are_like_a_t_test():
    parts = np.random.default_rng(1).normal(0.25, 1.0, 60)
    assert sign_flip_p(parts.tolist()) == pytest.approx(ttest_1samp(parts, 0.0).pvalue, abs=0.01)
    assert sign_flip_p((parts + 10).tolist()) == 1 / 10_001


def test_p_values_below_a_level_are_as_rare_as_it_says():
    rng = np.random.default_rng(2)
    found = sign_flip_p_each([rng.normal(size=30) for _ in range(1000)])
    assert sum(p <= 0.05 for p in found) == pytest.approx(50, abs=2.5 * math.sqrt(1000 * 0.05 * 0.95))


def test_groups_of_all_sizes_are_as_one_by_one():
    rng = np.random.default_rng(3)
    groups = [rng.normal(size=size) for size in (3, 0, 20, 3, 14, 1)]
    found = sign_flip_p_each(groups)
    assert math.isnan(found[1])
    assert [p for p in found if not math.isnan(p)] == [sign_flip_p(parts.tolist()) for parts in groups if len(parts)]


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_what_has_no_p_value_is_no_hypothesis():
    adjusted = holm([0.02, math.nan, 0.03])
    assert math.isnan(adjusted[1])
    assert adjusted[[0, 2]].tolist() == pytest.approx([0.04, 0.04])
    assert holm([]).tolist() == []


@given(probabilities)
def test_holm_keeps_the_order_and_is_between_uncorrected_and_bonferroni(p_values):
    given_p, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= given_p).all()
    assert (adjusted <= np.minimum(1.0, len(p_values) * given_p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(given_p, kind="stable")]) >= 0).all()


def sign_flip_p(parts):
    return sign_flip_p_each([parts])[0]


def pilot_of(deviation):
    """Differences whose standard deviation is exactly this."""
    raw = np.random.default_rng(4).normal(size=30)
    return ((raw - raw.mean()) / raw.std(ddof=1) * deviation).tolist()


# Two-sided paired t-test at 0.05 with power 0.8, as tables of G*Power give it.
@pytest.mark.parametrize(("effects", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_sample_sizes_are_those_of_the_tables(effects, seeds):
    assert seeds_needed(pilot_of(1.0), effects) == seeds
    # Regret: 5 % is seen against a spread of 0.25 as 0.2 standard deviations.
    assert seeds_needed(pilot_of(0.05 / effects)) == seeds


def test_a_study_of_that_size_sees_the_effect_as_often_as_wanted():
    seeds = seeds_needed(pilot_of(0.1))
    rng = np.random.default_rng(5)
    seen = ttest_1samp(rng.normal(0.05, 0.1, (4000, seeds)), 0.0, axis=1).pvalue <= 0.05
    assert seen.mean() == pytest.approx(0.8, abs=0.025)


def test_a_pilot_that_says_nothing_gives_no_number():
    assert seeds_needed([0.3]) is None
    assert seeds_needed([0.1, math.nan]) is None
    assert seeds_needed([0.1, 0.2], 0.0) is None
    assert seeds_needed([0.2, 0.2, 0.2]) == 2
