"""The section `workload`: what trains, and what policies believe of it.

What is wrong is said by pydantic, with its place, or by an `InputError`; `experiments.spec.run.RunSpec` makes one of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, PrivateAttr, ValidationInfo, model_validator

from elastune.experiments.own_code import OwnCode, absolute, find
from elastune.experiments.spec.section import (
    GANG,
    RECORDED_TRAINABLE,
    SECONDS,
    SPREAD,
    Count,
    Number,
    Range,
    Seconds,
    Section,
)
from elastune.experiments.spec.space import search_space_of
from elastune.sim.model.errors import InputError, InvalidTraceError, nearest
from elastune.sim.model.profile import Stragglers
from elastune.sim.model.spread import EmpiricalTail
from elastune.traces import Overrides, ProfileErrors, scaling_of, tail_of


def _tail_form(value: object) -> object:
    """Keys as text, as in JSON, so that a spec read back has the same digest."""
    if isinstance(value, dict):
        return {str(key): _tail_form(numbers) for key, numbers in value.items()}
    return value


class StragglerSpec(Section):
    """Spread of an iteration's duration; a plain number is `per_iteration`.

    `tail` is the shape of the part drawn anew, as `traces.tail_of` takes it; what was measured has a spread of its own, so that
    `per_iteration` is left out. `per` says what it is drawn for: the gang (where it is left out), or each worker of it.
    """

    persistent: Annotated[Number, SPREAD, "spread of a factor that is drawn once for each segment"] = 0.0
    per_iteration: Annotated[
        Number, SPREAD, "spread of a factor that is drawn anew for each iteration; a plain number means this key"
    ] = 0.0
    tail: Annotated[
        str | dict[str, Any],
        BeforeValidator(_tail_form),
        "shape of the factor of each iteration: `lognormal`, `pareto`, a CSV, or measured values",
    ] = "lognormal"
    per: Annotated[
        Literal["gang", "worker"] | None, "whether one factor is drawn for the whole gang, or one for each worker of it"
    ] = None

    def stragglers(self) -> Stragglers:
        """The same in the words of `sim`.

        Raises:
            InputError: the tail is unknown or malformed, or `per_iteration` is given beside a measured one.
        """
        try:
            tail = tail_of(self.tail)
        except InvalidTraceError:
            raise
        except InputError as error:
            raise InputError(f"workload.straggler_cv: {error}") from error
        each = self.per_iteration
        if isinstance(tail, EmpiricalTail):
            if each:
                raise InputError(
                    f"workload.straggler_cv.per_iteration is {each:g}, but the tail was measured, with a spread of"
                    f" {tail.cv:.3g}: leave one of them out"
                )
            each = tail.cv
        return Stragglers(self.persistent, each, tail, is_per_worker=self.per == "worker")


def _straggler_form(value: object) -> object:
    return {"per_iteration": value} if isinstance(value, int | float | str) else value


def _scaling_form(value: object) -> object:
    """Keys as text, as in JSON, so that a spec read back has the same digest."""
    if isinstance(value, dict):
        return {str(key): number for key, number in value.items()}
    if value is None or isinstance(value, str):
        return value
    raise ValueError("must be a name, the path of a .csv, a mapping or linear")


ScalingForm = Annotated[str | dict[str, Any] | None, BeforeValidator(_scaling_form)]


ERROR = Range(-1, 1e6, is_open=True)


class ProfileSpec(Section):
    """How wrong the policy's beliefs are; errors are relative, above -1."""

    iteration_s_error: Annotated[
        Number, ERROR, "relative error of the seconds per iteration that policies believe; 0.2 means 20 % too long"
    ] = 0.0
    scaling_error: Annotated[Number, ERROR, "relative error of the speed-up beyond one GPU that policies believe"] = 0.0
    scaling: Annotated[ScalingForm, "the scaling that policies believe instead of the true one"] = None

    def errors(self) -> ProfileErrors:
        """The same in the words of `traces`.

        Raises:
            InputError: an error is not above -1, the scaling is unknown or malformed, or there are both it and an error of it.
        """
        believed = None if self.scaling is None else scaling_of(cast("str", self.scaling))
        return ProfileErrors(self.iteration_s_error, self.scaling_error, believed)


CONFIGURATIONS = ("bundle", "search-space", "random", "tpe", "gp")
"""Where the configurations of a real run come from: the bundle's (the seed's draw), a fresh draw, or Optuna's samplers."""
BATCHES = ("global", "per-worker")
"""What a real gang does with its batch: shares the one of a single worker (strong scaling), or has one per worker (weak)."""


