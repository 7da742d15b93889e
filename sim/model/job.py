"""The tuning job, and the one function that ranks scores. Imports only the standard library and msgspec."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from elastune.sim.model.errors import InputError

Direction = Literal["minimize", "maximize"]


def loss_of(score: float | None, direction: Direction) -> float:
    """The score as a number to minimise; infinite for diverged or absent scores (None, NaN, infinite), which rank last.

    Every comparison of scores uses this function; ties are broken by the lower trial number.
    """
    if score is None or not math.isfinite(score):
        return math.inf
    return score if direction == "minimize" else -score


class TuningJob(msgspec.Struct, frozen=True):
    """A search over configurations with a deadline, a budget, or both.

    Attributes:
        trials: configurations that may be tried; each policy starts as many as its rule can finish.
        min_iterations: iterations of the first rung (r in the papers).
        max_iterations: iterations that count as trained (R).
        reduction_factor: one in this many survives a rung (eta).
        deadline_s: T; None for no deadline.
        budget_usd: B; None for no budget.
        levels: whether a rung's iterations count from the start (1, 3, 9: Hyperband) or are added (1, then 3 more, then 9 more:
            RubberBand).
        exact: exactly `trials` configurations are started.
        stages: (trials, further iterations) of each stage, instead of the rungs that follow from the numbers above.
        direction: whether scores are minimised or maximised.
        checkpoint_every: iterations between two checkpoints within a segment; 0 for segment ends only; "auto" for the best
            interval at the known rate of losses (`policies.execution.checkpoints`).
    """

    trials: int
    min_iterations: int
    max_iterations: int
    reduction_factor: int = 3
    deadline_s: float | None = None
    budget_usd: float | None = None
    levels: Literal["cumulative", "further"] = "cumulative"
    exact: bool = False
    stages: tuple[tuple[int, int], ...] | None = None
    direction: Direction = "minimize"
    checkpoint_every: int | Literal["auto"] = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"job.trials is {self.trials}, but must be at least 1")
        if not 1 <= self.min_iterations <= self.max_iterations:
            raise InputError(
                f"job.min_iterations is {self.min_iterations}, but must be between 1 and job.max_iterations"
                f" ({self.max_iterations})"
            )
        if self.reduction_factor < 2:
            raise InputError(f"job.reduction_factor is {self.reduction_factor}, but must be at least 2")
        for name, limit in (("deadline_s", self.deadline_s), ("budget_usd", self.budget_usd)):
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise InputError(f"job.{name} is {limit}, but must be a positive number (leave it out for no limit)")
