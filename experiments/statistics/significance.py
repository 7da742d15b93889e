"""Whether a mean difference may be chance, and how many seeds are needed to decide. Imports numpy; scipy inside the functions.

Deterministic: random signs come from a generator with a fixed seed, and are the same for equally many units.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

POWER = 0.8
LEVEL = 0.05
EFFECT = 0.05
"""The least difference that counts: of regret as it is, of anything else as a share."""
_FLIPS = 10_000
_EXACT_UNITS = 13
_COLUMNS = 400
_SEED = 20210420
_ROUNDING = 1e-9


def sign_flip_p_each(groups: Sequence[Sequence[float] | np.ndarray]) -> list[float]:
    """By group, the two-sided p-value of a sum whose parts are equally likely to have either sign, independently.

    Exact up to 13 units, so that it is never below 2 / 2^units; of more, 10,000 random flips and the one that was seen.

    Args:
        groups: what each independent unit adds; units that add nothing say nothing either way.

    Returns:
        NaN where there are no parts.
    """
    by_units: dict[int, list[int]] = {}
    for index, parts in enumerate(groups):
        by_units.setdefault(len(parts), []).append(index)
    found = [math.nan] * len(groups)
    for units, members in by_units.items():
        for start in range(0, len(members) if units else 0, _COLUMNS):
            part = members[start : start + _COLUMNS]
            added = np.column_stack([np.asarray(groups[index], dtype=float) for index in part])
            for index, p in zip(part, _flipped(added), strict=True):
                found[index] = p
    return found


def _flipped(added: np.ndarray) -> list[float]:
    """By column of (units, groups) float."""
    units = len(added)
    # Sums that differ only by the order of summation count as equal.
    enough = np.abs(added.sum(axis=0)) - _ROUNDING * np.abs(added).sum(axis=0)
    extreme = (np.abs(_signs(units) @ added) >= enough).sum(axis=0)
    shares = extreme / 2**units if units <= _EXACT_UNITS else (extreme + 1) / (_FLIPS + 1)
    return [float(share) for share in shares]


@functools.lru_cache(maxsize=8)
def _signs(units: int) -> np.ndarray:
    """(flips, units) float of 1 and -1: all of them, or so many random ones."""
    if units <= _EXACT_UNITS:
        return np.array(list(itertools.product((1.0, -1.0), repeat=units)))
    return np.random.default_rng(_SEED).integers(0, 2, size=(_FLIPS, units)) * 2.0 - 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(hypotheses,) float: p-values adjusted so that any of them below a level is below it for all together.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2), 1979. A NaN stays
    one and is no hypothesis.
    """
    given = np.asarray(p_values, dtype=float)
    adjusted = np.full(given.shape, math.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * given[order]))
    return adjusted


def seeds_needed(
    pilot: Sequence[float], effect: float = EFFECT, *, power: float = POWER, level: float = LEVEL
) -> int | None:
    """How many seeds a two-sided paired t-test at this level needs to see this mean difference; None for under two of them.

    Args:
        pilot: differences by seed; those that are not finite are left out.
        effect: the least difference that counts, in the same unit, above 0.
        power: how often it is to be seen where it is there.
        level: how often one is to be seen where there is none.
    """
    known = np.asarray(pilot, dtype=float)
    known = known[np.isfinite(known)]
    if known.size < 2 or effect <= 0:
        return None
    return _pairs_for(float(known.std(ddof=1)) / effect, power, level)


def _pairs_for(deviation: float, power: float, level: float) -> int:
    """The fewest pairs whose t-test has the power, where the standard deviation is so many effects."""
    # Not scipy.stats, which would take milliseconds for each group of a table.
    from scipy.special import nctdtr, ndtri, stdtrit

    if deviation <= 0:
        return 2
    # The normal approximation needs fewer pairs, by two or three.
    pairs = max(2, math.floor(((ndtri(1 - level / 2) + ndtri(power)) * deviation) ** 2))
    # The test's other tail would add power that nobody wants.
    while 1 - nctdtr(pairs - 1, math.sqrt(pairs) / deviation, stdtrit(pairs - 1, 1 - level / 2)) < power:
        pairs += 1
    return int(pairs)
