"""Figure: the best score so far over time and over money, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.figures.best import draw_best_so_far
from experiments.figures.style import DOUBLE_IN, finished, legend_below, new_figure, panel_letter

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from experiments.figures.best import BandKind


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
    figure = new_figure(DOUBLE_IN, 3.0)
    left, right = figure.subplots(1, 2, sharey=True)
    legend, caption = draw_best_so_far(left, trajectories, "at_s", score_label, band)
    draw_best_so_far(right, trajectories, "spent_usd", score_label, band)
    right.set_ylabel("")
    for axes, letter in ((left, "a"), (right, "b")):
        panel_letter(axes, letter)
    legend_below(figure, legend, caption)
    return finished(figure)
