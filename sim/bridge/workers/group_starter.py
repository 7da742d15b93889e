"""Starting worker groups, and waiting for several of them.

Whoever starts a thread waits until it runs, and dozens of threads that talk to Ray let each other wait: with 64 worker groups
at once, the run would be deaf for half a second. So a thread of its own starts them.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.sim.bridge.workers.worker_group import WorkerGroup


class GroupStarter:
    """Starts worker groups in the order in which they are handed over, until it is closed.

    Args:
        broken: called with the error of a group that could not be started, as where the system has no room for its thread.
    """

    def __init__(self, broken: Callable[[BaseException], None]) -> None:
        self._broken = broken
        self._waiting: queue.SimpleQueue[WorkerGroup | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="start", daemon=True).start()

    def start(self, group: WorkerGroup) -> None:
        """Start it soon."""
        self._waiting.put(group)

    def close(self) -> None:
        """End when all that was handed over is started."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (group := self._waiting.get()) is not None:
            try:
                group.start()
            except Exception as error:
                self._broken(error)
                group.give_up()


def join_all(groups: Sequence[WorkerGroup], within_s: float) -> None:
    """Wait for the last events of all of them, but no longer than so many seconds together."""
    until_s = time.monotonic() + within_s
    for group in groups:
        group.join(max(until_s - time.monotonic(), 0.0))
