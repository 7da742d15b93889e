"""Numbers as people read them: in tables, sentences and reports. Imports only the standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping

NONE = "-"
_IN_FULL = 1e6


def number(value: float | None, digits: int = 4) -> str:
    """The number with this many significant digits, in full below a million; a dash where there is none."""
    if value is None or math.isnan(value):
        return NONE
    told = f"{value:.{digits}g}"
    return f"{float(told):,.0f}" if "e+" in told and abs(value) < _IN_FULL else told


def usd(value: float | None) -> str:
    """Dollars and cents."""
    return NONE if value is None or math.isnan(value) else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """Whole seconds."""
    return NONE if value is None or math.isnan(value) else f"{value:,.0f}"


def duration(value_s: float) -> str:
    """Roughly how long, in the unit that reads best: `40 s`, `25 min`, `5.5 h`."""
    if value_s < 100:
        return f"{max(value_s, 1):.0f} s"
    return f"{value_s / 60:.0f} min" if value_s < 6000 else f"{value_s / 3600:.1f} h"


def percent(value: float | None) -> str:
    """A share as whole per cent."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def kept(is_met: bool | None, limit: str) -> str:
    """Whether a run was within a limit."""
    return "no limit" if is_met is None else f"{'within' if is_met else 'BEYOND'} {limit}"


def configuration(hyperparameters: Mapping[str, object]) -> str:
    """Hyperparameters by name."""
    return ", ".join(f"{name}={number(v) if isinstance(v, float) else v}" for name, v in hyperparameters.items())


def interval(value: float | None, low: float | None, high: float | None, digits: int = 4) -> str:
    """A number with its interval."""
    told = number(value, digits)
    return told if told == NONE else f"{told} [{number(low, digits)}, {number(high, digits)}]"
