"""Plan spaces: what each stage may be given, by the machines it needs. Pure [ours, but for `fair`].

`fair` is RubberBand's plan space as recalled: every trial of a stage gets the same share; machines follow the need of each
stage. `wide` allows any number of gangs with uneven waves, machines held through a dip, and prefetching. Imports numpy.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right, insort
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from elastune.policies.planning.bill import function_usd, held_usd
from elastune.policies.planning.estimate import expected_s, lead_s
from elastune.policies.planning.lateness import ON_TIME
from elastune.policies.planning.plan import Allocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from elastune.policies.planning.lateness import Lateness
    from elastune.policies.planning.plan import Terms
    from elastune.policies.rules.halving import Stage

Space: TypeAlias = Literal["fair", "wide"]

_ALL_TRIED = 256
_LARGEST_STEP = 1.01
_THINNED = 12
"""Choices of a stage that are weighed by percentiles where there are too many machines to weigh all."""


@dataclass(frozen=True)
class Choice:
    """One allocation of one stage.

    Attributes:
        train_s: expected seconds from when its machines are there to its last checkpoint.
        usd: of its function calls; 0 where machines are billed.
        lateness: how its end is spread, by `growth_class` of the machines it waits for; one entry where that does not matter.
    """

    allocation: Allocation
    train_s: float
    usd: float
    lateness: tuple[Lateness, ...] = (ON_TIME,)

    @property
    def instances(self) -> int:
        """Machines it needs."""
        return self.allocation.needed_instances

    def late(self, growth: int) -> Lateness:
        """How its end is spread where it waits for new machines of this `growth_class`."""
        return self.lateness[growth if len(self.lateness) > 1 else 0]


def choices(
    stage: Stage,
    terms: Terms,
    space: Space,
    *,
    is_first: bool,
    lateness_of: Callable[[Allocation], tuple[Lateness, ...]] | None = None,
    is_thinned: bool = False,
) -> list[Choice]:
    """What a stage may be given and nothing else beats, fewest machines first.

    Where machines are billed, the fastest choice by number of machines that is faster (in `fair`: of its own) than with
    fewer; where functions are billed, all that are faster, cheaper or (in `wide`) on fewer machines than the others. Where
    ends are spread, all, or `_THINNED` of those that would be kept if they were not.

    Args:
        stage: what is to be trained.
        terms: profile, prices, limits.
        space: the plan space.
        is_first: whether its trials are new.
        lateness_of: how its end is spread, by `growth_class`, where percentiles count and anything varies.
        is_thinned: whether a sample is enough where ends are spread.
    """
    if lateness_of is not None and is_thinned:
        sample = _sampled(choices(stage, terms, space, is_first=is_first))
        return [replace(choice, lateness=lateness_of(choice.allocation)) for choice in sample]
    found = [_choice(stage, allocation, terms, is_first=is_first) for allocation in allocations(stage, terms, space)]
    if lateness_of is not None:
        found = [replace(choice, lateness=lateness_of(choice.allocation)) for choice in found]
        found.sort(key=lambda choice: (choice.instances, choice.train_s))
        return found
    if terms.is_per_instance:
        found.sort(key=lambda choice: (choice.instances, choice.train_s))
        return _fastest(found, must_gain=space == "wide")
    if space == "fair":
        return found
    found.sort(key=lambda choice: (choice.instances, choice.train_s, choice.usd))
    return _worthwhile(found)


def allocations(stage: Stage, terms: Terms, space: Space) -> Sequence[Allocation]:
    """The allocations of one stage in a space, without spare machines.

    In `wide`, the fewest gangs for each number of waves: more gangs that take as many waves train no faster, on no fewer
    machines.
    """
    if space == "fair":
        return fair_levels(stage.trials, terms)
    return _wide(stage.trials, terms.placeable_gang_sizes, terms.gpus_per_instance, terms.max_gpus)


def fair_levels(trials: int, terms: Terms) -> list[Allocation]:
    """What a stage may be given when every trial gets the same share, smallest first.

    x GPUs with x mod trials = 0 (gangs of x / trials), or trials mod x = 0 (waves of trials / x at one GPU each, or at as many
    as the memory takes at least).
    """
    whole, least = terms.gpus_per_instance, terms.gang_sizes[0]
    waves = [Allocation(trials, gangs * least, least, whole) for gangs in range(1, trials) if trials % gangs == 0]
    gangs = [Allocation(trials, trials * size, size, whole) for size in terms.gang_sizes]
    return [level for level in waves + gangs if level.gpus <= terms.max_gpus]


@functools.lru_cache(128)
def _wide(trials: int, sizes: Sequence[int], whole: int, max_gpus: int) -> tuple[Allocation, ...]:
    """Kept, because re-planning asks for the same ones at every barrier."""
    return tuple(
        Allocation(trials, gangs * size, size, whole)
        for size in sizes
        for gangs in _gang_counts(trials, max_gpus // size)
    )


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
    usd = stage.trials * function_usd(terms, allocation.gpus_per_trial, segment_s)
    return Choice(allocation, expected_s(stage, allocation, terms, is_first=is_first), usd)


def _sampled(found: Sequence[Choice]) -> Sequence[Choice]:
    """At most `_THINNED` of these, the first and the last among them."""
    if len(found) <= _THINNED:
        return found
    return [found[round(at * (len(found) - 1) / (_THINNED - 1))] for at in range(_THINNED)]


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


def by_instances(
    found: Sequence[Choice], terms: Terms, space: Space, counts: Iterable[int]
) -> dict[int, list[tuple[int, Choice]]]:
    """By machines held: the choices that can be taken on them and nothing else beats there, with their positions.

    In `fair` those that need so many, in `wide` those that need no more.

    Args:
        found: what `choices` returned.
        terms: for how long machines take to start.
        space: the plan space.
        counts: numbers of machines that `wide` plans may hold, rising; fewer than the stage needs are left out.
    """
    enough = [count for count in counts if count >= found[0].instances]
    numbered: dict[int, list[tuple[int, Choice]]] = {}
    for number, choice in enumerate(found):
        numbered.setdefault(choice.instances, []).append((number, choice))
    if all(choice.lateness == (ON_TIME,) for choice in found) and (space == "fair" or terms.is_per_instance):
        if space == "fair":
            return numbered
        # Sorted by machines, each faster than those before it: the last that fits is the fastest.
        needed = [choice.instances for choice in found]
        positions = {held: bisect_right(needed, held) - 1 for held in enough}
        return {held: [(number, found[number])] for held, number in positions.items()}
    if space == "fair":
        return {held: _unbeaten(some, terms) for held, some in numbered.items()}
    options, best = {}, list[tuple[int, Choice]]()
    for held in enough:
        if held in numbered:
            best = _unbeaten([*best, *numbered[held]], terms)
        options[held] = best
    return options


def _unbeaten(some: list[tuple[int, Choice]], terms: Terms) -> list[tuple[int, Choice]]:
    """Those than which no other is as good in everything that may matter later; the first of equals."""
    merits = np.array([_merits(choice, terms) for _, choice in some])
    order = np.lexsort(merits.T)
    no_worse = (merits[order][:, None, :] <= merits[order][None, :, :] + 1e-9).all(axis=2)
    is_beaten = np.triu(no_worse, k=1).any(axis=0)
    return [some[position] for position in sorted(order[~is_beaten])]


def _merits(choice: Choice, terms: Terms) -> list[float]:
    """Price and training, which machines are paid for; and by machines waited for, its end and late end, also less its lead.

    Between the ends that two choices reach with later tails, the difference is monotone in those tails: of their limits, none
    and endless ones, the first compares late ends and the second expected ones.
    """
    ahead_s = lead_s(choice.train_s + terms.profile.sync_s, terms.profile.startup.mean_s)
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


@dataclass(frozen=True)
class Option:
    """One allocation of one stage.

    Attributes:
        seconds: expected duration, without growth and barrier.
        usd: price of the machines (or function calls) for that time, without minimum and rounding.
    """

    allocation: Allocation
    seconds: float
    usd: float


def option(
    stage: Stage, gpus: int, gpus_per_trial: int, terms: Terms, *, is_first: bool, live_instances: int | None = None
) -> Option:
    """The option of giving a stage this many GPUs in gangs of this size.

    Args:
        stage: what is to be trained.
        gpus: GPUs in all.
        gpus_per_trial: size of a gang.
        terms: profile, prices, limits.
        is_first: whether its trials are new.
        live_instances: machines held already, if the start of further ones is to be priced in; None where it is not.
    """
    allocation = Allocation(stage.trials, gpus, gpus_per_trial, terms.gpus_per_instance)
    choice = _choice(stage, allocation, terms, is_first=is_first)
    usd = choice.usd + held_usd(terms, allocation.instances * choice.train_s)
    if live_instances is not None:
        boot_s = terms.profile.startup.billed_mean_s(terms.price_book.billing)
        usd += held_usd(terms, max(allocation.instances - live_instances, 0) * boot_s)
    return Option(allocation, choice.train_s, usd)


def fair_on_cluster(stage: Stage, instances: int, terms: Terms, *, is_first: bool) -> Allocation | None:
    """The fastest fair level on a cluster of this size, which it holds whole; None where none fits on it."""
    gpus = instances * terms.gpus_per_instance
    fitting = [level for level in fair_levels(stage.trials, terms) if level.gpus <= gpus]
    if not fitting:
        return None
    fastest = min(fitting, key=lambda level: expected_s(stage, level, terms, is_first=is_first))
    return replace(fastest, spare_instances=instances - fastest.needed_instances)


def tried(counts: range) -> Sequence[int]:
    """Numbers of machines that are tried: all of a few hundred; beyond, each is at most a hundredth above the one before."""
    if len(counts) <= _ALL_TRIED:
        return counts
    found = list(counts[:_ALL_TRIED])
    while found[-1] < counts[-1]:
        found.append(min(math.ceil(found[-1] * _LARGEST_STEP), counts[-1]))
    return found


def on_cluster(stage: Stage, instances: int, terms: Terms, *, is_first: bool) -> Option:
    """The fastest way to train a stage on a cluster of this size, which it holds whole, uneven waves included."""
    gpus = instances * terms.gpus_per_instance
    whole = terms.gpus_per_instance
    allowed = (Allocation(stage.trials, gpus, size, whole) for size in terms.gang_sizes if size <= gpus)
    fastest = min(allowed, key=lambda allocation: expected_s(stage, allocation, terms, is_first=is_first))
    return option(stage, gpus, fastest.gpus_per_trial, terms, is_first=is_first)


def stage_options(stage: Stage, terms: Terms, *, is_first: bool, live_instances: int | None = None) -> list[Option]:
    """All options on whole instances, uneven waves included."""
    whole = terms.gpus_per_instance
    options = []
    for size in terms.gang_sizes:
        most = min(math.ceil(stage.trials * size / whole), terms.price_book.max_instances)
        least = math.ceil(size / whole)
        options += [
            option(stage, count * whole, size, terms, is_first=is_first, live_instances=live_instances)
            for count in tried(range(least, most + 1))
        ]
    return options


def lower_hull(options: list[Option]) -> list[Option]:
    """The options on the lower convex hull of (seconds, usd), slowest and cheapest first.

    Each step to the next is faster and dearer, at a rising price per second saved.
    """
    hull: list[Option] = []
    best_usd = math.inf
    for choice in sorted(options, key=lambda o: (o.seconds, o.usd)):
        if choice.usd >= best_usd:
            continue  # another one is faster and cheaper
        best_usd = choice.usd
        while len(hull) > 1 and _usd_per_s(hull[-2], hull[-1]) <= _usd_per_s(hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull[::-1]


def _usd_per_s(fast: Option, slow: Option) -> float:
    return (fast.usd - slow.usd) / (slow.seconds - fast.seconds)
