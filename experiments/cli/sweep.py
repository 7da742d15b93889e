"""`elastune sweep`: many runs from one file. Imports typer; the rest when needed."""

from __future__ import annotations

from collections import Counter
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
    print_json,
    progress,
)

if TYPE_CHECKING:
    from elastune.experiments.sweeps.run import Outcome, Plan


def complete_setting(incomplete: str) -> list[str]:
    """The keys of a run spec that begin so, as `--set` takes them."""
    from elastune.experiments.sweeps.rows import spec_columns

    return [f"{key}=" for key in ("seed", *spec_columns()) if key.startswith(incomplete)]


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A YAML file: base, axes, zip, seeds.", show_default=False)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the base.", autocompletion=complete_setting),
    ] = None,
    jobs: PoolJobs = None,
    ray_address: PoolAddress = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the results.", show_default="results/sweeps/<file>")
    ] = None,
    is_retrying: RetryFailed = False,
    with_journals: Annotated[
        bool, typer.Option("--journals", help="Keep the journal of each run, compressed.")
    ] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Show the cells and what would run; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run every cell of a sweep on every seed; goes on where it stopped."""
    from elastune.experiments.sweeps.grid import SweepSpec
    from elastune.experiments.sweeps.run import plan, run_sweep

    folder = out or _folder_of(file)
    planned = plan(SweepSpec.load(file, settings or []), folder)
    if is_dry:
        _show_plan(planned, folder, is_retrying=is_retrying, as_json=as_json)
        return
    with kept_when_interrupted(folder), progress("Running", speed_of="runs") as on_progress:
        outcome = run_sweep(
            planned,
            folder,
            jobs=jobs,
            ray_address=ray_address,
            is_retrying=is_retrying,
            with_journals=with_journals,
            on_progress=on_progress,
        )
    _show_outcome(outcome, folder, as_json=as_json)
    if outcome.counts["failed"]:
        raise typer.Exit(FAILED)


def _folder_of(file: Path) -> Path:
    return Path("results/sweeps") / file.stem


def _show_plan(planned: Plan, folder: Path, *, is_retrying: bool, as_json: bool) -> None:
    cells: dict[int, dict[str, Any]] = {}
    for run in planned.runs:
        row = cells.setdefault(
            id(run.cell),
            {"settings": dict(run.cell.settings), **dict.fromkeys(("done", "infeasible", "failed", "to_run"), 0)},
        )
        status = planned.status(run)
        if status is not None:
            row[status] += 1
        if status is None or (is_retrying and status == "failed"):
            row["to_run"] += 1
    if as_json:
        seeds = planned.sweep.seeds
        print_json({"folder": str(folder), "runs": len(planned.runs), "seeds": seeds, "cells": list(cells.values())})
        return
    from elastune.experiments.cli.sweep_tables import print_plan

    print_plan(list(cells.values()), len(planned.sweep.seeds))


def _show_outcome(outcome: Outcome, folder: Path, *, as_json: bool) -> None:
    if as_json:
        told = {"folder": str(folder), "skipped": outcome.skipped, "ran": outcome.ran, **outcome.counts}
        print_json({**told, "failures": list(outcome.failures)})
        return
    speed = f", {outcome.ran / outcome.seconds:.1f} runs/s" if outcome.ran and outcome.seconds else ""
    counts = ", ".join(f"{number} {status}" for status, number in outcome.counts.items())
    typer.echo(f"{outcome.ran} run now, {outcome.skipped} were there{speed}; in all {counts}; written to {folder}")
    for error, count in Counter(str(failure["error"]) for failure in outcome.failures).most_common(5):
        first = next(failure for failure in outcome.failures if failure["error"] == error)
        typer.echo(f"failed, {count} times: {error} (as {first['policy']}, seed {first['seed']})", err=True)
    if outcome.counts["failed"]:
        typer.echo("`--retry-failed` runs those again", err=True)
