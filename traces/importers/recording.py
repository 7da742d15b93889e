"""What every importer returns, the recorded points, and what the user adds to them.

Imports the standard library, numpy and sim.model.errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from elastune.sim.model.errors import InvalidTraceError
from elastune.traces.bundles.curves import curves_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.sim.model.job import Direction

Incomplete = Literal["error", "drop", "diverged"]
IterationZero = Literal["error", "first", "drop"]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a recording does not tell, so that the user must.

    Attributes:
        name: of the workload.
        source: who recorded it, and where it can be had.
        licence: of the recording.
        direction: whether scores are minimised or maximised; None only where the recording knows.
        score: what the score is; None: what the recording calls it.
        iteration: what an iteration is; None: what the recording calls it.
        others: further keys of `bundle.yaml`, such as `family`, `schedule`, `scaling`, `iteration_s` or `launch_s`. Their
            provenance is `assumed: set at import` unless `provenance` among them says otherwise.
    """

    name: str
    source: str
    licence: str
    direction: Direction | None = None
    score: str | None = None
    iteration: str | None = None
    others: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CurveRules:
    """How to make regular curves of irregular ones. Nothing is changed unless a rule asks for it.

    Attributes:
        incomplete: what to do with a curve that is shorter than the others although its last score is finite: refuse it
            (`error`), leave it out (`drop`), or take it to have diverged there (`diverged`).
        iteration_zero: what to do with an iteration 0: refuse it (`error`), take it for the first and add 1 to all
            (`first`), or leave it out because it was recorded before training (`drop`).
        iterations: the number of iterations to keep of each curve; None keeps all.
    """

    incomplete: Incomplete = "error"
    iteration_zero: IterationZero = "error"
    iterations: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Points:
    """Recorded points of curves, in any order; all arrays are of shape (points,).

    Attributes:
        trial: int; position of the point's trial among those of the recording.
        iteration: float; its number as recorded.
        score: float; NaN where the run diverged.
        test_score: float, or None where none were recorded.
        seconds: float; of the iteration that ends at the point, or None.
        elapsed_s: float; seconds of the trial up to the point, or None. Not together with `seconds`.
        inherited: bool; whether the trial took the point over from another one, which spent its seconds; or None.
        row: int; where the point stands in the file (counted from 1 below the header), or None where it has no rows.
    """

    trial: np.ndarray
    iteration: np.ndarray
    score: np.ndarray
    test_score: np.ndarray | None = None
    seconds: np.ndarray | None = None
    elapsed_s: np.ndarray | None = None
    inherited: np.ndarray | None = None
    row: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.trial)

    def taken(self, which: np.ndarray) -> Points:
        """Those points, in that order; `which` is a mask or positions."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return replace(self, **{name: array[which] for name, array in arrays.items() if array is not None})

    def lengths(self, trials: int) -> np.ndarray:
        """(trials,) int: points of each trial."""
        return np.bincount(self.trial, minlength=trials)


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedCurves:
    """The curves and configurations of a recorded search, before they are checked.

    A trial that was trained several times stands here once for each training, under one label, see `by_replicate`.

    Attributes:
        origin: what errors name as the file.
        labels: what the recording calls each of its trials.
        configurations: text of the hyperparameters of each trial, empty where there is none.
        points: of the curves.
        columns: what the recording calls the arrays of its points.
        relative_cost: (trials,) float; recorded cost of an iteration of each trial, or None.
        trial_s: (trials,) float; seconds of all points of a trial that are not inherited, where points have none; or None.
        seconds_provenance: what the seconds are, after `measured elsewhere`.
        notes: what the importer says of itself, for `imported` in `bundle.yaml`; `from` is what it read.
        replicates: (trials,) int; the number of each training of a trial, or None where each was trained once.
    """

    origin: str
    labels: Sequence[str]
    configurations: Sequence[Mapping[str, str]]
    points: Points
    columns: Mapping[str, str]
    relative_cost: np.ndarray | None = None
    trial_s: np.ndarray | None = None
    seconds_provenance: str = "recorded seconds"
    notes: Mapping[str, object] = field(default_factory=dict)
    replicates: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert "from" in self.notes, "every importer says what it read"

    def name(self, trial: int) -> str:
        """What messages and notes call a trial, or one training of it."""
        label = self.labels[trial]
        return label if self.replicates is None else f"{label} (replicate {self.replicates[trial]})"

    def names(self, which: np.ndarray) -> list[str]:
        """What notes call the trials of a mask."""
        return [self.name(trial) for trial in np.flatnonzero(which).tolist()]

    def by_replicate(self, replicate: np.ndarray) -> RecordedCurves:
        """The same recording, its trials once for each training.

        Args:
            replicate: (points,) int >= 0; which training of its trial each point belongs to.
        """
        without = np.setdiff1d(np.arange(len(self.labels)), self.points.trial)
        trial = np.concatenate([self.points.trial, without])
        number = np.concatenate([replicate, np.zeros(len(without), dtype=np.int64)])
        position, of, numbers = curves_of(trial, number)
        return replace(
            self,
            labels=[self.labels[trial] for trial in of.tolist()],
            configurations=[self.configurations[trial] for trial in of.tolist()],
            points=replace(self.points, trial=position[: len(replicate)]),
            relative_cost=None if self.relative_cost is None else self.relative_cost[of],
            replicates=numbers,
        )

    def wrong(self, points: Points, at: int, column: str, problem: str) -> InvalidTraceError:
        """The error for one point; `problem` follows the name of its trial."""
        row = None if points.row is None else int(points.row[at])
        message = f"trial {self.name(points.trial[at])}: {problem}"
        return InvalidTraceError(self.origin, message, row=row, column=self.columns.get(column, column))
