"""Figure: a measure over deadline and budget, a heat map per policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from elastune.experiments.figures import style, tables
from elastune.experiments.statistics.differences import HIGHER_IS_BETTER, paired_difference
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Array, Panel, Truths

FIGURE = "score_grid"
SEQUENTIAL, DIVERGING = "cividis", "PuOr"


@dataclass(frozen=True)
class Side:
    """One side of the grid.

    Attributes:
        column: the table's.
        settings: ascending, as the table holds them.
        label: name and unit.
        texts: the values as tick labels, in that unit.
    """

    column: str
    settings: list[Any]  # numbers or texts
    label: str
    texts: list[str]

    @classmethod
    def of(cls, results: pd.DataFrame, column: str) -> Side:
        """The axis of a column; an empty value is in no cell. Seconds are told in the unit that reads best."""
        values = sorted(results[column].dropna().unique().tolist())
        if not all(isinstance(value, int | float) for value in values):
            return cls(column, values, tables.label_of(column), [str(value) for value in values])
        name, unit = tables.name_of(column)
        if unit != "s" or not values:
            return cls(column, values, tables.label_of(column), [f"{value:.4g}" for value in values])
        unit = tables.time_unit(float(values[-1]))
        return cls(column, values, f"{name} ({unit})", [f"{value / tables.SECONDS[unit]:.3g}" for value in values])


@dataclass(frozen=True)
class Cells:
    """One policy's cells, each (ys, xs).

    Attributes:
        value: means, or mean differences; NaN where there are none.
        is_clear: whether the interval of a difference of enough pairs leaves out zero; all false for means.
        is_infeasible: whether some run found no plan.
    """

    value: Array
    is_clear: Truths
    is_infeasible: Truths


def cells_of(results: pd.DataFrame, policy: str, against: str | None, value: str, sides: tuple[Side, Side]) -> Cells:
    """The cells of one policy, or of its difference to another: xs of the first side, ys of the second."""
    across, up = sides
    shape = len(up.settings), len(across.settings)
    cells = Cells(np.full(shape, np.nan), np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool))
    mine, theirs = (_by_cell(results, name, sides) for name in (policy, against))
    for place in np.ndindex(shape):
        cell = across.settings[place[1]], up.settings[place[0]]
        both = [runs[cell] for runs in (mine, theirs) if cell in runs]
        cells.is_infeasible[place] = any(len(tables.infeasible_runs(runs)) for runs in both)
        if cell not in mine or (against is not None and cell not in theirs):
            continue
        if against is None:
            found = tables.numbers(tables.done_runs(mine[cell]), FIGURE, value)
            found = found[np.isfinite(found)]
            cells.value[place] = found.mean() if len(found) else np.nan
        else:
            pairs = tables.paired(tables.done_runs(mine[cell]), tables.done_runs(theirs[cell]), FIGURE, value, ())
            difference = paired_difference(*(column.tolist() for column in pairs))
            cells.value[place] = difference.mean
            is_enough = difference.seeds >= tables.LEAST_PAIRS
            cells.is_clear[place] = is_enough and (difference.low > 0 or difference.high < 0)
    return cells


def _by_cell(
    results: pd.DataFrame, policy: str | None, sides: tuple[Side, Side]
) -> dict[tuple[Any, ...], pd.DataFrame]:
    rows = results[results["policy"] == policy]
    return {} if rows.empty else dict(iter(rows.groupby([side.column for side in sides])))


def is_less_better(results: pd.DataFrame, value: str) -> bool:
    """Whether less of a measure is better; of scores, the table's direction says so."""
    if value in ("score", "test_score"):
        tables.require_columns(results, FIGURE, ("direction",))
        return tables.is_minimized(results, FIGURE)
    return value not in HIGHER_IS_BETTER


@dataclass(frozen=True)
class Scale:
    """How values become colours and texts."""

    low: float
    high: float
    colors: str
    decimals: int
    is_difference: bool
    beyond: Literal["neither", "both", "min", "max"]

    @classmethod
    def of(cls, values: Array, *, is_difference: bool, is_less_better: bool) -> Scale:
        """From all finite values of a figure: bright is better, or orange worse and purple better than what is subtracted.

        The outermost two percent are beyond the ends of the scale.
        """
        known = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
        low, high = (float(end) for end in np.quantile(known, (0.02, 0.98)))
        most = float(np.abs(known).max())
        decimals = int(np.clip(2 - math.floor(math.log10(most)), 0, 4)) if most > 0 else 1
        if is_difference:
            high = max(-low, high) or 1.0
            low = -high
        elif high <= low:
            high = low + (abs(low) or 1.0)
        colors = (DIVERGING if is_difference else SEQUENTIAL) + ("_r" if is_less_better else "")
        ends: dict[tuple[bool, bool], Literal["neither", "both", "min", "max"]] = {
            (False, False): "neither",
            (True, True): "both",
            (True, False): "min",
            (False, True): "max",
        }
        beyond = ends[bool(known.min() < low), bool(known.max() > high)]
        return cls(low, high, colors, decimals, is_difference, beyond)

    def text(self, value: float) -> str:
        """The value as short as a cell allows: `.036`, `+1.2`."""
        told = f"{value:+.{self.decimals}f}" if self.is_difference else f"{value:.{self.decimals}f}"
        if self.is_difference and float(told) == 0:
            told = told[1:]
        told = told.replace("0.", ".", 1) if abs(float(told)) < 1 else told
        return told.replace("-", "\N{MINUS SIGN}")


