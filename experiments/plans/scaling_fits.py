"""What `elastune scaling` says, as data: fits with predictions, hold-outs over many tables, tables for the figure.

Imports sim.model and traces; pandas inside the functions that need it.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from elastune.experiments.files import write_text
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.formats.csv_rows import read_rows
from elastune.traces.scaling.fit import LEVEL, ScalingFit, SpeedupEstimate, fit_scaling
from elastune.traces.scaling.inline import gang_of, inline_of
from elastune.traces.scaling.laws import FITTED_FAMILIES
from elastune.traces.scaling.tables import MeasuredTable, filtered_path, read_measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from elastune.traces.importers.step_times import ImportedScaling

    Gang = tuple[int, int]


def gangs_of(texts: str, table: MeasuredTable) -> tuple[Gang, ...]:
    """The gangs that a list such as `8,16x2` means.

    Where nodes are not given, a gang is on the fewest it was measured on; one that was not measured, on as few as the most
    GPUs that were measured on one node allow, and on one where the table does not know nodes.

    Raises:
        InputError: an item is no gang.
    """
    gangs = []
    for text in texts.split(","):
        gpus, nodes = gang_of(text)
        gangs.append((gpus, fewest_nodes(table, gpus) if nodes is None else nodes))
    return tuple(gangs)


def fewest_nodes(table: MeasuredTable, gpus: int) -> int:
    """On how many nodes a gang is that is not said to be on some number; see `gangs_of`."""
    measured = [nodes for count, nodes in table.speedups if count == gpus]
    whole = max(count for count, nodes in table.speedups if nodes == 1)
    return min(measured) if measured else -(-gpus // whole) if table.knows_nodes else 1


def as_text(gang: Gang) -> str:
    """A gang as it is written on the command line."""
    return f"{gang[0]}x{gang[1]}" if gang[1] > 1 else str(gang[0])


@dataclass(frozen=True)
class GangFit:
    """One gang: what was measured, and what the families say.

    Attributes:
        measured: speed-up, or None.
        is_used: the fit saw it.
        by_family: fitted or predicted speed-ups.
        chosen: of the chosen family, with its interval.
    """

    gang: Gang
    measured: float | None
    is_used: bool
    by_family: Mapping[str, float]
    chosen: SpeedupEstimate

    @property
    def error(self) -> float | None:
        """Of the chosen family, relative to what was measured."""
        return None if self.measured is None else self.chosen.value / self.measured - 1

    @property
    def is_covered(self) -> bool | None:
        """Whether what was measured lies in the interval; None where there is no one or the other."""
        if self.measured is None or self.chosen.low is None or self.chosen.high is None:
            return None
        return self.chosen.low <= self.measured <= self.chosen.high


def gang_fits(fit: ScalingFit, predicted: Sequence[Gang]) -> list[GangFit]:
    """The gangs that were fitted, then those to predict."""
    gangs = dict.fromkeys((*fit.fitted_on, *predicted))
    return [
        GangFit(
            gang,
            fit.table.speedups.get(gang),
            gang in fit.fitted_on,
            {name: one.scaling.speedup(*gang) for name, one in fit.families.items()},
            fit.predict(*gang),
        )
        for gang in gangs
    ]


def fit_json(name: str, fit: ScalingFit, predicted: Sequence[Gang]) -> dict[str, object]:
    """What `elastune scaling fit --json` prints."""
    return {
        "table": name,
        "kind": fit.table.kind,
        "fitted_on": [as_text(gang) for gang in fit.fitted_on],
        "family": fit.chosen.family,
        "scaling": inline_of(fit.chosen.scaling),
        "level": LEVEL,
        "families": {
            family: {
                "parameters": {parameter: _estimate_json(found) for parameter, found in one.parameters.items()},
                "degrees_of_freedom": one.degrees_of_freedom,
                "left_out_error": one.left_out_error,
                "scaling": inline_of(one.scaling),
            }
            for family, one in fit.families.items()
        },
        "gangs": [_gang_json(one) for one in gang_fits(fit, predicted)],
        "notes": list(fit.notes),
    }


def _estimate_json(found: SpeedupEstimate) -> dict[str, float | None]:
    high = found.high if found.high is not None and math.isfinite(found.high) else None
    return {"value": found.value, "low": found.low, "high": high}


def _gang_json(one: GangFit) -> dict[str, object]:
    return {
        "gpus": one.gang[0],
        "nodes": one.gang[1],
        "measured": one.measured,
        "is_used": one.is_used,
        "predicted": one.chosen.value,
        "low": one.chosen.low,
        "high": one.chosen.high,
        "error": one.error,
        "by_family": dict(one.by_family),
    }


@dataclass(frozen=True)
class HeldOutGang:
    """One gang of one table of many, predicted from smaller ones.

    Attributes:
        group: the texts of the columns that name the table.
        errors: by family, relative to what was measured.
    """

    group: Mapping[str, str]
    family: str
    one: GangFit
    errors: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """What `elastune scaling fit --by ... --json` prints of it."""
        return {
            **self.group,
            "family": self.family,
            **_gang_json(self.one),
            "is_covered": self.one.is_covered,
            "errors": dict(self.errors),
        }


class HoldOut(NamedTuple):
    """Gangs of many tables, predicted from smaller ones.

    Attributes:
        found: those that were compared.
        missing: by the columns that name the table and `gpus` and `nodes`, those that a table did not measure.
    """

    found: Sequence[HeldOutGang]
    missing: Sequence[Mapping[str, object]]


def hold_out(
    text: str,
    by: Sequence[str],
    on: Sequence[int] | None,
    predict: str | None,
    *,
    family: str = "auto",
    kind: Literal["weak", "strong"] | None = None,
) -> HoldOut:
    """Fit each table of a file on some gangs, and compare with others that were measured.

    Args:
        text: the file, with filters behind a `#`.
        by: columns that tell its tables apart.
        on: numbers of GPUs that are fitted.
        predict: gangs that are predicted; those that a table did not measure are told. Without both, each number of GPUs is
            left out once and predicted from the others; those of which too few others were measured are told.
        family: see `traces.scaling.fit.fit_scaling`.
        kind: for tables that do not say.

    Raises:
        InputError: a column or a family is unknown, or a table does not have what is fitted.
    """
    file, where = filtered_path(text)
    path = Path(file)
    rows = read_rows(path, ("gpus",))
    for column in by:
        if column not in rows[0].cells:
            raise InvalidTraceError(path, f"has no such column; its columns: {', '.join(rows[0].cells)}", column=column)
    groups = dict.fromkeys(
        tuple(row.cells[column] for column in by)
        for row in rows
        if all(row.cells.get(column) == wanted for column, wanted in where.items())
    )
    found: list[HeldOutGang] = []
    missing: list[dict[str, object]] = []
    for group in groups:
        named = dict(zip(by, group, strict=True))
        table = with_kind(read_measured(path, where | named), kind)
        for fitted, asked in _held_out(table, on, predict):
            known = [gang for gang in asked if gang in table.speedups and gang[0] not in fitted]
            try:
                compared = _compared(named, fit_scaling(table, family, on=fitted, max_gpus=_largest(table)), known)
            except InputError:
                if on is not None:
                    raise
                compared = []  # too few others were measured
            found += compared
            told = {one.one.gang for one in compared}
            without = [gang for gang in asked if gang not in (told if on is None else table.speedups)]
            missing += [{**named, "gpus": gpus, "nodes": nodes} for gpus, nodes in without]
    if not found:
        what = "a gang" if predict is None else f"any of {predict}"
        raise InputError(f"no table of {text} measured {what} that is not fitted: nothing can be compared")
    return HoldOut(found, missing)


def _held_out(
    table: MeasuredTable, on: Sequence[int] | None, predict: str | None
) -> Iterator[tuple[Sequence[int], Sequence[Gang]]]:
    """Numbers of GPUs to fit on, and gangs to predict from them."""
    if on is not None and predict is not None:
        yield on, gangs_of(predict, table)
        return
    sizes = sorted({gpus for gpus, _ in table.speedups} - {1})
    for left_out in sizes:
        yield (
            [1, *(gpus for gpus in sizes if gpus != left_out)],
            [gang for gang in table.speedups if gang[0] == left_out],
        )


def _largest(table: MeasuredTable) -> int:
    return max(64, *(gpus for gpus, _ in table.speedups))


def _compared(named: Mapping[str, str], fit: ScalingFit, gangs: Sequence[Gang]) -> list[HeldOutGang]:
    found = []
    for one in gang_fits(fit, gangs):
        if one.is_used or one.measured is None:
            continue
        errors = {name: speedup / one.measured - 1 for name, speedup in one.by_family.items()}
        found.append(HeldOutGang(named, fit.chosen.family, one, errors))
    return found


def mean_errors(found: Sequence[HeldOutGang]) -> dict[str, float]:
    """Mean absolute relative error by family, and of the chosen ones."""
    means = {}
    for family in FITTED_FAMILIES:
        errors = [abs(one.errors[family]) for one in found if family in one.errors]
        if errors:
            means[family] = sum(errors) / len(errors)
    return means | {"chosen": sum(abs(one.one.error or 0.0) for one in found) / len(found)}


def coverage(found: Sequence[HeldOutGang]) -> tuple[int, int]:
    """How many of the intervals hold what was measured, and how many there are."""
    known = [one.one.is_covered for one in found if one.one.is_covered is not None]
    return sum(known), len(known)


def figure_tables(fit: ScalingFit, predicted: Sequence[Gang]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Points and curves for `experiments.figures.scaling_fit`.

    Returns:
        gpus, speedup, use (fitted, held out, on more nodes) of what was measured; and gpus, family, speedup, low, high,
        is_chosen of each family at every number of GPUs up to the largest of all, each gang on the fewest nodes.
    """
    import pandas as pd

    table = fit.table
    measured = [(gang[0], speedup, _use(fit, gang)) for gang, speedup in table.speedups.items()]
    points = pd.DataFrame(measured, columns=["gpus", "speedup", "use"])
    largest = max(gpus for gpus, _ in (*table.speedups, *predicted))
    rows = []
    for gpus in range(1, min(largest, fit.chosen.scaling.max_gpus) + 1):
        gang = (gpus, fewest_nodes(table, gpus))
        for family, one in fit.families.items():
            found = one.predict(*gang)
            rows.append((gpus, family, found.value, found.low, found.high, one is fit.chosen))
    columns = ["gpus", "family", "speedup", "low", "high", "is_chosen"]
    return points, pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})


