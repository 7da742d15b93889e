"""The sections of a run spec that say what is searched, what trains and who decides: `job`, `workload`, `policy`.

Imports sim.model, the policy registry, the loaders of traces, and pydantic. What is wrong is said by pydantic, with its place,
or by an `InputError` of its own; `experiments.spec.run.RunSpec` makes `InputError`s of both.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, model_serializer, model_validator

from elastune.experiments.own_code import OwnCode, absolute, find, is_file
from elastune.experiments.own_policy import NEEDED, own_entry, policy_named, unloaded
from elastune.experiments.spec.section import (
    GANG,
    ITERATIONS,
    SECONDS,
    SOME_SECONDS,
    SPREAD,
    Count,
    NeededUnless,
    Number,
    Range,
    Seconds,
    Section,
)
from elastune.experiments.spec.space import search_space_of
from elastune.experiments.spec.yaml_file import policy_mapping
from elastune.policies.registry import all_entries, factory
from elastune.policies.sizing.refusal import require_one_of
from elastune.sim.model.errors import InputError, InvalidTraceError, nearest, unknown
from elastune.sim.model.job import TuningJob
from elastune.sim.model.profile import Stragglers
from elastune.sim.model.spread import EmpiricalTail
from elastune.traces import Overrides, ProfileErrors, scaling_of, tail_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.registry import RegisteredPolicy
    from elastune.sim.model.job import Direction
    from elastune.sim.model.protocols import PolicyFactory

RECORDED, RECORDED_TRAINABLE = "recorded", "recorded trainable"
"""In the context of a validation: True for the spec of a record, such as a journal, which must not make any code run; or the
code of its policy or its training that the user named."""


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


class PolicySpec(Section):
    """A policy by name, with its parameters; written as the name alone, or as `{name: ..., parameter: ...}`.

    The name of code of the user's own is `module:Name`, `file.py:Name` (then an absolute path), or that of an entry point.
    """

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    _code: OwnCode | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _forms(cls, value: object) -> object:
        mapping = policy_mapping(value) if isinstance(value, str) else value
        if not isinstance(mapping, dict):
            raise InputError(f"policy is {value!r}, but must be a name, or a mapping with name and parameters")
        if "name" not in mapping:
            raise InputError("policy.name is missing")
        name = mapping["name"]
        name = absolute(name, Path.cwd()) if isinstance(name, str) else name
        return {"name": name, "params": {str(key): mapping[key] for key in mapping if key != "name"}}

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> Self:
        recorded = (info.context or {}).get(RECORDED)
        if recorded is True and ":" in self.name:
            return self
        self._code = recorded if isinstance(recorded, OwnCode) else policy_named(self.name)[1]
        self._check_params()
        return self

    def _check_params(self) -> None:
        entry = self.entry
        for parameter in self.params:
            if parameter not in entry.parameters:
                raise unknown(f"{self.short_name} parameter", parameter, entry.parameters)
        for parameter, default in entry.parameters.items():
            value = self.params.get(parameter, default)
            if value is NEEDED:
                raise InputError(f"policy {self.short_name}: {parameter} is missing, and has no default")
            _require_like(f"policy {self.short_name}: {parameter}", value, default)
            if parameter in entry.choices:
                require_one_of(f"policy {self.short_name}", parameter, value, entry.choices[parameter])

    @model_serializer
    def _flat(self) -> str | dict[str, Any]:
        return {"name": self.name, **self.params} if self.params else self.name

    @property
    def code(self) -> OwnCode | None:
        """The user's own code that it is; None for a policy that ships, and for code that came with a record and is not run."""
        return self._code

    @property
    def needs_naming(self) -> bool:
        """Whether it is code that came with a record, so that the user must name it before it is run."""
        return self._code is None and self.name not in all_entries()

    @property
    def entry(self) -> RegisteredPolicy:
        """What is known of the policy."""
        if self._code is not None:
            return own_entry(self._code)
        return all_entries().get(self.name) or unloaded(self.name)

    def with_code_of(self, named: Self) -> Self:
        """The same policy, run by the code that the user named."""
        return self.model_validate({"name": self.name, **self.params}, context={RECORDED: named.code})

    @property
    def short_name(self) -> str:
        """The name, a file without its folder."""
        return self.name.rpartition("/")[2] if is_file(self.name) else self.name

    @property
    def label(self) -> str:
        """The policy as tables name it, such as `sha-elastic:gpus_per_trial=4`, or `mine.py:Mine` without the folder."""
        return self._with_params(self.short_name)

    @property
    def written(self) -> str:
        """The policy as the command line takes it."""
        return self._with_params(self.name)

    def _with_params(self, name: str) -> str:
        return ":".join((name, *(f"{key}={_as_text(value)}" for key, value in self.params.items())))

    def resolved(self) -> dict[str, object]:
        """Name and all parameters, defaults included."""
        defaults = {key: _as_json(value) for key, value in self.entry.parameters.items()}
        return {"name": self.name, **defaults, **self.params}

    def canonical(self) -> dict[str, object]:
        """Name and the parameters that differ from their defaults, so that a new parameter leaves digests as they were.

        Of the user's own code all that are given, as its defaults may not be known.
        """
        is_ours = self.name in all_entries()
        defaults = all_entries()[self.name].parameters if is_ours else {}
        differing = {k: v for k, v in self.params.items() if not is_ours or v != defaults[k]}
        return {"name": self.name, **differing}

    def factory(self) -> PolicyFactory:
        """Builds the policy."""
        if self.name in all_entries():
            return factory(self.name, self.params)
        return partial(self.entry.build, **self.params)


def _as_json(default: object) -> object:
    """A default of the user's own code may be anything."""
    try:
        json.dumps(default, allow_nan=False)
    except (TypeError, ValueError):
        return repr(default)
    return default


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _require_like(what: str, value: object, default: object) -> None:
    """A parameter has the type of its default; policies check their ranges themselves."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    kind = type(default)
    if kind not in words or type(value) is kind or (kind is float and type(value) is int):
        return
    raise InputError(f"{what} is {value!r}, but must be {words[kind]}")
