"""Tidy tables, one row per trial and iteration, as bundles.

Imports the standard library, numpy, sim.model.errors and its neighbours; pandas when a table is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.formats.csv_rows import same_cell
from elastune.traces.formats.limits import LARGEST, are_costs
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.read_table import SourceTable
from elastune.traces.importers.recording import CurveRules, Description, Points, RecordedCurves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from elastune.traces.bundles.bundle import Bundle

_GROWTHS = 6
"""So many times must the seconds have grown, and never fallen, before they are taken for a clock."""
_COST = "relative_cost"
_NO_HYPERPARAMETERS = ("score", "test_score", "seconds")
"""Columns that are left out, and told, unless an option names them."""
_DIVERGED = " (empty or nan where a run diverged)"


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """What the columns of a tidy table are called.

    Attributes:
        trial: names of the trials; numbers or texts.
        iteration: how much of the trial's training a row comes after.
        score: after the iteration; empty or nan where the run diverged.
        seconds: of the iteration alone; None: `seconds`, if there is such a column and no `elapsed`.
        elapsed: seconds since the trial's start, instead.
        test_score: None: `test_score`, if there is such a column.
        configuration: hyperparameters; None: every other column whose cells are equal within each trial.
        replicate: numbers the trainings of a trial, where there are several; None: `replicate`, if there is such a column.
        where: only the rows that hold this text in this column; the others are counted.
    """

    trial: str = "trial"
    iteration: str = "iteration"
    score: str = "score"
    seconds: str | None = None
    elapsed: str | None = None
    test_score: str | None = None
    configuration: Sequence[str] | None = None
    replicate: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)


def from_table(
    table: str | Path | pd.DataFrame,
    out: str | Path,
    description: Description,
    *,
    columns: TableColumns | None = None,
    configurations: str | Path | pd.DataFrame | None = None,
    rules: CurveRules | None = None,
    untimed: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Write a tidy table as a bundle.

    Args:
        table: a CSV (also compressed) or parquet file, or a data frame.
        out: folder of the bundle.
        description: what the table does not say.
        columns: what its columns are called.
        configurations: a second table with a row per trial, whose trials are in a column of the same name; its order is
            the order of the bundle. In either table, `relative_cost` is the cost of an iteration of the trial.
        rules: how irregular curves become regular.
        untimed: leave its seconds out.
        overwrite: whether a bundle that is already there makes way.

    Raises:
        InvalidTraceError: naming file, row and column.
        InputError: something is at `out` already, or what was asked for contradicts itself.
    """
    asked = columns or TableColumns()
    second = None if configurations is None else SourceTable.of(configurations)
    if second is not None and asked.configuration is not None:
        raise InputError("hyperparameters come from a second table or from columns of the first, not from both")
    recording = _recording(SourceTable.of(table), asked, second, untimed=untimed)
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class _Configured:
    """Hyperparameters by trial.

    Attributes:
        labels: names of the trials, in the order of the bundle.
        texts: of the hyperparameters, by name.
        relative_cost: (trials,) float, or None.
    """

    labels: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    relative_cost: np.ndarray | None

    def by_trial(self) -> list[dict[str, str]]:
        """The hyperparameters of each trial."""
        return [{name: cells[trial] for name, cells in self.texts.items()} for trial in range(len(self.labels))]


