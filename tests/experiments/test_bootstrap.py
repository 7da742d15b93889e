"""Intervals of pooled runs: by hand, against scipy, and how often they hold the truth where the hierarchy is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t, trim_mean

from elastune.experiments.statistics import bootstrap
from elastune.experiments.statistics.bootstrap import (
    Units,
    family_parts,
    pooled_interquartile_mean,
    pooled_means,
    pooled_means_each,
    seed_parts,
)
from elastune.experiments.statistics.differences import mean_interval

numbers = st.floats(-100, 100)


def units_of(*runs):
    """From (family, bundle, seed) of each run."""
    return Units.of(*zip(*runs, strict=True))


def crossed(families, bundles, seeds, cells=1):
    """So many families of so many bundles each, every one on the same seeds and cells."""
    runs = itertools.product(range(families), range(bundles), range(seeds), range(cells))
    return units_of(*((family, (family, bundle).__repr__(), seed) for family, bundle, seed, _ in runs))


def one(values, units, **options):
    return pooled_means(np.asarray(values, dtype=float)[:, None], units, **options)


def ends(found):
    return float(found.value[0]), float(found.low[0]), float(found.high[0])


@given(numbers, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=examples(25), deadline=None)
def test_what_is_always_the_same_has_no_interval(value, families, bundles, seeds):
    units = crossed(families, bundles, seeds)
    values = np.full(families * bundles * seeds, value)
    for found in (pooled_means(values[:, None], units), pooled_interquartile_mean(values, units)):
        assert ends(found) == pytest.approx((value,) * 3, abs=1e-9)


@pytest.mark.parametrize("value", [6.103, 0.1, 0.7, 1 / 3, -5.1])
@pytest.mark.parametrize("runs", [3, 7, 20, 200])
def test_equal_runs_lie_within_their_own_interval_to_the_last_digit(value, runs):
    units = Units.of_seeds(runs)
    equal = np.full(runs, value)
    (each,) = pooled_means_each([(equal[:, None], units)])
    for found in (pooled_means(equal[:, None], units), pooled_interquartile_mean(equal, units), each):
        assert found.low[0] <= found.value[0] <= found.high[0]
    interval = mean_interval(equal.tolist())
    assert interval.low <= interval.value <= interval.high


def test_a_seed_is_resampled_with_all_its_cells():
    by_seed = np.random.default_rng(1).normal(size=12)
    alone = mean_interval(by_seed.tolist())
    # Nine cells that a seed treats alike are worth one, not nine.
    pooled = one(np.repeat(by_seed, 9), crossed(1, 1, 12, cells=9))
    assert ends(pooled) == pytest.approx((alone.value, alone.low, alone.high))
    as_if_independent = mean_interval(np.repeat(by_seed, 9).tolist())
    assert as_if_independent.high - as_if_independent.low < 0.4 * (alone.high - alone.low)


def test_a_seed_is_resampled_with_all_its_bundles():
    by_seed = np.random.default_rng(2).normal(size=10)
    alone = mean_interval(by_seed.tolist())
    assert ends(one(np.tile(by_seed, 5), crossed(1, 5, 10))) == pytest.approx((alone.value, alone.low, alone.high))


def test_families_weigh_equally_and_in_them_bundles():
    units = units_of(("a", "a1", 0), ("a", "a1", 1), ("a", "a2", 0), ("b", "b1", 0))
    # Bundle a1 has mean 2, a2 has 6, so family a has 4; family b has 10.
    found = one([1, 3, 6, 10], units)
    assert found.value[0] == 7.0
    assert (found.families, found.bundles, found.seeds, found.over) == (2, 3, 2, "families")
    assert family_parts(np.array([1.0, 3.0, 6.0, 10.0]), units).tolist() == [2.0, 5.0]
    assert seed_parts(np.array([1.0, 3.0, 6.0, 10.0]), units).tolist() == [0.25 * 1 / 2 + 0.25 * 6 + 5.0, 0.25 * 3 / 2]


def test_of_one_family_nothing_is_said_about_others():
    units = crossed(1, 2, 5)
    found = one([0.0] * 5 + [10.0] * 5, units)
    assert (found.over, ends(found)) == ("seeds", pytest.approx((5.0, 5.0, 5.0)))


def test_the_interval_over_two_families_is_their_range():
    found = one([0.0] * 5 + [10.0] * 5, crossed(2, 1, 5))
    assert (found.over, ends(found)) == ("families", (5.0, 0.0, 10.0))
    assert ends(one([0.0] * 5 + [10.0] * 5, crossed(2, 1, 5), over="seeds")) == pytest.approx((5.0, 5.0, 5.0))


def test_levels_move_outwards_for_few_families():
    low, high = bootstrap._levels(10)
    assert low == pytest.approx(norm.cdf(math.sqrt(10 / 9) * t.ppf(0.025, 9)))
    assert (high, bootstrap._levels(2), bootstrap._levels(None)) == (1 - low, (0.0, 1.0), pytest.approx((0.025, 0.975)))


def test_bundles_with_seeds_of_their_own_are_pooled_too():
    units = units_of(*((0, "x", seed) for seed in range(3)), *((1, "y", seed) for seed in range(3, 6)))
    value, low, high = ends(one([1, 2, 3, 11, 12, 13], units))
    assert (value, low, high) == (7.0, 1.0, 13.0)


def test_the_order_of_runs_does_not_matter():
    rng = np.random.default_rng(3)
    units, values, order = crossed(3, 2, 4), rng.normal(size=24), rng.permutation(24)
    assert ends(one(values, units)) == pytest.approx(ends(one(values[order], units.where(order))))
    middle = (pooled_interquartile_mean(values, units), pooled_interquartile_mean(values[order], units.where(order)))
    assert ends(middle[0]) == pytest.approx(ends(middle[1]))


def test_many_groups_at_once_are_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(4)
    shapes = [crossed(1, 1, 5), crossed(2, 2, 3), crossed(1, 1, 5, cells=2), crossed(1, 1, 7), crossed(1, 3, 5)]
    groups = [(rng.normal(size=(len(units.seeds), 2)), units) for units in shapes]
    groups.append((np.empty((0, 2)), units_of((0, 0, 0)).where(np.array([], dtype=int))))
    monkeypatch.setattr(bootstrap, "BLOCK", 25_000)
    for found, (values, units) in zip(pooled_means_each(groups), groups, strict=True):
        alone = pooled_means(values, units)
        for name in ("value", "low", "high"):
            np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-12)
        assert (found.families, found.bundles, found.seeds, found.over) == (
            alone.families,
            alone.bundles,
            alone.seeds,
            alone.over,
        )


def test_more_seeds_than_are_kept_are_drawn_alike_in_any_blocks(monkeypatch):
    monkeypatch.setattr(bootstrap, "KEPT_UNITS", 5)
    values = np.random.default_rng(5).normal(size=8)
    drawn = ends(one(values, Units.of_seeds(8)))
    monkeypatch.setattr(bootstrap, "BLOCK", 900)
    assert ends(one(values, Units.of_seeds(8))) == pytest.approx(drawn)
    monkeypatch.setattr(bootstrap, "KEPT_UNITS", 1_000)
    assert ends(one(values, Units.of_seeds(8))) == pytest.approx(drawn)


@given(st.lists(numbers, min_size=4, max_size=20).filter(lambda values: len(values) % 4 == 0))
@settings(max_examples=examples(30), deadline=None)
def test_the_interquartile_mean_of_independent_runs_is_that_of_scipy(values):
    found = pooled_interquartile_mean(np.array(values), Units.of_seeds(len(values)))
    assert found.value[0] == pytest.approx(trim_mean(values, 0.25), abs=1e-9)
    assert found.low[0] - 1e-9 <= found.value[0] <= found.high[0] + 1e-9 or len(values) < 8


def test_the_interquartile_mean_weighs_runs():
    # Weights 1/4, 1/4 and 1/2: the middle half is the second run, and half of the third.
    units = units_of(("a", "a", 0), ("a", "a", 1), ("b", "b", 0))
    assert pooled_interquartile_mean(np.array([-50.0, 1.0, 3.0]), units).value[0] == pytest.approx(2.0)


def test_the_middle_half_of_resamples_is_that_of_one_at_a_time():
    rng = np.random.default_rng(8)
    units = units_of(*((run % 3, f"{run % 3}-{run % 2}", int(rng.integers(7))) for run in range(50)))
    values = rng.normal(size=50).round(1)
    found = pooled_interquartile_mean(values, units)
    order = np.argsort(values, kind="stable")
    tree = bootstrap._Tree.of(units.where(order))

    def middle(drawn, weights):
        runs = drawn @ tree.counts()[..., 0]
        each = np.divide(weights, runs, out=np.zeros_like(runs), where=runs > 0)[tree.bundle_of_run]
        each *= drawn[tree.seed_of_run]
        upto = np.clip(np.cumsum(each) / each.sum(), 0.25, 0.75)
        return 2 * float(values[order] @ np.diff(upto, prepend=0.25))

    assert found.value[0] == pytest.approx(middle(np.ones(tree.seeds), tree.weights()))
    drawn = [middle(*one) for block in bootstrap._draws(tree, "families", width=1) for one in zip(*block, strict=True)]
    levels = bootstrap._levels(3)
    assert (found.low[0], found.high[0]) == pytest.approx(tuple(np.quantile(drawn, levels)))


def coverage(simulate, studies):
    return sum(low <= 0.0 <= high for low, high in (simulate() for _ in range(studies))) / studies


def test_intervals_over_families_hold_the_truth_of_a_known_hierarchy():
    rng, units = np.random.default_rng(6), crossed(12, 2, 8)

    def simulated():
        values = rng.normal(0, 1.0, 12)[units.families] + rng.normal(0, 0.5, 24)[units.bundles]
        return values + rng.normal(0, 0.3, 8)[units.seeds] + rng.normal(0, 1.0, len(values))

    def hierarchical():
        _, low, high = ends(one(simulated(), units))
        return low, high

    def as_if_independent():
        found = mean_interval(simulated().tolist())
        return found.low, found.high

    # Standard error of a coverage of 0.95 in 150 studies: 0.018. Lower levels are counted twice: never too narrow.
    assert coverage(hierarchical, 150) >= 0.95 - 2.5 * 0.018
    assert coverage(as_if_independent, 60) < 0.75


def test_intervals_over_seeds_hold_the_truth_where_cells_share_them():
    rng, units = np.random.default_rng(7), crossed(1, 1, 40, cells=6)

    def simulated():
        _, low, high = ends(one(rng.normal(0, 1, 40)[units.seeds] + rng.normal(0, 1, 240), units))
        return low, high

    assert 0.95 - 3 * 0.018 <= coverage(simulated, 150) <= 0.95 + 2.5 * 0.018
