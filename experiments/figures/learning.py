"""Figure: the learning curves of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures import style
from elastune.experiments.figures.summary import View, robust_view
from elastune.experiments.figures.tables import is_minimized, numbers, require_columns, score_axis_label
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Array


FIGURE = "curves"
MOST_LINES = 400
BEST_LOOKS = tuple(
    style.Look(color, style.SOLID, "None") for color in ("#D55E00", "#009E73", "#A0207A", "#E69F00", "#444444")
)
QUANTILE_COLOR = "#0072B2"


@dataclass(frozen=True)
class Curves:
    """The curves as a rectangle, (trials, iterations), NaN where there is no score; and which trials ever diverged."""

    trials: Array
    iterations: Array
    scores: Array
    diverged: int
    minimized: bool

    def best(self, count: int) -> list[int]:
        """The rows with the best scores ever reached, best first."""
        worst = np.inf if self.minimized else -np.inf
        filled = np.where(np.isfinite(self.scores), self.scores, worst)
        reached = filled.min(axis=1) if self.minimized else -filled.max(axis=1)
        ranked = np.argsort(reached, kind="stable")[:count]
        return [int(row) for row in ranked if np.isfinite(reached[row])]


def curves(curves: pd.DataFrame, *, score_label: str = "score", highlighted: int = 5) -> Figure:
    """Every trial's score over its iterations, the best few highlighted, with quantiles across the trials.

    A quantile at an iteration is that of the trials with a finite score there. A trial that diverged (NaN or infinite)
    is drawn as far as it has scores, and counted in the legend. Of more than 400 trials every n-th is drawn.

    Args:
        curves: columns trial, iteration, score, direction; one row per trial and iteration.
        score_label: what the score is, with its unit.
        highlighted: how many of the best trials, by the best score they ever reach, stand out.

    Raises an InputError for a missing column, or for two rows of one trial and iteration.
    """
    from matplotlib.ticker import MaxNLocator

    bundle = _curves_of(curves)
    figure = style.new_figure(style.SINGLE_IN, 3.2)
    axes = figure.add_subplot()
    drawn = _draw_thin_lines(axes, bundle)
    legend = [*_draw_quantiles(axes, bundle), *_draw_best(axes, bundle, bundle.best(highlighted))]
    _view_of(bundle, bundle.best(highlighted)).on_y(axes)
    axes.set_xlim(0, bundle.iterations.max() * 1.01)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    style.dress(axes, "iteration", score_axis_label(score_label, minimized=bundle.minimized))
    style.legend_below(figure, legend, _caption(bundle, drawn))
    return style.finished(figure)


def _curves_of(table: pd.DataFrame) -> Curves:
    require_columns(table, FIGURE, ("trial", "iteration", "score", "direction"))
    if table.duplicated(["trial", "iteration"]).any():
        raise InputError(f"{FIGURE}: some trial has two rows for one iteration")
    score = numbers(table, FIGURE, "score")
    trials, row = np.unique(table["trial"].to_numpy(), return_inverse=True)
    iterations, column = np.unique(numbers(table, FIGURE, "iteration"), return_inverse=True)
    scores = np.full((len(trials), len(iterations)), np.nan)
    scores[row, column] = np.where(np.isfinite(score), score, np.nan)
    diverged = len(np.unique(row[~np.isfinite(score)]))
    return Curves(trials, iterations, scores, diverged, is_minimized(table, FIGURE))


def _view_of(bundle: Curves, best: Sequence[int]) -> View:
    """The usual range of all scores, and on the better side as far as the best trials go."""
    view = robust_view([bundle.scores], may_be_log=bundle.minimized)
    if not best:
        return view.padded()
    scores = bundle.scores[best]
    if bundle.minimized:
        return View(min(view.low, float(np.nanmin(scores))), view.high, view.is_log).padded()
    return View(view.low, max(view.high, float(np.nanmax(scores))), view.is_log).padded()


def _draw_thin_lines(axes: Axes, bundle: Curves) -> int:
    """Draw the trials as thin lines, at most 400 of them; returns how many."""
    from matplotlib.collections import LineCollection

    step = -(-len(bundle.scores) // MOST_LINES)
    lines = [np.column_stack([bundle.iterations, scores]) for scores in bundle.scores[::step]]
    axes.add_collection(
        # Rasterized: hundreds of vector lines make a PDF slow to page through.
        LineCollection(lines, colors="#777777", linewidths=0.4, alpha=0.3, rasterized=True, zorder=1.5, label="_trials")
    )
    return len(lines)


def _draw_quantiles(axes: Axes, bundle: Curves) -> list[Artist]:
    from matplotlib.patches import Patch

    known = np.isfinite(bundle.scores).any(axis=0)
    if not known.any():
        return []
    at = bundle.iterations[known]
    lowest, low, median, high, highest = np.nanquantile(bundle.scores[:, known], (0.1, 0.25, 0.5, 0.75, 0.9), axis=0)
    axes.fill_between(at, lowest, highest, color=QUANTILE_COLOR, alpha=0.13, linewidth=0, label="_10 to 90 %")
    axes.fill_between(at, low, high, color=QUANTILE_COLOR, alpha=0.18, linewidth=0, label="_25 to 75 %")
    axes.plot(at, median, color=QUANTILE_COLOR, linewidth=1.2, linestyle=style.DASHED, label="_median")
    look = style.Look(QUANTILE_COLOR, style.DASHED, "None")
    return [
        style.handle(look, "median", has_marker=False),
        Patch(facecolor=QUANTILE_COLOR, alpha=0.29, label="25 to 75 % of trials"),
        Patch(facecolor=QUANTILE_COLOR, alpha=0.13, label="10 to 90 % of trials"),
    ]


def _draw_best(axes: Axes, bundle: Curves, best: Sequence[int]) -> list[Artist]:
    handles: list[Artist] = []
    reach = np.nanmin if bundle.minimized else np.nanmax
    for row, look in zip(best, cycle(BEST_LOOKS), strict=False):
        scores = bundle.scores[row]
        name = f"trial {bundle.trials[row]}, best {reach(scores):.3g}"
        axes.plot(
            bundle.iterations, scores, color=look.color, linestyle=look.dashes, linewidth=1.0, zorder=3, label=name
        )
        handles.append(style.handle(look, name, has_marker=False))
    return handles


def _caption(bundle: Curves, drawn: int) -> str:
    trials = len(bundle.trials)
    lines = f"{trials:,} trials" if drawn == trials else f"{drawn:,} of {trials:,} trials"
    return f"thin lines: {lines}; {bundle.diverged:,} diverged"
