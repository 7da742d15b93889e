"""Pareto sets of (time, cost) labels as arrays. Imports numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ids = NDArray[np.int64]

TIME_GRAIN_S = 1e-7
"""Times closer than this are the same: sums of the same floats in another order must not make two labels."""


@dataclass(frozen=True)
class Labels:
    """Partial plans.

    Attributes:
        time_s: (labels,) expected end.
        usd: (labels,) cost so far.
        ids: (labels,) which label of the stage before each continues.
    """

    time_s: Floats
    usd: Floats
    ids: Ids

    def __len__(self) -> int:
        return len(self.time_s)

    def plus(self, seconds: float, usd: float) -> Labels:
        """All of them later and dearer."""
        return Labels(self.time_s + seconds, self.usd + usd, self.ids)

    def within(self, time_s: float, usd: float) -> Labels:
        """Those that end by then and cost at most that."""
        kept = (self.time_s <= time_s) & (self.usd <= usd)
        return self if kept.all() else Labels(self.time_s[kept], self.usd[kept], self.ids[kept])


NONE = Labels(np.empty(0), np.empty(0), np.empty(0, np.int64))


def efficient(parts: Sequence[Labels]) -> Labels:
    """The labels of all parts than which none is both sooner and cheaper, by time; one of several equal ones."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else NONE
    time_s = np.concatenate([part.time_s for part in parts])
    usd = np.concatenate([part.usd for part in parts])
    ids = np.concatenate([part.ids for part in parts])
    order = efficient_order(time_s, usd)
    return Labels(time_s[order], usd[order], ids[order])


def efficient_order(time_s: Floats, usd: Floats) -> Ids:
    """Positions of the efficient points by time; ties within rounding keep one."""
    order = np.lexsort((usd, np.rint(time_s / TIME_GRAIN_S)))
    sorted_usd = usd[order]
    is_kept = np.ones(len(order), bool)
    least_usd = np.minimum.accumulate(sorted_usd)[:-1]
    is_kept[1:] = sorted_usd[1:] < least_usd - 1e-12 * np.abs(least_usd)
    kept: Ids = order[is_kept]
    return kept
