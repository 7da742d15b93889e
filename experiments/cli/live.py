"""What a real run looks like while it goes on: a small table on standard error, or lines where that is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elastune.experiments.cli.tables import plain, say
from elastune.sim.model.job import loss_of
from elastune.sim.model.protocols import InstanceStatus, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from elastune.sim.control.controller import Controller
    from elastune.sim.control.journal import Entry, Sink

_REFRESH_PER_S = 4
_LINE_EVERY_S = 10.0
_WAITS_PER_READ = 20


class Board:
    """What is shown; takes the entries of the run as they come.

    The state is read where entries come, in the thread that changes it: the one that draws would see it half changed.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._event_s = time.monotonic()
        self._shown = self._fields()
        self._read_again_at_s = 0.0

    def write(self, entry: Entry) -> None:
        """Note how the run stands, as often as that takes a small part of the time."""
        del entry
        self._event_s = time.monotonic()
        if self._event_s >= self._read_again_at_s:
            self._shown = self._fields()
            read_s = time.monotonic()
            self._read_again_at_s = read_s + _WAITS_PER_READ * (read_s - self._event_s)

    def fields(self) -> dict[str, str]:
        """Where the run stood when it was last looked at, by name."""
        return self._shown | {"last event": f"{time.monotonic() - self._event_s:.0f} s ago"}

    def _fields(self) -> dict[str, str]:
        state, job = self._controller.state, self._controller.state.job
        instances = list(state.instances.values())
        ready = [one for one in instances if one.status in (InstanceStatus.READY, InstanceStatus.DRAINING)]
        gpus = sum(one.gpus for one in ready)
        busy = gpus - sum(one.free_gpus for one in ready)
        now_s = state.now_s
        return {
            "time": f"{now_s:,.0f} s" + ("" if job.deadline_s is None else f" of {job.deadline_s:,.0f}"),
            "left": "no deadline" if job.deadline_s is None else f"{max(job.deadline_s - now_s, 0):,.0f} s",
            "bill": f"{state.bill.spent_usd(now_s):.2f} USD"
            + ("" if job.budget_usd is None else f" of {job.budget_usd:.2f}"),
            "machines": f"{len(ready)} ready, {len(instances) - len(ready)} coming or going",
            "GPUs": f"{busy} of {gpus} in use",
            "trials": f"{state.running_trials} running, {len(state.waiting)} waiting, {len(state.started)} started",
            "rungs": self._rungs(),
            "best score": self._best(),
        }

    def _rungs(self) -> str:
        """How many trials stand at how many iterations."""
        state = self._controller.state
        alive = [state.trials[trial] for trial in state.started]
        counts = Counter(trial.iteration for trial in alive if trial.status is not TrialStatus.STOPPED)
        return ", ".join(f"{counts[iteration]} at {iteration}" for iteration in sorted(counts, reverse=True)[:6]) or "-"

    def _best(self) -> str:
        state = self._controller.state
        losses = ((loss_of(state.trials[trial].score, state.job.direction), trial) for trial in state.started)
        known = min(losses, default=None)
        if known is None or state.trials[known[1]].score is None:
            return "-"
        return f"{state.trials[known[1]].score:.4g} (trial {known[1]})"

    def __rich__(self) -> Table:
        """The table."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in self.fields().items():
            table.add_row(Text(name, style="bold"), Text(plain(value)))
        return table


class _Lines(Board):
    """The same as a line every ten seconds."""

    def __init__(self, controller: Controller, say: Callable[[str], None]) -> None:
        super().__init__(controller)
        self._say, self._said_s = say, -_LINE_EVERY_S

    def write(self, entry: Entry) -> None:
        super().write(entry)
        if time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._said_s = time.monotonic()
            self._say("; ".join(f"{name} {value}" for name, value in self.fields().items() if name != "last event"))


@contextmanager
def live() -> Iterator[Callable[[Controller], Sink]]:
    """Show a run while the block runs; yields what is called with its controller."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda controller: _Lines(controller, lambda line: say(line, err=True))
        return
    with Live(console=console, refresh_per_second=_REFRESH_PER_S, transient=True) as shown:

        def watch(controller: Controller) -> Sink:
            board = Board(controller)
            shown.update(board)
            return board

        yield watch
