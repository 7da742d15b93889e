"""Figure: performance profiles, the share of runs within each level of regret."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import numbers, require_columns
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Array


FIGURE = "performance_profiles"
COLUMNS = 4
CROWDED = 6
"""More policies than this have a panel each."""
BEHIND = "#C8C8C8"


def performance_profiles(table: pd.DataFrame, *, label: str = "regret (share of median - best)") -> Figure:
    """Per policy the share of runs whose regret is at most so much, with its interval (Agarwal et al. 2021, section 4.2).

    A line that lies above another's everywhere is better at every level. The axis ends where all lines have all but a
    fiftieth of their rise behind them, but at four times the median of these places, so that one bad policy does not hide
    what the others do. More than 6 policies have a panel each, beside the first one (`seer` where it is there).

    Args:
        table: one row per policy and tau: policy, tau, share, low, high, with shares from 0 to 1; low and high NaN for no band.
        label: what is profiled, with its unit: the column tau.

    Raises an InputError for a missing column, or two rows of one policy and tau.
    """
    require_columns(table, FIGURE, ("policy", "tau", "share", "low", "high"))
    if table.duplicated(["policy", "tau"]).any():
        raise InputError(f"{FIGURE}: some policy has two rows for one tau: draw one group of the table")
    looks = style.looks_of(table["policy"])
    curves = {policy: Curve.of(table[table["policy"] == policy]) for policy in looks}
    view = _view(list(curves.values()))
    figure = _together(curves, looks, view, label) if len(looks) <= CROWDED else _apart(curves, looks, view, label)
    return style.finished(figure)


@dataclass(frozen=True)
class Curve:
    """One policy's profile; each (taus,)."""

    tau: Array
    share: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Curve:
        """By ascending tau."""
        rows = rows.sort_values("tau")
        return cls(*(numbers(rows, FIGURE, column) for column in ("tau", "share", "low", "high")))

    def draw(self, axes: Axes, look: style.Look, label: str, *, width: float, alpha: float) -> None:
        """The line and its band."""
        style.step_band(axes, self.tau, (self.low, self.high), look, alpha)
        style.step_line(axes, self.tau, self.share, look, width, label)

    def draw_line(self, axes: Axes, **how: Any) -> None:  # noqa: ANN401  whatever matplotlib's lines take
        """The line alone."""
        axes.plot(self.tau, self.share, drawstyle="steps-post", **how)


def _view(curves: Sequence[Curve]) -> tuple[float, float]:
    """The ends of the tau axis."""
    ends = [float(curve.tau[curve.share >= curve.share[-1] - 0.02][0]) for curve in curves]
    low = float(min(curve.tau[0] for curve in curves))
    high = low + min(max(ends) - low, 4 * (float(np.median(ends)) - low) or math.inf)
    if high <= low:  # all runs have the same regret
        high = max(*(float(curve.tau[-1]) for curve in curves), low + 1.0)
    return low, high + 0.03 * (high - low)


def _together(
    curves: Mapping[str, Curve], looks: Mapping[str, style.Look], view: tuple[float, float], label: str
) -> Figure:
    """All policies in one panel."""
    figure = style.new_figure(style.width_of(1, len(looks)), 2.9)
    axes = figure.add_subplot(xlim=view, ylim=(0, 1.02))
    widths = style.line_widths(looks)
    for policy, look in looks.items():
        curves[policy].draw(axes, look, policy, width=widths[policy], alpha=style.band_alpha(len(looks)))
    style.dress(axes, f"{label}, at most", "share of runs")
    handles = [style.handle(look, policy, has_marker=False) for policy, look in looks.items()]
    style.legend_below(figure, handles, "higher is better; bands: 95 % bootstrap intervals")
    return figure


def _apart(
    curves: Mapping[str, Curve], looks: Mapping[str, style.Look], view: tuple[float, float], label: str
) -> Figure:
    """A panel per policy beside the first one, all others behind them in grey: so many bands on one another hide each other."""
    first, *others = looks
    name = label.partition(" (")[0]
    columns = style.balanced(len(others), COLUMNS)
    figure = style.new_figure(style.DOUBLE_IN, 0.7 + 1.45 * math.ceil(len(others) / columns))
    grid = style.panels_on(figure, len(others), columns, sharex=True, sharey=True)
    grid[0].axes.set(xlim=view, ylim=(0, 1.02))
    for panel, mine in zip(grid, others, strict=True):
        axes = panel.axes
        for policy in (other for other in others if other != mine):
            curves[policy].draw_line(axes, color=BEHIND, linewidth=0.6, zorder=1.5, label="_behind")
        for policy in (first, mine):
            curves[policy].draw(axes, looks[policy], policy, width=1.3, alpha=0.2)
        style.dress(axes, f"{name}, at most" if panel.is_lowest else "", "share of runs" if panel.is_left else "")
        style.panel_name(axes, mine, 0.95 * (style.DOUBLE_IN - 0.5) / columns)
    legend = [
        style.handle(looks[first], f"{first}, in every panel", has_marker=False),
        style.handle(style.Look(BEHIND, style.SOLID, ""), "the policies of the other panels", has_marker=False),
    ]
    style.legend_below(figure, legend, f"higher is better; bands: 95 % bootstrap intervals; {label}")
    return figure
