"""`elastune figures`: figures and tables of the catalogue, from runs that are made where they are missing. Imports typer."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from elastune.experiments.cli import options
from elastune.experiments.cli.completion import begins
from elastune.experiments.cli.tables import Column, Table, duration, key, numbers, say, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from elastune.experiments.claims.drawing import Drawing, Failures, Needed
    from elastune.experiments.claims.writing import Written


ALL = "all"
"""The name of everything."""
RESULTS, _OUT = Path("results/catalog"), Path("results/figures")

DataFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of real data that does not ship; without it those parts are left out.",
        show_default="ELASTUNE_DATA, else the configuration file's",
    ),
]
ResultsFolder: TypeAlias = Annotated[
    Path, typer.Option("--results", help="Folder of the runs, which a later call goes on with.")
]


def _names() -> list[str]:
    from elastune.experiments.claims import load_claims

    claims = load_claims()
    return [ALL, *claims, *(name for claim in claims.values() for name in claim.figures)]


complete_figure = begins(_names)


def figures(  # noqa: PLR0913, PLR0917  the options of a command
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAMES]...",
            help="Figures, or claims (their figures and table), or `all`; left out, they are listed and asked for.",
            autocompletion=complete_figure,
        ),
    ] = None,
    is_full: Annotated[
        bool, typer.Option("--full/--smoke", help="The full size, which may take hours, or a few runs of each.")
    ] = False,
    data: DataFolder = None,
    out: Annotated[Path, options.out_option("Folder of figures and tables.", str(_OUT))] = _OUT,
    results: ResultsFolder = RESULTS,
    jobs: options.PoolJobs = None,
    ray_address: options.PoolAddress = None,
    is_retrying: options.RetryFailed = False,
    is_listing: Annotated[
        bool, typer.Option("--list", help="Show figures, and which runs are missing; write nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run what is missing for the figures of the papers' claims, and draw them."""
    from elastune.experiments.claims.drawing import needed, prepare
    from elastune.experiments.claims.writing import write_all
    from elastune.experiments.spec.places import data_folders

    def ready(names: Sequence[str]) -> Drawing:
        asked = [] if ALL in names else names
        return prepare(asked, "full" if is_full else "smoke", results=results, data=data_folders(data))

    if is_listing:
        drawing = ready(names or [])
        with on_one_bar("Counting") as on_progress:
            parts = needed(drawing, is_retrying=is_retrying, is_counting=True, on_progress=on_progress)
        _show_list(drawing, parts, as_json=as_json)
        return
    if not names:
        _show_list(ready([]), (), as_json=as_json)
        names = _asked_for(is_json=as_json)
        if not names:
            return
    drawing = ready(names)
    parts, failures = run_parts(drawing, results, jobs, ray_address, is_retrying=is_retrying)
    written = write_all(drawing, out, lambda name: _command(name, data, is_full=is_full))
    _show(drawing, parts, written, failures, out, as_json=as_json)
    if failures.counts:
        raise typer.Exit(options.FAILED)


def _asked_for(*, is_json: bool) -> list[str]:
    """The names that are typed in; none where nobody is there to ask, or a program reads the list."""
    if is_json or not sys.stdin.isatty():
        say(
            "Ask by name, as `elastune figures S1`; --list counts the runs that are missing, `all` draws everything.",
            err=True,
        )
        return []
    return str(typer.prompt("Which, with spaces between", default="", show_default=False, err=True)).split()


def run_parts(
    drawing: Drawing, results: Path, jobs: int | None, ray_address: str | None, *, is_retrying: bool
) -> tuple[list[Needed], Failures]:
    """Say how long it takes, and run what is missing; returns all parts, and which runs failed."""
    from elastune.experiments.claims.drawing import needed, run_missing

    processes = options.pool_jobs(jobs, ray_address)
    with options.kept_when_interrupted(results), on_one_bar("Running") as on_progress:
        parts = needed(drawing, is_retrying=is_retrying, on_progress=on_progress)
        _say_time(parts, processes)
        failures = run_missing(
            parts, jobs=processes, ray_address=ray_address, is_retrying=is_retrying, on_progress=on_progress
        )
    return parts, failures


