"""What a heat map shows: per policy the mean of a measure, or its paired difference, in each cell of deadline and budget.

Imports experiments.statistics.differences for the intervals, numpy and pandas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from elastune.experiments.figures.rows import (
    LEAST_PAIRS,
    done_runs,
    infeasible_runs,
    label_of,
    name_of,
    paired,
)
from elastune.experiments.figures.tables import SECONDS, is_minimized, numbers, require_columns, time_unit
from elastune.experiments.statistics.differences import HIGHER_IS_BETTER, paired_difference

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Truths = NDArray[np.bool_]

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
        """Of a column; what is empty is in no cell. Seconds are told in the unit that reads best."""
        values = sorted(results[column].dropna().unique().tolist())
        if not all(isinstance(value, int | float) for value in values):
            return cls(column, values, label_of(column), [str(value) for value in values])
        name, unit = name_of(column)
        if unit != "s" or not values:
            return cls(column, values, label_of(column), [f"{value:.4g}" for value in values])
        unit = time_unit(float(values[-1]))
        return cls(column, values, f"{name} ({unit})", [f"{value / SECONDS[unit]:.3g}" for value in values])


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
    import numpy as np

    across, up = sides
    shape = len(up.settings), len(across.settings)
    cells = Cells(np.full(shape, np.nan), np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool))
    mine, theirs = (_by_cell(results, name, sides) for name in (policy, against))
    for place in np.ndindex(shape):
        cell = across.settings[place[1]], up.settings[place[0]]
        both = [runs[cell] for runs in (mine, theirs) if cell in runs]
        cells.is_infeasible[place] = any(len(infeasible_runs(runs)) for runs in both)
        if cell not in mine or (against is not None and cell not in theirs):
            continue
        if against is None:
            found = numbers(done_runs(mine[cell]), FIGURE, value)
            found = found[np.isfinite(found)]
            cells.value[place] = found.mean() if len(found) else np.nan
        else:
            pairs = paired(done_runs(mine[cell]), done_runs(theirs[cell]), FIGURE, value, ())
            difference = paired_difference(*(column.tolist() for column in pairs))
            cells.value[place] = difference.mean
            is_enough = difference.seeds >= LEAST_PAIRS
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
        require_columns(results, FIGURE, ("direction",))
        return is_minimized(results, FIGURE)
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
        import numpy as np

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
