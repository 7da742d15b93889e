"""Means, medians, their intervals, and axis limits that one outlier cannot move. Imports numpy; pure."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from elastune.experiments.figures.style import Array, Counts


RESAMPLES = 2000
COVERAGE = (0.025, 0.975)
OUTLIER_DEVIATIONS = 6.0
"""Points this many median absolute deviations (4 sigma) from their group's median do not stretch an axis."""


def _draws(size: int) -> Counts:
    """Bootstrap indices, always the same ones: (resamples, size)."""
    return Streams(0).rng("figures-bootstrap", size).integers(0, size, size=(RESAMPLES, size))


def mean_band(values: Array) -> tuple[Array, Array, Array]:
    """The mean over the rows of a finite (seeds, grid) array and its 95 % bootstrap interval, each (grid,)."""
    seeds = len(values)
    weights = np.stack([(_draws(seeds) == seed).sum(axis=1) for seed in range(seeds)], axis=1) / seeds
    low, high = np.quantile(weights @ values, COVERAGE, axis=0)
    return values.mean(axis=0), low, high


def median_band(values: Array) -> tuple[Array, Array, Array]:
    """The median over the rows of a (seeds, grid) array and its 95 % bootstrap interval, each (grid,).

    Infinities are fine: a run without a score yet counts as infinitely bad, and the median is finite once more than
    half of the runs have one. A resample's median is a matter of ranks, so that ranks are drawn once for all columns.
    """
    seeds = len(values)
    ordered = np.sort(values, axis=0)
    ranks = np.sort(_draws(seeds), axis=1)
    medians = _midpoint(ordered[ranks[:, (seeds - 1) // 2]], ordered[ranks[:, seeds // 2]])
    low = np.quantile(medians, COVERAGE[0], axis=0, method="lower")
    high = np.quantile(medians, COVERAGE[1], axis=0, method="higher")
    return _midpoint(ordered[(seeds - 1) // 2], ordered[seeds // 2]), low, high


def quartile_band(values: Array) -> tuple[Array, Array, Array]:
    """The median over the rows of a (seeds, grid) array, and the rows that hold its middle half, each (grid,).

    The quartiles are values of rows, none in between, so that infinities are fine.
    """
    seeds = len(values)
    ordered = np.sort(values, axis=0)
    edge = (seeds - 1) // 4
    return _midpoint(ordered[(seeds - 1) // 2], ordered[seeds // 2]), ordered[edge], ordered[seeds - 1 - edge]


def _midpoint(low: Array, high: Array) -> Array:
    return low / 2 + high / 2


@dataclass(frozen=True)
class View:
    """What an axis shows: from `low` to `high`, linear or logarithmic."""

    low: float
    high: float
    is_log: bool = False

    def padded(self, share: float = 0.05) -> View:
        """The view with a share of its width added at both ends."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        pad = share * (high - low) or (0.1 if self.is_log else 0.1 * abs(high) or 1.0)
        return self._unscaled(low - pad, high + pad)

    def stretched(self, values: Array, share: float) -> View:
        """The view stretched towards the values, at either end by at most a share of its width."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        reach = share * (high - low)
        least, most = self._scaled(float(values.min())), self._scaled(float(values.max()))
        return self._unscaled(min(low, max(least, low - reach)), max(high, min(most, high + reach)))

    def including(self, values: Sequence[float]) -> View:
        """The view stretched to the values within its own width of it, so that a far one cannot flatten it."""
        width = max(self.high - self.low, 0.5 * max(abs(self.low), abs(self.high)))
        near = [value for value in values if self.low - width <= value <= self.high + width]
        return View(min([self.low, *near]), max([self.high, *near]), self.is_log)

    def _scaled(self, value: float) -> float:
        """Where the value is on the axis; zero and below are far down on a logarithmic one."""
        return math.log10(max(value, sys.float_info.min)) if self.is_log else value

    def _unscaled(self, low: float, high: float) -> View:
        return View(10**low, 10**high, is_log=True) if self.is_log else View(low, high)

    def pinned(self, values: Array) -> Array:
        """The values, with those beyond the view at its edge."""
        return np.clip(values, self.low, self.high)

    def on_x(self, axes: Axes, *, ticks: int = 6) -> None:
        """Show this on the horizontal axis, with about so many ticks."""
        from matplotlib.ticker import MaxNLocator

        axes.set_xlim(self.low, self.high)
        axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))

    def on_y(self, axes: Axes) -> None:
        """Show this on the vertical axis, with plain numbers at its ticks."""
        from matplotlib.ticker import MaxNLocator, ScalarFormatter

        if self.is_log:
            axes.set_yscale("log")
            _plain_log_ticks(axes, self.high / self.low)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axes.set_ylim(self.low, self.high)


def _plain_log_ticks(axes: Axes, ratio: float) -> None:
    """Ticks at 1, 2 and 5 times powers of ten within some three decades, at powers of ten beyond."""
    from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullFormatter

    is_wide = ratio > 2000
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0), numticks=7 if is_wide else 12))
    formatter = LogFormatterMathtext() if is_wide else FuncFormatter(lambda value, _position: f"{value:g}")
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_formatter(NullFormatter())


def robust_view(groups: Sequence[Array], *, may_be_log: bool = False) -> View:
    """The range of all groups without their outliers; logarithmic if allowed and positive values span a factor of 10.

    A group as such is never an outlier: its median and all that lies near it are shown.
    """
    finite = [group[np.isfinite(group)] for group in groups]
    finite = [group for group in finite if len(group)]
    if not finite:
        return View(0.0, 1.0)
    everything = np.concatenate(finite)
    low, high = np.quantile(everything, (0.05, 0.95))
    if may_be_log and everything.min() > 0 and high > 10 * low:
        logs = robust_view([np.log10(group) for group in finite])
        return View(10**logs.low, 10**logs.high, is_log=True)
    residuals = np.concatenate([np.abs(group - np.median(group)) for group in finite])
    pooled = float(np.median(residuals)) or float(np.quantile(residuals, 0.9)) / OUTLIER_DEVIATIONS
    inside = np.concatenate([_inside(group, pooled) for group in finite])
    return View(float(inside.min()), float(inside.max()))


def _inside(group: Array, pooled: float) -> Array:
    residuals = np.abs(group - np.median(group))
    return np.append(
        group[residuals <= OUTLIER_DEVIATIONS * max(pooled, float(np.median(residuals)))], np.median(group)
    )
