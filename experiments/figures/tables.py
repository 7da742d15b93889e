"""What the figures ask of their tables: columns checked, step functions resampled, units chosen.

A step function holds its value from its row until the next one, and its last value for ever. Imports numpy and pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def require_columns(table: pd.DataFrame, figure: str, columns: Sequence[str], *, may_be_empty: bool = False) -> None:
    """Raise an InputError that names the figure and the columns it misses, or says that the table is empty."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{figure}: no column {', '.join(missing)} in the table, which has {', '.join(table.columns)}")
    if table.empty and not may_be_empty:
        raise InputError(f"{figure}: the table has no rows")


def numbers(table: pd.DataFrame, figure: str, column: str) -> Array:
    """A column as floats; None becomes NaN, anything else that is no number raises an InputError."""
    import numpy as np
    import pandas as pd

    try:
        return pd.Series(pd.to_numeric(table[column])).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"{figure}: column {column} must hold numbers: {error}") from None


def is_minimized(table: pd.DataFrame, figure: str) -> bool:
    """Whether lower scores are better; the whole table must agree."""
    found = sorted({str(direction) for direction in table["direction"]})
    if found not in (["minimize"], ["maximize"]):
        raise InputError(f"{figure}: direction is {', '.join(found)}, but must be minimize or maximize in all rows")
    return found == ["minimize"]


def score_axis_label(score: str, *, minimized: bool) -> str:
    """What the axis says, with the better direction on a line of its own: one line is often longer than the axis."""
    return f"{score}\n({'lower' if minimized else 'higher'} is better)"


def limits_of(table: pd.DataFrame, figure: str, column: str) -> list[float]:
    """The distinct finite values of a deadline or budget column, ascending; none where there is no such column."""
    import numpy as np

    if column not in table.columns:
        return []
    values = numbers(table, figure, column)
    return [float(value) for value in np.unique(values[np.isfinite(values)])]


def time_unit(horizon_s: float) -> str:
    """The unit in which a time axis reads best."""
    for unit, largest_s in (("s", 180.0), ("min", 3 * 3600.0), ("h", 3 * 86400.0)):
        if horizon_s <= largest_s:
            return unit
    return "d"


def resampled(runs: pd.DataFrame, figure: str, x: str, column: str, grid: Array) -> Array:
    """The step functions of one policy's runs on a common grid: (seeds, grid), NaN before a run's first row."""
    import numpy as np

    rows = []
    for _, run in runs.groupby("seed", sort=True):
        at = numbers(run, figure, x)
        order = np.argsort(at, kind="stable")  # rows at one instant keep their order: the last one holds
        values = numbers(run, figure, column)[order]
        index = np.searchsorted(at[order], grid, side="right") - 1
        rows.append(np.where(index >= 0, values[np.maximum(index, 0)], np.nan))
    return np.array(rows)


def seeds_phrase(counts: Sequence[int]) -> str:
    """How many seeds the policies have, as words: `20 seeds`, `18 to 20 seeds`."""
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low < high else "1 seed" if high == 1 else f"{high} seeds"
