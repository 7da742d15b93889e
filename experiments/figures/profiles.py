"""Figure: performance profiles, the share of runs within each level of regret."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.figures.style import (
    band_alpha,
    dress,
    finished,
    handle,
    legend_below,
    line_widths,
    looks_of,
    new_figure,
    width_of,
)
from experiments.figures.tables import numbers, require_columns
from sim.model.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FIGURE = "performance_profiles"


def performance_profiles(table: pd.DataFrame, *, label: str = "regret (share of median - best)") -> Figure:
    """Per policy the share of runs whose regret is at most tau, over tau, with its interval (Agarwal et al. 2021, section 4.2).

    A line that lies above another's everywhere is better at every level. The axis ends where all lines have all but a
    fiftieth of their rise behind them, but at four times the median of these places, so that one bad policy does not hide
    what the others do.

    Args:
        table: one row per policy and tau: policy, tau, share, low, high, with shares from 0 to 1; low and high NaN for no band.
        label: what tau is.

    Raises an InputError for a missing column, or two rows of one policy and tau.
    """
    import numpy as np

    require_columns(table, FIGURE, ("policy", "tau", "share", "low", "high"))
    if table.duplicated(["policy", "tau"]).any():
        raise InputError(f"{FIGURE}: some policy has two rows for one tau: draw one group of the table")
    looks = looks_of(table["policy"])
    figure = new_figure(width_of(1, len(looks)), 2.9)
    axes = figure.add_subplot()
    ends, widths = [], line_widths(looks)
    for policy, look in looks.items():
        rows = table[table["policy"] == policy].sort_values("tau")
        tau, share, low, high = (numbers(rows, FIGURE, column) for column in ("tau", "share", "low", "high"))
        axes.fill_between(
            tau, low, high, step="post", color=look.color, alpha=band_alpha(len(looks)), linewidth=0, label="_band"
        )
        axes.plot(
            tau,
            share,
            drawstyle="steps-post",
            color=look.color,
            linestyle=look.dashes,
            linewidth=widths[policy],
            label=policy,
        )
        ends.append(float(tau[share >= share[-1] - 0.02][0]))
    taus = numbers(table, FIGURE, "tau")
    low_end = float(taus.min())
    high_end = low_end + min(max(ends) - low_end, 4 * (float(np.median(ends)) - low_end) or math.inf)
    if high_end <= low_end:  # all runs have the same regret
        high_end = max(float(taus.max()), low_end + 1.0)
    axes.set_xlim(low_end, high_end + 0.03 * (high_end - low_end))
    axes.set_ylim(0, 1.02)
    dress(axes, f"tau: {label}", "share of runs with at most tau")
    legend_below(
        figure,
        [handle(look, policy, has_marker=False) for policy, look in looks.items()],
        "higher is better; bands: 95 % bootstrap intervals",
    )
    return finished(figure)
