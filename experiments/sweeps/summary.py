"""Filters rows of a results folder, and summarises them by group.

Imports the row schema, the intervals of `experiments.statistics.bootstrap`, sim.model.errors;
pyarrow and pandas inside the functions that need them.

A condition is parsed, never run: comparisons of columns with numbers, texts and lists of them, joined by and, or, not. As in
SQL, a comparison with an empty cell is neither true nor false, and a row is kept only where the whole is true.
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from elastune.experiments.statistics.bootstrap import (
    Interval,
    Over,
    Units,
    pooled_interquartile_mean,
    pooled_means_each,
)
from elastune.experiments.sweeps.rows import STATUSES, columns, measures, spec_columns
from elastune.sim.model.errors import InputError, unknown
from elastune.sim.model.numbers import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    import pyarrow.compute as pc

MEASURES = ("score", "regret", "cost_usd", "makespan_s")
"""What is shown where nothing else is asked for."""
SUMMARY_COUNTS = ("runs", "infeasible", "failed", "families", "bundles", "seeds", "over")
"""What a summary says of a group beside its columns and measures."""
_ENDS = ("", "_low", "_high")

Statistic = Literal["mean", "iqm"]

# Any: Arrow ships no types.
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MIRRORED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_ALLOWED = "a condition compares columns with values, as in \"policy == 'seer' and job.deadline_s > 1800\""


def condition(text: str) -> pc.Expression:
    """Parse a condition on rows, such as `policy in ['seer', 'sha-fixed'] and (regret < 0.1 or budget_met)`.

    Columns are written as they are, or in backticks; `column == None` asks for empty cells.

    Raises:
        InputError: it is no condition, names an unknown column (with the nearest), or compares a text with a number.
    """
    source = re.sub(r"`([\w.]+)`", r"\1", text.strip())
    try:
        parsed = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"--where {text!r} is malformed: {_ALLOWED}") from error
    try:
        _check_numbers(parsed, source)
        return _Condition().of(parsed)
    except InputError as error:
        raise InputError(f"--where {text!r}: {error}") from error


def _check_numbers(condition: ast.expr, source: str) -> None:
    """Refuse numbers that Python reads and tables and specs do not, such as 1_0 and 0x10."""
    for node in ast.walk(condition):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, complex):
            written = ast.get_source_segment(source, node) or ""
            try:
                number_of(written)
            except ValueError as error:
                raise InputError(f"{written} {error}") from error


class _Condition:
    """Turns the syntax tree of a condition into an Arrow expression; what is not listed here is refused."""

    def of(self, node: ast.expr) -> pc.Expression:
        """What is true or false of a row."""
        match node:
            case ast.BoolOp(op=joint, values=values):
                join = operator.and_ if isinstance(joint, ast.And) else operator.or_
                parts = [self.of(value) for value in values]
                joined = parts[0]
                for part in parts[1:]:
                    joined = join(joined, part)
                return joined
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.of(operand)
            case ast.Compare(left=left, ops=comparisons, comparators=others):
                pairs = zip([left, *others], comparisons, others, strict=False)
                joined = None
                for one, comparison, other in pairs:
                    found = self._compared(one, comparison, other)
                    joined = found if joined is None else joined & found
                return joined
            case ast.Name() | ast.Attribute():
                name = _column(node)
                if columns()[name] != "bool":
                    raise InputError(f"{name} is neither true nor false: compare it with a value")
                return _field(name)
        raise _refused(node)

    def _compared(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(left, ast.Constant | ast.UnaryOp):
            if type(comparison) not in _MIRRORED:
                raise _refused(left)
            left, comparison, right = right, _MIRRORED[type(comparison)](), left
        name = _column(left)
        if isinstance(comparison, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
                raise InputError(f"{name} in ...: give a list, as in ['a', 'b']")
            is_in = _field(name).isin([_value(name, item) for item in right.elts])
            # An empty cell is in no list, but not known to be outside of one either.
            return is_in if isinstance(comparison, ast.In) else ~is_in & _field(name).is_valid()
        if isinstance(right, ast.Constant) and right.value is None:
            return self._is_empty(name, comparison)
        if type(comparison) not in _COMPARE:
            raise _refused(right)
        return _COMPARE[type(comparison)](_field(name), _value(name, right))

    @staticmethod
    def _is_empty(name: str, comparison: ast.cmpop) -> pc.Expression:
        if isinstance(comparison, ast.Eq | ast.Is):
            return _field(name).is_null()
        if isinstance(comparison, ast.NotEq | ast.IsNot):
            return _field(name).is_valid()
        raise InputError(f"{name} and None: only == and != make sense")


def _field(name: str) -> pc.Expression:
    import pyarrow.compute as pc

    return pc.field(name)


def _column(node: ast.expr) -> str:
    """`job.deadline_s` from its syntax tree."""
    parts: list[str] = []
    below = node
    while isinstance(below, ast.Attribute):
        parts.append(below.attr)
        below = below.value
    if not isinstance(below, ast.Name):
        raise _refused(node)
    return known_column(".".join([below.id, *reversed(parts)]))


def known_column(name: str, among: Sequence[str] | None = None) -> str:
    """The name, if there is such a column.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = tuple(columns()) if among is None else among
    if name not in known:
        raise unknown("column" if among is None else "measure", name, known)
    return name


