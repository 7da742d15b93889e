"""What runs are compared by: means with intervals, and paired differences.

Imports experiments.bootstrap and numpy. Everything is deterministic, and equal numbers of pairs are resampled
alike, so that differences stay paired. Runs of several cells, bundles or families: see `experiments.bootstrap`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.bootstrap import Interval, Units, pooled_interquartile_mean, pooled_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.model.job import Direction


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of runs on seeds of their own; values that are not finite are left out."""
    known = _finite(values)
    return pooled_means(known[:, None], Units.of_seeds(len(known))).interval()


def interquartile_mean_interval(values: Sequence[float]) -> Interval:
    """The mean of the middle half; values that are not finite are left out."""
    known = _finite(values)
    return pooled_interquartile_mean(known, Units.of_seeds(len(known))).interval()


def _finite(values: Sequence[float]) -> np.ndarray:
    known = np.asarray(values, dtype=float)
    return np.asarray(known[np.isfinite(known)])


@dataclass(frozen=True)
class PairedDifference:
    """How A differs from B on the same seeds.

    Attributes:
        mean: of A - B.
        low: lower end of its interval.
        high: upper end of its interval.
        better: share of the pairs in which A is better.
        ties: share of the pairs in which they are equal.
        pairs: seeds that both have a value for.
    """

    mean: float
    low: float
    high: float
    better: float
    ties: float
    pairs: int


def paired_difference(a: Sequence[float], b: Sequence[float], *, direction: Direction = "minimize") -> PairedDifference:
    """A against B, pair by pair; pairs of which one is not finite are left out.

    Args:
        a: (seeds,) numbers.
        b: (seeds,) numbers, in the same order of seeds.
        direction: which difference is better.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    difference = difference[np.isfinite(difference)]
    interval = mean_interval(difference.tolist())
    if not difference.size:
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    better = difference < 0 if direction == "minimize" else difference > 0
    return PairedDifference(
        interval.value,
        interval.low,
        interval.high,
        better=float(better.mean()),
        ties=float((difference == 0).mean()),
        pairs=int(difference.size),
    )
