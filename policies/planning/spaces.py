"""Plan spaces: what each stage may be given, by the machines it needs. Pure [ours, but for `fair`].

`fair` is RubberBand's plan space as recalled: every trial of a stage gets the same share; machines follow the need of each
stage. `wide` allows any number of gangs with uneven waves, machines held through a dip, and prefetching.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from policies.planning.estimate import expected_stretch, function_usd
from policies.planning.plan import Allocation
from policies.planning.rubberband_search import fair_levels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from policies.halving import Stage
    from policies.planning.plan import Terms

Space: TypeAlias = Literal["fair", "wide"]


@dataclass(frozen=True)
class Choice:
    """One allocation of one stage.

    Attributes:
        train_s: expected seconds from when its machines are there to its last checkpoint.
        usd: of its function calls; 0 where machines are billed.
    """

    allocation: Allocation
    train_s: float
    usd: float

    @property
    def instances(self) -> int:
        """Machines it needs."""
        return self.allocation.needed_instances


def choices(stage: Stage, terms: Terms, space: Space, *, is_first: bool) -> list[Choice]:
    """What a stage may be given and nothing else beats, fewest machines first.

    Where machines are billed, the fastest choice by number of machines that is faster (in `fair`: of its own) than with
    fewer; where functions are billed, all that are faster, cheaper or (in `wide`) on fewer machines than the others.

    Args:
        stage: what is to be trained.
        terms: profile, prices, limits.
        space: the plan space.
        is_first: whether its trials are new.
    """
    found = [_choice(stage, allocation, terms, is_first=is_first) for allocation in allocations(stage, terms, space)]
    if terms.is_per_instance:
        found.sort(key=lambda choice: (choice.instances, choice.train_s))
        return _fastest(found, must_gain=space == "wide")
    if space == "fair":
        return found
    found.sort(key=lambda choice: (choice.instances, choice.train_s, choice.usd))
    return _worthwhile(found)


def allocations(stage: Stage, terms: Terms, space: Space) -> list[Allocation]:
    """The allocations of one stage in a space, without spare machines.

    In `wide`, the fewest gangs for each number of waves: more gangs that take as many waves train no faster, on no fewer
    machines.
    """
    if space == "fair":
        return fair_levels(stage.trials, terms)
    whole = terms.gpus_per_instance
    return [
        Allocation(stage.trials, gangs * size, size, whole)
        for size in terms.placeable_gang_sizes
        for gangs in _gang_counts(stage.trials, terms.max_gpus // size)
    ]


def _gang_counts(trials: int, most: int) -> Iterator[int]:
    """For each number of waves, the fewest gangs that take it; at most `most`."""
    gangs = min(trials, most)
    while gangs:
        waves = -(-trials // gangs)
        gangs = -(-trials // waves)
        yield gangs
        gangs -= 1


def _choice(stage: Stage, allocation: Allocation, terms: Terms, *, is_first: bool) -> Choice:
    segment_s = terms.segment_s(stage.iterations, allocation.gpus_per_trial, is_first=is_first)
    stretch = expected_stretch(terms.profile.stragglers, stage.iterations, allocation)
    usd = 0.0 if terms.is_per_instance else stage.trials * function_usd(terms, allocation.gpus_per_trial, segment_s)
    return Choice(allocation, allocation.waves * segment_s * stretch, usd)


def _fastest(found: Sequence[Choice], *, must_gain: bool) -> list[Choice]:
    """Sorted by (machines, seconds): the first of each number of machines, where `must_gain` only if faster than before."""
    kept: list[Choice] = []
    for choice in found:
        if kept and (choice.instances == kept[-1].instances or (must_gain and choice.train_s >= kept[-1].train_s)):
            continue
        kept.append(choice)
    return kept


def _worthwhile(found: Sequence[Choice]) -> list[Choice]:
    """Sorted by (machines, seconds, price): those that none before is as fast and as cheap as."""
    kept: list[Choice] = []
    stairs: list[tuple[float, float]] = []  # (seconds, price) of the efficient ones among those kept, fastest first
    for choice in found:
        at = bisect_right(stairs, (choice.train_s, math.inf))
        if at and stairs[at - 1][1] <= choice.usd:
            continue
        kept.append(choice)
        stairs = [step for step in stairs if step[0] < choice.train_s or step[1] < choice.usd]
        insort(stairs, (choice.train_s, choice.usd))
    return kept


def by_instances(found: Sequence[Choice], terms: Terms, space: Space) -> dict[int, list[tuple[int, Choice]]]:
    """By machines held: the choices that can be taken on them, with their positions.

    In `fair` those that need so many; in `wide` the fastest that needs no more, for every number up to the quota.

    Args:
        found: what `choices` returned.
        terms: for the quota.
        space: the plan space.
    """
    if space == "fair":
        options: dict[int, list[tuple[int, Choice]]] = {}
        for number, choice in enumerate(found):
            options.setdefault(choice.instances, []).append((number, choice))
        return options
    # Sorted by machines, each faster than those before it: the last that fits is the fastest.
    needed = [choice.instances for choice in found]
    positions = {held: bisect_right(needed, held) - 1 for held in range(needed[0], terms.price_book.max_instances + 1)}
    return {held: [(number, found[number])] for held, number in positions.items()}


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
