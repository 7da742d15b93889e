"""`elastune scaling`: measured speed-ups, laws fitted to them, tables of step times."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from elastune.experiments.cli.completion import complete_scaling
from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import AsJson, Figure, out_option, print_json
from elastune.experiments.cli.table_views import with_view
from elastune.experiments.cli.tables import NONE, Table, interval, key, number, numbers, say, text
from elastune.sim.model.errors import InputError
from elastune.sim.model.numbers import whole_number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.experiments.plans.scaling_fits import GangFit, HeldOutGang, HoldOut
    from elastune.traces.scaling.fit import ScalingFit, SpeedupEstimate

    Gang = tuple[int, int]

app = typer.Typer(help="How speed grows with GPUs: tables, fits, predictions.", no_args_is_help=True)


Kind: TypeAlias = Literal["weak", "strong"]
"""What was held when more GPUs were measured."""


FamilyName: TypeAlias = Literal["auto", "linear", "amdahl", "power", "allreduce"]
"""What is fitted."""


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
@with_view
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
    shown = Table("", [*key("scaling"), *text("kind"), *numbers("to GPUs"), *text("by", "source")])
    for one in listed:
        by = "GPUs and nodes" if one["knows_nodes"] else "GPUs, packed"
        shown.add(one["name"], one["kind"], one["max_gpus"], by, one["source"])
    shown.print()


@app.command()
def show(name: TableName, as_json: AsJson = False) -> None:
    """Every measured gang of a table: speed-up, and how well it uses its GPUs."""
    from elastune.experiments.plans.scaling_fits import measured_json
    from elastune.traces import measured_table

    described = measured_json(measured_table(name))
    if as_json:
        print_json({"name": name, **described})
        return
    _measured_table(name, described).print()


def _measured_table(name: str, described: Mapping[str, Any]) -> Table:
    """One line per gang."""
    by = "by GPUs and nodes" if described["knows_nodes"] else "by GPUs, packed"
    columns = [*numbers("GPUs", "nodes", "speed-up", "per GPU"), *text("")]
    table = Table(f"{name}: {described['kind']} scaling, {by}", columns)
    for one in described["gangs"]:
        remark = "slower than fewer GPUs" if one["is_slower_than_fewer"] else ""
        nodes = str(one["nodes"]) if described["knows_nodes"] else NONE
        table.add(one["gpus"], nodes, number(one["speedup"], 3), f"{100 * one['efficiency']:.0f} %", remark)
    return table


@app.command()
def fit(
    name: TableName,
    family: Annotated[FamilyName, typer.Option(help="auto takes the one that predicts left-out points best.")] = (
        "auto"
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
        typer.Option(
            metavar="COLUMNS",
            help="Compare the tables of a file: --predict from --on, or each size from the others where neither is given.",
        ),
    ] = None,
    as_json: AsJson = False,
    figure: Figure = None,
) -> None:
    """Fit scaling laws to a few measured gangs, with intervals, and predict larger ones."""
    from elastune.experiments.plans.scaling_fits import figure_tables, fit_json, gangs_of, hold_out, with_kind
    from elastune.experiments.spec.yaml_file import names_in
    from elastune.traces import fit_scaling, measured_table

    gpus = None if on is None else _counts(on)
    if by is not None:
        if (gpus is None) != (predict is None) or figure is not None:
            raise InputError(
                "--by compares many tables: give --on and --predict, or neither to leave each size out once; it draws no figure"
            )
        _print_hold_out(
            name, hold_out(name, names_in(by, "--by"), gpus, predict, family=family, kind=kind), predict, as_json
        )
        return
    table = with_kind(measured_table(name), kind)
    gangs = () if predict is None else gangs_of(predict, table)
    largest = max([64, *(count for count, _ in (*table.speedups, *gangs))])
    fitted = fit_scaling(table, family, on=gpus, max_gpus=largest)
    if figure is not None:
        from elastune.experiments.figures.scaling import scaling_fit
        from elastune.experiments.figures.style import save

        save(scaling_fit(*figure_tables(fitted, gangs)), figure)
        say(f"figure: {figure}", err=True)
    if as_json:
        print_json(fit_json(name, fitted, gangs))
        return
    _print_fit(name, fitted, gangs)


def _print_hold_out(name: str, compared: HoldOut, predict: str | None, as_json: bool) -> None:
    from elastune.experiments.plans.scaling_fits import coverage, mean_errors

    found = compared.found
    if as_json:
        covered, intervals = coverage(found)
        summary = {"mean_absolute_error": mean_errors(found), "covered": covered, "intervals": intervals}
        print_json({"gangs": [one.to_json() for one in found], **summary, "not_measured": list(compared.missing)})
        return
    _print_held_out(name, found, is_each=predict is None)
    if compared.missing:
        why = "have too few others to be predicted from" if predict is None else "were not measured by their tables"
        say(f"{len(compared.missing)} gangs {why}, and are not compared; --json names them")


def _counts(given: str) -> list[int]:
    try:
        counts = [whole_number_of(part) for part in given.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise InputError(f"--on {given!r}: give numbers of GPUs with commas between, as 1,2,4")
    return counts


@app.command("import")
def import_table(
    file: Annotated[
        Path, typer.Argument(help="Step times in the form of Pollux's artifact, .csv or .csv.gz.", show_default=False)
    ],
    workload: Annotated[str, typer.Option(help="The text of its column workload.")],
    kind: Annotated[Kind, typer.Option(help="weak: the batch of each GPU is fixed; strong: that of the gang.")],
    batch: Annotated[int, count_option(help="Samples per GPU (weak) or of the gang (strong).")],
    out: Annotated[Path, out_option("The table to write, a .csv.")],
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=TEXT", help="Only rows with this text, as kind=placements.")
    ] = None,
) -> None:
    """Make a table by GPUs and nodes of measured step times; a run spec takes it as workload.scaling."""
    from elastune.experiments.files import check_outputs
    from elastune.experiments.plans.scaling_fits import write_imported
    from elastune.traces.importers.step_times import import_step_times
    from elastune.traces.scaling.tables import filters_of

    check_outputs(out, reads=[file])
    imported = import_step_times(file, workload, kind, batch, filters_of(",".join(where or [])))
    source = f"{file.name}: workload {workload}, {kind} scaling, batch {batch}"
    write_imported(imported, out, source)
    for note in imported.notes:
        say(f"note: {note}", err=True)
    say(str(out))


def _error(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:+.0f} %"


def _with_interval(found: SpeedupEstimate) -> str:
    if found.low is None or found.high is None:
        return number(found.value, 3)
    return interval(found.value, found.low, found.high, 3)


def _print_fit(name: str, fit: ScalingFit, predicted: Sequence[Gang]) -> None:
    """The families, then every gang, then what should be known, then what a spec holds."""
    from elastune.traces.scaling.inline import inline_of

    _families_table(name, fit).print()
    _gangs_table(fit, predicted).print()
    for note in fit.notes:
        say(f"note: {note}")
    say(
        "note: intervals are at least as wide as the usual error of their family; the other columns show what another says"
    )
    say(f"workload.scaling: {json.dumps(inline_of(fit.chosen.scaling))}")


def _families_table(name: str, fit: ScalingFit) -> Table:
    from elastune.experiments.plans.scaling_fits import as_text
    from elastune.traces.scaling.fit import LEVEL

    title = f"{name}: {fit.table.kind} scaling, fitted on {', '.join(map(as_text, fit.fitted_on))} GPUs over 1"
    parameters = text(f"parameters, {100 * LEVEL:.0f} % intervals")
    table = Table(title, [*key("family"), *parameters, *numbers("points over parameters", "left-out error")])
    for family, one in fit.families.items():
        found = ", ".join(f"{key} {_with_interval(found)}" for key, found in one.parameters.items()) or NONE
        error = NONE if one.left_out_error is None else f"{100 * math.expm1(one.left_out_error):.1f} %"
        table.add(f"{family} *" if one is fit.chosen else family, found, one.degrees_of_freedom, error)
    return table


def _gangs_table(fit: ScalingFit, predicted: Sequence[Gang]) -> Table:
    from elastune.experiments.plans.scaling_fits import as_text, gang_fits
    from elastune.traces.scaling.fit import LEVEL

    others = [family for family in fit.families if family != fit.chosen.family]
    headings = ("measured", f"{fit.chosen.family} *", "error", *others)
    title = f"Speed-ups; predictions with {100 * LEVEL:.0f} % intervals"
    table = Table(title, [*key("GPUs (x nodes)"), *numbers(*headings)])
    for gang in gang_fits(fit, predicted):
        estimate = number(gang.chosen.value, 3) if gang.is_used else _with_interval(gang.chosen)
        values = [number(gang.by_family[family], 3) for family in others]
        role = "" if gang.is_used else " predicted"
        table.add(f"{as_text(gang.gang)}{role}", number(gang.measured, 3), estimate, _error(gang.error), *values)
    return table


def _print_held_out(name: str, found: Sequence[HeldOutGang], *, is_each: bool) -> None:
    """One line per gang of each table, and the means."""
    from elastune.experiments.plans.scaling_fits import coverage, mean_errors
    from elastune.traces.scaling.fit import LEVEL

    _held_out_table(name, found).print()
    if is_each:
        say("each size predicted from the others of its table")
    means = ", ".join(f"{family} {100 * error:.0f} %" for family, error in mean_errors(found).items())
    covered, intervals = coverage(found)
    say(f"mean absolute error over {len(found)} gangs: {means}")
    say(f"{covered} of {intervals} intervals of {100 * LEVEL:.0f} % hold what was measured")


def _held_out_table(name: str, found: Sequence[HeldOutGang]) -> Table:
    from elastune.experiments.plans.scaling_fits import as_text
    from elastune.traces.scaling.laws import FITTED_FAMILIES

    families = [family for family in FITTED_FAMILIES if any(family in one.errors for one in found)]
    columns = [*numbers("measured"), *text("chosen"), *numbers("predicted", "error", *families)]
    table = Table(f"{name}: predicted less measured, relative", [*key(*found[0].group, "GPUs"), *columns])
    for one in found:
        errors = [_error(one.errors.get(family)) for family in families]
        told = (as_text(one.one.gang), number(one.one.measured, 3), one.family, _interval_of(one.one))
        table.add(*one.group.values(), *told, _error(one.one.error), *errors)
    return table


def _interval_of(one: GangFit) -> str:
    return _with_interval(one.chosen) + (" !" if one.is_covered is False else "")
