"""The curves and configurations of a bundle, read and checked.

Imports the standard library, numpy, sim.model.errors and traces.formats.csv_rows; pyarrow where the file is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.numbers import WHOLE, number_of
from elastune.traces.formats.csv_rows import Row, read_rows
from elastune.traces.formats.limits import LARGEST, LONGEST_S, are_costs, are_too_large, too_large, too_long
from elastune.traces.formats.texts import require_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pyarrow import Array

    from elastune.sim.model.protocols import Configuration

_COLUMNS = ("trial", "iteration", "score")
_VALUES = ("score", "test_score", "seconds")
_OPTIONAL_COLUMNS = ("replicate", "test_score", "seconds")
COLUMNS = (*_COLUMNS, *_OPTIONAL_COLUMNS, "cpu_seconds")
"""The columns of curves that have a meaning of their own; a measure has another name."""
_MOST = 2**63 - 1  # the largest whole number of a numpy array
_NO_HYPERPARAMETERS = ("trial", "relative_cost", "min_gpus")


@dataclass(frozen=True, eq=False)
class Configurations:
    """What was tried.

    Attributes:
        labels: (trials,) int; the `trial` of each row, as the curves name it.
        configurations: hyperparameters of each row.
        relative_cost: (trials,) float > 0; cost of an iteration, or None where the file says nothing.
        min_gpus: (trials,) int >= 1; the smallest gang that holds it in its memory, 1 where the file says nothing.
    """

    labels: np.ndarray
    configurations: Sequence[Configuration]
    relative_cost: np.ndarray | None
    min_gpus: np.ndarray


@dataclass(frozen=True, eq=False)
class CurveTables:
    """The recorded curves, in the order of the configurations, and of the replicates of each.

    Attributes:
        trial: (curves,) int, ascending; the row of each curve's configuration.
        replicate: (curves,) int; its number among the trainings of the trial, 0 where each trial was trained once.
        scores: (curves, iterations) float, NaN where the run diverged.
        test_scores: of the same shape, or None where none were recorded.
        seconds: of the same shape, seconds of each iteration, or None where none were recorded.
        measured: of the same shape, by the names of the measures; NaN where training diverged.
    """

    trial: np.ndarray
    replicate: np.ndarray
    scores: np.ndarray
    test_scores: np.ndarray | None
    seconds: np.ndarray | None
    measured: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def first(self) -> np.ndarray:
        """(trials,) int: the first curve of each trial."""
        return np.flatnonzero(np.diff(self.trial, prepend=-1))


def read_configurations(path: Path) -> Configurations:
    """The rows of a configs.csv.

    `trial`, `relative_cost` and `min_gpus` are no hyperparameters. A column becomes int, float or bool where every cell that is
    not empty reads as one, and str otherwise; an empty cell is None.

    Raises:
        InvalidTraceError: a trial appears twice or is no whole number, a relative cost is not positive, or min_gpus is no whole
            number of at least 1.
    """
    rows = read_rows(path, ("trial",))
    names = [name for name in rows[0].cells if name not in _NO_HYPERPARAMETERS]
    columns = {name: _scalars([row.cells[name] for row in rows]) for name in names}
    return Configurations(
        labels=_labels(rows),
        configurations=[{name: columns[name][i] for name in names} for i in range(len(rows))],
        relative_cost=_relative_cost(rows),
        min_gpus=_min_gpus(rows),
    )


def _labels(rows: Sequence[Row]) -> np.ndarray:
    labels: dict[int, int] = {}
    for row in rows:
        label = row.whole_number("trial", most=_MOST)
        if label in labels:
            raise row.wrong("trial", f"trial {label} was already given in row {labels[label]}")
        labels[label] = row.number
    return np.fromiter(labels, dtype=np.int64, count=len(labels))


def _relative_cost(rows: Sequence[Row]) -> np.ndarray | None:
    if "relative_cost" not in rows[0].cells:
        return None
    costs = np.array([row.positive_number("relative_cost") for row in rows])
    for at in np.flatnonzero(~are_costs(costs)).tolist():
        raise rows[at].wrong("relative_cost", f"is {costs[at]:g}, but must be between {1 / LARGEST:g} and {LARGEST:g}")
    return costs


def _min_gpus(rows: Sequence[Row]) -> np.ndarray:
    if "min_gpus" not in rows[0].cells:
        return np.ones(len(rows), dtype=np.int64)
    return np.array([row.whole_number("min_gpus", 1, _MOST) for row in rows], dtype=np.int64)


def _truth_value(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _score(text: str) -> float:
    return float(number_of(text, is_score=True))


def _scalars(cells: Sequence[str]) -> list[int | float | bool | str | None]:
    kinds: tuple[Callable[[str], int | float | bool], ...] = (_whole, _score, _truth_value)
    for kind in kinds:
        try:
            return [kind(cell) if cell else None for cell in cells]
        except (ValueError, KeyError):
            continue
    return [cell or None for cell in cells]


def _whole(text: str) -> int:
    if not WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(number_of(text))


def curves_of(trial: np.ndarray, replicate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the curves that points belong to, by trial and then by replicate.

    Args:
        trial: (points,) int >= 0.
        replicate: (points,) int >= 0.

    Returns:
        (points,) int, the curve of each point; (curves,) int, the trial of each curve; (curves,) int, its replicate.
    """
    numbers, places = np.unique(replicate, return_inverse=True)
    keys, curve = np.unique(trial * len(numbers) + places, return_inverse=True)
    trial_of, place_of = np.divmod(keys, len(numbers))
    return curve, trial_of, numbers[place_of]


