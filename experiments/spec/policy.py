"""The section `policy`: who decides.

What is wrong is said by pydantic, with its place, or by an `InputError`; `experiments.spec.run.RunSpec` makes one of both.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_serializer, model_validator

from elastune.experiments.own_code import OwnCode, absolute, is_file
from elastune.experiments.own_policy import NEEDED, own_entry, policy_named, unloaded
from elastune.experiments.spec.section import RECORDED, Section
from elastune.experiments.spec.yaml_file import policy_mapping
from elastune.policies.registry import RegisteredPolicy, all_entries, factory
from elastune.policies.sizing.refusal import require_one_of
from elastune.sim.model.errors import InputError, unknown

if TYPE_CHECKING:
    from elastune.sim.model.protocols import PolicyFactory


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
