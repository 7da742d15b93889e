"""What HyperSched knows of its trials: rungs with a cutoff that moves, shares of the GPUs, mean scores and seconds. Pure."""

from __future__ import annotations

import math
import sys
from bisect import insort
from collections import deque
from statistics import fmean
from typing import TYPE_CHECKING

from elastune.policies.rules.halving import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from elastune.sim.model.ids import TrialId

METRIC_WINDOW = 5
"""Results that a score is the mean of, in the authors' code."""
STARTUP_PERCENT = 90.0
"""Percentile of the start-up times seen that counts as start-up time, in the authors' code."""


class PausingRungs:
    """Which trials go on, pause and come back (Liaw et al., SoCC 2019, section 4, and the authors' code).

    The cutoff of a rung is the 1/eta percentile of its losses, once there are two. Each result compares the trial with the
    cutoffs of all rungs that it has passed, so it may pause long after a rung, when other trials have passed it.

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
            candidates = rung.paused if whatever_the_cutoff else rung.meeting_cutoff()
            for trial in sorted(candidates, key=lambda paused: (rung.recorded[paused], paused)):
                if is_ready(trial):
                    del rung.paused[trial]
                    return trial
        return None

    def clear(self) -> list[TrialId]:
        """The paused trials, which are forgotten."""
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
        # Worked out when a loss comes, as it is asked for at each report of every trial.
        self._cutoff: float | None = None

    def is_below_cutoff(self, trial: TrialId, loss: float) -> bool:
        """Whether the recorded loss of the trial misses the cutoff as it was before the trial came."""
        cutoff = self._cutoff
        if trial not in self.recorded:
            self.recorded[trial] = loss
            insort(self._losses, loss)
            if len(self._losses) > 1:
                self._cutoff = percentile(self._losses, self._percent)
        recorded = self.recorded[trial]
        return math.isinf(recorded) or (cutoff is not None and recorded > cutoff)

    def meeting_cutoff(self) -> list[TrialId]:
        """The paused trials that meet the cutoff as it is now."""
        cutoff, recorded = self._cutoff, self.recorded
        if cutoff is None:
            return []
        most = min(cutoff, sys.float_info.max)
        return [trial for trial in self.paused if -math.inf < recorded[trial] <= most]


def fair_shares(ranked: Sequence[TrialId], gpus: int, most: int) -> Mapping[TrialId, int]:
    """One GPU for every trial; the others one by one in turn, the best trial first, up to `most` each.

    Args:
        ranked: live trials, best first.
        gpus: GPUs in all.
        most: of one trial.
    """
    shares = dict.fromkeys(ranked, 1)
    spare = gpus - len(shares)
    while spare > 0:
        growing = [trial for trial in ranked if shares[trial] < most][:spare]
        if not growing:
            break
        for trial in growing:
            shares[trial] += 1
        spare -= len(growing)
    return shares


class SmoothedLosses:
    """The mean of each trial's last results; iterations repeated after a failure count once."""

    def __init__(self) -> None:
        self._last: dict[TrialId, deque[tuple[int, float]]] = {}
        self._means: dict[TrialId, float] = {}

    def note(self, trial: TrialId, iteration: int, loss: float) -> float:
        """Take in a result; returns the mean."""
        results = self._last.setdefault(trial, deque(maxlen=METRIC_WINDOW))
        while results and results[-1][0] >= iteration:
            results.pop()
        results.append((iteration, loss))
        mean = self._means[trial] = fmean(value for _, value in results)
        return mean

    def last(self, trial: TrialId) -> float:
        """The mean as of its last result; infinite where there is none yet."""
        return self._means.get(trial, math.inf)


class Stopwatch:
    """Seconds of iterations, trials and starts that have been seen.

    Args:
        believed_startup_s: start-up before any has been seen.
    """

    def __init__(self, believed_startup_s: float) -> None:
        self._believed_startup_s = believed_startup_s
        self._startups_s: list[float] = []
        self._iterations_s: list[float] = []
        self._total_s: dict[TrialId, float] = {}
        self._since_s: dict[TrialId, float] = {}
        self._longest_s = 0.0

    @property
    def startup_s(self) -> float:
        """What counts as the start-up of a trial."""
        return percentile(self._startups_s, STARTUP_PERCENT) if self._startups_s else self._believed_startup_s

    def start(self, trial: TrialId, at_s: float) -> None:
        """A segment starts."""
        self._since_s[trial] = at_s + self.startup_s

    def note(self, trial: TrialId, at_s: float, gpus: int) -> None:
        """An iteration is done."""
        seconds = max(at_s - self._since_s[trial], 0.0)
        self._since_s[trial] = at_s
        self._total_s[trial] = self._total_s.get(trial, 0.0) + seconds
        self._longest_s = max(self._longest_s, self._total_s[trial])
        if gpus == 1:
            insort(self._iterations_s, seconds)

    def end(self, trial: TrialId, launch_s: float) -> None:
        """A segment has ended."""
        self._since_s.pop(trial, None)
        insort(self._startups_s, launch_s)

    def fair_s(self, reduction_factor: int, iterations: int) -> float:
        """Seconds that a trial must still have for it to be worth starting."""
        fair_s = (self._longest_s - self.startup_s) * reduction_factor
        return min(fair_s, iterations * percentile(self._iterations_s, 50.0)) if self._iterations_s else fair_s
