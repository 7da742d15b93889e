"""Pareto sets of labels as arrays: (time, cost), or (time, tail, cost) where a percentile counts. Imports numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.arrays import Floats, Ids


TIME_GRAIN_S = 1e-7
"""Times closer than this are the same: sums of the same floats in another order must not make two labels."""

_BLOCK = 128


@dataclass(slots=True)  # not frozen, as very many are made; nobody changes them
class Labels:
    """Partial plans.

    Attributes:
        time_s: (labels,) expected end.
        usd: (labels,) cost so far.
        ids: (labels,) which label of the stage before each continues.
        tail_s2: (labels,) square of the seconds from the expected end to its 95th percentile; None where means are compared.
    """

    time_s: Floats
    usd: Floats
    ids: Ids
    tail_s2: Floats | None = None

    def __len__(self) -> int:
        return len(self.time_s)

    def plus(self, seconds: float, usd: float, tail_s2: float = 0.0) -> Labels:
        """All of them later, dearer and more spread."""
        tail = None if self.tail_s2 is None else self.tail_s2 + tail_s2
        return Labels(self.time_s + seconds, self.usd + usd, self.ids, tail)

    def less(self, usd: Floats) -> Labels:
        """(labels,) each cheaper by so much."""
        return Labels(self.time_s, self.usd - usd, self.ids, self.tail_s2)

    def numbered(self, first: int) -> Labels:
        """The same with ids that count from `first` on."""
        return Labels(self.time_s, self.usd, np.arange(first, first + len(self)), self.tail_s2)

    def within(self, time_s: float, usd: float, least_tail_s2: float = 0.0) -> Labels:
        """Those that end by then, also where at least so much is added to their tails, and cost at most that."""
        kept: NDArray[np.bool_] = (self.late_s(least_tail_s2) <= time_s) & (self.usd <= usd)
        return self if kept.all() else self.at(np.flatnonzero(kept))

    def late_s(self, added_tail_s2: float) -> Floats:
        """(labels,) their end, or its 95th percentile if so much were added to their tails."""
        return self.time_s if self.tail_s2 is None else self.time_s + np.sqrt(self.tail_s2 + added_tail_s2)

    def at(self, positions: Ids) -> Labels:
        """Those at these positions."""
        tail_s2 = None if self.tail_s2 is None else self.tail_s2[positions]
        return Labels(self.time_s[positions], self.usd[positions], self.ids[positions], tail_s2)


NONE = Labels(np.empty(0), np.empty(0), np.empty(0, np.int64))

Range = tuple[float, float]
NOTHING_MORE: Range = (0.0, 0.0)


def joined(parts: Sequence[Labels]) -> Labels:
    """All labels of all parts, in their order."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else NONE
    tails = [part.tail_s2 for part in parts if part.tail_s2 is not None]
    return Labels(
        np.concatenate([part.time_s for part in parts]),
        np.concatenate([part.usd for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate(tails) if tails else None,
    )


def efficient(parts: Sequence[Labels], later_tail_s2: Range = NOTHING_MORE) -> Labels:
    """The labels of all parts than which none is better whatever follows, by time; one of several equal ones.

    Each part alone is taken to be efficient already.

    Args:
        parts: labels to which the same can be added.
        later_tail_s2: the least and the most that later stages may add to their tails. Which of two labels has the later 95th
            percentile can change only once between both, as the difference of two roots is monotone in what is added to both.
    """
    parts = [part for part in parts if len(part)]
    together = joined(parts)
    return together if len(parts) < 2 else together.at(order_of(together, later_tail_s2))


def order_of(labels: Labels, later_tail_s2: Range = NOTHING_MORE) -> Ids:
    """Positions of the efficient labels by time; see `efficient`."""
    least_s2, most_s2 = later_tail_s2
    if labels.tail_s2 is None:
        return efficient_order(labels.time_s, labels.usd)
    if most_s2 <= least_s2:
        return efficient_order(labels.late_s(least_s2), labels.usd)
    return _order_of_three(labels.late_s(least_s2), labels.late_s(most_s2), labels.usd)


def efficient_order(time_s: Floats, usd: Floats) -> Ids:
    """Positions of the efficient points by time; ties within rounding keep one."""
    if len(usd) < 2:
        return np.arange(len(usd))
    order = np.lexsort((usd, np.rint(time_s / TIME_GRAIN_S)))
    sorted_usd = usd[order]
    is_kept = np.ones(len(order), bool)
    least_usd = np.minimum.accumulate(sorted_usd)[:-1]
    is_kept[1:] = sorted_usd[1:] < least_usd - 1e-12 * np.abs(least_usd)
    kept: Ids = order[is_kept]
    return kept


def _order_of_three(first_s: Floats, second_s: Floats, usd: Floats) -> Ids:
    """Positions of the points that no other one is as good as in all three, by the first."""
    order = np.lexsort((usd, np.rint(second_s / TIME_GRAIN_S), np.rint(first_s / TIME_GRAIN_S)))
    second_s, usd = second_s[order], usd[order]
    # What is as good comes before, up to rounding; among equals the first stays.
    latest_s, dearest_usd = second_s + TIME_GRAIN_S, usd + 1e-12 * np.abs(usd)
    is_kept = np.ones(len(order), bool)
    is_kept[1:] = dearest_usd[1:] < np.minimum.accumulate(usd)[:-1]
    steps, others = np.flatnonzero(is_kept), np.flatnonzero(~is_kept)
    # Cheaper than all before them, the steps fall; the first one that is no dearer mostly beats what can be beaten.
    cheaper = np.searchsorted(-usd[steps], -dearest_usd[others])
    others = others[second_s[steps[cheaper]] > latest_s[others]]
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        rivals = np.flatnonzero(is_kept[: block[-1]])
        is_kept[block[~_beaten(rivals, block, second_s, usd)]] = True
        mine = block[is_kept[block]]
        is_kept[mine[_beaten(mine, mine, second_s, usd)]] = False
    kept: Ids = order[is_kept]
    return kept


def _beaten(rivals: Ids, points: Ids, second_s: Floats, usd: Floats) -> NDArray[np.bool_]:
    """Which points some rival before them is no later and no dearer than."""
    latest_s, dearest_usd = second_s[points] + TIME_GRAIN_S, usd[points] + 1e-12 * np.abs(usd[points])
    beats = (second_s[rivals] <= latest_s[:, None]) & (usd[rivals] <= dearest_usd[:, None])
    return np.asarray((beats & (rivals < points[:, None])).any(axis=1))
