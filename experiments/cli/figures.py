"""`elastune figures`: figures and tables of the catalogue, from runs that are made where they are missing. Imports typer."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastune.experiments.cli.options import (
    FAILED,
    AsJson,
    PoolAddress,
    PoolJobs,
    RetryFailed,
    kept_when_interrupted,
    out_option,
    pool_jobs,
    print_json,
    progress,
)
from elastune.experiments.cli.tables import Column, Table, key, numbers, say, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from elastune.experiments.claims.drawing import Failures, Needed
    from elastune.experiments.claims.writing import Written


ALL = "all"
"""The name of everything."""
_RESULTS, _OUT = Path("results/catalog"), Path("results/figures")


def complete_figure(incomplete: str) -> list[str]:
    """Figures and claims whose names begin so."""
    from elastune.experiments.claims import load_claims

    claims = load_claims()
    names = [ALL, *claims, *(name for claim in claims.values() for name in claim.figures)]
    return [name for name in names if name.startswith(incomplete)]


def figures(  # noqa: PLR0913, PLR0917  the options of a command
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAMES]...",
            help="Figures, or claims (their figures and table), or `all`; left out, they are listed.",
            autocompletion=complete_figure,
        ),
    ] = None,
    is_smoke: Annotated[bool, typer.Option("--smoke", help="A few runs of each, in seconds.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real data that does not ship; without it those parts are left out.",
            show_default="ELASTUNE_DATA, else the configuration file's",
        ),
    ] = None,
    out: Annotated[Path, out_option("Folder of figures and tables.", str(_OUT))] = _OUT,
    results: Annotated[Path, typer.Option(help="Folder of the runs, which a later call goes on with.")] = _RESULTS,
    jobs: PoolJobs = None,
    ray_address: PoolAddress = None,
    is_retrying: RetryFailed = False,
    is_listing: Annotated[
        bool, typer.Option("--list", help="Show figures, and which runs are missing; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run what is missing for the figures of the papers' claims, and draw them."""
    from elastune.experiments.claims.drawing import needed, prepare, run_missing
    from elastune.experiments.claims.writing import write_all
    from elastune.experiments.spec.places import data_folders

    asked = [] if ALL in (names or ()) else names or []
    drawing = prepare(asked, "smoke" if is_smoke else "full", results=results, data=data_folders(data))
    if is_listing:
        with _progress("Counting") as on_progress:
            parts = needed(drawing, is_retrying=is_retrying, is_counting=True, on_progress=on_progress)
        _show_list(drawing, parts, as_json=as_json)
        return
    if not names:
        _show_list(drawing, (), as_json=as_json)
        say(
            "Ask by name, as `elastune figures S1 --smoke`; --list counts the runs that are missing, `all` draws everything.",
            err=True,
        )
        return
    with kept_when_interrupted(results), _progress("Running") as on_progress:
        parts = needed(drawing, is_retrying=is_retrying, on_progress=on_progress)
        failures = run_missing(
            parts,
            jobs=pool_jobs(jobs, ray_address),
            ray_address=ray_address,
            is_retrying=is_retrying,
            on_progress=on_progress,
        )
    written = write_all(drawing, out, lambda name: _command(name, data, is_smoke=is_smoke))
    _show(drawing, parts, written, failures, out, as_json=as_json)
    if failures.counts:
        raise typer.Exit(FAILED)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """One bar over everything; yields what is told: what is under way, done, total."""
    with progress(title) as tell:
        yield lambda label, done, total: tell(done, total, label)


def _command(name: str, data: Path | None, *, is_smoke: bool) -> str:
    """The command that draws one of them."""
    options = [*(["--smoke"] if is_smoke else []), *(["--data", str(data)] if data is not None else [])]
    return shlex.join(["elastune", "figures", name, *options])


def _show_list(drawing: Any, parts: Sequence[Needed], *, as_json: bool) -> None:  # noqa: ANN401  experiments.claims.drawing.Drawing, imported when needed
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
        print_json({"size": drawing.size, "figures": listed, "parts": runs, "left_out": _left_out(drawing)})
        return
    _print_list(listed, runs)
    if runs:
        _say_left_out(drawing)


def _left_out(drawing: Any) -> list[dict[str, str]]:  # noqa: ANN401  see _show_list
    return [
        {"part": f"{part.claim} {part.experiment}, {part.workload}", "reason": part.reason} for part in drawing.left_out
    ]


def _show(
    drawing: Any,  # noqa: ANN401  see _show_list
    parts: Sequence[Needed],
    written: Sequence[Written],
    failures: Failures,
    out: Path,
    *,
    as_json: bool,
) -> None:
    told = [each.to_json() for each in written]
    failed = [
        {"part": label, "failed": count, "error": failures.first[label]} for label, count in failures.counts.items()
    ]
    if as_json:
        ran = {"ran": sum(part.missing for part in parts), "of": sum(part.total for part in parts)}
        print_json(
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
    for row in failed:
        say(f"failed, {row['failed']} runs of {row['part']}: {row['error']}; `--retry-failed` runs them again")


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


def _say_left_out(drawing: Any) -> None:  # noqa: ANN401  see _show_list
    for row in _left_out(drawing):
        say(f"left out: {row['part']}: {row['reason']}")
