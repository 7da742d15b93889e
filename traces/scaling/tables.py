"""Measured speed-ups in CSV files. Imports sim.model, the standard library and the table reader of this package.

A table has a column `gpus`, optionally `nodes`, and one measure: `speedup`, `iteration_s` (of the same work), `step_s` (of an
optimiser's step, whose work grows with the gang in weak scaling) or `samples_per_s`. A column `kind`, or `mode`, says `weak` or
`strong`.
"""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.sim.model.scaling import TableScaling
from elastune.traces.formats.csv_rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from elastune.sim.model.scaling import ScalingKind
    from elastune.traces.formats.csv_rows import Row

MEASURES = ("speedup", "iteration_s", "step_s", "samples_per_s")
KINDS = ("weak", "strong")


class DecreasingScalingWarning(UserWarning):
    """A measured table says that more GPUs are slower somewhere; planners use its non-decreasing envelope."""


@dataclass(frozen=True)
class MeasuredTable:
    """Speed-ups as they were measured.

    Attributes:
        speedups: over one GPU, by (GPUs, nodes), in ascending order.
        kind: how the batch was held.
        knows_nodes: whether the table says on how many nodes a gang was.
    """

    speedups: Mapping[tuple[int, int], float]
    kind: ScalingKind
    knows_nodes: bool

    def scaling(self) -> TableScaling | PlacedTableScaling:
        """By GPUs and nodes where some gang was on several; else by GPUs alone, which means packed."""
        if self.knows_nodes:
            return PlacedTableScaling(self.speedups, self.kind)
        return TableScaling({gpus: speedup for (gpus, _), speedup in self.speedups.items()}, self.kind)


def read_measured(path: Path, where: Mapping[str, str]) -> MeasuredTable:
    """The table in a file.

    Args:
        path: the file.
        where: only rows whose columns have these texts.

    Raises:
        InvalidTraceError: the file is malformed, has no row for 1 GPU, or two for one gang.
    """
    return measured_of(path, _matching(path, read_rows(path, ("gpus",)), where))


def measured_of(path: Path, rows: Sequence[Row]) -> MeasuredTable:
    """The table in some rows of a file.

    Raises:
        InvalidTraceError: a row is malformed, none is for 1 GPU, or two are for one gang.
    """
    measure = next((measure for measure in MEASURES if measure in rows[0].cells), None)
    if measure is None:
        raise InvalidTraceError(path, f"has none of the columns {', '.join(MEASURES)}")
    by_gang = dict(sorted(_by_gang(rows).items()))
    base = by_gang.get((1, 1))
    if base is None:
        smallest = next(iter(by_gang.values()))
        problem = (
            f"has no row for 1 GPU, over which speed-ups are; the smallest gang is this one, of {smallest.cells['gpus']}."
            " Add a row for 1 GPU on 1 node, or filter, behind a #, for a workload that has one"
        )
        raise InvalidTraceError(path, problem, row=smallest.number, column="gpus")
    kind = _kind(rows)
    measured = {gang: row.positive_number(measure) for gang, row in by_gang.items()}
    if measure == "speedup" and not math.isclose(measured[1, 1], 1.0, rel_tol=1e-6):
        raise base.wrong(measure, f"is {measured[1, 1]:g}, but a table of speed-ups starts with 1 GPU at 1.0")
    if measure == "step_s" and kind == "unstated":
        problem = "needs a column kind: in weak scaling a step of p GPUs does p times the work, in strong the same"
        raise InvalidTraceError(path, problem, column=measure)
    speedups = {gang: _speedup(measure, number, measured[1, 1], gang[0], kind) for gang, number in measured.items()}
    return MeasuredTable(speedups, kind, knows_nodes=any(nodes > 1 for _, nodes in speedups))


def _speedup(measure: str, number: float, of_one: float, gpus: int, kind: ScalingKind) -> float:
    match measure:
        case "speedup":
            return number
        case "samples_per_s":
            return number / of_one
        case "step_s" if kind == "weak":
            return gpus * of_one / number
        case _:
            return of_one / number


