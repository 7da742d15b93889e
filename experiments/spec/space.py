"""The search space of the user's own training code, as YAML holds it. Imports traces.workloads and sim.model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from elastune.sim.model.errors import InputError, unknown
from elastune.sim.model.numbers import number_of, whole_number_of
from elastune.traces.workloads import Categorical, Dimension, Integer, LogUniform, SearchSpace, Uniform

KINDS: Mapping[str, Callable[[float, float], Dimension]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "integer": lambda low, high: Integer(int(low), int(high)),
    "log_integer": lambda low, high: Integer(int(low), int(high), log=True),
}
"""What `{kind: [low, high]}` may say."""


def search_space_of(space: Mapping[str, Any]) -> SearchSpace:
    """The space of a spec's `workload.space`.

    Args:
        space: by hyperparameter, a list of choices, or `{kind: [low, high]}` with a kind of `KINDS`.

    Raises:
        InputError: a hyperparameter is malformed; names it.
    """
    if not space:
        raise InputError("workload.space is empty: give each hyperparameter its range")
    return SearchSpace({str(name): _dimension(str(name), value) for name, value in space.items()})


def _dimension(name: str, value: object) -> Dimension:
    try:
        return Categorical(tuple(value)) if isinstance(value, list) else _range(value)
    except (InputError, ValueError, TypeError) as error:
        raise InputError(f"workload.space.{name}: {error}") from error


def _range(value: object) -> Dimension:
    if not isinstance(value, dict) or len(value) != 1:
        raise InputError(f"is {value!r}, but must be a list of choices, or one of {{{' | '.join(KINDS)}: [low, high]}}")
    ((kind, ends),) = value.items()
    if kind not in KINDS:
        raise unknown("kind of range", str(kind), KINDS)
    if not isinstance(ends, list) or len(ends) != 2:
        raise InputError(f"{kind} is {ends!r}, but must be [low, high]")
    read = whole_number_of if kind.endswith("integer") else number_of
    low, high = (read(str(end)) for end in ends)
    return KINDS[kind](low, high)
