"""A segment that Ray Tune trains, and how its seconds are divided."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elastune.sim.model.commands import StartSegment


@dataclass(slots=True)
class RunningSegment:
    """A segment that has been commanded and has not ended.

    Attributes:
        gpus: that it trains on.
        asked_at_s: time of its command.
        score: of the last result.
        reported_at_s: time of each result.
        trains_from_s: start of its first iteration; NaN before the first result.
        is_ending: the policy has ended it.
        is_pausing: Tune has been told to pause it, and saves.
        is_broken: its worker has died.
        has_left: its trainable has ended by itself.
    """

    command: StartSegment
    gpus: int
    asked_at_s: float
    score: float | None
    reported_at_s: list[float] = field(default_factory=list)
    trains_from_s: float = math.nan
    is_ending: bool = False
    is_pausing: bool = False
    is_broken: bool = False
    has_left: bool = False

    @property
    def iteration(self) -> int:
        """Completed iterations of the trial."""
        return self.command.from_iteration + len(self.reported_at_s)

    def take(self, at_s: float, lasted_s: float, score: float | None) -> None:
        """Count one more completed iteration."""
        if not self.reported_at_s:
            self.trains_from_s = min(max(at_s - lasted_s, self.asked_at_s), at_s)
        self.reported_at_s.append(at_s)
        self.score = score

    def seconds(self, at_s: float, *, is_saved: bool) -> tuple[float, float, float]:
        """Seconds of launch, training and the last checkpoint; together, all its seconds.

        Args:
            at_s: when it ended.
            is_saved: it ended with a checkpoint, so the time after its last result was saving.
        """
        if not self.reported_at_s:
            return at_s - self.asked_at_s, 0.0, 0.0
        trained_until_s = self.reported_at_s[-1] if is_saved else at_s
        launch_s = self.trains_from_s - self.asked_at_s
        return launch_s, trained_until_s - self.trains_from_s, at_s - trained_until_s

    def lost_s(self, at_s: float, durable: int) -> float:
        """Seconds of training after the last durable iteration."""
        if not self.reported_at_s:
            return 0.0
        kept = durable - self.command.from_iteration
        return at_s - (self.reported_at_s[kept - 1] if kept > 0 else self.trains_from_s)
