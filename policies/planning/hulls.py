"""Least amounts by time: lower convex hulls of (seconds, amount), and their sums. Pure [ours]."""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elastune.policies.planning.arrays import Floats

Point = tuple[float, float]


@dataclass(frozen=True)
class Hull:
    """The least amount (GPU-seconds, USD) of something by how many seconds it may take.

    Attributes:
        points: (seconds, amount), fastest first, convex and falling.
    """

    points: tuple[Point, ...]

    @classmethod
    def below(cls, points: Iterable[Point]) -> Hull:
        """The falling part of the lower convex hull of these points."""
        hull: list[Point] = []
        least = math.inf
        for point in sorted(points):
            if point[1] >= least:
                continue
            least = point[1]
            while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
                hull.pop()
            hull.append(point)
        return cls(tuple(hull))

    @classmethod
    def of(cls, seconds: Floats, amounts: Floats) -> Hull:
        """The same of the points in two arrays."""
        order = np.lexsort((amounts, seconds))
        falls = np.ones(len(order), bool)
        falls[1:] = amounts[order][1:] < np.minimum.accumulate(amounts[order])[:-1]
        at = order[falls]
        return cls.below(zip(seconds[at].tolist(), amounts[at].tolist(), strict=True))

    @classmethod
    def total(cls, hulls: Sequence[Hull]) -> Hull:
        """Of all of them one after the other: slack goes where a second saves most, which is optimal as hulls are convex."""
        seconds, amount = (math.fsum(firsts) for firsts in zip(*(hull.points[0] for hull in hulls), strict=True))
        points = [(seconds, amount)]
        steps = [step for hull in hulls for step in hull.steps]
        steps.sort(key=itemgetter(0))
        for _, more_s, more in steps:
            seconds += more_s
            amount += more
            points.append((seconds, amount))
        return cls(tuple(points))

    @functools.cached_property
    def steps(self) -> list[tuple[float, float, float]]:
        """(slope, seconds, amount) from each point to the next."""
        return [(_slope(fast, slow), slow[0] - fast[0], slow[1] - fast[1]) for fast, slow in pairwise(self.points)]

    def at(self, seconds: float) -> float:
        """The least amount in so many seconds; infinite in fewer than it takes at least."""
        points = self.points
        if seconds < points[0][0]:
            return math.inf
        after = bisect_left(points, (seconds, -math.inf))
        if after == len(points):
            return points[-1][1]
        if points[after][0] == seconds:
            return points[after][1]
        before = points[after - 1]
        return before[1] + (seconds - before[0]) * _slope(before, points[after])

    def from_(self, seconds: float) -> Hull:
        """The hull from there on."""
        if seconds <= self.points[0][0]:
            return self
        return Hull(((seconds, self.at(seconds)), *(point for point in self.points if point[0] > seconds)))


def _slope(fast: Point, slow: Point) -> float:
    return (slow[1] - fast[1]) / (slow[0] - fast[0])
