"""Prices that change over time: piecewise constant series, and functions for constant and changing prices alike.

Imports only the standard library and msgspec. Times are seconds since the start of the run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeAlias

import msgspec

from elastune.sim.model.errors import InputError


class PriceSeries(msgspec.Struct, frozen=True):
    """A price that changes at known times.

    Attributes:
        start_s: from when each price holds, rising; the first is 0.
        usd_per_hour: each price; the last holds for ever.
    """

    start_s: tuple[float, ...]
    usd_per_hour: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.start_s or len(self.start_s) != len(self.usd_per_hour):
            raise InputError(
                f"a price series has {len(self.start_s)} times and {len(self.usd_per_hour)} prices, but needs as many of"
                " each, and at least one"
            )
        if self.start_s[0] != 0:
            raise InputError(f"a price series begins at {self.start_s[0]:g} s, but must say what holds from 0 s on")
        for before, after in pairwise(self.start_s):
            if not before < after < math.inf:
                raise InputError(f"a price series goes from {before:g} s to {after:g} s, but must go forward in time")
        for price in self.usd_per_hour:
            require_price("a price series", price)

    def pieces(self, from_s: float) -> Iterator[tuple[float, float, float]]:
        """(start, end, USD per hour) of the pieces that hold at `from_s` or later; the last ends at infinity."""
        first = max(bisect_right(self.start_s, from_s) - 1, 0)
        ends_s = (*self.start_s[1:], math.inf)
        for index in range(first, len(self.start_s)):
            yield self.start_s[index], ends_s[index], self.usd_per_hour[index]


Price: TypeAlias = float | PriceSeries
"""USD per hour, constant or as a series."""


def require_price(what: str, usd_per_hour: float) -> None:
    """Accept a price that is finite and at least 0.

    Raises:
        InputError: it is not; `what` says whose price it is.
    """
    if not (math.isfinite(usd_per_hour) and usd_per_hour >= 0):
        raise InputError(f"{what}: the price is {usd_per_hour} USD/h, but must be >= 0")


def price_at(price: Price, at_s: float) -> float:
    """USD per hour at a time."""
    if not isinstance(price, PriceSeries):
        return price
    return next(usd_per_hour for _, _, usd_per_hour in price.pieces(at_s))


def highest(price: Price, from_s: float = 0.0, until_s: float = math.inf) -> float:
    """The highest USD per hour from one time until another."""
    if not isinstance(price, PriceSeries):
        return price
    return max(
        usd_per_hour for start_s, _, usd_per_hour in price.pieces(from_s) if start_s <= from_s or start_s < until_s
    )


def last_change_s(price: Price) -> float:
    """From when on the price stays the same."""
    return price.start_s[-1] if isinstance(price, PriceSeries) else 0.0


def combined(parts: Iterable[tuple[Price, float]]) -> Price:
    """The price of shares of several things: the sum of each price times its share."""
    listed = list(parts)
    times_s = sorted({start_s for price, _ in listed if isinstance(price, PriceSeries) for start_s in price.start_s})
    if not times_s:
        return math.fsum(
            usd_per_hour * share for usd_per_hour, share in listed if not isinstance(usd_per_hour, PriceSeries)
        )
    sums = (math.fsum(price_at(price, at_s) * share for price, share in listed) for at_s in times_s)
    return PriceSeries(tuple(times_s), tuple(sums))
