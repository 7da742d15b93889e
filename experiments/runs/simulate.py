"""Running a spec in the simulated world. Imports experiments.runs, experiments.spec, and `sim` but the bridge."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from elastune.experiments.files import kept_file
from elastune.experiments.runs.accounts import Accounts
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.result import RunResult, recorded_answer, result_of
from elastune.experiments.runs.trajectory import Recording
from elastune.experiments.runs.world import World
from elastune.sim.control.journal import JournalWriter, Sinks
from elastune.sim.control.runner import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elastune.experiments.spec.run import RunSpec
    from elastune.traces import Bundle


def execute(
    spec: RunSpec,
    *,
    journal: str | Path | BinaryIO | None = None,
    record_trajectory: bool = False,
    bundle: Bundle | None = None,
) -> RunResult:
    """Run a spec in the simulated world. Equal specs give equal results, and journals that are equal byte for byte.

    Args:
        spec: the run.
        journal: where the journal goes; nothing is written to it unless the run starts.
        record_trajectory: keep what `RunResult.trajectory()` needs.
        bundle: used instead of the one that the spec names.

    Raises:
        InputError: spec and bundle do not fit each other, the run needs real workers, or the policy finds no plan within
            deadline and budget.
        InvalidActionError: the policy asked for something impossible.
        StalledRunError: the policy does not finish the run.
    """
    spec.require_simulable()
    world = World.of(spec, bundle)
    accounts = Accounts(world)
    tables = Tables(world.price_book, None if record_trajectory else accounts)
    sinks = Sinks(tables)
    controller = world.controller(sinks)
    with _opened(journal) as stream:
        if stream is not None:
            sinks.sinks.append(JournalWriter(stream, world.header()))
        run(controller, world.backend())
    accounts.read(tables.changes)  # all of them where they are kept, else the last
    recording = Recording(tables, world.recorded_scores, world.job.direction) if record_trajectory else None
    return result_of(world, controller, accounts, recorded_answer(world, controller), recording)


@contextmanager
def _opened(journal: str | Path | BinaryIO | None) -> Iterator[BinaryIO | None]:
    """The stream to write to; see `kept_file`."""
    if not isinstance(journal, str | Path):
        yield journal
        return
    with kept_file(Path(journal)) as stream:
        yield stream
