"""Measured speed-ups in CSV files. Imports sim.model, the standard library and the table reader of this package.

A table has a column `gpus`, optionally `nodes`, and one measure: `speedup`, `iteration_s` (of the same work), `step_s` (of an
optimiser's step, whose work grows with the gang in weak scaling) or `samples_per_s`. A column `kind`, or `mode`, says `weak` or
`strong`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.sim.model.scaling import Scaling, ScalingKind, TableScaling
from elastune.traces.formats.csv_rows import Row, matching, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Gang = tuple[int, int]

MEASURES = ("speedup", "iteration_s", "step_s", "samples_per_s")
KINDS = ("weak", "strong")
_MOST_PER_GPU = 10_000.0  # beyond it, a time of day was taken for a duration, or a number is a slip
_ALIKE = 0.01  # of two columns that were rounded
MOST_GPUS = 100_000
"""Planners look at every number of GPUs up to the largest."""


@dataclass(frozen=True)
class MeasuredTable:
    """Speed-ups as they were measured.

    Attributes:
        speedups: over one GPU, by (GPUs, nodes), in ascending order.
        kind: how the batch was held.
        knows_nodes: whether the table says on how many nodes a gang was.
    """

    speedups: Mapping[Gang, float]
    kind: ScalingKind
    knows_nodes: bool

    @property
    def slower(self) -> tuple[int, ...]:
        """Gangs, on the fewest nodes, that are slower than the next smaller one."""
        return tuple(slower_than_smaller(packed(self.scaling())))

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
    return measured_of(path, matching(path, read_rows(path, ("gpus",)), where))


def measured_of(path: Path, rows: Sequence[Row]) -> MeasuredTable:
    """The table in some rows of a file.

    Raises:
        InvalidTraceError: a row is malformed, none is for 1 GPU, or two are for one gang.
    """
    measures = [measure for measure in MEASURES if measure in rows[0].cells]
    if not measures:
        raise InvalidTraceError(
            path, f"has none of the columns {', '.join(MEASURES)}; its columns: {', '.join(rows[0].cells)}"
        )
    kind, by_gang = _kind(rows), dict(sorted(_by_gang(rows).items()))
    if (1, 1) not in by_gang:
        smallest = next(iter(by_gang.values()))
        problem = (
            f"has no row for 1 GPU, over which speed-ups are; the smallest gang is this one, of {smallest.cells['gpus']}."
            " Add a row for 1 GPU on 1 node, or filter, behind a #, for a workload that has one"
        )
        raise InvalidTraceError(path, problem, row=smallest.number, column="gpus")
    speedups = _speedups(path, measures[0], by_gang, kind)
    for other in measures[1:]:
        for gang, speedup in _speedups(path, other, by_gang, kind).items():
            if not math.isclose(speedup, speedups[gang], rel_tol=_ALIKE):
                problem = (
                    f"means a speed-up of {speedup:.4g}, but {measures[0]} one of {speedups[gang]:.4g}: keep one column"
                )
                raise by_gang[gang].wrong(other, problem)
    return MeasuredTable(speedups, kind, knows_nodes=any(nodes > 1 for _, nodes in speedups))


def _speedups(path: Path, measure: str, by_gang: Mapping[Gang, Row], kind: ScalingKind) -> dict[Gang, float]:
    """The speed-ups over one GPU that a column means."""
    measured = {gang: row.positive_number(measure) for gang, row in by_gang.items()}
    of_one = measured[1, 1]
    if measure == "speedup" and not math.isclose(of_one, 1.0, rel_tol=1e-6):
        raise by_gang[1, 1].wrong(measure, f"is {of_one:g}, but a table of speed-ups starts with 1 GPU at 1.0")
    if measure == "step_s" and kind == "unstated":
        problem = "needs a column kind: in weak scaling a step of p GPUs does p times the work, in strong the same"
        raise InvalidTraceError(path, problem, column=measure)
    speedups = {gang: _speedup(measure, number, of_one, gang[0], kind) for gang, number in measured.items()}
    for gang, speedup in speedups.items():
        if speedup > _MOST_PER_GPU * gang[0]:
            problem = (
                f"means a speed-up of {speedup:g} on {gang[0]} GPUs: was another amount of work measured on one GPU?"
            )
            raise by_gang[gang].wrong(measure, problem)
    return speedups


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


def _by_gang(rows: Sequence[Row]) -> dict[Gang, Row]:
    knows_nodes = any(row.cells.get("nodes") for row in rows)
    found: dict[Gang, Row] = {}
    for row in rows:
        gpus = row.whole_number("gpus", 1, MOST_GPUS)
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


def filtered_path(text: str) -> tuple[str, dict[str, str]]:
    """A file and the filters behind its `#`, as in `tables.csv#workload=bert,global_batch=128`.

    The name of the file, or of its folder, may hold a `#` itself.

    Raises:
        InputError: what is behind the # are no filters.
    """
    ends = [at for at, letter in enumerate(text) if letter == "#"]
    end = next((at for at in (len(text), *reversed(ends)) if Path(text[:at]).is_file()), ends[0] if ends else len(text))
    return text[:end], filters_of(text[end + 1 :])


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


def slower_phrase(scaling: Scaling) -> str:
    """Which measured gangs are slower than smaller ones, in words; empty where none is or nothing was measured."""
    if not isinstance(scaling, TableScaling | PlacedTableScaling):
        return ""
    listed = ", ".join(map(str, slower_than_smaller(packed(scaling))))
    return (
        f"{listed} GPUs are slower than the next smaller gang; planners use the non-decreasing envelope"
        if listed
        else ""
    )