def _value(name: str, node: ast.expr) -> object:
    """A constant of the column's type."""
    match node:
        case ast.Constant(value=value):
            pass
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as magnitude)):
            value = -magnitude
        case _:
            raise _refused(node)
    kind = columns()[name]
    wanted = {"string": (str,), "bool": (bool,), "double": (int, float), "int64": (int, float)}[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        words = {"string": "text, written in quotes", "bool": "True or False"}.get(kind, "a number")
        raise InputError(f"{name} is compared with {value!r}, but holds {words}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(f"{name} is compared with {value}, which is beyond all that a column holds")
    return value


def _refused(node: ast.AST) -> InputError:
    return InputError(f"{ast.unparse(node)!r} cannot be asked for: {_ALLOWED}")


def json_records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows as JSON takes them: plain numbers, and NaN is null."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): cell.item() if hasattr(cell, "item") else cell for key, cell in row.items()} for row in rows]


def varying(results: pd.DataFrame) -> list[str]:
    """The spec's columns in which the rows differ; the policy at least."""
    found = [name for name in spec_columns() if len(results[name].unique()) > 1]
    return found or ["policy"]


KEPT_APART = ("scaling_from", "results_version")
"""Columns of `with_origins`: rows that differ in them are never pooled."""


def with_origins(results: pd.DataFrame) -> pd.DataFrame:
    """With the column `scaling_from`, which says what speed-ups the rows rest on.

    It says whether a run's speed-up is `own` to its workload (measured or published) or `borrowed`. A run without a
    result is as others of its bundle and scaling, or borrows where its spec sets a scaling.
    """
    alike = results.groupby(["bundle_sha256", "workload.scaling"], dropna=False)
    stated = results["provenance.scaling"].fillna(alike["provenance.scaling"].transform("first"))
    is_own = stated.str.startswith(("measured", "published"), na=False) | (
        stated.isna() & results["workload.scaling"].isna()
    )
    return results.assign(scaling_from=is_own.map({True: "own", False: "borrowed"}))


def kept_apart(results: pd.DataFrame, group: Sequence[str]) -> list[str]:
    """Those of `KEPT_APART` in which rows of one group differ."""
    groups = len(np.unique(codes_of(results, group)))
    others = [name for name in KEPT_APART if name not in group]
    return [name for name in others if len(np.unique(codes_of(results, [*group, name]))) > groups]


def summarise(
    results: pd.DataFrame,
    group: Sequence[str] = (),
    names: Sequence[str] = (),
    *,
    over: Over = "families",
    statistic: Statistic = "mean",
) -> pd.DataFrame:
    """Means with 95 % intervals over the runs of each group that are done.

    Families weigh equally, in a family its bundles, in a bundle its runs; see `experiments.statistics.bootstrap`. Rows
    with their own and with borrowed scaling are not pooled, nor are those of several versions of results: where a
    group would mix them, `scaling_from` or `results_version` is one of its columns.

    Args:
        results: rows of a folder.
        group: columns; none for those of the spec that vary.
        names: measures; none for `MEASURES`. Of what is true or false, the mean is the share.
        over: what intervals speak of: workloads like these (where there are several families), or these.
        statistic: the mean, or the interquartile mean.

    Returns:
        One row per group, sorted: its columns, runs (done), infeasible, failed, families, bundles and seeds (of those done),
        over, and `<measure>`, `<measure>_low`, `<measure>_high`.

    Raises:
        InputError: a column or measure is unknown (names the nearest), or a column is also a measure.
    """
    import pandas as pd

    group = [known_column(name) for name in dict.fromkeys(group)] or varying(results)
    names = [known_column(name, measures()) for name in dict.fromkeys(names)] or [
        name for name in MEASURES if name not in group
    ]
    if both := [name for name in names if name in group]:
        raise InputError(f"{both[0]} is a column of the groups and a measure: leave it out of one of them")
    results = with_origins(results)
    group = [*group, *kept_apart(results, group)]
    rows: list[dict[str, Any]] = []
    parts: list[tuple[dict[str, Any], int, np.ndarray, Units]] = []
    statuses = results["status"].to_numpy(dtype=object)
    units = Units.of_table(results)
    values = results[names].astype(float).to_numpy()
    for labels, chosen in groups_of(results, group):
        counts = {status: int((statuses[chosen] == status).sum()) for status in STATUSES}
        done = chosen[statuses[chosen] == "done"]
        row = labels | {"runs": counts.pop("done"), **counts}
        rows.append(row | _rests(units.where(done), over))
        parts.extend((rows[-1], *part) for part in _parts(values[done], units.where(done)))
    for (row, measured, *_), found in zip(
        parts, _intervals([part[2:] for part in parts], over, statistic), strict=True
    ):
        row |= dict(zip((f"{names[measured]}{end}" for end in _ENDS), astuple(found), strict=True))
    return pd.DataFrame(rows, columns=[*group, *SUMMARY_COUNTS, *(f"{name}{end}" for name in names for end in _ENDS)])


def groups_of(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """The values of the columns, and the positions of their rows, sorted; empty cells are equal."""
    codes = codes_of(table, columns)
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    firsts = table[list(columns)].iloc[[chosen[0] for chosen in groups]].to_dict("records") if columns else [{}]
    for labels, chosen in zip(firsts, groups, strict=True):
        yield {str(name): label for name, label in labels.items()}, chosen


def codes_of(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """(rows,) int: the same for rows with the same values in these columns, in sorted order; empty cells are equal."""
    if not columns:
        return np.zeros(len(table), dtype=np.int64)
    return np.asarray(table.groupby(list(columns), dropna=False, sort=True).ngroup(), dtype=np.int64)


def _rests(units: Units, over: Over) -> dict[str, Any]:
    """What the intervals of a group rest on."""
    families, bundles, seeds = (len(np.unique(codes)) for codes in (units.families, units.bundles, units.seeds))
    return {"families": families, "bundles": bundles, "seeds": seeds, "over": over if families > 1 else "seeds"}


def _parts(values: np.ndarray, units: Units) -> Iterator[tuple[int, np.ndarray, Units]]:
    """By the number of the measure: its known values, and their units."""
    for measured, column in enumerate(values.T):
        known = np.isfinite(column)
        yield measured, column[known], units.where(known)


def _intervals(parts: Sequence[tuple[np.ndarray, Units]], over: Over, statistic: Statistic) -> list[Interval]:
    if statistic == "iqm":
        return [pooled_interquartile_mean(*part, over).interval() for part in parts]
    return [
        found.interval() for found in pooled_means_each([(values[:, None], units) for values, units in parts], over)
    ]
