"""Figure: a measured scaling and the laws fitted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import numbers, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = "scaling fit"
LOOKS = {
    "amdahl": style.Look("#0072B2", style.SOLID, "None"),
    "power": style.Look("#D55E00", style.DASHED, "None"),
    "allreduce": style.Look("#009E73", style.DASH_DOT, "None"),
}
"""Of the families; linear is the ideal, and drawn as such."""
IDEAL = style.Look(style.RULE, style.DOTTED, "None")
# Filled: seen by the fit. The same circle, open: predicted. A cross: not comparable, the gang was on more nodes than needed.
MARKS: dict[str, dict[str, Any]] = {  # as matplotlib takes them
    "fitted": {"marker": "o", "markerfacecolor": style.INK, "markersize": 4.5},
    "held out": {"marker": "o", "markerfacecolor": "white", "markersize": 4.5},
    "on more nodes": {"marker": "x", "markersize": 3.5},
}
LABELS = {"fitted": "measured, fitted", "held out": "measured, not fitted", "on more nodes": "measured, on more nodes"}


def scaling_fit(points: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Speed-up over GPUs: what was measured, each family's curve, the interval of the chosen one, and the ideal.

    Args:
        points: columns gpus, speedup, use (fitted, held out, on more nodes).
        curves: columns gpus, family, speedup, low, high, is_chosen; low and high are NaN where there is no interval.

    Raises an InputError for a missing column.
    """
    require_columns(points, FIGURE, ("gpus", "speedup", "use"))
    require_columns(curves, FIGURE, ("gpus", "family", "speedup", "low", "high", "is_chosen"))
    figure = style.new_figure(style.SINGLE_IN, 3.1)
    axes = figure.add_subplot()
    largest = float(max(numbers(curves, FIGURE, "gpus").max(), numbers(points, FIGURE, "gpus").max(), 2.0))
    axes.plot([1, largest], [1, largest], color=IDEAL.color, linestyle=IDEAL.dashes, linewidth=1.0, label="_ideal")
    legend: list[Artist] = [style.handle(IDEAL, "ideal (linear)", has_marker=False)]
    for family, rows in curves.groupby("family", sort=False):
        if family in LOOKS:
            legend.append(_draw_family(axes, str(family), rows))
    legend.extend(_draw_points(axes, points))
    _logarithmic(axes, largest, numbers(points, FIGURE, "speedup").min())
    style.dress(axes, "GPUs", "speed-up over 1 GPU")
    style.legend_below(figure, legend, _caption(curves))
    return style.finished(figure)


def _draw_family(axes: Axes, family: str, rows: pd.DataFrame) -> Artist:
    look = LOOKS[family]
    rows = rows.sort_values("gpus")
    gpus, speedup = numbers(rows, FIGURE, "gpus"), numbers(rows, FIGURE, "speedup")
    is_chosen = bool(rows["is_chosen"].all())
    # The chosen line is thick and below: families that coincide on it stay visible.
    width, order = (2.4, 3) if is_chosen else (1.0, 4)
    axes.plot(gpus, speedup, color=look.color, linestyle=look.dashes, linewidth=width, zorder=order, label=f"_{family}")
    if is_chosen:
        low, high = numbers(rows, FIGURE, "low"), numbers(rows, FIGURE, "high")
        axes.fill_between(gpus, low, high, color=look.color, alpha=0.15, linewidth=0, zorder=1.5, label="_interval")
    return style.handle(look, f"{family} (chosen)" if is_chosen else family, has_marker=False)


def _draw_points(axes: Axes, points: pd.DataFrame) -> list[Artist]:
    from matplotlib.lines import Line2D

    handles: list[Artist] = []
    for use, mark in MARKS.items():
        rows = points[points["use"] == use]
        if rows.empty:
            continue
        drawn: dict[str, Any] = {
            "linestyle": "None",
            "color": style.INK,
            "markeredgecolor": style.INK,
            "markeredgewidth": 0.9,
            **mark,
        }
        axes.plot(
            numbers(rows, FIGURE, "gpus"), numbers(rows, FIGURE, "speedup"), zorder=5, clip_on=False, label=f"_{use}",
            **drawn,
        )  # fmt: skip
        handles.append(Line2D([], [], label=LABELS[use], **drawn))
    return handles


def _logarithmic(axes: Axes, largest: float, least_speedup: float) -> None:
    """Powers of two on both axes, from 1 (or the slowest gang) to the largest gang's ideal."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlim(0.94, largest * 1.06)
    axes.set_ylim(min(0.94, least_speedup * 0.94), largest * 1.06)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=2))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _caption(curves: pd.DataFrame) -> str:
    chosen = curves[curves["is_chosen"]]
    if chosen["low"].notna().any():
        return "band: where 90 % of new measurements are expected,\nby the fit and by the usual error of its family"
    return "no band: as many parameters as fitted points"
