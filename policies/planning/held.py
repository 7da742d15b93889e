"""What a stage may be given on so many machines, and which of it others beat whatever follows. Pure [ours]."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import held_usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elastune.policies.planning.arrays import Floats, Ids
    from elastune.policies.planning.choices import Choices
    from elastune.policies.planning.plan import Allocation, Terms
    from elastune.policies.planning.spaces import Space

_CLOSE = 1e-9
"""Seconds and USD closer than this are the same."""


def by_instances(
    found: Choices,
    terms: Terms,
    space: Space,
    counts: Iterable[int],
    *,
    by_age: bool = False,
    most_held: Floats | None = None,
) -> dict[int, Ids]:
    """By machines held: positions of the choices that can be taken on them and nothing else beats there.

    In `fair` those that need so many, in `wide` those that need no more.

    Args:
        found: what `choices` returned.
        terms: for how long machines take to start.
        space: the plan space.
        counts: numbers of machines that plans may hold, rising; fewer than the stage needs are left out.
        by_age: what a machine costs depends on its age, so that a refund makes up for no longer training.
        most_held: (choices,) on how many machines some plan may take each that keeps the limits; on any if None.
    """
    may_differ = found.is_refunded or found.is_spread or not (space == "fair" or terms.is_per_instance)
    numbers = np.arange(len(found))
    if most_held is not None:
        numbers = np.flatnonzero(most_held >= found.instances)
        most_held = most_held[numbers]
    needed, beats = found.instances[numbers], None
    kept: dict[int, Ids] = {}
    # Positions among `numbers`.
    best, below = numbers[:0], 0
    for held in counts:
        # Fewest machines first: those from `below` on have not been on offer yet.
        new = np.arange(below, below := int(needed.searchsorted(held, "right")))
        if space == "fair":
            best, new = new[:0], new[needed[new] == held]
        if most_held is not None:
            best, new = best[most_held[best] >= held], new[most_held[new] >= held]
        if len(new):
            # On more machines than so many, they beat those that they beat here.
            best = np.concatenate((best, new))
            if not may_differ:
                best = best if space == "fair" else best[-1:]
            elif len(best) > 1:
                beats = beats or _Beats(found.at(numbers), terms, by_age=by_age)
                best = beats.unbeaten(best, held)
        if len(best):
            kept[held] = numbers[best]
    return kept


class _Beats:
    """Which choices of a stage others beat, whatever follows.

    Of two, the one beats that is as cheap, trains as soon, and ends as soon and as late by machines waited for, also less its
    lead. Between the ends that two choices reach with later tails, the difference is monotone in those tails: of their limits,
    none and endless ones, the first compares late ends and the second expected ones.

    Where machines are given back, it must also cost no more for each machine that is held, and no more in all for any number of
    machines that are released after it. What each costs less makes up for what is given back, the sooner the more are held.
    """

    def __init__(self, found: Choices, terms: Terms, *, by_age: bool) -> None:
        self._found = found
        ahead_s = np.minimum(found.train_s + terms.profile.sync_s, terms.profile.startup.mean_s)
        merits = [found.train_s, found.train_s - ahead_s]
        if found.usd.any():
            merits.insert(0, found.usd)
        if found.is_spread:
            end_s = found.train_s[:, None] + found.shift_s
            late_s = end_s + np.sqrt(found.tail_s2)
            merits += [*end_s.T, *late_s.T, *(end_s.T - ahead_s), *(late_s.T - ahead_s)]
        self._each_usd = (0.0 if by_age else held_usd(terms, 1.0) * found.train_s) - found.each_refund_usd
        if found.is_refunded:
            merits += [self._each_usd, self._each_usd - held_usd(terms, 1.0) * ahead_s]
        self._merits = np.array(merits)
        # Of equal ones, the first stays.
        self._rank = np.empty(len(found), np.int64)
        self._rank[np.lexsort(merits[::-1])] = np.arange(len(found))

    def unbeaten(self, numbers: Ids, held: int) -> Ids:
        """Those of these choices than which no other one is as good in everything on so many machines."""
        merits = self._merits[:, numbers]
        one, other = np.nonzero(self._rank[numbers][:, None] < self._rank[numbers])
        for merit in merits:
            no_worse = merit[one] <= merit[other] + _CLOSE
            one, other = one[no_worse], other[no_worse]
        if self._found.is_refunded:
            costs_usd = held * self._each_usd[numbers, None] - self._found.released_by(held)[numbers]
            no_dearer = (costs_usd[one] <= costs_usd[other] + _CLOSE).all(axis=1)
            other = other[no_dearer]
        is_kept = np.ones(len(numbers), bool)
        is_kept[other] = False
        return numbers[is_kept]


def holding(chosen: Sequence[Allocation], held: Sequence[int], live: int, *, prefetches: bool) -> list[Allocation]:
    """These allocations on so many machines, new ones asked for early where that is allowed."""
    return [
        replace(
            allocation,
            spare_instances=count - allocation.needed_instances,
            is_prefetched=prefetches and index > 0 and count > before,
        )
        for index, (allocation, count, before) in enumerate(zip(chosen, held, [live, *held[:-1]], strict=True))
    ]


def tails_from(per_stage: Sequence[Choices]) -> list[tuple[float, float]]:
    """The least and the most that a stage and all later ones may add to the square of a tail; nothing after the last."""
    if not any(found.is_spread for found in per_stage):
        return [(0.0, 0.0)] * (len(per_stage) + 1)
    tails = [found.tail_s2 for found in reversed(per_stage)]
    least = accumulate((float(some.min()) for some in tails), initial=0.0)
    most = accumulate((float(some.max()) for some in tails), initial=0.0)
    return list(zip(least, most, strict=True))[::-1]
