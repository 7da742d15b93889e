"""`elastune claims`: run what the papers' claims need and is missing, and decide them. Imports typer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastune.experiments.cli import options
from elastune.experiments.cli.completion import complete_claim
from elastune.experiments.cli.figures import (
    RESULTS,
    DataFolder,
    ResultsFolder,
    on_one_bar,
    run_parts,
    say_failures,
)
from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.tables import Table, key, print_pairs, say, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.experiments.claims.drawing import Drawing


def claims(  # noqa: PLR0913, PLR0917  the options of a command
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IDS]...", help="Claims, as S1; left out, all of them.", autocompletion=complete_claim),
    ] = None,
    is_smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="A few runs of each, in minutes; decides nothing.", rich_help_panel=options.COMPUTE
        ),
    ] = False,
    seeds: Annotated[
        int | None,
        count_option(
            help="Fewer seeds than the full size has; the table says so.",
            show_default="all",
            rich_help_panel=options.COMPUTE,
        ),
    ] = None,
    data: DataFolder = None,
    out: Annotated[Path | None, options.out_option("Folder for claims.md, claims.json and the figures.")] = None,
    results: ResultsFolder = RESULTS,
    jobs: options.PoolJobs = None,
    ray_address: options.PoolAddress = None,
    is_retrying: options.RetryFailed = False,
    as_json: options.AsJson = False,
) -> None:
    """Decide the papers' claims: run what is missing, then print what was measured, where it holds, and a verdict."""
    from elastune.experiments.claims import load_claims
    from elastune.experiments.claims.drawing import prepare
    from elastune.experiments.claims.verdicts import verdicts
    from elastune.experiments.spec.places import data_folders
    from elastune.sim.model.errors import unknown

    known = load_claims()
    for name in ids or []:
        if name not in known:
            raise unknown("claim", name, known)
    if is_smoke:
        options.refuse({"--seeds": seeds}, "the smoke size has seeds of its own")
    size = "smoke" if is_smoke else "full" if seeds is None else f"at most {seeds} seeds"
    drawing = prepare(
        ids or [], "smoke" if is_smoke else "full", results=results, data=data_folders(data), most_seeds=seeds
    )
    _, failures = run_parts(drawing, results, jobs, ray_address, is_retrying=is_retrying)
    with on_one_bar("Deciding"):
        records = verdicts(drawing, size)
    if out is not None:
        _write(drawing, records, out, tuple(known), _command(ids or [], data, seeds, is_smoke=is_smoke))
    if as_json:
        options.print_json(records)
    else:
        _print(records)
    say_failures(failures, err=as_json)
    if failures.counts:
        raise typer.Exit(options.FAILED)


def _write(
    drawing: Drawing,
    records: Sequence[Mapping[str, Any]],
    out: Path,
    order: Sequence[str],
    command: str,
) -> None:
    from elastune.experiments.claims.page import FIGURES, write_page
    from elastune.experiments.claims.writing import write_all

    drawn = {each.name for each in write_all(drawing, out / FIGURES, lambda _name: command) if each.files}
    told = [{**record, "figures": [name for name in record["figures"] if name in drawn]} for record in records]
    for path in write_page(told, out, order):
        say(f"written: {path}", err=True)


def _command(ids: Sequence[str], data: Path | None, seeds: int | None, *, is_smoke: bool) -> str:
    """The command as it was given, as far as it decides the numbers."""
    given = ["--smoke"] if is_smoke else [] if seeds is None else ["--seeds", str(seeds)]
    return shlex.join(["elastune", "claims", *ids, *given, *([] if data is None else ["--data", "DIR"])])


def _print(records: Sequence[Mapping[str, Any]]) -> None:
    """Each claim with all that is known of it, then one table of the verdicts."""
    from elastune.experiments.claims.page import measured, verdict

    for record in records:
        print_pairs(f"{record['id']}: {record['claim']}", _told(record))
    table = Table("Verdicts", [*key("id"), *text("claim", "measured", "verdict")])
    for record in records:
        table.add(record["id"], record["claim"], measured(record), verdict(record))
    table.print()


def _told(record: Mapping[str, Any]) -> dict[str, object]:
    from elastune.experiments.claims.page import interval, verdict

    told: dict[str, object] = {
        "source": f"{record['source']}; {record['flag']}",
        "expected": record["expected"],
    }
    for name, tests in (("measured", record["tests"]), ("beside", record["beside"])):
        for number, test in enumerate(tests, start=1):
            counts = f"{test['pairs']:,} pairs, {test['families']} families"
            told[f"{name} {number}"] = f"{test['gain']}: {interval(test)}, needed: {test['needed']}; {counts}"
    told |= {f"condition {number}": text for number, text in enumerate(record["conditions"], start=1)}
    return told | {"where": record["where"] or "-", "verdict": verdict(record)}
