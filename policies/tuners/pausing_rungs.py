"""HyperSched's rungs: trials below a cutoff that moves are paused, and may come back when it has moved again. Pure."""

from __future__ import annotations

import math
from bisect import insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from elastune.sim.model.ids import TrialId


class PausingRungs:
    """Who goes on, who pauses, who comes back (Liaw et al., SoCC 2019, section 4, and the authors' code).

    The cutoff of a rung is the 1/eta percentile of the losses recorded in it, once there are two. A trial is held against the
    cutoffs of all rungs it has passed, at each of its results: it may pause long after a rung, when others have passed it.

    Args:
        levels: iterations of each rung, ascending.
        reduction_factor: eta.
    """

    def __init__(self, levels: Iterable[int], reduction_factor: int) -> None:
        self._rungs = [_Rung(level, reduction_factor) for level in sorted(levels, reverse=True)]

    def pauses(self, trial: TrialId, iteration: int, loss: float) -> bool:
        """Whether the trial is to pause now; records it in each rung it comes to."""
        for rung in self._rungs:
            if iteration >= rung.level and rung.is_below_cutoff(trial, loss):
                rung.paused[trial] = None
                return True
        return False

    def promote(self, is_ready: Callable[[TrialId], bool], *, whatever_the_cutoff: bool = False) -> TrialId | None:
        """The best paused trial of the highest rung whose cutoff it meets now; it is not paused any more.

        Args:
            is_ready: whether it can be run; a trial that has just been told to pause is still ending.
            whatever_the_cutoff: also one that misses it.
        """
        for rung in self._rungs:
            for trial in sorted(rung.paused, key=lambda paused: (rung.recorded[paused], paused)):
                if (whatever_the_cutoff or rung.meets_cutoff(trial)) and is_ready(trial):
                    del rung.paused[trial]
                    return trial
        return None

    def clear(self) -> list[TrialId]:
        """Those who are paused; none is any more."""
        paused = [trial for rung in self._rungs for trial in rung.paused]
        for rung in self._rungs:
            rung.paused.clear()
        return paused


class _Rung:
    def __init__(self, level: int, reduction_factor: int) -> None:
        self.level = level
        self.recorded: dict[TrialId, float] = {}
        self.paused: dict[TrialId, None] = {}
        self._percent = 100.0 / reduction_factor
        self._losses: list[float] = []

    def is_below_cutoff(self, trial: TrialId, loss: float) -> bool:
        """Whether what is recorded of the trial misses the cutoff that was there before it came."""
        cutoff = self._cutoff()
        if trial not in self.recorded:
            self.recorded[trial] = loss
            insort(self._losses, loss)
        recorded = self.recorded[trial]
        return math.isinf(recorded) or (cutoff is not None and recorded > cutoff)

    def meets_cutoff(self, trial: TrialId) -> bool:
        cutoff, recorded = self._cutoff(), self.recorded[trial]
        return cutoff is not None and math.isfinite(recorded) and recorded <= cutoff

    def _cutoff(self) -> float | None:
        return percentile(self._losses, self._percent) if len(self._losses) > 1 else None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The percentile of ascending values, linear between two of them.

    Args:
        ordered: at least one; the last ones may be infinite.
        percent: 0 to 100.
    """
    at = (len(ordered) - 1) * percent / 100
    low = math.floor(at)
    if low == at or ordered[low] == ordered[low + 1]:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (at - low)
