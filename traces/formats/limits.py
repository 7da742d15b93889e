"""How large recorded numbers may be. Imports numpy.

Larger numbers are errors: a time of day was taken for a duration, or a run diverged.
"""

from __future__ import annotations

import numpy as np

LONGEST_S = 1e8
"""About three years: no iteration, trial or recorded spot market lasts longer. A time of day is 1.7e9 s after 1970."""
DEAREST = 1e6
"""USD per hour of a machine."""
LARGEST = 1e100
"""Of scores and relative costs: their sums, squares and ratios must not overflow."""


def too_long(seconds: float) -> str:
    """What to say of a duration that is longer than `LONGEST_S`."""
    since = "milliseconds since 1970" if seconds > 1e11 else "seconds since 1970"
    return f"more than {LONGEST_S:g} s (three years): are these {since}? Subtract the time at which it began"


def are_too_large(scores: np.ndarray) -> np.ndarray:
    """Which scores are finite and larger than `LARGEST`, of the same shape."""
    found: np.ndarray = (np.abs(scores) > LARGEST) & np.isfinite(scores)
    return found


def are_costs(costs: np.ndarray) -> np.ndarray:
    """Which numbers are relative costs that can be computed with, of the same shape."""
    found: np.ndarray = (costs >= 1 / LARGEST) & (costs <= LARGEST)
    return found


def too_large(score: float) -> str:
    """What to say of such a score."""
    allowed = f"between -{LARGEST:g} and {LARGEST:g}"
    return f"is {score:g}, but must be {allowed}; leave it empty, or nan, where a run diverged"