def _one_of(known: Sequence[str]) -> Callable[[object], object]:
    """A check for a word; the first is what is meant where nothing is said, and so left out of spec and digest."""

    def checked(value: object) -> object:
        if value in known:
            return None if value == known[0] else value
        near = nearest(value, known) if isinstance(value, str) else None
        raise ValueError(f"must be one of {', '.join(known)}" + (f"; did you mean {near}?" if near else ""))

    return checked


def _own_place(value: object) -> object:
    return absolute(value, Path.cwd()) if isinstance(value, str) else value


def code_of(trainable: str) -> OwnCode:
    """The training code of this name, not yet run.

    Raises:
        InputError: there is none.
    """
    code = find(trainable)
    if code is None:
        raise InputError(f"workload.trainable is {trainable!r}, but must be file.py:Name or module:Name")
    return code


class WorkloadSpec(Section):
    """What trains, and what a run says about it instead of the bundle."""

    bundle: Annotated[
        str | None,
        "name or folder of recorded curves, of which a seed draws `job.trials` configurations, and a replicate of each where"
        " there are several; planners need none",
    ] = None
    configurations: Annotated[
        str | None,
        BeforeValidator(_one_of(CONFIGURATIONS)),
        "of real runs: the `bundle`'s, a fresh draw (`search-space`), or Optuna's `random`, `tpe`, `gp`",
    ] = None
    batch: Annotated[
        str | None, BeforeValidator(_one_of(BATCHES)), "of real gangs: `global` (shared by the gang), or `per-worker`"
    ] = None
    scaling: Annotated[
        ScalingForm,
        "speed-up by gang (default: the bundle's): a shipped name, a CSV, `{1: 1, 2: 1.7}`, `{2x2: 1.1}` by GPUs and nodes, a"
        " law with its parameters, or `linear` ([scaling](scaling.md))",
    ] = None
    iteration_s: Annotated[
        Seconds | None, Range(1e-6, 1e9), "seconds per iteration on one GPU; default: the bundle's"
    ] = None
    evaluate_s: Annotated[
        Seconds | None,
        SECONDS,
        "seconds of an iteration in which one GPU evaluates and the rest of the gang waits; default: the bundle's",
    ] = None
    min_gpus: Annotated[
        Count | None, GANG, "the smallest gang that holds a configuration in memory; default: the bundle's"
    ] = None
    straggler_cv: Annotated[
        StragglerSpec | None,
        BeforeValidator(_straggler_form),
        "spread of an iteration's duration, a number or the keys below; default: the bundle's ([stragglers](stragglers.md))",
    ] = None
    score_noise: Annotated[
        Number | None,
        Range(0, 1e6),
        "noise of the scores that policies see: a normal standard deviation, as a share of (median -"
        " best) of the bundle's final scores. Answers and regret are judged without noise. On recorded curves only",
    ] = None
    trainable: Annotated[
        str | None,
        BeforeValidator(_own_place),
        "training code of your own, `file.py:Name` or `module:Name`, a class or a function ([guide](train_your_own.md)),"
        " for `profile` and real runs",
    ] = None
    space: Annotated[
        dict[str, Any] | None,
        "its hyperparameters, each a list of choices or `{uniform: [low, high]}`, `log_uniform`, `integer`, `log_integer`",
    ] = None
    profile: ProfileSpec = ProfileSpec()
    _code: OwnCode | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _own_training(self, info: ValidationInfo) -> Self:
        if (self.trainable is None) != (self.space is None):
            raise InputError("workload.trainable and workload.space go together: give both, or neither")
        if self.trainable is None or self.space is None:
            return self
        search_space_of(self.space)
        recorded = (info.context or {}).get(RECORDED_TRAINABLE)
        if recorded is not True:
            self._code = recorded if isinstance(recorded, OwnCode) else code_of(self.trainable)
        return self

    @property
    def code(self) -> OwnCode | None:
        """The training code of the user's own, not yet run; None where there is none, or it came with a record."""
        return self._code

    def with_code_of(self, named: str) -> Self:
        """The same workload, trained by the code that the user named."""
        document = self.model_dump(mode="json", exclude_none=True)
        return self.model_validate(document, context={RECORDED_TRAINABLE: code_of(named)})

    def overrides(self, rescale_s: float | None) -> Overrides:
        """What replaces the bundle's own numbers.

        Raises:
            InputError: the scaling or the tail of the stragglers is unknown or malformed.
        """
        scaling = None if self.scaling is None else scaling_of(cast("str", self.scaling))
        return Overrides(
            iteration_s=self.iteration_s,
            scaling=scaling,
            rescale_s=rescale_s,
            stragglers=None if self.straggler_cv is None else self.straggler_cv.stragglers(),
            evaluate_s=self.evaluate_s,
            min_gpus=self.min_gpus,
        )
