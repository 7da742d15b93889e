"""What the figures ask of their tables: columns checked, step functions resampled, units chosen.

A step function holds its value from its row until the next one, and its last value for ever. Imports numpy and pandas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures.summary import View, robust_view
from elastune.experiments.statistics.differences import mean_interval
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from elastune.experiments.figures.style import Array, Counts


SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


MOST_COLUMNS = 20
"""So many columns are named where one is missing."""


def require_columns(table: pd.DataFrame, figure: str, columns: Sequence[str], *, may_be_empty: bool = False) -> None:
    """Raise an InputError that names the figure and the columns it misses, or says that the table is empty."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        known, more = list(map(str, table.columns)), max(len(table.columns) - MOST_COLUMNS, 0)
        told = ", ".join(known[:MOST_COLUMNS]) + (f" and {more} more" if more else "")
        raise InputError(f"{figure}: no column {', '.join(missing)} in the table, which has {told}")
    if table.empty and not may_be_empty:
        raise InputError(f"{figure}: the table has no rows")


def numbers(table: pd.DataFrame, figure: str, column: str) -> Array:
    """A column as floats; None becomes NaN, anything else that is no number raises an InputError."""
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
    if column not in table.columns:
        return []
    values = numbers(table, figure, column)
    return [float(value) for value in np.unique(values[np.isfinite(values)])]


def usual_end(trajectories: pd.DataFrame, figure: str, x: str, limits: Sequence[float]) -> float:
    """Where an axis over x ends: with the usual end of the runs, or a limit that is near it."""
    ends = [
        np.array([numbers(run, figure, x).max() for _, run in runs.groupby("seed")])
        for _, runs in trajectories.groupby("policy")
    ]
    return View(0.0, robust_view(ends).high or 1.0).including(limits).high


def time_unit(horizon_s: float) -> str:
    """The unit in which a time axis reads best."""
    for unit, largest_s in (("s", 180.0), ("min", 3 * 3600.0), ("h", 3 * 86400.0)):
        if horizon_s <= largest_s:
            return unit
    return "d"


def resampled(runs: pd.DataFrame, figure: str, x: str, column: str, grid: Array) -> Array:
    """The step functions of one policy's runs on a common grid: (seeds, grid), NaN before a run's first row."""
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


WHO = ("workload.bundle", "bundle_name", "seed")
"""What makes two runs of one setting comparable; as far as the table has the columns."""

LEAST_PAIRS = 6
"""Of fewer seeds no interval is said to leave out zero: five of one sign are not rare enough (2 / 2**5 > 5 %)."""

MEASURES = {
    "regret": ("regret", "share of median - best"),
    "regret_sampling": ("regret of sampling", "share of median - best"),
    "regret_selection": ("regret of selection", "share of median - best"),
    "regret_truncation": ("regret of truncation", "share of median - best"),
    "gpu_utilisation": ("GPU time in training", "share"),
    "deadline_met": ("within the deadline", "share of runs"),
    "budget_met": ("within the budget", "share of runs"),
    "best_is_complete": ("answers trained to R", "share of runs"),
    "best_was_earlier": ("answers better before R", "share of runs"),
    "best_stopped_short": ("answers stopped short of R", "share of runs"),
    "some_is_complete": ("some trial trained to R", "share of runs"),
    "completed": ("jobs done", "share of runs"),
    "late_probability": ("estimated to be late", "share of runs"),
    "plan_search_gap": ("price that an unsearched plan may save", "share"),
}
"""Name and unit of measures whose column does not say it."""

SETTINGS = {
    "deadline_r_tau": ("deadline", "R tau"),
    "budget_c_r_tau": ("budget", "c R tau"),
    "cloud.interference": ("interference", "share per other gang"),
    "workload.profile.iteration_s_error": ("error of believed seconds per iteration", "share"),
    "workload.profile.scaling": ("believed scaling", ""),
    "workload.score_noise": ("noise of scores", "share of median - best"),
    "workload.profile.scaling_error": ("error of believed speed-up", "share"),
    "workload.straggler_cv.per_iteration": ("spread of iterations", "coefficient of variation"),
}
"""The same of settings."""

_UNITS = {
    "_usd_per_gb_month": "USD per GB and month",
    "_usd_per_gb": "USD/GB",
    "_usd_per_hour": "USD/h",
    "_gb_per_s": "GB/s",
    "_per_hour": "1/h",
    "_usd": "USD",
    "_gpu_s": "GPU s",
    "_gb": "GB",
    "_s": "s",
}