def _use(fit: ScalingFit, gang: Gang) -> str:
    if gang[1] > fewest_nodes(fit.table, gang[0]):
        return "on more nodes"
    return "fitted" if gang in fit.fitted_on or gang == (1, 1) else "held out"


def with_kind(table: MeasuredTable, kind: Literal["weak", "strong"] | None) -> MeasuredTable:
    """The table, told how the batch was held where it does not say itself.

    Raises:
        InputError: it says the other.
    """
    if kind is None or table.kind == kind:
        return table
    if table.kind != "unstated":
        raise InputError(f"--kind {kind}: the table says itself that it is {table.kind}")
    return replace(table, kind=kind)


def measured_json(table: MeasuredTable) -> dict[str, object]:
    """What `elastune scaling show --json` prints."""
    slower = set(table.slower)
    gangs = [
        {
            "gpus": gpus,
            "nodes": nodes,
            "speedup": speedup,
            "efficiency": speedup / gpus,
            "is_slower_than_fewer": gpus in slower and nodes == fewest_nodes(table, gpus),
        }
        for (gpus, nodes), speedup in table.speedups.items()
    ]
    return {"kind": table.kind, "knows_nodes": table.knows_nodes, "gangs": gangs}


def write_imported(imported: ImportedScaling, path: Path, source: str) -> None:
    """Write an imported scaling as a table that `traces.scaling_of` reads.

    Raises:
        InputError: the file's name does not end in .csv.
    """
    if path.suffix != ".csv":
        raise InputError(f"{path}: a scaling is written to a .csv file")
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(("gpus", "nodes", "kind", "speedup", "source"))
    for (gpus, nodes), speedup in imported.scaling.points.items():
        writer.writerow((gpus, nodes, imported.scaling.kind, f"{speedup:.6g}", source))
    write_text(path, lines.getvalue())
