"""Figure: the best score so far over time and over money, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.figures.best import Progress, draw_progress, progress_samples, score_view
from elastune.experiments.figures.style import DOUBLE_IN, finished, legend_below, new_figure, panel_letter

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from elastune.experiments.figures.best import BandKind


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
    over_time, over_money = Progress.of(trajectories, "at_s", band), Progress.of(trajectories, "spent_usd", band)
    scores = score_view([over_time, over_money])
    for axes, progress, letter in ((left, over_time, "a"), (right, over_money, "b")):
        draw_progress(axes, progress, scores, score_label)
        panel_letter(axes, letter)
    right.set_ylabel("")
    legend_below(figure, progress_samples(over_time), over_time.caption)
    return finished(figure)
