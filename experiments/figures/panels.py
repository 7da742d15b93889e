"""Figure: the policies compared in three panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.figures.best import draw_best_so_far
from elastune.experiments.figures.gpus import draw_gpus_ready
from elastune.experiments.figures.score_cost import CAPTION, draw_score_over_cost
from elastune.experiments.figures.style import DOUBLE_IN, finished, legend_below, new_figure, panel_letter

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def comparison(results: pd.DataFrame, trajectories: pd.DataFrame, *, score_label: str = "score") -> Figure:
    """Score over cost (a), the best score so far over time (b) and the GPUs ready over time (c), with one legend.

    Panels (b) and (c) stand above one another and share the time axis. The tables are those of `score_over_cost`,
    `best_so_far` and `gpus_over_time`.

    Raises an InputError for a missing column.
    """
    figure = new_figure(DOUBLE_IN, 4.4)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.0, 1.15))
    scores, best = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    gpus = figure.add_subplot(grid[1, 1], sharex=best)
    legend, beyond = draw_score_over_cost(scores, results, score_label)
    _, best_caption = draw_best_so_far(best, trajectories, "at_s", score_label)
    _, gpus_caption = draw_gpus_ready(gpus, trajectories)
    best.set_xlabel("")
    best.tick_params(labelbottom=False)
    for axes, letter in ((scores, "a"), (best, "b"), (gpus, "c")):
        panel_letter(axes, letter)
    caption = f"a: {CAPTION}{f'; {beyond}' if beyond else ''}\nb: {best_caption}; c: {gpus_caption}"
    legend_below(figure, legend, caption)
    return finished(figure)
