"""`elastune sweep`: many runs from one file."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastune.experiments.cli import options
from elastune.experiments.cli.tables import NONE, Column, Table, key, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.experiments.sweeps.run import SweepOutcome, SweepPlan


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A YAML file: base, axes, zip, seeds.", show_default=False)
    ],
    settings: options.Settings = None,
    jobs: options.PoolJobs = None,
    ray_address: options.PoolAddress = None,
    out: Annotated[Path | None, options.out_option("Folder of the results.", "results/sweeps/<file>")] = None,
    is_retrying: options.RetryFailed = False,
    with_journals: Annotated[
        bool, typer.Option("--journals", help="Keep the journal of each run, compressed.")
    ] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Show the cells and what would run; write nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run every cell of a sweep on every seed; goes on where it stopped."""
    from elastune.experiments.sweeps.grid import SweepSpec
    from elastune.experiments.sweeps.run import plan, run_sweep

    folder = out or _folder_of(file)
    planned = plan(SweepSpec.load(file, settings or []), folder)
    cells = {id(run.cell): run.cell for run in planned.runs}
    notes = options.print_notes(note for cell in cells.values() for note in cell.spec.notes())
    if is_dry:
        _show_plan(planned, folder, notes, is_retrying=is_retrying, as_json=as_json)
        return
    with options.kept_when_interrupted(folder), options.progress("Running", speed_of="runs") as on_progress:
        outcome = run_sweep(
            planned,
            folder,
            jobs=options.pool_jobs(jobs, ray_address),
            ray_address=ray_address,
            is_retrying=is_retrying,
            with_journals=with_journals,
            on_progress=on_progress,
        )
    _show_outcome(outcome, folder, notes, as_json=as_json)
    if outcome.counts["failed"]:
        raise typer.Exit(options.FAILED)


def _folder_of(file: Path) -> Path:
    return Path("results/sweeps") / file.stem


def _show_plan(
    planned: SweepPlan, folder: Path, notes: Mapping[str, list[str]], *, is_retrying: bool, as_json: bool
) -> None:
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
        runs: dict[str, object] = {"folder": str(folder), "runs": len(planned.runs), "seeds": seeds}
        options.print_json({**runs, "cells": list(cells.values()), **notes})
        return
    _cells_table(list(cells.values()), len(planned.sweep.seeds)).print()


def _cells_table(cells: Sequence[Mapping[str, Any]], seeds: int) -> Table:
    """One line per cell: its settings, and what is there of its seeds."""
    counts = ("done", "infeasible", "failed", "to_run")
    settings = list(cells[0]["settings"])
    first, *others = settings or ["cell"]
    table = Table(
        f"{len(cells)} cells on {seeds} seeds each",
        [
            Column(first, "key", footer="sum"),
            *key(*others),
            *(Column(name.replace("_", " "), footer=str(sum(cell[name] for cell in cells))) for name in counts),
        ],
    )
    for cell in cells:
        values = [value_told(cell["settings"][name]) for name in settings] or ["base"]
        table.add(*values, *(cell[name] for name in counts))
    return table


def value_told(value: object) -> str:
    """A value of a column as people read it; empty ones are a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _show_outcome(outcome: SweepOutcome, folder: Path, notes: Mapping[str, list[str]], *, as_json: bool) -> None:
    if as_json:
        told = {"folder": str(folder), "skipped": outcome.skipped, "ran": outcome.ran, **outcome.counts}
        options.print_json({**told, "failures": list(outcome.failures), **notes})
        return
    speed = f", {outcome.ran / outcome.seconds:.1f} runs/s" if outcome.ran and outcome.seconds else ""
    counts = ", ".join(f"{number} {status}" for status, number in outcome.counts.items())
    say(f"{outcome.ran} run now, {outcome.skipped} were there{speed}; in all {counts}; written to {folder}")
    for error, count in Counter(str(failure["error"]) for failure in outcome.failures).most_common(5):
        first = next(failure for failure in outcome.failures if failure["error"] == error)
        say(f"failed, {count} times: {error} (as {first['policy']}, seed {first['seed']})", err=True)
    if outcome.counts["failed"]:
        say("`--retry-failed` runs those again", err=True)
