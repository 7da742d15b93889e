"""The clock of a real run. Only this module reads the host's clock for events."""

from __future__ import annotations

import threading
import time


class Clock:
    """Seconds since the run started.

    Args:
        speed: run seconds per second of the host; 1 for real training. Emulated runs may go faster.
        from_s: where it starts. The clock of a resumed run stands still while no driver lives.
    """

    def __init__(self, speed: float = 1.0, from_s: float = 0.0) -> None:
        self.speed = speed
        self._from_s = from_s
        self._started_s = time.monotonic()

    def now_s(self) -> float:
        """The run's time."""
        return self._from_s + (time.monotonic() - self._started_s) * self.speed

    def host_s(self, seconds: float) -> float:
        """Host seconds for `seconds` of the run."""
        return seconds / self.speed

    def wait(self, seconds: float, interrupted: threading.Event) -> bool:
        """Wait `seconds` of the run, at most as long as the system can; return whether the wait was interrupted."""
        return interrupted.wait(min(max(self.host_s(seconds), 0.0), threading.TIMEOUT_MAX))
