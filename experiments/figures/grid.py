"""Figure: a measure over deadline and budget, a heat map per policy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.experiments.figures.grid_cells import FIGURE, Cells, Scale, Side, cells_of, is_less_better
from elastune.experiments.figures.rows import label_of, name_of, policy_named, require_one_run_each
from elastune.experiments.figures.style import (
    DOUBLE_IN,
    INK,
    LABEL_PT,
    SINGLE_IN,
    TICK_PT,
    balanced,
    dress,
    finished,
    legend_below,
    looks_of,
    new_figure,
    panel_name,
    panels_on,
)
from elastune.experiments.figures.tables import require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Panel

COLUMNS = 4
EMPTY, HATCH = "#F4F4F4", "//////"
LEAST_CELL_IN = 0.25
"""Cells narrower than this have no text."""


def score_grid(
    results: pd.DataFrame,
    *,
    value: str = "regret",
    against: str | None = None,
    x: str = "job.deadline_s",
    y: str = "job.budget_usd",
    label: str | None = None,
) -> Figure:
    """Per policy a heat map of the mean, or of the paired difference to one policy, over a grid of deadline and budget.

    A cell is hatched where the policy (or the one it is compared with) found no plan on some seed, with the mean over the other
    seeds where there are such, and empty where nothing was run or has a value. A difference has a frame where its 95 %
    bootstrap interval over at least 6 seeds leaves out zero; that is not corrected for the number of cells.

    Args:
        results: rows of sweeps: policy, seed, the columns of `value`, `x`, `y`; direction where the value is a score; status,
            workload.bundle where there are such.
        value: the measure. Of a score, `direction` says what is better; of anything else, less is better.
        against: the policy that is subtracted from each other one; None draws the means themselves.
        x: the column over which the cells lie, such as one normalised by the caller.
        y: the column up which they lie.
        label: what the scale says; None: the measure's name and unit.

    Raises an InputError for a missing column, an unknown policy, or two runs of one policy, cell and seed.
    """
    import numpy as np

    require_columns(results, FIGURE, ("policy", "seed", x, y, value))
    require_one_run_each(results, FIGURE, [x, y])
    policies = list(looks_of(results["policy"]))
    if against is not None:
        policies.remove(policy_named(results, FIGURE, against))
    sides = Side.of(results, x), Side.of(results, y)
    cells = {policy: cells_of(results, policy, against, value, sides) for policy in policies}
    scale = Scale.of(
        np.concatenate([one.value.ravel() for one in cells.values()]),
        is_difference=against is not None,
        is_less_better=is_less_better(results, value),
    )
    columns = balanced(len(policies), COLUMNS)
    rows = math.ceil(len(policies) / columns)
    width_in = SINGLE_IN if columns == 1 else DOUBLE_IN
    cell_in = (width_in - 1.1) / columns / len(sides[0].settings)
    height_in = min(max(0.26 * len(sides[1].settings), 0.8), 2.2)
    figure = new_figure(width_in, 0.75 + (height_in + 0.3) * rows)
    for panel, policy in zip(
        panels_on(figure, len(policies), columns, sharex=True, sharey=True), policies, strict=True
    ):
        mesh = _draw_cells(panel.axes, cells[policy], scale, has_texts=cell_in >= LEAST_CELL_IN)
        name = policy if against is None else f"{policy} \N{MINUS SIGN} {against}"
        panel_name(panel.axes, name, 0.97 * cell_in * len(sides[0].settings))
        _label(panel, sides)
    name = label or name_of(value)[0]
    better = "lower is better" if is_less_better(results, value) else "higher is better"
    _scale_bar(figure, mesh, scale, f"{name if against is None else f'difference in {name}'}\n({better})")
    told = f"mean {label or label_of(value)}"
    told = told if against is None else f"{told}: differences on the same seeds"
    legend_below(figure, _legend(list(cells.values())), told)
    return finished(figure)


def _scale_bar(figure: Figure, mesh: QuadMesh, scale: Scale, label: str) -> None:
    bar = figure.colorbar(mesh, ax=figure.axes, fraction=0.05, pad=0.01, aspect=30, extend=scale.beyond)
    bar.set_label(label, fontsize=LABEL_PT, color=INK)
    bar.ax.tick_params(labelsize=TICK_PT, colors=INK, length=2.5, width=0.6)
    bar.outline.set_visible(False)


def _draw_cells(axes: Axes, cells: Cells, scale: Scale, *, has_texts: bool) -> QuadMesh:
    import numpy as np
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    axes.set_facecolor(EMPTY)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(cells.value), cmap=scale.colors, vmin=scale.low, vmax=scale.high, edgecolors="white",
        linewidth=0.6, label="_cells",
    )  # fmt: skip
    for row, column in np.ndindex(cells.value.shape):
        value = cells.value[row, column]
        if cells.is_infeasible[row, column]:
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor="none", edgecolor="#9A9A9A", hatch=HATCH, linewidth=0,
                          label="_infeasible")
            )  # fmt: skip
        if cells.is_clear[row, column]:
            axes.add_patch(
                Rectangle(
                    (column + 0.06, row + 0.06), 0.88, 0.88, fill=False, edgecolor=INK, linewidth=1.0, label="_clear",
                    path_effects=[withStroke(linewidth=2.4, foreground="white")],
                )
            )  # fmt: skip
        if has_texts and np.isfinite(value):
            red, green, blue, _ = mesh.cmap(mesh.norm(value))
            is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(
                column + 0.5, row + 0.5, scale.text(float(value)), ha="center", va="center", fontsize=5.5,
                color="white" if is_dark else "black",
            )  # fmt: skip
    return mesh


def _label(panel: Panel, sides: tuple[Side, Side]) -> None:
    """Labels on the left panels and on the lowest one of each column."""
    across, up = sides
    dress(panel.axes, across.label if panel.is_lowest else "", up.label if panel.is_left else "")
    panel.axes.grid(visible=False)
    step = -(-len(across.settings) // 6)
    panel.axes.set_xticks([at + 0.5 for at in range(len(across.settings))][::step], across.texts[::step])
    panel.axes.set_yticks([at + 0.5 for at in range(len(up.settings))], up.texts)
    panel.axes.tick_params(length=0)


def _legend(cells: Sequence[Cells]) -> list[Artist]:
    """What hatches and frames mean, where there are such."""
    from matplotlib.patches import Patch

    legend: list[Artist] = []
    if any(one.is_clear.any() for one in cells):
        legend.append(Patch(facecolor="none", edgecolor=INK, linewidth=1.1, label="95 % interval leaves out 0"))
    if any(one.is_infeasible.any() for one in cells):
        legend.append(
            Patch(facecolor=EMPTY, edgecolor="#9A9A9A", hatch=HATCH, linewidth=0, label="no plan within the limits")
        )
    return legend
