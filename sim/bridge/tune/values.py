"""Plain values of what users hand to Ray Tune: numpy scalars, enumerations and other subclasses become what they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from elastune.sim.model.errors import InputError
from elastune.sim.model.numbers import as_float

Plain: TypeAlias = float | int | str | bool | None


def finite(score: object) -> float | None:
    """The score for an event; None if it is not finite.

    Raises:
        InputError: it is not a number.
    """
    try:
        number = as_float(score)
    except ValueError as error:
        raise InputError(f"a score {error}") from error
    return number if math.isfinite(number) else None


def plain(value: Any) -> Any:  # noqa: ANN401  of any type, within mappings and lists too
    """The same value without numpy scalars, zero-dimensional arrays and subclasses of Python's own types."""
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind not in "mM":  # a time has a unit
        unpacked = value.tolist()
        return unpacked if isinstance(unpacked, np.generic) else plain(unpacked)  # a long double stays one
    if isinstance(value, Mapping):
        # A key must stay hashable, which a list is not.
        return {key if isinstance(key, tuple) else plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    return value


def plain_configuration(config: Mapping[str, Any]) -> dict[str, Plain]:
    """The configuration for the journal: nested keys are joined by a slash, other values become text."""
    flat: dict[str, Plain] = {}
    for key, value in plain(config).items():
        if isinstance(value, dict):
            flat |= {f"{_text(key)}/{inner}": below for inner, below in plain_configuration(value).items()}
        elif value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            flat[_text(key)] = value
        else:
            flat[_text(key)] = _text(value)
    return flat


def _text(value: object) -> str:
    """The value as text that UTF-8 can hold."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