def _say_time(parts: Sequence[Needed], processes: int | None) -> None:
    """Say on standard error how much is missing and about how long it takes."""
    missing, core_s = sum(part.missing for part in parts), sum(part.core_s for part in parts)
    if missing:
        on = "on a cluster of as many CPUs as there are" if processes is None else f"with --jobs {processes}"
        say(f"{missing:,} runs and plans are missing: about {duration(core_s / (processes or 1))} {on}", err=True)


@contextmanager
def on_one_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """One bar over everything; yields what is told: what is under way, done, total."""
    with options.progress(title) as tell:
        yield lambda label, done, total: tell(done, total, label)


def _command(name: str, data: Path | None, *, is_full: bool) -> str:
    """The command that draws one of them."""
    given = [*(["--full"] if is_full else []), *(["--data", "DIR"] if data is not None else [])]
    return shlex.join(["elastune", "figures", name, *given])


def _show_list(drawing: Drawing, parts: Sequence[Needed], *, as_json: bool) -> None:
    listed = [
        {
            "name": asked.name,
            "claim": asked.claim.id,
            "draw": asked.drawn.draw,
            "experiment": asked.drawn.experiment,
            "caption": asked.drawn.caption,
        }
        for asked in drawing.figures
    ]
    runs = [{"part": part.label, "total": part.total, "missing": part.missing} for part in parts]
    if as_json:
        options.print_json({"size": drawing.size, "figures": listed, "parts": runs, "left_out": _left_out(drawing)})
        return
    _print_list(listed, runs)
    if runs:
        _say_left_out(drawing)


def _left_out(drawing: Drawing) -> list[dict[str, str]]:
    return [
        {"part": f"{part.claim} {part.experiment}, {part.workload}", "reason": part.reason} for part in drawing.left_out
    ]


def _show(
    drawing: Drawing,
    parts: Sequence[Needed],
    written: Sequence[Written],
    failures: Failures,
    out: Path,
    *,
    as_json: bool,
) -> None:
    told, failed = [each.to_json() for each in written], _failed(failures)
    if as_json:
        ran = {"ran": sum(part.missing for part in parts), "of": sum(part.total for part in parts)}
        options.print_json(
            {
                "folder": str(out),
                "size": drawing.size,
                **ran,
                "written": told,
                "left_out": _left_out(drawing),
                "failed": failed,
            }
        )
        return
    _written_table(told, out).print()
    _say_left_out(drawing)
    say_failures(failures)


def _failed(failures: Failures) -> list[dict[str, Any]]:
    return [
        {"part": label, "failed": count, "error": failures.first[label]} for label, count in failures.counts.items()
    ]


def say_failures(failures: Failures, *, err: bool = False) -> None:
    """Say which runs failed, and how to run them again; on standard error where standard output holds JSON."""
    for row in _failed(failures):
        say(f"failed, {row['failed']} runs of {row['part']}: {row['error']}; `--retry-failed` runs them again", err=err)


def _print_list(listed: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> None:
    """Figures with their claims, and how much of what they take is there."""
    table = Table("Figures", [*key("figure"), *text("claim", "drawn from", "what it shows")])
    for row in listed:
        table.add(row["name"], row["claim"], row["experiment"], row["caption"])
    table.print()
    if not runs:
        return
    sums = (Column(name, footer=f"{sum(row[name] for row in runs):,}") for name in ("total", "missing"))
    total = Table("Runs and plans", [Column("part", "key", "sum"), *sums])
    for row in runs:
        total.add(row["part"], f"{row['total']:,}", f"{row['missing']:,}")
    total.print()


def _written_table(written: Sequence[Mapping[str, Any]], folder: Path) -> Table:
    table = Table(f"Written to {folder}", [*key("name", "claim"), *numbers("rows"), *text("drawn")])
    for row in written:
        reason = row["left_out"]
        kinds = " ".join(path.rpartition(".")[2] for path in row["files"])
        table.add(row["name"], row["claim"], f"{row['rows']:,}", kinds if reason is None else f"left out: {reason}")
    return table


def _say_left_out(drawing: Drawing) -> None:
    for row in _left_out(drawing):
        say(f"left out: {row['part']}: {row['reason']}")
