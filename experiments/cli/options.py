"""What the commands share: their options, completion of names, progress. Imports typer; rich when a bar is drawn."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, TypeVar, cast

import typer

from elastune.experiments.cli.completion import complete_policies, complete_policy, complete_setting
from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.tables import plain, say
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from elastune.experiments.spec.run import RunSpec

ResultT = TypeVar("ResultT")
DONE, FAILED, WRONG_INPUT = 0, 1, 2

OUTPUT, COMPUTE = "Output", "Compute"
"""Panels of the help pages."""


def _drawable(path: Path | None) -> Path | None:
    """The path, if a figure can be written to it: asked before any work is done."""
    if path is not None:
        from elastune.experiments.figures.style import require_format
        from elastune.experiments.files import check_outputs

        require_format(path)
        check_outputs(path)
    return path


SpecFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="SPEC", help="A YAML file that describes the run.", show_default=False)
]
SomePolicies: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="As for run; all where left out.", autocompletion=complete_policies),
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key of the spec, as job.deadline_s=1800.",
        autocompletion=complete_setting,
    ),
]
Policy: TypeAlias = Annotated[
    str | None, typer.Option(help="name[:param=value...], instead of the spec's.", autocompletion=complete_policy)
]
Seeds: TypeAlias = Annotated[int, count_option(help="How many, counted from the spec's.")]
Journal: TypeAlias = Annotated[Path, typer.Argument(help="The journal of a run.", show_default=False)]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.", rich_help_panel=OUTPUT)
]
Jobs: TypeAlias = Annotated[
    int | None, count_option(help="Processes.", show_default="the cores", rich_help_panel=COMPUTE)
]
PoolJobs: TypeAlias = Annotated[
    int | None,
    count_option(help="Processes.", show_default="the cores, or all CPUs of a Ray cluster", rich_help_panel=COMPUTE),
]
PoolAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Run on this Ray cluster (auto: the one around).", rich_help_panel=COMPUTE
    ),
]
RetryFailed: TypeAlias = Annotated[
    bool, typer.Option("--retry-failed", help="Run those that failed again.", rich_help_panel=COMPUTE)
]
Figure: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Draw a figure: a .png, .pdf or .svg file.", callback=_drawable, rich_help_panel=OUTPUT),
]


Device: TypeAlias = Literal["cpu", "cuda"]
"""What a slot of real workers is."""


def out_option(told: str, default: str | None = None) -> Any:  # noqa: ANN401  as typer's own
    """`-o`; `default` says in words where it is not given."""
    return typer.Option(
        "-o",
        "--out",
        help=told,
        show_default=default or False,
        rich_help_panel=OUTPUT,
        parser=_output,
        metavar="<path>",
    )


def _output(text: str | Path) -> Path:
    """An output that is named; an empty text, as of a variable that is not set, would be the working folder."""
    if not str(text):
        raise InputError("-o is empty: name a file or a folder, or . for the working folder")
    return Path(text)


def device_option(panel: str | None = None) -> Any:  # noqa: ANN401
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


def cores(jobs: int | None) -> int:
    """The number of processes: as given, or one for each core that this process may use."""
    return jobs or len(os.sched_getaffinity(0))


def pool_jobs(jobs: int | None, ray_address: str | None) -> int | None:
    """The number of processes: as given, else one per core; None means all CPUs of the Ray cluster."""
    return jobs if ray_address is not None else cores(jobs)


def refuse(options: Mapping[str, object], reason: str) -> None:
    """Options that say nothing here; None is one that was not given.

    Raises:
        InputError: one of them was given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)}: not here, as {reason}")


class CommandError(Exception):
    """A command ends with this message and this exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def what_is_finished(work: Callable[[], ResultT]) -> tuple[ResultT, str | None]:
    """What paired runs give; where Ctrl-C ended them, what they give on the seeds that are finished, and a word about it."""
    from elastune.experiments.comparisons.paired_runs import Interrupted

    try:
        return work(), None
    except Interrupted as stop:
        return cast("ResultT", stop.finished), f"interrupted: {stop.told}, and the tables are of these"


def load_spec(spec_file: Path, settings: list[str] | None) -> RunSpec:
    """The spec of a file, with what the command line sets."""
    from elastune.experiments.spec.run import RunSpec

    return RunSpec.load(spec_file, settings or [])


def print_notes(notes: Iterable[str]) -> dict[str, list[str]]:
    """Print each note once, on standard error. Commands call it when the input is known to be right: an error stands alone.

    Returns:
        The notes, as `--json` tells them beside the result.
    """
    told = list(dict.fromkeys(notes))
    for note in told:
        say(f"note: {note}", err=True)
    return {"notes": told}


def print_json(value: object) -> None:
    """One JSON document on standard output; NaN is not JSON and not allowed."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def kept_when_interrupted(folder: Path) -> Iterator[None]:
    """Say where the finished part of long work is when it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"what was finished is in {folder}; the same command goes on from there", err=True)
        raise


class Tell(Protocol):
    """Takes in how much is done of how much, and what is under way where that changes."""

    def __call__(self, done: int, total: int, label: str | None = None) -> None:
        """Show that `done` of `total` are done."""


@contextmanager
def _lines(title: str, every_s: float) -> Iterator[Tell]:
    """A line from time to time, also while nothing is told: a log then shows that work goes on, and how far it is."""
    began_s, is_over = time.monotonic(), threading.Event()
    shown = title

    def tell(done: int, total: int, label: str | None = None) -> None:
        nonlocal shown
        shown = f"{label or title}: {done:,} of {total:,}"

    def write() -> None:
        while not is_over.wait(every_s):
            say(f"{shown}, {time.monotonic() - began_s:,.0f} s", err=True)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield tell
    finally:
        is_over.set()
        writer.join()


@contextmanager
def progress(title: str, *, speed_of: str | None = None, line_every_s: float = 60.0) -> Iterator[Tell]:
    """A bar on standard error while the block runs, with the time left; lines where that is no terminal. Yields what is told.

    Args:
        title: what is under way, until another label is told.
        speed_of: what is counted, such as `runs`; the bar then says how many of them are done per second.
        line_every_s: seconds between two lines; the first one comes after so many.
    """
    from rich.console import Console

    err = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not err.is_terminal:
        with _lines(title, line_every_s) as tell_in_lines:
            yield tell_in_lines
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    def told(name: str) -> TextColumn:
        return TextColumn(f"{{task.{name}}}", markup=False)

    counts = (told("description"), BarColumn(), MofNCompleteColumn(), told("fields[speed]"))
    times = (TimeElapsedColumn(), TextColumn("{task.fields[left]}"), TimeRemainingColumn())
    with Progress(*counts, *times, console=err, transient=True) as bar:
        task = bar.add_task(plain(title), total=None, speed="", left="")

        def tell(done: int, total: int, label: str | None = None) -> None:
            elapsed_s = bar.tasks[0].elapsed
            speed = f"{done / elapsed_s:.1f} {speed_of}/s" if speed_of and elapsed_s else ""
            left = "left" if bar.tasks[0].time_remaining is not None else ""
            bar.update(task, description=plain(label or title), completed=done, total=total, speed=speed, left=left)

        yield tell
