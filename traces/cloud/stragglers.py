"""How iterations vary: a name, numbers in a spec, or a table of measured durations.

Imports sim.model, traces.formats and the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from elastune.sim.model.errors import InputError, InvalidTraceError, unknown
from elastune.sim.model.numbers import number_of
from elastune.sim.model.spread import LOG_NORMAL, EmpiricalTail, ParetoTail, Tail
from elastune.traces.formats.csv_rows import read_rows
from elastune.traces.formats.texts import plain

TailInput: TypeAlias = "str | Mapping[str, Sequence[float] | Mapping[float, float]]"
"""A name, the path of a .csv, or `{quantiles: ...}` or `{samples: ...}`; see `tail_of`."""

_NAMED: Mapping[str, Tail] = {"lognormal": LOG_NORMAL, "pareto": ParetoTail()}


def tail_of(value: TailInput) -> Tail:
    """The distribution that a spec describes. Measured values are divided by their mean, so their unit does not matter.

    Args:
        value: `lognormal` or `pareto`; `{samples: [...]}`, each drawn equally often; `{quantiles: [...]}`, evenly spaced from
            the least to the largest and linear in between; `{quantiles: {share: value}}` with shares from 0 to 1; or the path
            of a .csv with a column `seconds` (samples), and `share` beside it for quantiles.

    Raises:
        InputError: it is none of these, or its numbers are not positive or out of order.
        InvalidTraceError: the file is missing or malformed.
    """
    if isinstance(value, str):
        if value.endswith(".csv"):
            return _read(Path(value))
        if value not in _NAMED:
            raise unknown("tail", value, _NAMED, "or give a .csv, {quantiles: [...]} or {samples: [...]}")
        return _NAMED[value]
    if isinstance(value, Mapping):
        given: Mapping[str, object] = plain(value)
        for key in ("quantiles", "samples"):
            if given.keys() == {key}:
                return _measured(key, given[key])
    raise InputError(f"tail is {value!r}, but must be a name, a .csv, {{quantiles: [...]}} or {{samples: [...]}}")


def _measured(key: str, numbers: object) -> EmpiricalTail:
    if key == "quantiles" and isinstance(numbers, Mapping):
        pairs = sorted((_number(key, share), _number(key, number)) for share, number in numbers.items())
        return EmpiricalTail.of_quantiles(tuple(number for _, number in pairs), tuple(share for share, _ in pairs))
    if isinstance(numbers, str | Mapping) or not isinstance(numbers, Sequence):
        raise InputError(f"tail.{key} is {numbers!r}, but must be a list of numbers")
    measured = tuple(_number(key, number) for number in numbers)
    return EmpiricalTail.of_quantiles(measured) if key == "quantiles" else EmpiricalTail.of_samples(measured)


def _number(key: str, value: object) -> float:
    try:
        number = number_of(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InputError(f"tail.{key} holds {value!r}, but must hold numbers")
    return float(number)


def _read(path: Path) -> Tail:
    rows = read_rows(path, ("seconds",))
    seconds = tuple(row.positive_number("seconds") for row in rows)
    try:
        if "share" in rows[0].cells:
            return EmpiricalTail.of_quantiles(seconds, tuple(row.number_at_least("share") for row in rows))
        return EmpiricalTail.of_samples(seconds)
    except InvalidTraceError:
        raise
    except InputError as error:
        raise InvalidTraceError(path, str(error)) from error
