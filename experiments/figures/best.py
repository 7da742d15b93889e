"""Figure: the best score so far, over time or over money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from elastune.experiments.figures import style, tables
from elastune.experiments.figures.summary import View, median_band, quartile_band
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from elastune.experiments.figures.style import Array


FIGURE = "best_so_far"
GRID_POINTS = 400

BandKind = Literal["interval", "quartiles"]
BANDS: Mapping[BandKind, str] = {"interval": "95 % bootstrap interval", "quartiles": "the middle half of the seeds"}

FIRST_FALL = 0.2
"""Share of the time whose scores, the worst ones, do not stretch the axis: the end of a search is what is compared."""


@dataclass(frozen=True)
class Band:
    """The median best score of one policy and its interval on the grid; infinite while too few runs have a score."""

    median: Array
    low: Array
    high: Array
    seeds: int


def best_so_far(
    trajectories: pd.DataFrame,
    x: Literal["at_s", "spent_usd"] = "at_s",
    *,
    band: BandKind = "interval",
    score_label: str = "score",
) -> Figure:
    """Per policy the median best score across seeds with a band.

    A run that has no score yet, or never gets one, counts as worse than any other: the line starts once more than half
    of the seeds have a score, and its median is that of all seeds from there on. A run that ended holds its last score.

    Args:
        trajectories: columns policy, seed, at_s, spent_usd, best_score, direction and, for their lines, deadline_s or
            budget_usd where there is one; one row per change.
        x: the column to plot over.
        band: `interval`, the 95 % bootstrap interval of the median, or `quartiles`, where the middle half of the seeds is.
        score_label: what the score is, with its unit.

    Raises an InputError for a missing column.
    """
    progress = ScoreProgress.of(trajectories, x, band)
    figure = style.new_figure(style.width_of(1, len(progress.bands)), 2.9)
    draw_progress(figure.add_subplot(), progress, score_view([progress]), score_label)
    style.legend_below(figure, progress_samples(progress), progress.caption)
    return style.finished(figure)


@dataclass(frozen=True)
class ScoreProgress:
    """The bands of all policies on a common grid.

    Attributes:
        x: what they are over, at_s or spent_usd.
        grid: in `unit`.
        unit: of the grid, its view and its limits.
        view: what of the grid is shown.
        limits: deadlines or budgets.
        bands: by policy.
        kind: what the bands are.
        minimized: whether lower scores are better.
    """

    x: Literal["at_s", "spent_usd"]
    grid: Array
    unit: str
    view: View
    limits: Sequence[float]
    bands: Mapping[str, Band]
    kind: BandKind
    minimized: bool

    @classmethod
    def of(cls, trajectories: pd.DataFrame, x: Literal["at_s", "spent_usd"], kind: BandKind) -> ScoreProgress:
        """The range for a table of trajectories; see `best_so_far`."""
        if x not in ("at_s", "spent_usd"):
            raise InputError(f"{FIGURE}: x is {x!r}, but must be at_s or spent_usd")
        if kind not in BANDS:
            raise InputError(f"{FIGURE}: band is {kind!r}, but must be one of {', '.join(BANDS)}")
        tables.require_columns(trajectories, FIGURE, ("policy", "seed", x, "best_score", "direction"))
        minimized = tables.is_minimized(trajectories, FIGURE)
        limits = tables.limits_of(trajectories, FIGURE, "deadline_s" if x == "at_s" else "budget_usd")
        grid, view = _grid(trajectories, x, limits)
        unit = tables.time_unit(view.high) if x == "at_s" else "USD"
        scale = tables.SECONDS.get(unit, 1.0)
        bands = {
            policy: _band(trajectories[trajectories["policy"] == policy], x, grid, kind, minimized=minimized)
            for policy in style.looks_of(trajectories["policy"])
        }
        shown = View(view.low / scale, view.high / scale)
        return cls(x, grid / scale, unit, shown, [limit / scale for limit in limits], bands, kind, minimized)

    @property
    def caption(self) -> str:
        """What line and band are."""
        return f"median of {tables.seeds_phrase([band.seeds for band in self.bands.values()])} with {BANDS[self.kind]}"


def draw_best_so_far(
    axes: Axes,
    trajectories: pd.DataFrame,
    x: Literal["at_s", "spent_usd"],
    score_label: str,
) -> tuple[list[Line2D], str]:
    """Draw the figure on the axes; returns the legend's handles and what line and band are."""
    progress = ScoreProgress.of(trajectories, x, "interval")
    draw_progress(axes, progress, score_view([progress]), score_label)
    return progress_samples(progress), progress.caption