def read_curves(path: Path, labels: np.ndarray, max_iterations: int, measures: Sequence[str] = ()) -> CurveTables:
    """The curves of these trials, every iteration from 1 to `max_iterations`.

    The rows of a curve stand in order of their iterations; curves may be interleaved. A curve may end early only where its
    last score is not finite: the run diverged, and the rest is NaN. A training may have no seconds where another one of its
    trial has them.

    Args:
        path: a parquet file with `trial, iteration, score`, the measures, and optionally `replicate, test_score, seconds`.
        labels: (trials,) int; the trials in the order of the result.
        max_iterations: the length of a complete curve.
        measures: columns of what was measured beside the score.

    Raises:
        InvalidTraceError: with the row, where one is to blame.
    """
    columns = _read_columns(path, measures)
    rows = _rows(path, columns, labels)
    _check_order(rows)
    _check_longest(rows, max_iterations)
    values = {name: _numbers(path, name, columns[name]) for name in columns if name in (*_VALUES, *measures)}
    for name in {"score", "test_score"} & values.keys():
        _check_scores(path, name, values[name])
    if "seconds" in values:
        _check_seconds(rows, values["seconds"], values["score"])
    for name in measures:
        _check_measure(path, name, values[name], values["score"])
    _check_ends(rows, values["score"], max_iterations)
    shape = (len(rows.trial_of), max_iterations)
    shaped = {name: _shaped(cells, rows, shape) for name, cells in values.items()}
    return CurveTables(
        rows.trial_of,
        rows.replicate_of,
        shaped["score"],
        shaped.get("test_score"),
        shaped.get("seconds"),
        {name: shaped[name] for name in measures},
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Which point of which curve each row of a file holds.

    Attributes:
        path: of the file.
        labels: (trials,) int; what it calls the trials.
        curve: (rows,) int.
        iteration: (rows,) int, counted from 1.
        trial_of: (curves,) int, ascending.
        replicate_of: (curves,) int, ascending within a trial.
        names_replicates: whether the file tells replicates apart.
    """

    path: Path
    labels: np.ndarray
    curve: np.ndarray
    iteration: np.ndarray
    trial_of: np.ndarray
    replicate_of: np.ndarray
    names_replicates: bool

    def name(self, curve: int) -> str:
        """What messages call a curve."""
        trial = f"trial {self.labels[self.trial_of[curve]]}"
        return f"{trial}, replicate {self.replicate_of[curve]}" if self.names_replicates else trial

    def wrong(self, row: int, problem: str) -> InvalidTraceError:
        """The error for an iteration."""
        return InvalidTraceError(self.path, problem, row=row + 1, column="iteration")


def _rows(path: Path, columns: Mapping[str, np.ndarray], labels: np.ndarray) -> _Rows:
    iteration = _whole_numbers(path, "iteration", columns["iteration"])
    trial = _positions(path, _whole_numbers(path, "trial", columns["trial"]), labels)
    if "replicate" not in columns:
        trials = np.arange(len(labels))
        return _Rows(path, labels, trial, iteration, trials, np.zeros_like(trials), names_replicates=False)
    replicate = _whole_numbers(path, "replicate", columns["replicate"])
    for row in np.flatnonzero(replicate < 0).tolist():
        problem = f"is {replicate[row]}, but must be 0 or more"
        raise InvalidTraceError(path, problem, row=row + 1, column="replicate")
    curve, trial_of, replicate_of = curves_of(trial, replicate)
    return _Rows(path, labels, curve, iteration, trial_of, replicate_of, names_replicates=True)


def _read_columns(path: Path, measures: Sequence[str]) -> Mapping[str, np.ndarray]:
    import pyarrow as pa
    from pyarrow import parquet

    require_file(path)
    try:
        # By its path: an Arrow thread that drops bytes of a Python file while the process ends would abort it.
        with parquet.ParquetFile(path) as file:
            known = file.schema_arrow.names
            _check_columns(path, known, measures)
            wanted = [column for column in (*_COLUMNS, *_OPTIONAL_COLUMNS, *measures) if column in known]
            table = file.read(columns=wanted)
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidTraceError(path, f"is no parquet file: {error}") from error
    except OSError as error:
        raise InvalidTraceError(path, f"cannot be read: {error}") from error
    return {column: _cells(table.column(column).combine_chunks()) for column in wanted}


def _cells(array: Array) -> np.ndarray:
    """The values, NaN where there is none: as `Array.to_numpy`, which would import pandas, a quarter of a second."""
    import pyarrow as pa

    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    is_there, values = array.buffers()
    cells = np.from_dlpack(pa.Array.from_buffers(array.type, len(array), [None, values], offset=array.offset))
    if not array.null_count:
        return cells
    bits = np.unpackbits(np.frombuffer(is_there, np.uint8), bitorder="little")
    return np.where(bits[array.offset : array.offset + len(array)], cells, np.nan)


def _check_columns(path: Path, known: Sequence[str], measures: Sequence[str]) -> None:
    for column in known:
        if known.count(column) > 1:
            raise InvalidTraceError(path, "the header names it twice", column=column)
    for column in (*_COLUMNS, *measures):
        if column not in known:
            raise InvalidTraceError(path, f"has no such column; its columns: {', '.join(known)}", column=column)


def _numbers(path: Path, column: str, cells: np.ndarray) -> np.ndarray:
    if cells.dtype.kind not in "iuf":
        raise InvalidTraceError(path, f"holds {cells.dtype}, but must hold numbers", column=column)
    return cells.astype(np.float64, copy=False)


def _whole_numbers(path: Path, column: str, cells: np.ndarray) -> np.ndarray:
    numbers = _numbers(path, column, cells)
    is_signed = cells.dtype.kind == "i"
    wrong = np.flatnonzero(~((numbers == np.floor(numbers)) & (is_signed | (np.abs(numbers) < 2.0**63))))
    if wrong.size:
        row = int(wrong[0])
        raise InvalidTraceError(path, f"is {numbers[row]}, but must be a whole number", row=row + 1, column=column)
    return cells.astype(np.int64, copy=False)


def _positions(path: Path, trial: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(rows,) int: where each row's trial stands in `labels`."""
    ascending = np.argsort(labels)
    found = np.searchsorted(labels, trial, sorter=ascending).clip(max=len(labels) - 1)
    positions: np.ndarray = ascending[found]
    wrong = np.flatnonzero(labels[positions] != trial)
    if wrong.size:
        row = int(wrong[0])
        raise InvalidTraceError(path, f"trial {trial[row]} is not in configs.csv", row=row + 1, column="trial")
    return positions


def _check_order(rows: _Rows) -> None:
    """Within a curve, each row's iteration is the one before plus 1, from 1."""
    by_curve = np.argsort(rows.curve, kind="stable")
    its_curve, its_iteration = rows.curve[by_curve], rows.iteration[by_curve]
    before = np.zeros_like(its_iteration)
    before[1:] = np.where(its_curve[1:] == its_curve[:-1], its_iteration[:-1], 0)
    wrong = np.flatnonzero(its_iteration != before + 1)
    if wrong.size:
        at = wrong[np.argmin(by_curve[wrong])]
        problem = _order_problem(rows.name(its_curve[at]), int(its_iteration[at]), int(before[at]))
        raise rows.wrong(int(by_curve[at]), problem)


def _order_problem(curve: str, iteration: int, before: int) -> str:
    if before == 0:
        return f"{curve} starts at iteration {iteration}, but iterations are counted from 1"
    if iteration == before:
        return f"iteration {iteration} of {curve} appears twice"
    if iteration < before:
        return f"iteration {iteration} of {curve} comes after its iteration {before}: out of order or twice"
    return f"{curve} jumps from iteration {before} to {iteration}"


def _check_longest(rows: _Rows, longest: int) -> None:
    for row in np.flatnonzero(rows.iteration > longest).tolist():
        name = rows.name(rows.curve[row])
        raise rows.wrong(row, f"iteration {rows.iteration[row]} of {name} is beyond max_iterations ({longest})")


def _check_scores(path: Path, column: str, scores: np.ndarray) -> None:
    for row in np.flatnonzero(are_too_large(scores)).tolist():
        raise InvalidTraceError(path, too_large(scores[row]), row=row + 1, column=column)


def _check_seconds(rows: _Rows, seconds: np.ndarray, score: np.ndarray) -> None:
    """A whole training may lack them where another of its trial has them: it takes as long."""
    timed = np.bincount(rows.curve, weights=np.isfinite(seconds), minlength=len(rows.trial_of)) > 0
    of_trial = np.bincount(rows.trial_of, weights=timed) > 0
    is_needed = (timed | ~of_trial[rows.trial_of])[rows.curve]
    wrong = (seconds < 0) | (seconds > LONGEST_S) | (np.isnan(seconds) & np.isfinite(score) & is_needed)
    for row in np.flatnonzero(wrong).tolist():
        is_long = LONGEST_S < seconds[row] < np.inf
        problem = f"is {too_long(seconds[row])}" if is_long else f"is {seconds[row]}, but must be a number >= 0"
        raise InvalidTraceError(rows.path, problem, row=row + 1, column="seconds")


def _check_measure(path: Path, column: str, cells: np.ndarray, score: np.ndarray) -> None:
    for row in np.flatnonzero((cells < 0) | np.isinf(cells) | (np.isnan(cells) & np.isfinite(score))).tolist():
        raise InvalidTraceError(path, f"is {cells[row]}, but must be a number >= 0", row=row + 1, column=column)


def _shaped(cells: np.ndarray, rows: _Rows, shape: tuple[int, int]) -> np.ndarray:
    """(curves, iterations) float: the cells in their places, NaN where there is none."""
    shaped = np.full(shape, np.nan)
    shaped[rows.curve, rows.iteration - 1] = cells
    return shaped


def _check_ends(rows: _Rows, scores: np.ndarray, longest: int) -> None:
    lengths = np.bincount(rows.curve, minlength=len(rows.trial_of))
    for trial in np.setdiff1d(np.arange(len(rows.labels)), rows.trial_of[lengths > 0]).tolist():
        raise InvalidTraceError(rows.path, f"trial {rows.labels[trial]} of configs.csv has no curve")
    last = np.empty(len(lengths))
    last[rows.curve] = scores  # of several rows of a curve, the last one stays
    for curve in np.flatnonzero((lengths < longest) & np.isfinite(last)).tolist():
        problem = (
            f"{rows.name(curve)} ends at iteration {lengths[curve]} of {longest}; only a curve whose last score is not finite"
            " (diverged) may end early"
        )
        raise InvalidTraceError(rows.path, problem)
