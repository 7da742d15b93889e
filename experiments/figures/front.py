"""Figure: time, cost and score of everything that was tried, and what of it no other beats in all three."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import SECONDS, numbers, require_columns, score_axis_label, time_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FIGURE = "front"


def front(
    candidates: pd.DataFrame, efficient: pd.DataFrame, best: pd.Series | None = None, *, minimized: bool
) -> Figure:
    """Score over cost; the colour is the time.

    Args:
        candidates: columns score, cost_usd, makespan_s; one row per candidate, means of its runs.
        efficient: those of them of which no other is cheaper, sooner and better at once.
        best: the row of the recommended one.
        minimized: whether less of a score is better.

    Raises an InputError for a missing column.
    """
    for table in (candidates, efficient):
        require_columns(table, FIGURE, ("score", "cost_usd", "makespan_s"))
    figure = style.new_figure(style.DOUBLE_IN, 3.4)
    axes = figure.add_subplot()
    unit = time_unit(float(numbers(candidates, FIGURE, "makespan_s").max()))
    times = numbers(efficient, FIGURE, "makespan_s") / SECONDS[unit]
    axes.plot(
        candidates["cost_usd"], candidates["score"], ".", color=style.RULE, alpha=0.35, markersize=4, label="tried"
    )
    marks = axes.scatter(
        efficient["cost_usd"], efficient["score"], c=times, cmap="viridis", s=34, zorder=3, edgecolors=style.INK,
        linewidths=0.5, label="efficient: no other is cheaper, sooner and better",
    )  # fmt: skip
    if best is not None:
        axes.plot(
            best["cost_usd"], best["score"], "*", markersize=13, color="#D55E00", markeredgecolor="white", zorder=4,
            label=f"recommended: {best['policy']} on {best['instance_type']}",
        )  # fmt: skip
    bar = figure.colorbar(marks, ax=axes, pad=0.01)
    bar.set_label(f"makespan ({unit})", fontsize=style.LABEL_PT, color=style.INK)
    bar.ax.tick_params(labelsize=style.TICK_PT, colors=style.INK)
    axes.set_xscale("log")
    style.dress(axes, "cost (USD)", score_axis_label("score", minimized=minimized))
    style.plain_ticks(axes.xaxis)
    style.legend_below(
        figure, axes.get_legend_handles_labels()[0], "means of the runs of each candidate, few where it was given up"
    )
    return style.finished(figure)