COLUMNS = 4
EMPTY, HATCH = "#F4F4F4", "//////"
CHARACTER_IN = 0.055
"""The width of a character of a tick's label."""
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
    tables.require_columns(results, FIGURE, ("policy", "seed", x, y, value))
    tables.require_one_run_each(results, FIGURE, [x, y])
    policies = list(style.looks_of(results["policy"]))
    if against is not None:
        policies.remove(tables.policy_named(results, FIGURE, against))
    sides = Side.of(results, x), Side.of(results, y)
    for side in sides:
        if not side.settings:
            raise InputError(f"{FIGURE}: no row has a value of {side.column}, over which the cells lie")
    cells = {policy: cells_of(results, policy, against, value, sides) for policy in policies}
    scale = Scale.of(
        np.concatenate([one.value.ravel() for one in cells.values()]),
        is_difference=against is not None,
        is_less_better=is_less_better(results, value),
    )
    columns = style.balanced(len(policies), COLUMNS)
    rows = math.ceil(len(policies) / columns)
    width_in = style.SINGLE_IN if columns == 1 else style.DOUBLE_IN
    cell_in = (width_in - 1.1) / columns / len(sides[0].settings)
    height_in = min(max(0.26 * len(sides[1].settings), 0.8), 2.2)
    figure = style.new_figure(width_in, 0.75 + (height_in + 0.3) * rows)
    for panel, policy in zip(
        style.panels_on(figure, len(policies), columns, sharex=True, sharey=True), policies, strict=True
    ):
        mesh = _draw_cells(panel.axes, cells[policy], scale, has_texts=cell_in >= LEAST_CELL_IN)
        name = policy if against is None else f"{policy} \N{MINUS SIGN} {against}"
        style.panel_name(panel.axes, name, 0.97 * cell_in * len(sides[0].settings))
        _label(panel, sides, cell_in)
    name = label or tables.name_of(value)[0]
    better = "lower is better" if is_less_better(results, value) else "higher is better"
    _scale_bar(figure, mesh, scale, f"{name if against is None else f'difference in {name}'}\n({better})")
    told = f"mean {label or tables.label_of(value)}"
    told = told if against is None else f"{told}: differences on the same seeds"
    style.legend_below(figure, _legend(list(cells.values())), told)
    return style.finished(figure)


def _scale_bar(figure: Figure, mesh: QuadMesh, scale: Scale, label: str) -> None:
    bar = figure.colorbar(mesh, ax=figure.axes, fraction=0.05, pad=0.01, aspect=30, extend=scale.beyond)
    bar.set_label(label, fontsize=style.LABEL_PT, color=style.INK)
    bar.ax.tick_params(labelsize=style.TICK_PT, colors=style.INK, length=2.5, width=0.6)
    bar.outline.set_visible(False)


def _draw_cells(axes: Axes, cells: Cells, scale: Scale, *, has_texts: bool) -> QuadMesh:
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
                    (column + 0.06, row + 0.06), 0.88, 0.88, fill=False, edgecolor=style.INK, linewidth=1.0, label="_clear",
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


def _label(panel: Panel, sides: tuple[Side, Side], cell_in: float) -> None:
    """Labels on the left panels and on the lowest one of each column: every setting, upright where cells are narrow."""
    across, up = sides
    style.dress(panel.axes, across.label if panel.is_lowest else "", up.label if panel.is_left else "")
    panel.axes.grid(visible=False)
    is_narrow = CHARACTER_IN * (max(map(len, across.texts)) + 1) > cell_in
    panel.axes.set_xticks(
        [at + 0.5 for at in range(len(across.settings))], across.texts, rotation=90 if is_narrow else 0
    )
    panel.axes.set_yticks([at + 0.5 for at in range(len(up.settings))], up.texts)
    panel.axes.tick_params(length=0)


def _legend(cells: Sequence[Cells]) -> list[Artist]:
    """What hatches and frames mean, where there are such."""
    from matplotlib.patches import Patch

    legend: list[Artist] = []
    if any(one.is_clear.any() for one in cells):
        legend.append(Patch(facecolor="none", edgecolor=style.INK, linewidth=1.1, label="95 % interval leaves out 0"))
    if any(one.is_infeasible.any() for one in cells):
        legend.append(
            Patch(facecolor=EMPTY, edgecolor="#9A9A9A", hatch=HATCH, linewidth=0, label="no plan within the limits")
        )
    if any((np.isnan(one.value) & ~one.is_infeasible).any() for one in cells):
        legend.append(
            Patch(facecolor=EMPTY, edgecolor="#9A9A9A", linewidth=0.5, label="no run, or none of one of the two")
        )
    return legend
