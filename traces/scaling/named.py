"""Speed-ups by name, by file or inline. Imports sim.model, the standard library and the readers of this package."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from elastune.sim.model.errors import InputError, unknown
from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.sim.model.scaling import LinearScaling, Scaling, TableScaling
from elastune.traces.formats.csv_rows import Row, read_rows
from elastune.traces.scaling.inline import scaling_inline
from elastune.traces.scaling.tables import MeasuredTable, filtered_path, measured_of, read_measured

ScalingInput: TypeAlias = "Scaling | str | Path | Mapping[int | str, object]"
"""What a user may give for a scaling; see `scaling_of`."""
MeasuredScaling: TypeAlias = TableScaling | PlacedTableScaling

_SUFFIXES = (".csv", ".csv.gz")
_SHIPPED = Path(__file__).parents[1] / "data" / "scaling.csv"


def scaling_names() -> tuple[str, ...]:
    """Names of the shipped tables."""
    return tuple(_shipped())


def scaling_source(name: str) -> str:
    """Where a shipped table is from, as its first row says."""
    return next(row.text("source") for row in read_rows(_SHIPPED, ("name", "source")) if row.text("name") == name)


def scaling_named(name: str) -> MeasuredScaling:
    """The shipped table of this name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name not in _shipped():
        raise unknown("scaling", name, scaling_names(), "or give the path of a .csv, a mapping or linear")
    return _shipped()[name].scaling()


def measured_table(text: str) -> MeasuredTable:
    """What was measured, by a shipped name or the path of a CSV with filters behind a `#`.

    Raises:
        InputError: there is no such table, or it is malformed.
    """
    file, where = filtered_path(text)
    if file.endswith(_SUFFIXES):
        return read_measured(Path(file), where)
    if file not in _shipped():
        raise unknown("scaling", file, scaling_names(), "or give the path of a .csv")
    return _shipped()[file]


def scaling_of(value: ScalingInput) -> Scaling:
    """The scaling that a spec or a bundle describes.

    Args:
        value: a shipped name; `linear`; the path of a CSV (see `load_scaling`), with filters behind a `#`, as in
            `tables.csv#workload=bert,global_batch=128`; or a mapping (see `traces.scaling.inline`): speed-ups
            `{1: 1, 2: 1.7}`, `{2x2: 1.1}` where they depend on nodes, or a family with its parameters.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(value, Mapping):
        return scaling_inline(value)
    if isinstance(value, str | Path):
        return _of_text(str(value))
    if isinstance(value, Scaling):
        return value
    raise InputError(f"scaling is {value!r}, but must be a name, the path of a .csv, a mapping or linear")


def load_scaling(path: Path, where: Mapping[str, str] | None = None) -> MeasuredScaling:
    """The speed-ups in a CSV file; its columns are those of `traces.scaling.tables`.

    Args:
        path: the file.
        where: only rows whose columns have these texts.

    Returns:
        A table by GPUs and nodes where some gang was on several nodes, else by GPUs alone.

    Raises:
        InvalidTraceError: the file is malformed, has no row for 1 GPU, or two for one gang.
    """
    return read_measured(path, where or {}).scaling()


@functools.cache
def _shipped() -> Mapping[str, MeasuredTable]:
    by_name: dict[str, list[Row]] = {}
    for row in read_rows(_SHIPPED, ("name", "gpus", "speedup")):
        by_name.setdefault(row.text("name"), []).append(row)
    return {name: measured_of(_SHIPPED, rows) for name, rows in by_name.items()}


def _of_text(text: str) -> Scaling:
    if text == "linear":
        return LinearScaling()
    file, where = filtered_path(text)
    if file.endswith(_SUFFIXES):
        return load_scaling(Path(file), where)
    return scaling_named(text)