def _by_gang(rows: Sequence[Row]) -> dict[tuple[int, int], Row]:
    knows_nodes = any(row.cells.get("nodes") for row in rows)
    found: dict[tuple[int, int], Row] = {}
    for row in rows:
        gpus = row.whole_number("gpus", 1)
        nodes = row.whole_number("nodes", 1) if knows_nodes else 1
        if nodes > gpus:
            raise row.wrong("nodes", f"is {nodes}, but {gpus} GPUs fit on at most as many nodes")
        before = found.setdefault((gpus, nodes), row)
        if before is not row:
            on = f" on {nodes} nodes" if nodes > 1 else ""
            problem = f"{gpus} GPUs{on} were already given in row {before.number}; filter with #column=text"
            raise row.wrong("gpus", problem)
    return found


def _kind(rows: Sequence[Row]) -> ScalingKind:
    column = next((name for name in ("kind", "mode") if name in rows[0].cells), None)
    if column is None:
        return "unstated"
    first = rows[0].cells[column]
    for row in rows:
        told = row.cells[column]
        if told not in ("", *KINDS):
            raise row.wrong(column, f"is {told!r}, but must be weak or strong")
        if told != first:
            raise row.wrong(column, f"is {told!r}, but row {rows[0].number} is {first!r}; filter with #{column}=text")
    return cast("ScalingKind", first or "unstated")


def _matching(path: Path, rows: Sequence[Row], where: Mapping[str, str]) -> list[Row]:
    for column in where:
        if column not in rows[0].cells:
            known = ", ".join(rows[0].cells)
            raise InvalidTraceError(path, f"has no such column; its columns: {known}", column=column)
    matching = [row for row in rows if all(row.cells[column] == wanted for column, wanted in where.items())]
    if not matching:
        raise InvalidTraceError(path, f"has no row with {', '.join(f'{key}={text}' for key, text in where.items())}")
    return matching


def filtered_path(text: str) -> tuple[str, dict[str, str]]:
    """A file and the filters behind its `#`, as in `tables.csv#workload=bert,global_batch=128`.

    Raises:
        InputError: what is behind the # are no filters.
    """
    file, _, filters = text.partition("#")
    return file, filters_of(filters)


def filters_of(text: str) -> dict[str, str]:
    """Texts by column, of a list such as `workload=bert,global_batch=128`.

    Raises:
        InputError: an item has no column or no text.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    for column, _, wanted in pairs:
        if not (column and wanted):
            raise InputError(f"scaling: {text!r} is no list of filters; they are as in workload=bert,global_batch=128")
    return {column.strip(): wanted.strip() for column, _, wanted in pairs}


def packed(scaling: TableScaling | PlacedTableScaling) -> dict[int, float]:
    """Measured speed-ups by GPUs, each gang on the fewest nodes it was measured on."""
    if isinstance(scaling, TableScaling):
        return {gpus: scaling.points[gpus] for gpus in sorted(scaling.points)}
    found: dict[int, float] = {}
    for (gpus, _), speedup in sorted(scaling.points.items()):
        found.setdefault(gpus, speedup)
    return found


def slower_than_smaller(speedups: Mapping[int, float]) -> Iterator[int]:
    """Gangs that are slower than the next smaller one in the table."""
    for (_, before), (gpus, speedup) in itertools.pairwise(sorted(speedups.items())):
        if speedup < before:
            yield gpus


def warn_where_decreasing(name: str, scaling: TableScaling | PlacedTableScaling, *, stacklevel: int) -> None:
    """Say which gangs are slower than smaller ones."""
    listed = ", ".join(map(str, slower_than_smaller(packed(scaling))))
    if listed:
        message = f"scaling {name}: a gang of {listed} GPUs is slower than the next smaller one in the table"
        warnings.warn(message, DecreasingScalingWarning, stacklevel=stacklevel + 1)
