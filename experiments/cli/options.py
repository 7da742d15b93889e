"""What the commands share: options, completion of names, progress. Imports typer; rich when it is drawn."""

from __future__ import annotations

import enum
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import typer

from elastune.experiments.cli.numbers import count_option
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import Console

    from elastune.experiments.spec.run import RunSpec

_PIPED_WIDTH = 200
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.")]
PoolJobs: TypeAlias = Annotated[
    int | None, count_option(help="Processes.", show_default="2, or all CPUs of a Ray cluster")
]
PoolAddress: TypeAlias = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="Run on this Ray cluster (auto: the one around).")
]
RetryFailed: TypeAlias = Annotated[bool, typer.Option("--retry-failed", help="Run those that failed again.")]


class Device(enum.StrEnum):
    """What a slot of real workers is."""

    CPU = "cpu"
    CUDA = "cuda"


def device_option(panel: str | None = None) -> Any:  # noqa: ANN401  as typer's own
    """`--device`; the command says what is meant where it is not given."""
    return typer.Option("--device", help="What a GPU is.", show_default="cpu", rich_help_panel=panel)


def ray_option(panel: str | None = None) -> Any:  # noqa: ANN401
    """`--ray`; the cluster is one of our own where it is not given."""
    told = "Lease nodes of this Ray cluster, instead of starting one here."
    return typer.Option("--ray", metavar="ADDRESS", help=told, rich_help_panel=panel)


def checkpoints_option(default: str, panel: str | None = None) -> Any:  # noqa: ANN401
    """`--checkpoints`; `default` says in words where they lie where it is not given."""
    told = "Folder or fsspec URL that every node reaches."
    return typer.Option("--checkpoints", metavar="URL", help=told, show_default=default, rich_help_panel=panel)


def refuse(options: Mapping[str, object], reason: str) -> None:
    """Options that say nothing here; None is one that was not given.

    Raises:
        InputError: one of them was given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)}: not here, as {reason}")


def failure(message: str, code: int) -> typer.Exit:
    """Say what is wrong on standard error; returns what ends the command with this code."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


def load_spec(spec_file: Path, settings: list[str]) -> RunSpec:
    """The spec of a file, with what the command line sets."""
    from elastune.experiments.spec.run import RunSpec

    return RunSpec.load(spec_file, settings)


def print_json(value: object) -> None:
    """One JSON document on standard output; NaN is not JSON and not allowed."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def kept_when_interrupted(folder: Path) -> Iterator[None]:
    """Say where the finished part of long work is when it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"what was finished is in {folder}; the same command goes on from there", err=True)
        raise


def console() -> Console:
    """Standard output; wide where it is not a terminal, whose width rich would guess too small."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=_PIPED_WIDTH)


class Tell(Protocol):
    """Takes in how much is done of how much, and what is under way where that changes."""

    def __call__(self, done: int, total: int, label: str | None = None) -> None:
        """So many of so many are done."""


@contextmanager
def progress(title: str, *, speed_of: str | None = None) -> Iterator[Tell]:
    """A bar on standard error while the block runs, with the time left, where that is a terminal; yields what is told.

    Args:
        title: what is under way, until another label is told.
        speed_of: what is counted, such as `runs`; the bar then says how many of them are done per second.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    err = Console(stderr=True)
    counts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*counts, *times, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(title, total=None, speed="")

        def tell(done: int, total: int, label: str | None = None) -> None:
            elapsed_s = bar.tasks[0].elapsed
            speed = f"{done / elapsed_s:.1f} {speed_of}/s" if speed_of and elapsed_s else ""
            bar.update(task, description=label or title, completed=done, total=total, speed=speed)

        yield tell


def complete_policy(incomplete: str) -> list[str]:
    """Policies whose names begin so."""
    from elastune.policies.registry import all_entries

    return [name for name in all_entries() if name.startswith(incomplete)]


def complete_policies(incomplete: str) -> list[str]:
    """The same for the last of several names with commas between."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in complete_policy(last)]


def complete_bundle(incomplete: str) -> list[str]:
    """Bundles whose names begin so."""
    from elastune.traces.bundles.bundle import bundle_names

    return [name for name in bundle_names() if name.startswith(incomplete)]


def complete_workload(incomplete: str) -> list[str]:
    """Workloads whose names begin so."""
    from elastune.traces.workloads import WORKLOAD_NAMES

    return [name for name in WORKLOAD_NAMES if name.startswith(incomplete)]
