"""A trial that waits instead of training, and returns given scores.

Imports the pure core, numpy and the wall clock, but not torch, so that many workers fit on a small machine.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError, WorkerError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

_CATCHES_UP_S = 0.05
"""The next waits make up for this much lateness, because sleeping and messages take about 0.1 ms each. More lateness has
another cause and stays."""


@dataclass(frozen=True, eq=False)
class Emulation:
    """One trial in one segment. Seconds are those of the run.

    Attributes:
        iteration_s: (iterations,) float; duration of each iteration on this worker group.
        scores: (iterations,) float; score after each iteration, NaN once it has diverged.
        start_s: start-up of the worker.
        checkpoint_s: duration of a save.
        speed: seconds of the run that pass in one second of the wall clock.
    """

    iteration_s: np.ndarray
    scores: np.ndarray
    start_s: float = 0.0
    checkpoint_s: float = 0.0
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.speed) and self.speed > 0):
            raise InputError(f"emulation: speed is {self.speed}, but must be a number > 0")
        if self.iteration_s.shape != self.scores.shape:
            raise InputError(f"emulation: there are {len(self.iteration_s)} durations, but {len(self.scores)} scores")


class EmulatedTrial:
    """The `Trainable` of an emulation. The constructor waits for the start-up.

    Nothing interrupts a wait except the end of the process, because an iteration has no safe point inside.
    """

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        self._iteration = 0
        self._due_s = time.monotonic()
        self._wait(emulation.start_s)

    def train_iteration(self) -> None:
        """Wait for the duration of the next iteration.

        Raises:
            WorkerError: no further iteration was recorded.
        """
        recorded_s = self._emulation.iteration_s
        if self._iteration >= len(recorded_s):
            raise WorkerError(f"iteration {self._iteration + 1} was asked for, but {len(recorded_s)} were recorded")
        self._wait(float(recorded_s[self._iteration]))
        self._iteration += 1

    def evaluate(self) -> float:
        """The recorded score; NaN before the first iteration and after a divergence."""
        return float(self._emulation.scores[self._iteration - 1]) if self._iteration else math.nan

    def save(self, path: Path) -> None:
        """Write the iteration, and wait for the duration of a save."""
        path.write_text(json.dumps({"iteration": self._iteration}))
        self._wait(self._emulation.checkpoint_s)

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            WorkerError: the file is something else.
        """
        try:
            iteration = json.loads(path.read_text())["iteration"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkerError(f"{path} is not a checkpoint of an emulated trial: {error}") from error
        if not isinstance(iteration, int) or not 0 <= iteration <= len(self._emulation.scores):
            raise WorkerError(f"{path} says iteration {iteration}, of {len(self._emulation.scores)} recorded ones")
        self._iteration = iteration

    def _wait(self, seconds: float) -> None:
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - _CATCHES_UP_S) + seconds / self._emulation.speed
        if self._due_s > now_s:
            time.sleep(self._due_s - now_s)
