"""Several trainings of the same configurations, which differ by training noise alone. Imports numpy and the pure core.

A seed of a run draws one of them for each trial, so that intervals over seeds contain the noise of training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.traces.bundles.curves import CurveTables


@dataclass(frozen=True, eq=False, kw_only=True)
class Replicates:
    """The curves of a bundle whose trials were trained more than once; not every trial has all replicates.

    Attributes:
        trial: (curves,) int, ascending; the row of each curve's configuration.
        number: (curves,) int; of the replicate, ascending within a trial.
        scores: (curves, iterations) float, NaN where the run diverged.
        test_scores: of the same shape, or None where none were recorded.
        slowness: (curves,) float > 0; seconds of an iteration over the mean of the trial's curves, 1 where nothing was timed.
        measured: of the same shape as the scores, by name; see `Bundle.measured`.
    """

    trial: np.ndarray
    number: np.ndarray
    scores: np.ndarray
    test_scores: np.ndarray | None
    slowness: np.ndarray
    measured: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = (self.trial, self.number, self.scores, self.test_scores, self.slowness, *self.measured.values())
        for array in arrays:
            if array is not None:
                array.setflags(write=False)

    @classmethod
    def of(cls, curves: CurveTables) -> Replicates | None:
        """The replicates among the curves; None where each trial was trained once."""
        trials = int(curves.trial[-1]) + 1
        if len(curves.trial) == trials:
            return None
        return cls(
            trial=curves.trial,
            number=curves.replicate,
            scores=curves.scores,
            test_scores=curves.test_scores,
            slowness=_slowness(curves.trial, curves.seconds),
            measured=curves.measured,
        )

    def drawn(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """(rows,) int: the curve that the seed draws for each row of the configurations.

        What it draws for a configuration depends on nothing else. A trial that was trained once draws nothing.
        """
        first = np.searchsorted(self.trial, rows)
        counts = np.searchsorted(self.trial, rows, side="right") - first
        streams = Streams(seed)
        offsets = [
            int(streams.rng("replicate", row).integers(count)) if count > 1 else 0
            for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
        ]
        return first + np.array(offsets, dtype=np.int64)

    def mean_squared_slowness(self) -> np.ndarray:
        """(trials,) float >= 1: of a trial's curves; the variance of their durations follows from it."""
        squared: np.ndarray = np.bincount(self.trial, weights=self.slowness**2) / np.bincount(self.trial)
        return squared


def _slowness(trial: np.ndarray, seconds: np.ndarray | None) -> np.ndarray:
    if seconds is None:
        return np.ones(len(trial))
    counted = np.isfinite(seconds).sum(axis=1)
    mean_s = np.divide(np.nansum(seconds, axis=1), counted, out=np.full(len(trial), np.nan), where=counted > 0)
    timed = np.isfinite(mean_s)
    total_s = np.bincount(trial, weights=np.where(timed, mean_s, 0.0))
    of_trial_s = total_s[trial] / np.maximum(np.bincount(trial, weights=timed), 1)[trial]
    slowness: np.ndarray = np.divide(mean_s, of_trial_s, out=np.ones(len(trial)), where=timed & (of_trial_s > 0))
    return slowness
