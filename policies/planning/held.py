"""What a stage may be given on so many machines, and which of it others beat whatever follows. Pure [ours]."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import held_usd
from elastune.policies.planning.estimate import lead_s
from elastune.policies.planning.lateness import ON_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elastune.policies.planning.plan import Allocation, Terms
    from elastune.policies.planning.spaces import Choice, Space


def by_instances(
    found: Sequence[Choice], terms: Terms, space: Space, counts: Iterable[int], *, by_age: bool = False
) -> dict[int, list[tuple[int, Choice]]]:
    """By machines held: the choices that can be taken on them and nothing else beats there, with their positions.

    In `fair` those that need so many, in `wide` those that need no more.

    Args:
        found: what `choices` returned.
        terms: for how long machines take to start.
        space: the plan space.
        counts: numbers of machines that `wide` plans may hold, rising; fewer than the stage needs are left out.
        by_age: what a machine costs depends on its age, so that a refund makes up for no longer training.
    """
    enough = [count for count in counts if count >= found[0].instances]
    numbered: dict[int, list[tuple[int, Choice]]] = {}
    for number, choice in enumerate(found):
        numbered.setdefault(choice.instances, []).append((number, choice))
    is_plain = all(choice.lateness == (ON_TIME,) and choice.refund is None for choice in found)
    if is_plain and (space == "fair" or terms.is_per_instance):
        if space == "fair":
            return numbered
        # Sorted by machines, each faster than those before it: the last that fits is the fastest.
        needed = [choice.instances for choice in found]
        positions = {held: bisect_right(needed, held) - 1 for held in enough}
        return {held: [(number, found[number])] for held, number in positions.items()}
    merits = _Merits(found, terms, by_age=by_age)
    kept: dict[int, list[int]] = {}
    best = list[int]()
    for held in numbered if space == "fair" else enough:
        new = [number for number, _ in numbered.get(held, ())]
        if new:
            # On more machines than so many, they beat those that they beat here.
            best = merits.unbeaten(new if space == "fair" else [*best, *new], held)
        kept[held] = best
    return {held: [(number, found[number]) for number in numbers] for held, numbers in kept.items()}


class _Merits:
    """What may matter later of the choices of a stage."""

    def __init__(self, found: Sequence[Choice], terms: Terms, *, by_age: bool) -> None:
        self._plain = np.array([_merits(choice, terms) for choice in found])
        self._is_refunded = found[0].refund is not None
        if self._is_refunded:
            most = max(choice.instances for choice in found)
            paid_usd = [0.0 if by_age else held_usd(terms, choice.train_s) for choice in found]
            self._each_usd = (np.array(paid_usd) - [choice.each_refund_usd for choice in found])[:, None]
            self._waiting_usd = self._each_usd - [[held_usd(terms, _ahead_s(choice, terms))] for choice in found]
            self._released_usd = np.array([choice.released_usd(most) for choice in found])

    def unbeaten(self, numbers: list[int], held: int) -> list[int]:
        """Those of these choices than which no other is as good in all of it on so many machines; the first of equals."""
        if len(numbers) < 2:
            return numbers
        merits = self._plain[numbers]
        if self._is_refunded:
            # What so many cost, for each number of them that is released after it, and before a stage that waits for more.
            each_usd, waiting_usd = self._each_usd[numbers], self._waiting_usd[numbers]
            refunded_usd = held * each_usd - self._released_usd[numbers, : held + 1]
            merits = np.hstack((merits, each_usd, held * waiting_usd, refunded_usd))
        order = np.lexsort(merits.T)
        ordered = merits[order]
        no_worse = (ordered[:, None, :] <= ordered[None, :, :] + 1e-9).all(axis=2)
        is_beaten = np.triu(no_worse, k=1).any(axis=0)
        return [numbers[position] for position in sorted(order[~is_beaten])]


def _ahead_s(choice: Choice, terms: Terms) -> float:
    return lead_s(choice.train_s + terms.profile.sync_s, terms.profile.startup.mean_s)


def _merits(choice: Choice, terms: Terms) -> list[float]:
    """Price and training, which machines are paid for; and by machines waited for, its end and late end, also less its lead.

    Between the ends that two choices reach with later tails, the difference is monotone in those tails: of their limits, none
    and endless ones, the first compares late ends and the second expected ones.
    """
    ahead_s = _ahead_s(choice, terms)
    merits = [choice.usd, choice.train_s]
    for lateness in choice.lateness:
        end_s = choice.train_s + lateness.shift_s
        late_s = end_s + math.sqrt(lateness.tail_s2)
        merits += [end_s, late_s, end_s - ahead_s, late_s - ahead_s]
    return merits


def holding(chosen: Sequence[Choice], held: Sequence[int], live: int, *, prefetches: bool) -> list[Allocation]:
    """The allocations of these choices on so many machines, new ones asked for early where that is allowed."""
    return [
        replace(
            choice.allocation,
            spare_instances=count - choice.instances,
            is_prefetched=prefetches and index > 0 and count > before,
        )
        for index, (choice, count, before) in enumerate(zip(chosen, held, [live, *held[:-1]], strict=True))
    ]


def tails_from(per_stage: Sequence[Sequence[Choice]]) -> list[tuple[float, float]]:
    """The least and the most that a stage and all later ones may add to the square of a tail; nothing after the last."""
    tails = [[late.tail_s2 for choice in stage for late in choice.lateness] for stage in reversed(per_stage)]
    least = accumulate((min(some) for some in tails), initial=0.0)
    most = accumulate((max(some) for some in tails), initial=0.0)
    return list(zip(least, most, strict=True))[::-1]
