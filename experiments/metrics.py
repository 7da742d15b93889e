"""What runs are compared by: regret in its parts, means with intervals, and paired differences.

Imports sim.model.job, experiments.bootstrap and numpy. Everything is deterministic, and equal numbers of pairs are resampled
alike, so that differences stay paired. Runs of several cells, bundles or families: see `experiments.bootstrap`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.bootstrap import Interval, Units, pooled_interquartile_mean, pooled_means
from sim.model.job import loss_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.model.job import Direction


@dataclass(frozen=True)
class Regret:
    """How far a run's answer is from the best of its seed's draw, as a share of (median - best) of the bundle's final scores.

    Attributes:
        sampling: best of the draw - best that was started, both at R.
        selection: best that was started - the one that was chosen, both at R.
        truncation: the chosen one at R - as it was trained; negative where its curve was better before R.
    """

    sampling: float
    selection: float
    truncation: float

    @property
    def total(self) -> float:
        """The three together."""
        return math.fsum((self.sampling, self.selection, self.truncation))


def regret_of(
    finals: np.ndarray,
    started: Sequence[int],
    chosen: int,
    trained: float | None,
    *,
    direction: Direction,
    bundle_finals: np.ndarray,
) -> Regret | None:
    """The regret of one run; None where the bundle's final scores are all alike or all diverged, so that it has no scale.

    A diverged score counts as the worst finite one among the bundle's final scores.

    Args:
        finals: (trials,) float; the seed's draw at R.
        started: trials that were started.
        chosen: the trial that was named.
        trained: its score as it was trained; None where it diverged.
        direction: whether scores are minimised or maximised.
        bundle_finals: (configurations,) float; the bundle's scores at the end of its curves.
    """
    pool = np.array([loss_of(score, direction) for score in bundle_finals.tolist()])
    finite = pool[np.isfinite(pool)]
    if not finite.size:
        return None
    worst = float(finite.max())
    pool = np.where(np.isfinite(pool), pool, worst)
    scale = float(np.median(pool) - pool.min())
    if scale <= 0:
        return None

    def loss(score: float | None) -> float:
        known = loss_of(score, direction)
        return known if math.isfinite(known) else worst

    drawn = [loss(score) for score in finals.tolist()]
    best, best_started = min(drawn), min(drawn[trial] for trial in started)
    return Regret(
        sampling=(best_started - best) / scale,
        selection=(drawn[chosen] - best_started) / scale,
        truncation=(loss(trained) - drawn[chosen]) / scale,
    )


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
