"""The one reader of numbers that somebody wrote: in a table, a YAML file, `--set` or an option.

Imports the standard library. A number is written in decimals: `12`, `-0.5`, `+2`, `.5`, `1e-3`. Python and YAML also read
`1_0`, `010`, `0x10` and `1:30` as numbers, but not all as the same ones. So these are refused. A duration is a number of
seconds, or a number and its unit: `90s`, `30min`, `2h`, `1d`.
"""

from __future__ import annotations

import math
import re
import reprlib
from contextlib import suppress

_WHOLE = r"[-+]?(?:0|[1-9][0-9]*)"
_DECIMAL = r"(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
WHOLE = re.compile(_WHOLE)
"""A whole number without an exponent."""
NUMBER = re.compile(_WHOLE + _DECIMAL)
"""Any finite number."""
_ZEROS_FIRST = re.compile(r"[-+]?0[0-9]+[0-9.eE+-]*")
_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE)
UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}
"""Seconds of what may stand behind the number of a duration."""
DURATIONS = "90s, 30min, 2h or 1d"
"""Durations as they may be written, for messages."""
_LONGEST_FIRST = sorted(UNITS_S, key=len, reverse=True)
_MOST_DIGITS = 400  # No number that a float holds needs more, and Python refuses to read whole numbers above 4,300.


def number_of(text: str, *, is_score: bool = False) -> int | float:
    """The number that a text holds; whole where it is written without a point and an exponent.

    Args:
        text: what was written; blanks around it do not count.
        is_score: whether `nan`, `inf` and `infinity` are allowed, as scores of a training that diverged.

    Raises:
        ValueError: it is no number. The message goes on from "is '010', but", as in "must be a number without leading zeros".
    """
    text = text.strip()
    if WHOLE.fullmatch(text) and len(text) <= _MOST_DIGITS:
        return int(text)
    if NUMBER.fullmatch(text) and len(text) <= _MOST_DIGITS:
        number = float(text)
        if math.isfinite(number):
            return number
        raise ValueError("must be a number that is not larger than 1.8e308")
    if is_score and _NOT_FINITE.fullmatch(text):
        return float(text)
    raise ValueError(_wanted(text, "a number"))


def as_float(value: object) -> float:
    """The number that code of a user gave: numpy and torch scalars among it, and what is not finite.

    Raises:
        ValueError: it is no number. A text is none, as `float` reads `1_0` as 10.
    """
    if not isinstance(value, str | bytes | bytearray):
        with suppress(TypeError, ValueError, OverflowError, RuntimeError):  # torch raises the last
            return float(value)  # type: ignore[arg-type]  # whatever has __float__
    raise ValueError(f"is {reprlib.repr(value)}, but must be a number")


def whole_number_of(text: str) -> int:
    """The whole number that a text holds; `3.0` and `3e2` are whole.

    Raises:
        ValueError: it is none; worded as by `number_of`.
    """
    try:
        number = number_of(text)
    except ValueError as error:
        raise ValueError(str(error).replace("a number", "a whole number")) from None
    if number != int(number):
        raise ValueError("must be a whole number")
    return int(number)


def seconds_of(text: str) -> int | float:
    """The seconds that a text holds: a number, or one with a unit of `UNITS_S` behind it.

    Raises:
        ValueError: it is no duration; worded as by `number_of`.
    """
    unit = next((unit for unit in _LONGEST_FIRST if text.strip().endswith(unit)), "")
    try:
        number = number_of(text.strip().removesuffix(unit))
    except ValueError as error:
        raise ValueError(f"{error}, in seconds or with its unit, as {DURATIONS}") from None
    return number * UNITS_S[unit] if unit else number


def _wanted(text: str, what: str) -> str:
    if len(text) > _MOST_DIGITS:
        return f"must be {what} of at most {_MOST_DIGITS} characters"
    if _ZEROS_FIRST.fullmatch(text):
        return f"must be {what} without leading zeros"
    if "_" in text and NUMBER.fullmatch(text.replace("_", "")):
        return f"must be {what} without underscores"
    if _NOT_FINITE.fullmatch(text):
        return f"must be {what.replace('a ', 'a finite ', 1)}"
    return f"must be {what}"