def _recording(table: SourceTable, asked: TableColumns, second: SourceTable | None, *, untimed: bool) -> RecordedCurves:
    import pandas as pd

    recorded = len(table.frame)
    table = table.where(asked.where) if asked.where else table
    names = _names(table, asked, untimed=untimed)
    rest = [name for name in table.names if name not in names.values()]
    codes, labels = pd.factorize(np.array(table.labels(names["trial"]), dtype=object))
    measured = {
        key: table.numbers(name, _DIVERGED if "score" in key else "")
        for key, name in names.items()
        if key not in {"trial", "replicate"}
    }
    points = Points(trial=codes.astype(np.int64), row=table.rows, **measured)
    if asked.seconds is None and points.seconds is not None:
        _check_not_elapsed(table, names, points)
    if second is None:
        configured, left_out = _in_points(table, asked, rest, codes, labels.tolist())
    else:
        configured, left_out = _in_second(second, names["trial"]), rest
        places = {label: place for place, label in enumerate(configured.labels)}
        place_of = [
            _place(table, second, names["trial"], codes, code, places.get(label)) for code, label in enumerate(labels)
        ]
        points = replace(points, trial=np.array(place_of, dtype=np.int64)[codes])
        _check_same(table, second, rest, codes, place_of)
    notes = {
        "from": f"tidy table {Path(table.origin).name}",
        "columns_left_out": [*left_out, *["(without a name)"] * table.unnamed],
        "rows_left_out_by_where": recorded - len(table.frame),
    }
    recording = RecordedCurves(
        origin=table.origin,
        labels=configured.labels,
        configurations=configured.by_trial(),
        points=points,
        columns=names,
        relative_cost=configured.relative_cost,
        notes={key: note for key, note in notes.items() if note},
    )
    return recording.by_replicate(_replicates(table, names["replicate"])) if "replicate" in names else recording


def _check_not_elapsed(table: SourceTable, names: Mapping[str, str], points: Points) -> None:
    """A column `seconds` that grows all the time is probably the time since the start.

    Raises:
        InvalidTraceError: it does, in every trial, by as much as a clock would.
    """
    assert points.seconds is not None
    order = np.lexsort((points.iteration, points.trial))
    trial, seconds = points.trial[order], points.seconds[order]
    is_later = np.diff(trial) == 0
    grows = np.diff(seconds)[is_later] > 0
    ends, begins = np.flatnonzero(np.diff(trial, append=-1)), np.flatnonzero(np.diff(trial, prepend=-1))
    longest = ends - begins + 1
    if len(grows) >= _GROWTHS and grows.all() and (seconds[ends] >= longest / 2 * seconds[begins]).all():
        problem = (
            f"grows from iteration to iteration in every trial: if it counts from the start of the trial, name it with"
            f" --elapsed-column {names['seconds']}; if iterations do get slower, with --seconds-column {names['seconds']}"
        )
        raise InvalidTraceError(table.origin, problem, column=names["seconds"])


def _replicates(table: SourceTable, column: str) -> np.ndarray:
    """(rows,) int >= 0: which training of its trial each row is of."""
    numbers = table.numbers(column)
    for row in np.flatnonzero(~((numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 2**53))):
        text = table.texts(column, np.array([row]))[0]
        raise table.wrong(int(row), column, f"is {text!r}, but must be a whole number, 0 or more")
    return numbers.astype(np.int64)


def _names(table: SourceTable, asked: TableColumns, *, untimed: bool) -> dict[str, str]:
    """The table's own names by those of `Points`."""
    if asked.seconds is not None and asked.elapsed is not None:
        raise InputError(
            "seconds are those of each iteration or elapsed ones, not both: --seconds-column or --elapsed-column"
        )
    needed = ("trial", "iteration", "score")
    lacking = [f"--{key}-column" for key in needed if getattr(asked, key) not in table.names]
    names = {key: table.require(getattr(asked, key), f"--{key}-column", lacking[1:]) for key in needed}
    if asked.test_score is not None or "test_score" in table.names:
        names["test_score"] = table.require(asked.test_score or "test_score", "--test-score-column")
    if asked.replicate is not None or "replicate" in table.names:
        names["replicate"] = table.require(asked.replicate or "replicate", "--replicate-column")
    if untimed:
        return _checked(table, names)
    if asked.elapsed is not None:
        names["elapsed_s"] = table.require(asked.elapsed, "--elapsed-column")
    elif asked.seconds is not None or "seconds" in table.names:
        names["seconds"] = table.require(asked.seconds or "seconds", "--seconds-column")
    return _checked(table, names)


def _checked(table: SourceTable, names: dict[str, str]) -> dict[str, str]:
    """The names, each of which has one meaning."""
    for key, name in names.items():
        other = next(other for other, its in names.items() if its == name)
        if other != key:
            problem = f"is taken for the {other} and for the {key}: name another column for one of them"
            raise InvalidTraceError(table.origin, problem, column=name)
    return names


