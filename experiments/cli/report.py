"""`elastune report`: one page about a run, a sweep, a comparison or a recommendation. Imports typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import OUTPUT, Jobs, cores, out_option, progress
from elastune.experiments.cli.tables import say
from elastune.sim.model.errors import InputError


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder of a run, sweep, comparison or recommendation.", show_default=False
        ),
    ],
    out: Annotated[Path, out_option("The page.", "report.html")] = Path("report.html"),
    perfetto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a run: a trace for ui.perfetto.dev, too.", rich_help_panel=OUTPUT),
    ] = None,
    mlflow: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of a run: add it to this tracking folder of MLflow, too.", rich_help_panel=OUTPUT
        ),
    ] = None,
    wandb: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of a run: write it as offline runs of W&B, too.", rich_help_panel=OUTPUT),
    ] = None,
    seeds: Annotated[
        int, count_option(least=0, help="To try T + 10 % and B + 10 % on; 0 leaves that out (not for a sweep).")
    ] = 20,
    policy: Annotated[
        str | None, typer.Option(help="Names the code of a policy that does not ship, which is then run to try that.")
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Write one page that needs no network: who won and why, where the money went, what idled, what more would change."""
    from elastune.experiments.files import check_outputs, write_text
    from elastune.experiments.real.slots import require_installed
    from elastune.experiments.reports.build import report_of, require_readable
    from elastune.experiments.reports.page import rendered
    from elastune.experiments.reports.what_if import WhatIf

    kind = require_readable(folder)
    exports = {"--perfetto": perfetto, "--mlflow": mlflow, "--wandb": wandb}
    for option, path in exports.items():
        if path is not None and not kind.endswith("run"):
            raise InputError(f"{option}: {folder} holds a {kind}, but what it writes is of one run")
    for tracker, path in (("mlflow", mlflow), ("wandb", wandb)):
        if path is not None:
            require_installed(f"--{tracker}", tracker, extra=tracker)
            if path.exists() and not path.is_dir():
                raise InputError(f"--{tracker}: {path} is a file, but the runs go into a folder")
    check_outputs(out, *([] if perfetto is None else [perfetto]), reads=filter(_is_record, folder.rglob("*")))
    with progress("Running") as tell:
        page = rendered(report_of(WhatIf(folder, seeds, cores(jobs), policy, tell)))
    write_text(out, page)
    say(f"written to {out}")
    if perfetto is not None:
        _write_trace(folder, perfetto)
    if mlflow is not None or wandb is not None:
        _write_to_trackers(folder, mlflow, wandb)


def _is_record(path: Path) -> bool:
    """Whether a file belongs to what is reported, and is no page or trace that was written into its folder."""
    is_written = path.suffix == ".html" or (
        path.suffix == ".json" and path.stem not in ("result", "recommendation", "real")
    )
    return path.is_file() and not is_written


def _write_trace(folder: Path, path: Path) -> None:
    import json

    from elastune.experiments.files import write_text
    from elastune.experiments.reports.of_run import RecordedRun
    from elastune.experiments.reports.perfetto import trace_of

    run = RecordedRun.read(folder)
    write_text(
        path, json.dumps(trace_of(run.timeline, run.decisions, run.name), allow_nan=False, separators=(",", ":"))
    )
    say(f"written to {path}: open it at ui.perfetto.dev")


def _write_to_trackers(folder: Path, mlflow: Path | None, wandb: Path | None) -> None:
    from elastune.experiments.reports import trackers
    from elastune.experiments.reports.of_run import RecordedRun

    run = RecordedRun.read(folder)
    if mlflow is not None:
        count = trackers.write_mlflow(run, mlflow)
        say(f"{count} runs of MLflow written to {mlflow}, experiment {trackers.PROJECT}")
    if wandb is not None:
        count = trackers.write_wandb(run, wandb)
        say(f"{count} offline runs of W&B written to {wandb}; to upload them: wandb sync {wandb}/wandb/offline-run-*")
