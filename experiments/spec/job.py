"""The section `job`: what is searched, by when and for how much.

What is wrong is said by pydantic, with its place, or by an `InputError`; `experiments.spec.run.RunSpec` makes one of both.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from elastune.experiments.spec.section import (
    ITERATIONS,
    SOME_SECONDS,
    Count,
    NeededUnless,
    Number,
    Range,
    Seconds,
    Section,
)
from elastune.sim.model.errors import InputError
from elastune.sim.model.job import Direction, TuningJob

_STAGED_KEYS = ("trials", "min_iterations", "max_iterations", "reduction_factor")


def _checkpoint_form(value: object) -> object:
    if isinstance(value, str) and value != "auto":
        raise ValueError("must be a whole number, or auto")
    return value


class ConstraintSpec(Section):
    """Bounds on what a bundle measures beside the score; see `traces.bundles.constraints`."""

    flops: Annotated[
        Number | None,
        Range(0, 1e18, is_open=True),
        "the most multiply-adds of an image at inference. Policies see one score: that of a trial above the bound is worse than"
        " all recorded ones, by the share of its FLOPs that is above the bound ([deepmoe](deepmoe.md))",
    ] = None

    def bounds(self) -> dict[str, float]:
        """By measure, the most that is allowed."""
        return {name: bound for name, bound in self if bound is not None}


class JobSpec(Section):
    """The search; see `sim.model.job.TuningJob`. The direction is the bundle's, where there is one with curves."""

    trials: Annotated[
        Count | None,
        ITERATIONS,
        NeededUnless("stages"),
        "how many configurations may be tried, in the seed's order; each policy starts as many as its rule can finish",
    ] = None
    min_iterations: Annotated[Count | None, ITERATIONS, "r: iterations of the first rung (1)"] = None
    max_iterations: Annotated[
        Count | None, ITERATIONS, NeededUnless("stages"), "R: iterations that count as trained"
    ] = None
    reduction_factor: Annotated[
        Count | None, Range(2, 1_000_000), "eta: one configuration of eta survives a rung (3)"
    ] = None
    exact: Annotated[bool, "whether all `trials` are tried, not fewer"] = False
    deadline_s: Annotated[Seconds | None, SOME_SECONDS, "T, the deadline; no limit if left out"] = None
    budget_usd: Annotated[Number | None, Range(0, 1e12, is_open=True), "B, the budget; no limit if left out"] = None
    levels: Annotated[
        Literal["cumulative", "further"],
        "iterations of a rung: in all (`cumulative`: 1, 3, 9), or since the rung before (`further`, as RubberBand counts)",
    ] = "cumulative"
    stages: Annotated[
        tuple[tuple[Annotated[Count, ITERATIONS], Annotated[Count, ITERATIONS]], ...] | None,
        "`[[32, 1], [10, 3]]`: (trials, further iterations) instead of trials, iterations and reduction factor",
    ] = None
    direction: Annotated[
        Literal["minimize", "maximize"] | None,
        "whether less or more is better; only for jobs without a bundle, which says it itself",
    ] = None
    constraint: ConstraintSpec | None = None
    checkpoint_every: Annotated[
        Count | Literal["auto"],
        BeforeValidator(_checkpoint_form),
        Range(0, 1_000_000),
        "iterations between checkpoints; 0: at segment ends only; `auto` (default on spot): Young-Daly's interval",
    ] = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: object) -> object:
        """Filled in here and not below, where they would contradict `stages`."""
        if not isinstance(value, dict) or value.get("stages") is not None:
            return value
        return {"min_iterations": 1, "reduction_factor": 3} | {key: v for key, v in value.items() if v is not None}

    @model_validator(mode="after")
    def _stages_or_numbers(self) -> Self:
        if self.stages is None:
            for key in ("trials", "max_iterations"):
                if getattr(self, key) is None:
                    raise InputError(f"job.{key} is missing")
            return self
        given = [f"job.{key}" for key in _STAGED_KEYS if getattr(self, key) is not None]
        if given:
            raise InputError(f"job.stages is given, which says the same as {', '.join(given)}: leave one of them out")
        if not self.stages or any(number < 1 for stage in self.stages for number in stage):
            raise InputError("job.stages must hold pairs [trials, further iterations], each number at least 1")
        trials = [count for count, _ in self.stages]
        if trials != sorted(trials, reverse=True):
            raise InputError(
                f"job.stages has {trials} trials by stage, but a stage has at most as many as the one before"
            )
        return self

    @property
    def bounds(self) -> dict[str, float]:
        """By measure, the most that is allowed; nothing where there is no constraint."""
        return {} if self.constraint is None else self.constraint.bounds()

    def tuning_job(self, direction: Direction) -> TuningJob:
        """The job in the words of `sim`.

        Args:
            direction: of the scores, where the spec does not say it.

        Raises:
            InputError: a number is out of range; names the key.
        """
        staged = self.stages or ()
        return TuningJob(
            trials=staged[0][0] if staged else self.trials or 0,
            min_iterations=staged[0][1] if staged else self.min_iterations or 0,
            max_iterations=sum(further for _, further in staged) if staged else self.max_iterations or 0,
            reduction_factor=3 if self.reduction_factor is None else self.reduction_factor,
            deadline_s=self.deadline_s,
            budget_usd=self.budget_usd,
            levels=self.levels,
            exact=self.exact,
            stages=self.stages,
            direction=self.direction or direction,
            checkpoint_every=self.checkpoint_every,
        )