def _in_points(
    table: SourceTable, asked: TableColumns, rest: Sequence[str], codes: np.ndarray, labels: Sequence[str]
) -> tuple[_Configured, list[str]]:
    """Hyperparameters among the other columns of the points, and the columns that are none."""
    first = np.unique(codes, return_index=True)[1]
    varying = {name: _varies(table, name, codes, first) for name in rest}
    wanted = _wanted(table, asked, rest, varying)
    for name in wanted:
        row = varying[name]
        if row is not None:
            there, label = table.rows[first[codes[row]]], labels[codes[row]]
            problem = f"differs within trial {label} from row {there}, so it is no hyperparameter of it"
            raise table.wrong(row, name, problem)
    cost = _costs(table, _COST)[first] if _COST in wanted else None
    texts = {name: table.texts(name, first) for name in wanted if name != _COST}
    return _Configured(labels, texts, cost), [name for name in rest if name not in wanted]


def _wanted(
    table: SourceTable, asked: TableColumns, rest: Sequence[str], varying: Mapping[str, int | None]
) -> list[str]:
    """The columns of hyperparameters and costs; a column that varies within a trial is no hyperparameter."""
    if asked.configuration is not None:
        wanted = [table.require(name, "--config-columns") for name in asked.configuration]
        for name in wanted:
            if name not in rest:
                raise InvalidTraceError(table.origin, "is measured, so it is no hyperparameter", column=name)
        return wanted
    if "iteration_s" in rest:
        problem = (
            "is no hyperparameter: if it holds the seconds of each iteration, name it with --seconds-column; if it is one"
            " number for all trials, leave it out and give --set iteration_s=SECONDS"
        )
        raise InvalidTraceError(table.origin, problem, column="iteration_s")
    return [name for name in rest if name == _COST or (varying[name] is None and name not in _NO_HYPERPARAMETERS)]


def _varies(table: SourceTable, name: str, codes: np.ndarray, first: np.ndarray) -> int | None:
    """The first row whose cell is not that of its trial's first row, or None."""
    kinds = table.kinds(name)
    differing = np.flatnonzero(kinds != kinds[first][codes])
    for row in differing.tolist():
        one, other = table.texts(name, np.array([row, first[codes[row]]]))
        if not same_cell(one, other):  # 0.1 and 0.10 are the same
            return int(row)
    return None


def _in_second(table: SourceTable, trial: str) -> _Configured:
    """Hyperparameters in a table of their own."""
    labels = table.labels(table.require(trial, "--trial-column"))
    seen: dict[str, int] = {}
    for row, label in enumerate(labels):
        if label in seen:
            raise table.wrong(row, trial, f"trial {label} was already given in row {seen[label] + 1}")
        seen[label] = row
    texts = {name: table.texts(name) for name in table.names if name not in {trial, _COST}}
    return _Configured(labels, texts, _costs(table, _COST) if _COST in table.names else None)


def _costs(table: SourceTable, column: str) -> np.ndarray:
    costs = table.numbers(column)
    for row in np.flatnonzero(~are_costs(costs)):
        raise table.wrong(int(row), column, f"is {costs[row]:g}, but must be a positive number up to {LARGEST:g}")
    return costs


def _check_same(
    table: SourceTable, second: SourceTable, names: Sequence[str], codes: np.ndarray, places: Sequence[int]
) -> None:
    """Check that a hyperparameter in both tables is the same in both. A column that varies within a trial is none."""
    first = np.unique(codes, return_index=True)[1]
    for name in names:
        if name not in second.names or _varies(table, name, codes, first) is not None:
            continue
        there = second.texts(name)
        for row, place, text in zip(first.tolist(), places, table.texts(name, first), strict=True):
            if not same_cell(text, there[place]):
                problem = f"is {text!r}, but {there[place]!r} in row {place + 1} of {second.origin}"
                raise table.wrong(row, name, problem)


def _place(
    table: SourceTable, second: SourceTable, column: str, codes: np.ndarray, code: int, place: int | None
) -> int:
    """The row of a trial in the second table."""
    if place is None:
        row = int(np.flatnonzero(codes == code)[0])
        raise table.wrong(row, column, f"this trial is not in {second.origin}")
    return place
