"""Figure: by how much plans cost more than they need to, over many jobs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures import style
from elastune.experiments.figures.summary import mean_band
from elastune.experiments.figures.tables import numbers, require_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Array


FIGURE = "greedy_gap"
COLUMNS = 3
LINEAR_UNTIL = 1.0
"""Percent; the axis is logarithmic beyond."""
KNOWN = {
    "static, fair": style.Look("#E69F00", style.SOLID, "v"),
    "static, wide": style.Look("#D55E00", style.DASHED, "P"),
    "greedy, next level, fair": style.Look("#66C2A5", style.SOLID, "D"),
    "greedy, fair": style.Look("#009E73", style.DASH_DOT, "s"),
    "greedy, wide": style.Look("#CC79A7", style.DASHED, "X"),
    "fair frontier": style.Look("#0072B2", style.DASHED, "^"),
    "wide frontier": style.Look(style.INK, style.DOTTED, "o"),
}
"""Comparisons in the order and with the look of the frontier's figure; others come after them."""


def greedy_gap(table: pd.DataFrame) -> Figure:
    """Per comparison the share of plans that cost at most so much more than what they are compared with, one panel a family.

    The line starts at the share of plans without any gap. Its band is the 95 % bootstrap interval at each gap,
    over jobs with all their plans; a single job has none. Gaps are linear up to 1 % and logarithmic beyond. The axes end where
    all but a hundredth of the plans are, in the panel in which that is furthest.

    Args:
        table: one row per plan and comparison: family, in the order of the panels where it is categorical, comparison (static
            and greedy plans over the frontier of their space; `fair frontier`, over the wide one; `wide frontier`, over the
            bound; or any other), gap, the share by which it costs more, such as 0.05, and job where a job has several plans.

    Raises an InputError for a missing column.
    """
    require_columns(table, FIGURE, ("family", "comparison", "gap"))
    looks = _looks(table)
    families = {str(name): rows for name, rows in table.groupby("family", sort=True, observed=True)}
    columns = style.balanced(len(families), COLUMNS)
    figure = style.new_figure(
        style.SINGLE_IN if columns == 1 else style.DOUBLE_IN, 0.75 + 1.8 * math.ceil(len(families) / columns)
    )
    grid = style.panels_on(figure, len(families), columns, sharex=True, sharey=True)
    end = max(_end(rows) for rows in families.values()) or 1.0
    grid[0].axes.set_xscale("symlog", linthresh=LINEAR_UNTIL)
    grid[0].axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    grid[0].axes.set(xlim=(-0.05 * LINEAR_UNTIL, end), ylim=(0, 1.02))
    for panel, (name, rows) in zip(grid, families.items(), strict=True):
        axes = panel.axes
        _draw_panel(axes, rows, looks, end)
        style.dress(axes, "costs more by (%)" if panel.is_lowest else "", "share of plans" if panel.is_left else "")
        axes.set_title(f"{name}: {_counts(rows)}", loc="left", fontsize=style.TICK_PT, color=style.INK, pad=4)
    style.legend_below(
        figure,
        [style.handle(look, comparison, has_marker=False) for comparison, look in looks.items()],
        "gaps to the frontier of the same space, of the fair frontier to the wide one, of this to the lower bound"
        + ("; 95 % bands over jobs" if any(panel.axes.collections for panel in grid) else ""),
    )
    return style.finished(figure)


def _looks(table: pd.DataFrame) -> Mapping[str, style.Look]:
    names = {str(name) for name in table["comparison"]}
    return {name: look for name, look in KNOWN.items() if name in names} | style.looks_of(names - KNOWN.keys())


def _gaps(rows: pd.DataFrame) -> Array:
    """In percent, those that are known."""
    gaps = 100 * numbers(rows, FIGURE, "gap")
    return gaps[np.isfinite(gaps)]


def _end(rows: pd.DataFrame) -> float:
    """Where all but a hundredth of the plans of each comparison are, in percent."""
    gaps = [_gaps(mine) for _, mine in rows.groupby("comparison", observed=True)]
    return max((float(np.quantile(known, 0.99)) for known in gaps if len(known)), default=0.0)


def _jobs(rows: pd.DataFrame) -> int:
    return int(rows["job"].nunique()) if "job" in rows else len(rows)


def _counts(rows: pd.DataFrame) -> str:
    """How many plans of how many jobs each line has, at most."""
    sizes = [(_jobs(mine), len(mine)) for _, mine in rows.groupby("comparison", observed=True)]
    jobs, plans = max(sizes)
    told = f"{jobs} {'job' if jobs == 1 else 'jobs'}"
    return told if jobs == plans else f"{told}, {plans} plans"


def _draw_panel(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, style.Look], end: float) -> None:
    for place, (comparison, look) in enumerate(looks.items()):
        mine = rows[rows["comparison"] == comparison]
        if len(_gaps(mine)):
            _draw_curve(axes, mine, end, look, comparison)
            # Often equal: each line shows on both sides of the next one.
            axes.lines[-1].set_linewidth(max(3.0 - 0.9 * place, 1.2))


def _draw_curve(axes: Axes, rows: pd.DataFrame, end: float, look: style.Look, comparison: str) -> None:
    gaps = np.sort(_gaps(rows))
    at = np.concatenate([[0.0], gaps[(gaps > 0) & (gaps < end)], [end]])
    share = np.searchsorted(gaps, at, side="right") / len(gaps)
    if _jobs(rows) > 1:
        of_jobs = [np.sort(_gaps(mine)) for _, mine in rows.groupby("job" if "job" in rows else rows.index)]
        shares = np.array([np.searchsorted(mine, at, side="right") / len(mine) for mine in of_jobs if len(mine)])
        _, low, high = mean_band(shares)
        style.step_band(axes, at, (low, high), look, 0.15)
    style.step_line(axes, at, share, look, 1.2, comparison)
