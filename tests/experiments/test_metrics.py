"""Regret by hand, intervals and paired differences."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest

from elastune.experiments.runs.regret import regret_of
from elastune.experiments.statistics import bootstrap
from elastune.experiments.statistics.differences import (
    mean_interval,
    paired_difference,
)

NAN = math.nan
POOL = np.array([0.1, 0.2, 0.3, 0.4, 0.5])  # best 0.1, median 0.3: the scale is 0.2


def test_regret_by_hand():
    found = regret_of(np.array([0.3, 0.1, 0.2, 0.5]), [0, 2, 3], 0, 0.4, direction="minimize", bundle_finals=POOL)
    assert found.sampling == pytest.approx((0.2 - 0.1) / 0.2)
    assert found.selection == pytest.approx((0.3 - 0.2) / 0.2)
    assert found.truncation == pytest.approx((0.4 - 0.3) / 0.2)
    assert found.total == pytest.approx((0.4 - 0.1) / 0.2)


def test_regret_is_the_same_for_an_accuracy_as_for_its_error():
    finals = np.array([0.3, 0.1, 0.2, 0.5])
    error = regret_of(finals, [0, 2], 0, 0.35, direction="minimize", bundle_finals=POOL)
    accuracy = regret_of(1 - finals, [0, 2], 0, 0.65, direction="maximize", bundle_finals=1 - POOL)
    assert accuracy.total == pytest.approx(error.total)
    assert accuracy.selection == pytest.approx(error.selection)


def test_training_that_stopped_at_its_best_has_negative_truncation():
    found = regret_of(np.array([0.2, 0.1]), [0, 1], 1, 0.08, direction="minimize", bundle_finals=POOL)
    assert (found.sampling, found.selection) == (0.0, 0.0)
    assert found.truncation == pytest.approx(-0.1)


@pytest.mark.parametrize("trained", [None, NAN, math.inf])
def test_a_diverged_answer_counts_as_the_worst_that_did_not(trained):
    pool = np.array([0.1, 0.3, 0.5, NAN])
    found = regret_of(np.array([0.1, NAN]), [0, 1], 1, trained, direction="minimize", bundle_finals=pool)
    assert found.truncation == 0.0
    # Of 0.1, 0.3, 0.5 and 0.5 the median is 0.4.
    assert found.total == pytest.approx((0.5 - 0.1) / 0.3)


@pytest.mark.parametrize("pool", [np.array([NAN, NAN]), np.array([0.2, 0.2, 0.2])])
def test_a_bundle_without_differences_has_no_scale(pool):
    assert regret_of(np.array([0.2]), [0], 0, 0.2, direction="minimize", bundle_finals=pool) is None


def test_an_interval_holds_its_mean_and_shrinks_with_the_sample():
    values = np.random.default_rng(1).normal(5.0, 1.0, 400).tolist()
    few, many = mean_interval(values[:20]), mean_interval(values)
    assert few.low < few.value < few.high
    assert few.value == pytest.approx(np.mean(values[:20]))
    assert many.high - many.low < few.high - few.low
    # The normal interval: 2 x 1.96 / sqrt(400).
    assert many.high - many.low == pytest.approx(0.196, rel=0.15)


def test_intervals_are_equal_each_time():
    assert mean_interval([1.0, 2.0, 4.0]) == mean_interval([1.0, 2.0, 4.0])


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(7)
    found = [mean_interval(rng.normal(0.0, 1.0, 40).tolist()) for _ in range(100)]
    assert 87 <= sum(one.low <= 0.0 <= one.high for one in found) <= 99


def test_values_that_are_missing_are_left_out():
    assert mean_interval([1.0, NAN, 3.0]).value == 2.0
    nothing = mean_interval([NAN])
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.low)


def test_the_interquartile_mean_ignores_the_tails():
    tailed = np.array([0.0, 1.0, 3.0, 1000.0])
    assert bootstrap.pooled_interquartile_mean(tailed, bootstrap.Units.of_seeds(4)).value == 2.0


def test_paired_differences_by_hand():
    found = paired_difference([1.0, 2.0, 3.0, NAN], [2.0, 2.0, 1.0, 0.0])
    assert (found.mean, found.better, found.ties, found.pairs) == (pytest.approx(1 / 3), 1 / 3, 1 / 3, 3)
    assert found.low <= found.mean <= found.high


def test_better_follows_the_direction():
    assert paired_difference([1.0, 2.0], [2.0, 1.5], direction="maximize").better == 0.5
    assert paired_difference([3.0, 3.0], [1.0, 1.0], direction="maximize").better == 1.0


def test_runs_of_one_seed_are_resampled_together():
    by_seed = np.random.default_rng(5).normal(size=9)
    alone = mean_interval(by_seed.tolist())
    # Each seed on four bundles that it treats alike: nine that are independent, not thirty-six.
    found = mean_interval(np.repeat(by_seed, 4).tolist(), np.repeat(np.arange(9), 4).tolist())
    assert astuple(found) == pytest.approx(astuple(alone))
    pairs = paired_difference([*by_seed, NAN], [*by_seed - 1, 0.0], [0, 0, *range(8)])
    assert (pairs.mean, pairs.pairs, pairs.seeds) == (pytest.approx(1.0), 9, 7)


def test_pairing_removes_what_both_share():
    shared = np.random.default_rng(3).normal(0.0, 100.0, 30)
    found = paired_difference((shared + 1.0).tolist(), shared.tolist())
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))


def test_no_pairs_give_no_numbers():
    found = paired_difference([NAN], [1.0])
    assert found.pairs == 0
    assert math.isnan(found.mean)


def test_intervals_of_many_values_do_not_depend_on_the_blocks_they_are_computed_in(monkeypatch):
    values = np.random.default_rng(4).normal(size=50).tolist()
    at_once = mean_interval(values)
    monkeypatch.setattr(bootstrap, "BLOCK", 777)
    assert astuple(mean_interval(values)) == pytest.approx(astuple(at_once), rel=1e-12)
