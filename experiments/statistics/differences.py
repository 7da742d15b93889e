"""Means with intervals, and paired differences of runs.

Imports experiments.statistics.bootstrap and numpy. Everything is deterministic, and equal numbers of pairs are resampled
alike, so that differences stay paired. Runs of several cells, bundles or families: see `experiments.statistics.bootstrap`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.statistics.bootstrap import ROUNDING, Interval, Units, pooled_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.model.job import Direction


HIGHER_IS_BETTER = (
    *("gpu_utilisation", "deadline_met", "budget_met", "trials_started", "iterations_trained"),
    *("best_iteration", "best_is_complete", "some_is_complete", "completed"),
)
"""Of scores the bundle says; of everything else less is better."""


def needs_completed(measure: str) -> bool:
    """Whether the measure is compared only where both runs completed their job: a cut job is cheaper, not better."""
    return measure in ("cost_usd", "makespan_s") or measure.startswith("ledger_")


def mean_interval(values: Sequence[float], seeds: Sequence[int] | None = None) -> Interval:
    """The mean of runs; values that are not finite are left out.

    Args:
        values: (runs,) numbers.
        seeds: of the runs; equal ones share their luck and are resampled together. None: each has one of its own.
    """
    given = np.asarray(values, dtype=float)
    is_known = np.isfinite(given)
    of_run = np.arange(len(given)) if seeds is None else np.asarray(seeds)
    alike = np.zeros(len(given), dtype=np.int64)
    return pooled_means(given[is_known, None], Units(alike, alike, of_run).where(is_known)).interval()


@dataclass(frozen=True)
class PairedDifference:
    """How A differs from B on the same seeds.

    Attributes:
        mean: of A - B.
        low: lower end of its interval.
        high: upper end of its interval.
        better: share of the pairs in which A is better.
        ties: share of the pairs in which they are equal.
        pairs: for which both have a value.
        seeds: of these pairs.
    """

    mean: float
    low: float
    high: float
    better: float
    ties: float
    pairs: int
    seeds: int


def paired_difference(
    a: Sequence[float], b: Sequence[float], seeds: Sequence[int] | None = None, *, direction: Direction = "minimize"
) -> PairedDifference:
    """Compare A with B pair by pair; pairs with a value that is not finite are left out.

    Args:
        a: (pairs,) numbers.
        b: (pairs,) numbers, in the same order.
        seeds: of the pairs, as for `mean_interval`.
        direction: which difference is better.
    """
    of_a, of_b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    difference = of_a - of_b
    # Sums of the same numbers in another order are equal.
    is_known = np.isfinite(difference)
    is_rounding = np.abs(difference) <= ROUNDING * np.maximum(np.abs(of_a), np.abs(of_b))
    difference[is_known & is_rounding] = 0.0
    difference = difference[is_known]
    if not difference.size:
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0)
    of_pair = (np.arange(len(is_known)) if seeds is None else np.asarray(seeds))[is_known]
    interval = mean_interval(difference.tolist(), of_pair.tolist())
    better = difference < 0 if direction == "minimize" else difference > 0
    return PairedDifference(
        interval.value,
        interval.low,
        interval.high,
        better=float(better.mean()),
        ties=float((difference == 0).mean()),
        pairs=int(difference.size),
        seeds=len(np.unique(of_pair)),
    )
