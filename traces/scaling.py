"""Speed-up tables: the published ones that ship, a user's file, or inline.

Imports sim.model, the standard library and the table reader of this package.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sim.model.errors import InputError, InvalidTraceError
from sim.model.protocols import Scaling
from sim.model.scaling import AmdahlScaling, LinearScaling, PowerScaling, TableScaling
from traces.nearest import nearest, unknown
from traces.tables import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from traces.tables import Row

ScalingInput: TypeAlias = "Scaling | str | Path | Mapping[int | str, float]"
"""What a user may give for a scaling; see `scaling_of`."""

_SHIPPED = Path(__file__).parent / "data" / "scaling.csv"
_MEASURES = ("speedup", "iteration_s", "samples_per_s")
_FAMILIES: Mapping[str, Callable[[float, int], Scaling]] = {"amdahl": AmdahlScaling, "power": PowerScaling}


class DecreasingScalingWarning(UserWarning):
    """A measured table says that more GPUs are slower somewhere; planners use its non-decreasing envelope."""


def scaling_names() -> tuple[str, ...]:
    """Names of the shipped tables."""
    return tuple(_shipped())


def scaling_named(name: str) -> TableScaling:
    """The shipped table of this name.

    Warns:
        DecreasingScalingWarning: it decreases somewhere.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name not in _shipped():
        raise unknown("scaling", name, scaling_names(), "or give the path of a .csv, a mapping or linear")
    scaling = _shipped()[name]
    _warn_where_decreasing(name, scaling)
    return scaling


