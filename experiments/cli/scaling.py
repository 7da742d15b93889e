"""`elastune scaling`: measured speed-ups, laws fitted to them, tables of step times. Imports typer; the rest when needed."""

from __future__ import annotations

import enum
from pathlib import Path  # noqa: TC003  typer reads the annotations when the program runs
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import AsJson, print_json
from elastune.sim.model.errors import InputError
from elastune.sim.model.numbers import whole_number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.plans.scaling_fits import HeldOut

app = typer.Typer(help="How speed grows with GPUs: tables, fits, predictions.", no_args_is_help=True)


class Kind(enum.StrEnum):
    """What was held when more GPUs were measured."""

    WEAK = "weak"
    STRONG = "strong"


class FamilyName(enum.StrEnum):
    """What is fitted."""

    AUTO = "auto"
    LINEAR = "linear"
    AMDAHL = "amdahl"
    POWER = "power"
    ALLREDUCE = "allreduce"


def complete_scaling(incomplete: str) -> list[str]:
    """Shipped tables whose names begin so."""
    from elastune.traces import scaling_names

    return [name for name in scaling_names() if name.startswith(incomplete)]


TableName = Annotated[
    str,
    typer.Argument(
        metavar="TABLE",
        help="A shipped name, or a .csv; filters behind a #, as in t.csv#workload=bert,global_batch=128.",
        autocompletion=complete_scaling,
        show_default=False,
    ),
]


@app.command("list")
def list_scalings(as_json: AsJson = False) -> None:
    """The tables that ship with the project."""
    from elastune.traces import measured_table, scaling_names
    from elastune.traces.scaling.named import scaling_source

    listed = []
    for name in scaling_names():
        table = measured_table(name)
        largest = max(gpus for gpus, _ in table.speedups)
        told = {"name": name, "kind": table.kind, "max_gpus": largest, "knows_nodes": table.knows_nodes}
        listed.append({**told, "source": scaling_source(name)})
    if as_json:
        print_json(listed)
        return
    from elastune.experiments.cli.scaling_tables import print_scalings

    print_scalings(listed)


@app.command()
def show(name: TableName, as_json: AsJson = False) -> None:
    """Every measured gang of a table: speed-up, and how well it uses its GPUs."""
    from elastune.experiments.plans.scaling_fits import measured_json
    from elastune.traces import measured_table

    described = measured_json(measured_table(name))
    if as_json:
        print_json({"name": name, **described})
        return
    from elastune.experiments.cli.scaling_tables import print_measured

    print_measured(name, described)


@app.command()
def fit(
    name: TableName,
    family: Annotated[FamilyName, typer.Option(help="auto takes the one that predicts left-out points best.")] = (
        FamilyName.AUTO
    ),
    on: Annotated[
        str | None, typer.Option(metavar="GPUS", help="Fit these gangs only, as 1,2,4; all where left out.")
    ] = None,
    predict: Annotated[
        str | None, typer.Option(metavar="GANGS", help="GPUs, or GPUs x nodes, as 8,16x2; compared where measured.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="For a table that does not say.")] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="One fit for each table of a file; with --on and --predict: a hold-out."),
    ] = None,
    as_json: AsJson = False,
    figure: Annotated[Path | None, typer.Option(help="Draw points, curves and interval: a .png or .pdf file.")] = None,
) -> None:
    """Fit scaling laws to a few measured gangs, with intervals, and predict larger ones."""
    from elastune.experiments.plans.scaling_fits import figure_tables, fit_json, gangs_of, hold_out, with_kind
    from elastune.traces import fit_scaling, measured_table

    gpus = None if on is None else _counts(on)
    held: Literal["weak", "strong"] | None = None if kind is None else "weak" if kind is Kind.WEAK else "strong"
    if by is not None:
        if gpus is None or predict is None or figure is not None:
            raise InputError("--by compares many tables: it needs --on and --predict, and draws no figure")
        _print_hold_out(name, hold_out(name, _columns(by), gpus, predict, family=family.value, kind=held), as_json)
        return
    table = with_kind(measured_table(name), held)
    gangs = () if predict is None else gangs_of(predict, table)
    largest = max([64, *(count for count, _ in (*table.speedups, *gangs))])
    fitted = fit_scaling(table, family.value, on=gpus, max_gpus=largest)
    if figure is not None:
        from elastune.experiments.figures.saving import save
        from elastune.experiments.figures.scaling import scaling_fit

        save(scaling_fit(*figure_tables(fitted, gangs)), figure)
    if as_json:
        print_json(fit_json(name, fitted, gangs))
        return
    from elastune.experiments.cli.scaling_tables import print_fit

    print_fit(name, fitted, gangs)


def _print_hold_out(name: str, found: Sequence[HeldOut], as_json: bool) -> None:
    from elastune.experiments.plans.scaling_fits import coverage, mean_errors

    if as_json:
        covered, intervals = coverage(found)
        summary = {"mean_absolute_error": mean_errors(found), "covered": covered, "intervals": intervals}
        print_json({"gangs": [one.to_json() for one in found], **summary})
        return
    from elastune.experiments.cli.scaling_tables import print_held_out

    print_held_out(name, found)


def _counts(text: str) -> list[int]:
    try:
        counts = [whole_number_of(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise InputError(f"--on {text!r}: give numbers of GPUs with commas between, as 1,2,4")
    return counts


def _columns(text: str) -> list[str]:
    columns = [part.strip() for part in text.split(",") if part.strip()]
    if not columns:
        raise InputError(f"--by {text!r} names no column")
    return columns


@app.command("import")
def import_table(
    file: Annotated[
        Path, typer.Argument(help="Step times in the form of Pollux's artifact, .csv or .csv.gz.", show_default=False)
    ],
    workload: Annotated[str, typer.Option(help="The text of its column workload.")],
    kind: Annotated[Kind, typer.Option(help="weak: the batch of each GPU is fixed; strong: that of the gang.")],
    batch: Annotated[int, count_option(help="Samples per GPU (weak) or of the gang (strong).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The table to write, a .csv.")],
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=TEXT", help="Only rows with this text, as kind=placements.")
    ] = None,
) -> None:
    """Make a table by GPUs and nodes of measured step times; a run spec takes it as workload.scaling."""
    from elastune.experiments.plans.scaling_fits import write_imported
    from elastune.traces.importers.step_times import import_step_times
    from elastune.traces.scaling.tables import filters_of

    imported = import_step_times(file, workload, kind.value, batch, filters_of(",".join(where or [])))
    source = f"{file.name}: workload {workload}, {kind.value} scaling, batch {batch}"
    write_imported(imported, out, source)
    for note in imported.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(str(out))
