"""Figure: what each policy's runs scored, over what they cost."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures import style, tables
from elastune.experiments.figures.summary import View, robust_view
from elastune.experiments.statistics.differences import mean_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from elastune.experiments.figures.style import Array


FIGURE = "score_over_cost"
CAPTION = "mean with 95 % bootstrap interval; faint: single runs"


@dataclass(frozen=True)
class PolicyRuns:
    """The runs of one policy that have a score, and how many there are in all."""

    cost_usd: Array
    score: Array
    runs: int

    def label(self, policy: str) -> str:
        """The policy, and how many of its runs are left out because they have no finite score."""
        left_out = self.runs - len(self.score)
        return f"{policy} ({left_out} of {self.runs} unscored)" if left_out else policy


def score_over_cost(results: pd.DataFrame, *, score_label: str = "score") -> Figure:
    """One mark per run and, per policy, the mean with its 95 % bootstrap interval in both directions.

    Args:
        results: columns policy, score (None or NaN: no result), cost_usd, budget_usd, direction; one row per run.
        score_label: what the score is, with its unit.

    Raises an InputError for a missing column. Runs far beyond the others sit on the edge, and the legend counts them.
    """
    figure = style.new_figure(style.SINGLE_IN, 3.1)
    legend, beyond = draw_score_over_cost(figure.add_subplot(), results, score_label)
    for sample in legend:
        sample.set_linestyle("-")  # the intervals are drawn solid
    style.legend_below(figure, legend, "\n".join(filter(None, (CAPTION, beyond))))
    return style.finished(figure)


def draw_score_over_cost(axes: Axes, results: pd.DataFrame, score_label: str) -> tuple[list[Line2D], str]:
    """Draw the figure on the axes; returns the legend's handles and a note on the runs beyond the axes, maybe empty."""
    tables.require_columns(results, FIGURE, ("policy", "score", "cost_usd", "budget_usd", "direction"))
    minimized = tables.is_minimized(results, FIGURE)
    looks = style.looks_of(results["policy"])
    runs = {policy: _runs_of(results[results["policy"] == policy]) for policy in looks}
    budgets_usd = tables.limits_of(results, FIGURE, "budget_usd")
    x_view = robust_view([mine.cost_usd for mine in runs.values()]).including(budgets_usd).padded()
    means = [float(mine.score.mean()) for mine in runs.values() if len(mine.score)]
    y_view = robust_view([mine.score for mine in runs.values()], may_be_log=minimized).including(means).padded()
    x_view.on_x(axes)
    y_view.on_y(axes)
    style.dress(axes, "cost (USD)", tables.score_axis_label(score_label, minimized=minimized))
    style.limit_lines(axes, "budget", budgets_usd, "USD")
    beyond = _draw_runs(axes, runs, looks, (x_view, y_view))
    return [style.handle(looks[policy], mine.label(policy)) for policy, mine in runs.items()], beyond


def _runs_of(rows: pd.DataFrame) -> PolicyRuns:
    score, cost_usd = tables.numbers(rows, FIGURE, "score"), tables.numbers(rows, FIGURE, "cost_usd")
    scored = np.isfinite(score) & np.isfinite(cost_usd)
    return PolicyRuns(cost_usd[scored], score[scored], len(rows))


def _draw_runs(
    axes: Axes, runs: Mapping[str, PolicyRuns], looks: Mapping[str, style.Look], views: tuple[View, View]
) -> str:
    beyond = 0
    for policy, mine in runs.items():
        if len(mine.score):
            beyond += _draw_marks(axes, mine, looks[policy], views)
            _draw_mean(axes, mine, looks[policy], views)
    return f"on the edge: {beyond} {'run' if beyond == 1 else 'runs'} beyond the axes" if beyond else ""


def _draw_marks(axes: Axes, mine: PolicyRuns, look: style.Look, views: tuple[View, View]) -> int:
    """Draw one mark per run, those beyond the axes hollow on the edge; returns how many these are."""
    x, y = views[0].pinned(mine.cost_usd), views[1].pinned(mine.score)
    outside = (x != mine.cost_usd) | (y != mine.score)
    axes.scatter(
        x[~outside],
        y[~outside],
        s=9,
        marker=look.marker,
        color=look.color,
        alpha=0.35,
        linewidths=0,
        zorder=3,
        label="_runs",
    )
    if outside.any():
        axes.scatter(
            x[outside], y[outside], s=14, marker=look.marker, facecolors="white", edgecolors=look.color, linewidths=0.8,
            clip_on=False, zorder=4, label="_beyond",
        )  # fmt: skip
    return int(outside.sum())


def _draw_mean(axes: Axes, mine: PolicyRuns, look: style.Look, views: tuple[View, View]) -> None:
    x, x_low, x_high = astuple(mean_interval(mine.cost_usd.tolist()))
    y, y_low, y_high = astuple(mean_interval(mine.score.tolist()))
    axes.errorbar(
        x,
        y,
        xerr=[[x - x_low], [x_high - x]],
        yerr=[[y - y_low], [y_high - y]],
        fmt=look.marker,
        color=look.color,
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1.3,
        zorder=5,
        label="_mean",
    )
    edge_x, edge_y = min(max(x, views[0].low), views[0].high), min(max(y, views[1].low), views[1].high)
    if (edge_x, edge_y) != (x, y):
        axes.plot(
            edge_x, edge_y, look.marker, color=look.color, markersize=6.5, clip_on=False, zorder=6, label="_mean beyond"
        )