def scaling_of(value: ScalingInput) -> Scaling:
    """The scaling that a spec or a bundle means.

    Args:
        value: a shipped name; `linear`; the path of a CSV (see `load_scaling`), with filters behind a `#`, as in
            `tables.csv#workload=bert,global_batch=128`; a mapping of speed-ups `{1: 1, 2: 1.7}`; or a law,
            `{"amdahl": serial share}` or `{"power": exponent}`, with an optional `max_gpus`.

    Warns:
        DecreasingScalingWarning: a table decreases somewhere.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, str | Path):
        return _of_text(str(value))
    if isinstance(value, Scaling):
        return value
    raise InputError(f"scaling is {value!r}, but must be a name, the path of a .csv, a mapping or linear")


def load_scaling(path: Path, where: Mapping[str, str] | None = None) -> TableScaling:
    """The speed-ups in a CSV file.

    The file has a column `gpus` and one of `speedup`, `iteration_s` or `samples_per_s`, and optionally `nodes`: of
    several rows for as many GPUs the one on the fewest nodes counts, because a table by GPUs alone means a packed gang.

    Args:
        path: the file.
        where: only rows whose columns have these texts.

    Warns:
        DecreasingScalingWarning: the table decreases somewhere.

    Raises:
        InvalidTraceError: the file is malformed, has no row for 1 GPU, or two for one gang.
    """
    scaling = _table_of(path, _matching(path, read_rows(path, ("gpus",)), where or {}))
    _warn_where_decreasing(str(path), scaling)
    return scaling


@functools.cache
def _shipped() -> Mapping[str, TableScaling]:
    by_name: dict[str, list[Row]] = {}
    for row in read_rows(_SHIPPED, ("name", "gpus", "speedup")):
        by_name.setdefault(row.text("name"), []).append(row)
    return {name: _table_of(_SHIPPED, rows) for name, rows in by_name.items()}


def _warn_where_decreasing(name: str, scaling: TableScaling) -> None:
    gpus = sorted(scaling.points)
    slower = [b for a, b in itertools.pairwise(gpus) if scaling.points[b] < scaling.points[a]]
    if slower:
        listed = ", ".join(map(str, slower))
        message = f"scaling {name}: a gang of {listed} GPUs is slower than the next smaller one in the table"
        warnings.warn(message, DecreasingScalingWarning, stacklevel=3)


def _of_text(text: str) -> Scaling:
    if text == "linear":
        return LinearScaling()
    file, _, filters = text.partition("#")
    if file.endswith(".csv"):
        return load_scaling(Path(file), _filters(text, filters))
    return scaling_named(text)


def _filters(text: str, filters: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in filters.split(",") if pair]
    for column, _, wanted in pairs:
        if not (column and wanted):
            raise InputError(f"scaling {text!r}: after # come filters such as workload=bert,global_batch=128")
    return {column.strip(): wanted.strip() for column, _, wanted in pairs}


def _of_mapping(value: Mapping[int | str, float]) -> Scaling:
    laws = [key for key in value if isinstance(key, str) and not key.isdecimal()]
    if laws:
        return _law_of({str(key): number for key, number in value.items()})
    points = {int(key): _number(f"scaling: the speed-up of {key} GPUs", number) for key, number in value.items()}
    scaling = TableScaling(points)
    _warn_where_decreasing("given inline", scaling)
    return scaling


def _law_of(value: Mapping[str, float]) -> Scaling:
    families = [key for key in value if key in _FAMILIES]
    for key in value:
        if key not in (*_FAMILIES, "max_gpus"):
            match = nearest(key, (*_FAMILIES, "max_gpus"))
            meant = f"; did you mean {match!r}?" if match else ""
            raise InputError(f"scaling: {key!r} is neither a number of GPUs nor one of amdahl, power, max_gpus{meant}")
    if len(families) != 1:
        raise InputError(f"scaling {dict(value)}: exactly one of amdahl and power must be given")
    parameter = _number(f"scaling.{families[0]}", value[families[0]])
    max_gpus = _number("scaling.max_gpus", value.get("max_gpus", 64))
    if max_gpus != int(max_gpus) or max_gpus < 1:
        raise InputError(f"scaling.max_gpus is {max_gpus:g}, but must be a whole number of at least 1")
    return _FAMILIES[families[0]](parameter, int(max_gpus))


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} is {value!r}, but must be a number")
    return float(value)


def _matching(path: Path, rows: Sequence[Row], where: Mapping[str, str]) -> list[Row]:
    for column in where:
        if column not in rows[0].cells:
            known = ", ".join(rows[0].cells)
            raise InvalidTraceError(path, f"has no such column; its columns: {known}", column=column)
    matching = [row for row in rows if all(row.cells[column] == wanted for column, wanted in where.items())]
    if not matching:
        raise InvalidTraceError(path, f"has no row with {', '.join(f'{key}={text}' for key, text in where.items())}")
    return matching


def _table_of(path: Path, rows: Sequence[Row]) -> TableScaling:
    measures = [measure for measure in _MEASURES if measure in rows[0].cells]
    if not measures:
        raise InvalidTraceError(path, f"has none of the columns {', '.join(_MEASURES)}")
    measured = {gpus: row.positive_number(measures[0]) for gpus, row in sorted(_on_fewest_nodes(rows).items())}
    if 1 not in measured:
        raise InvalidTraceError(path, "has no row for 1 GPU", column="gpus")
    try:
        return TableScaling(_speedups(measures[0], measured))
    except InputError as error:
        raise InvalidTraceError(path, str(error)) from error


def _speedups(measure: str, measured: Mapping[int, float]) -> dict[int, float]:
    if measure == "speedup":
        return dict(measured)
    if measure == "iteration_s":
        return {gpus: measured[1] / seconds for gpus, seconds in measured.items()}
    return {gpus: rate / measured[1] for gpus, rate in measured.items()}


def _on_fewest_nodes(rows: Iterable[Row]) -> dict[int, Row]:
    chosen: dict[int, Row] = {}
    for row in rows:
        gpus, nodes = row.whole_number("gpus", 1), _nodes(row)
        rival = chosen.get(gpus)
        if rival is not None and _nodes(rival) == nodes:
            raise row.wrong("gpus", f"{gpus} GPUs were already given in row {rival.number}; filter with #column=text")
        if rival is None or nodes < _nodes(rival):
            chosen[gpus] = row
    return chosen


def _nodes(row: Row) -> int:
    return row.whole_number("nodes", 1) if row.cells.get("nodes") else 1