def draw_progress(axes: Axes, progress: ScoreProgress, scores: View, score_label: str) -> None:
    """Draw the bands on the axes, which show these scores."""
    progress.view.on_x(axes)
    _draw_bands(axes, progress.grid, progress.bands, style.looks_of(progress.bands), scores)
    name, limit = ("time", "deadline") if progress.x == "at_s" else ("spent", "budget")
    style.dress(axes, f"{name} ({progress.unit})", tables.score_axis_label(score_label, minimized=progress.minimized))
    style.limit_lines(axes, limit, progress.limits, progress.unit)


def progress_samples(progress: ScoreProgress) -> list[Line2D]:
    """The legend's handles."""
    return [style.handle(look, policy, has_marker=False) for policy, look in style.looks_of(progress.bands).items()]


def _grid(trajectories: pd.DataFrame, x: str, limits: Sequence[float]) -> tuple[Array, View]:
    """The common grid of x, and the view of it: from 0 to the usual end of the runs, or the limit if that is near."""
    end = tables.usual_end(trajectories, FIGURE, x, limits)
    return np.linspace(0.0, end, GRID_POINTS), View(0.0, 1.02 * end)


def _band(runs: pd.DataFrame, x: str, grid: Array, band: BandKind, *, minimized: bool) -> Band:
    scores = tables.resampled(runs, FIGURE, x, "best_score", grid)
    worst = np.inf if minimized else -np.inf
    across = median_band if band == "interval" else quartile_band
    return Band(*across(np.where(np.isfinite(scores), scores, worst)), seeds=len(scores))


def score_view(drawn: Sequence[ScoreProgress]) -> View:
    """The range of scores shown: medians without their first falls, and bands as far as they add half as much."""
    minimized = drawn[0].minimized
    bands = [band for progress in drawn for band in progress.bands.values()]
    medians = [band.median[np.isfinite(band.median)] for band in bands]
    medians = [median for median in medians if len(median)]
    if not medians:
        return View(0.0, 1.0)
    usual = np.concatenate([_without_first_fall(median, minimized=minimized) for median in medians])
    low, high = float(usual.min()), float(usual.max())
    view = View(low, high, is_log=minimized and low > 0 and high > 10 * low)
    edges = np.concatenate([np.append(band.low, band.high) for band in bands])
    return view.stretched(edges[np.isfinite(edges)], share=0.25).padded(0.04)


def _without_first_fall(median: Array, *, minimized: bool) -> Array:
    """The median but the values of its worst share of the time, which its first steps pass through."""
    if minimized:
        return median[median <= np.quantile(median, 1 - FIRST_FALL, method="lower")]
    return median[median >= np.quantile(median, FIRST_FALL, method="higher")]


def _draw_bands(axes: Axes, x: Array, bands: Mapping[str, Band], looks: Mapping[str, style.Look], view: View) -> None:
    view.on_y(axes)
    widths = style.line_widths(looks)
    for policy, band in bands.items():
        look, started = looks[policy], np.isfinite(band.median)
        ends = view.pinned(band.low), view.pinned(band.high)
        style.step_band(axes, x, ends, look, style.band_alpha(len(bands)), where=started.tolist())
        style.step_line(axes, x, np.where(started, band.median, np.nan), look, widths[policy], policy)


def score_over_time_and_cost(
    trajectories: pd.DataFrame, *, band: BandKind = "interval", score_label: str = "score"
) -> Figure:
    """The best score so far over time (a) and over money (b), per policy the median across seeds with a band.

    Args:
        trajectories: as of `best_so_far`, with both at_s and spent_usd.
        band: as of `best_so_far`.
        score_label: what the score is, with its unit.

    Raises an InputError for a missing column.
    """
    figure = style.new_figure(style.DOUBLE_IN, 3.0)
    left, right = figure.subplots(1, 2, sharey=True)
    over_time, over_money = (
        ScoreProgress.of(trajectories, "at_s", band),
        ScoreProgress.of(trajectories, "spent_usd", band),
    )
    scores = score_view([over_time, over_money])
    for axes, progress, letter in ((left, over_time, "a"), (right, over_money, "b")):
        draw_progress(axes, progress, scores, score_label)
        style.panel_letter(axes, letter)
    right.set_ylabel("")
    style.legend_below(figure, progress_samples(over_time), over_time.caption)
    return style.finished(figure)
