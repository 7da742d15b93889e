"""Figure: by how much plans cost more than they need to, over many jobs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.figures.style import (
    DASH_DOT,
    DASHED,
    DOTTED,
    DOUBLE_IN,
    INK,
    SINGLE_IN,
    SOLID,
    TICK_PT,
    Look,
    balanced,
    dress,
    finished,
    handle,
    legend_below,
    looks_of,
    new_figure,
)
from experiments.figures.tables import numbers, require_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FIGURE = "greedy_gap"
COLUMNS = 3
KNOWN = {
    "greedy, next level": Look("#66C2A5", SOLID, "D"),
    "greedy, all levels": Look("#009E73", DASH_DOT, "s"),
    "fair frontier": Look("#0072B2", DASHED, "^"),
    "wide frontier": Look(INK, DOTTED, "o"),
}
"""Comparisons in the order and with the look of the frontier's figure; others come after them."""


def greedy_gap(table: pd.DataFrame) -> Figure:
    """Per comparison the share of jobs whose plan costs at most so much more than what it is compared with, one panel a family.

    The line starts at the share of jobs without any gap. Its band holds the whole curve of all such jobs with 95 % (Dvoretzky,
    Kiefer, Wolfowitz). The axis ends where all but a hundredth of the jobs are.

    Args:
        table: one row per job and comparison: family, comparison (`greedy, next level`, `greedy, all levels`, `fair frontier`,
            each over the wide frontier; `wide frontier`, over the bound; or any other), and gap, the share by which it costs
            more, such as 0.05.

    Raises an InputError for a missing column.
    """
    require_columns(table, FIGURE, ("family", "comparison", "gap"))
    looks = _looks(table)
    families = {str(name): rows for name, rows in table.groupby("family", sort=True)}
    columns = balanced(len(families), COLUMNS)
    rows = math.ceil(len(families) / columns)
    figure = new_figure(SINGLE_IN if columns == 1 else DOUBLE_IN, 0.75 + 1.8 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(families):
            axes.set_visible(False)
            continue
        name = list(families)[place]
        jobs = _draw_panel(axes, families[name], looks)
        dress(axes, "costs more by (%)", "share of jobs" if place % columns == 0 else "")
        axes.set_title(
            f"{name} ({jobs} {'job' if jobs == 1 else 'jobs'})", loc="left", fontsize=TICK_PT, color=INK, pad=4
        )
    legend_below(
        figure,
        [handle(look, comparison, has_marker=False) for comparison, look in looks.items()],
        "gaps to the wide frontier, and of the wide frontier to the lower bound; 95 % bands",
    )
    return finished(figure)


def _looks(table: pd.DataFrame) -> Mapping[str, Look]:
    names = {str(name) for name in table["comparison"]}
    return {name: look for name, look in KNOWN.items() if name in names} | looks_of(names - KNOWN.keys())


def _draw_panel(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, Look]) -> int:
    """Draw the lines of one family; returns how many jobs it has."""
    import numpy as np

    curves = {}
    for comparison in looks:
        gaps = 100 * numbers(rows[rows["comparison"] == comparison], FIGURE, "gap")
        curves[comparison] = np.sort(gaps[np.isfinite(gaps)])
    known = [gaps for gaps in curves.values() if len(gaps)]
    end = max((float(np.quantile(gaps, 0.99)) for gaps in known), default=0.0) or 1.0
    for place, (comparison, gaps) in enumerate(curves.items()):
        if len(gaps):
            _draw_curve(axes, gaps, end, looks[comparison], comparison)
            # Often equal: each line shows on both sides of the next one.
            axes.lines[-1].set_linewidth(max(3.0 - 0.9 * place, 1.2))
    axes.set_xlim(-0.02 * end, end)
    axes.set_ylim(0, 1.02)
    return max((len(gaps) for gaps in known), default=0)


def _draw_curve(axes: Axes, gaps: Array, end: float, look: Look, comparison: str) -> None:
    import numpy as np

    at = np.concatenate([[0.0], gaps[gaps > 0], [end]])
    share = np.searchsorted(gaps, at, side="right") / len(gaps)
    reach = math.sqrt(math.log(2 / 0.05) / (2 * len(gaps)))
    low, high = np.clip(share - reach, 0, 1), np.clip(share + reach, 0, 1)
    axes.fill_between(at, low, high, step="post", color=look.color, alpha=0.12, linewidth=0, label="_band")
    axes.plot(
        at, share, drawstyle="steps-post", color=look.color, linestyle=look.dashes, linewidth=1.2, label=comparison
    )