def done_runs(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that were done; all where there is no column `status`."""
    return results[results["status"] == "done"] if "status" in results else results


def infeasible_runs(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs whose policy found no plan; none where there is no column `status`."""
    return results[results["status"] == "infeasible"] if "status" in results else results.head(0)


def require_one_run_each(results: pd.DataFrame, figure: str, keys: Sequence[str]) -> None:
    """Raise an InputError where a mean would pool unseen two runs of a policy, setting and seed, or versions of results."""
    if "results_version" in results and len(versions := results["results_version"].value_counts()) > 1:
        told = ", ".join(f"{version} ({count} rows)" for version, count in versions.items())
        raise InputError(f"{figure}: the rows are of several versions of results: {told}; draw those of one")
    by = ["policy", *keys, *(column for column in WHO if column in results)]
    doubled = results.duplicated(by)
    if doubled.any():
        told = ", ".join(f"{key} {results.loc[doubled, key].iloc[0]}" for key in by)
        others = differing(results, by)
        what = (
            f"there vary {told_values(results, others)}" if others else "something varies that the table does not tell"
        )
        raise InputError(f"{figure}: several runs of {told}: {what}; draw a part of the table, of one value each")


def differing(results: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The settings in which rows differ that are equal in these columns."""
    names = map(str, results.columns)
    settings = [name for name in names if name.startswith(("job.", "workload.", "cloud.")) and name not in by]
    if not settings:
        return []
    counts = results.groupby(list(by), dropna=False)[settings].nunique(dropna=False)
    return [name for name in settings if counts[name].max() > 1]


def told_values(results: pd.DataFrame, columns: Sequence[str]) -> str:
    """`cloud.rescale_s (2 values) and job.trials (3 values)`."""
    return " and ".join(f"{name} ({results[name].nunique(dropna=False)} values)" for name in columns)


MOST_POLICIES = 8
"""More lines than this cannot be told apart in one picture."""


def few_policies(results: pd.DataFrame, reference: str, named: Sequence[str] = ()) -> list[str]:
    """The policies of a picture: the reference, the named, and those of least mean regret, up to `MOST_POLICIES` in all.

    A policy without runs has no part in it, the reference included.
    """
    known = set(results["policy"])
    first = [policy for policy in dict.fromkeys((reference, *named)) if policy in known]
    means = (
        results.groupby("policy")["regret"].mean().drop(first, errors="ignore")
    )  # of runs that are done: others have none
    return [
        *first,
        *map(str, means.sort_values(kind="stable", na_position="last").index[: max(MOST_POLICIES - len(first), 0)]),
    ]


def policy_named(results: pd.DataFrame, figure: str, policy: str) -> str:
    """The policy, if the table has it; raises an InputError that lists those it has."""
    if policy not in set(results["policy"]):
        known = ", ".join(sorted(map(str, set(results["policy"]))))
        raise InputError(f"{figure}: no policy {policy} in the table, which has {known}")
    return policy


def paired(
    mine: pd.DataFrame, others: pd.DataFrame, figure: str, value: str, keys: Sequence[str]
) -> tuple[Array, Array, Counts]:
    """A value of one policy's runs and of another's on the same keys and seeds, and these; pairs that lack one are left out."""
    by = [*keys, *(column for column in WHO if column in mine)]
    left, right = (side[by].assign(value=numbers(side, figure, value)) for side in (mine, others))
    pairs = left.merge(right, on=by, suffixes=("_mine", "_other")).dropna(subset=["value_mine", "value_other"])
    return pairs["value_mine"].to_numpy(), pairs["value_other"].to_numpy(), pairs["seed"].to_numpy()


@dataclass(frozen=True)
class Series:
    """Means by setting with their 95 % intervals, each (settings,); NaN where no run has a value."""

    at: Array
    value: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, groups: Iterable[tuple[float, Array, Counts]]) -> Series:
        """From places on the axis, the values there and their seeds; those that are not finite are left out of the mean."""
        at, intervals = [], []
        for place, values, seeds in groups:
            found = mean_interval(values.tolist(), seeds.tolist())
            at.append(place)
            intervals.append((found.value, found.low, found.high))
        value, low, high = np.array(intervals, dtype=float).reshape(-1, 3).T
        return cls(np.array(at, dtype=float), value, low, high)


def name_of(column: str) -> tuple[str, str]:
    """A column's name in words and its unit, maybe empty: `cloud.billing.granularity_s` is ("billing granularity", "s")."""
    known = MEASURES | SETTINGS
    if column in known:
        return known[column]
    parts = column.split(".")
    named = [_without_unit(part) for part in (parts[1:] or parts)]
    unit = named[-1][1] or (_without_unit(parts[0])[1] if len(parts) == 2 else "")
    return " ".join(filter(None, (words for words, _ in named))), unit


def _without_unit(part: str) -> tuple[str, str]:
    for suffix, unit in _UNITS.items():
        if f"_{part}".endswith(suffix):
            return f"_{part}".removesuffix(suffix).strip("_").replace("_", " "), unit
    return part.replace("_", " "), ""


def value_label(results: pd.DataFrame, column: str) -> str:
    """What an axis says of a measure: of scores also which way is better, where the table says it."""
    if column in ("score", "test_score") and "direction" in results:
        return score_axis_label(label_of(column), minimized=is_minimized(results, column))
    return label_of(column)


def label_of(column: str) -> str:
    """What an axis says of a column: its name in words, and its unit in brackets."""
    name, unit = name_of(column)
    return f"{name} ({unit})" if unit else name
