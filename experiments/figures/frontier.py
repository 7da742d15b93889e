"""Figure: what the same job costs by how soon it is to end, and where each planner's plans lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import SECONDS, limits_of, numbers, require_columns, time_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FIGURE = "frontier"
LOOKS = {
    "frontier": style.Look(style.INK, style.SOLID, ""),
    "bound": style.Look(style.RULE, style.DASHED, ""),
    "static": style.KNOWN["sha-fixed"],
    "rubberband-next": style.Look("#66C2A5", style.SOLID, "D"),
    "rubberband": style.KNOWN["rubberband"],
    "naive": style.Look("#E69F00", style.SOLID, "X"),
}
SIZES_PT = {"rubberband-next": 6.5}
"""Where both greedy plans are the same, the one that is drawn first shall show."""
LABELS = {"bound": "lower bound", "rubberband-next": "greedy, next level", "rubberband": "greedy, all levels"}


def frontier(table: pd.DataFrame) -> Figure:
    """Cost over makespan: the frontier as steps, the lower bound as a line, the plans of other planners as marks.

    Args:
        table: columns planner (frontier, bound, static, rubberband-next, rubberband, `naive p=N`), makespan_s, cost_usd, and
            perhaps deadline_s, budget_usd, and makespan (mean or p95: what makespan_s is); one row per plan.

    Raises an InputError for a missing column or an unknown planner.
    """
    require_columns(table, FIGURE, ("planner", "makespan_s", "cost_usd"))
    figure = style.new_figure(style.SINGLE_IN, 3.1)
    axes = figure.add_subplot()
    makespan_s = numbers(table, FIGURE, "makespan_s")
    unit = time_unit(float(makespan_s.max()))
    handles = [_draw(axes, rows, kind, SECONDS[unit]) for kind in LOOKS if len(rows := table[_kinds(table) == kind])]
    axes.set(xscale="log", yscale="log")
    style.plain_ticks(axes.xaxis)
    style.plain_ticks(axes.yaxis)
    is_late = "makespan" in table and (table["makespan"] == "p95").all()
    style.dress(
        axes, f"makespan, not exceeded in 95 runs of 100 ({unit})" if is_late else f"makespan ({unit})", "cost (USD)"
    )
    deadlines_s = limits_of(table, FIGURE, "deadline_s")
    style.limit_lines(axes, "deadline", [limit / SECONDS[unit] for limit in deadlines_s], unit)
    _budget_line(axes, limits_of(table, FIGURE, "budget_usd"))
    style.legend_below(figure, handles, "each mark is a plan; none of the frontier's space lies below the steps")
    return style.finished(figure)


def _kinds(table: pd.DataFrame) -> pd.Series[str]:
    from elastune.sim.model.errors import InputError

    kinds = table["planner"].astype(str).str.partition(" ")[0]
    unknown = sorted(set(kinds) - LOOKS.keys())
    if unknown:
        raise InputError(f"{FIGURE}: unknown planner {', '.join(unknown)}; known: {', '.join(LOOKS)}")
    return kinds


def _draw(axes: Axes, rows: pd.DataFrame, kind: str, unit_s: float) -> Line2D:
    look = LOOKS[kind]
    by_time = rows.sort_values("makespan_s")
    x, y = numbers(by_time, FIGURE, "makespan_s") / unit_s, numbers(by_time, FIGURE, "cost_usd")
    label = LABELS.get(kind, kind)
    if kind == "frontier":
        return axes.step(x, y, where="post", color=look.color, linewidth=1.3, zorder=3, label=label)[0]
    if kind == "bound":
        return axes.plot(x, y, color=look.color, linestyle=look.dashes, linewidth=1.0, zorder=2, label=label)[0]
    marks = axes.plot(
        x, y, look.marker, color=look.color, markersize=SIZES_PT.get(kind, 4.5), markeredgecolor="white",
        markeredgewidth=0.4, zorder=4, clip_on=False, label=label,
    )[0]  # fmt: skip
    if kind == "naive":
        for name, at_x, at_y in zip(by_time["planner"], x, y, strict=True):
            axes.annotate(
                str(name).removeprefix("naive "), (at_x, at_y), xytext=(3, 3), textcoords="offset points",
                fontsize=style.NOTE_PT - 1, color=look.color,
            )  # fmt: skip
    return marks


def _budget_line(axes: Axes, budgets_usd: Sequence[float]) -> None:
    """A horizontal line at each budget, named beside the axes, where nothing is drawn."""
    for budget_usd in budgets_usd:
        axes.axhline(
            budget_usd, color=style.INK, linewidth=0.9, linestyle=style.LIMIT_DASHES, zorder=2.5, label="_limit"
        )
        axes.annotate(
            f"budget\n{budget_usd:.4g} USD", (1.0, budget_usd), xycoords=("axes fraction", "data"), xytext=(2.5, 0),
            textcoords="offset points", ha="left", va="center", fontsize=style.NOTE_PT, color=style.INK,
        )  # fmt: skip
