"""Plan spaces: what each stage may be given, by the machines it needs. Pure [ours, but for `fair`].

`fair` is RubberBand's plan space as recalled: every trial of a stage gets the same share; machines follow the need of each
stage. `wide` allows any number of gangs with uneven waves, machines held through a dip, and prefetching. Imports numpy.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right, insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from elastune.policies.planning.bill import function_usd, held_usd
from elastune.policies.planning.estimate import expected_s, refund, refunds
from elastune.policies.planning.lateness import ON_TIME
from elastune.policies.planning.plan import Allocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.estimate import Refund
    from elastune.policies.planning.lateness import Lateness
    from elastune.policies.planning.plan import Terms
    from elastune.policies.rules.halving import Stage

    Floats = NDArray[np.float64]

Space: TypeAlias = Literal["fair", "wide"]

MOST_COUNTS = 256
"""Numbers of machines of which each may be held where how late they are depends on how many are new."""
MOST_RELEASED = 64
"""The same where what is given back depends on how many are released; on more, the fastest choices are all that is weighed."""
_ALL_GANGS = 12
"""Trials of which every number is weighed that may train at once, where machines are given back within a stage."""
_ALL_TRIED = 256
_LARGEST_STEP = 1.01
_THINNED = 12
"""Choices of a stage that are weighed by percentiles where there are too many machines to weigh all."""


def left_out(stages: Sequence[Stage], terms: Terms, space: Space, *, is_thinned: bool = False) -> str:
    """What of the space `choices` and the numbers of machines that are held do not cover, in words; empty for nothing.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits.
        space: the plan space.
        is_thinned: whether a sample of choices stands for all, as for `choices`.
    """
    said = []
    if is_thinned:
        said.append(f"with more than {MOST_COUNTS} machines, {_THINNED} allocations of each stage were weighed")
    elif refunds(terms) and terms.price_book.max_instances > MOST_RELEASED:
        said.append(f"with more than {MOST_RELEASED} machines, not all gangs on each number of machines were weighed")
    most_gangs = [terms.max_gpus // size for size in terms.placeable_gang_sizes]
    if space == "wide" and any(
        refunds(terms) and len(allocations(stage, terms, space)) < sum(min(stage.trials, most) for most in most_gangs)
        for stage in stages
    ):
        said.append(
            f"of stages of more than {_ALL_GANGS} trials, for each number of waves only the fewest gangs and those that fill"
            " their machines were weighed"
        )
    return "; ".join(said)


@dataclass(frozen=True)
class Choice:
    """One allocation of one stage.

    Attributes:
        train_s: expected seconds from when its machines are there to its last checkpoint.
        usd: of its function calls; 0 where machines are billed.
        lateness: how its end is spread, by `growth_class` of the machines it waits for; one entry where that does not matter.
        refund: what it need not pay as machines are given back within the stage; None where none are.
        refund_usd: price of a machine for the mean training time of one trial, in which the refund is measured.
    """

    allocation: Allocation
    train_s: float
    usd: float
    lateness: tuple[Lateness, ...] = (ON_TIME,)
    refund: Refund | None = None
    refund_usd: float = 0.0

    @property
    def each_refund_usd(self) -> float:
        """What each machine that is held costs less than for the whole stage."""
        return self.refund.of_each * self.refund_usd if self.refund else 0.0

    @property
    def most_refund_usd(self) -> float:
        """What it need not pay beside that if the next stage holds no machine."""
        return float(self.refund.of_groups[-1]) * self.refund_usd if self.refund else 0.0

    def released_usd(self, most: int) -> Floats:
        """(most + 1,) the part of that for none, one, two, ... machines that the next stage does not hold."""
        if self.refund is None:
            return np.zeros(most + 1)
        groups = np.minimum(np.arange(most + 1) // self.refund.group, len(self.refund.of_groups) - 1)
        released_usd: Floats = self.refund.of_groups[groups] * self.refund_usd
        return released_usd

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
    ends are spread, or machines given back, all, or `_THINNED` of those that would be kept if they were not.

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
    if lateness_of is not None or (refunds(terms) and terms.price_book.max_instances <= MOST_RELEASED):
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
    machines. Where machines are given back within a stage, some of more gangs end earlier: then all numbers for few trials,
    and for many those as well that fill the machines.
    """
    if space == "fair":
        return fair_levels(stage.trials, terms)
    return _wide(stage.trials, terms.placeable_gang_sizes, terms.gpus_per_instance, terms.max_gpus, refunds(terms))


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
def _wide(trials: int, sizes: Sequence[int], whole: int, max_gpus: int, gives_back: bool) -> tuple[Allocation, ...]:
    """Kept, because re-planning asks for the same ones at every barrier."""
    return tuple(
        Allocation(trials, gangs * size, size, whole)
        for size in sizes
        for gangs in _gang_counts(trials, max_gpus // size, max(whole // size, 1) if gives_back else 0)
    )


def _gang_counts(trials: int, most: int, filling: int) -> Iterator[int]:
    """For each number of waves, the fewest gangs that take it; at most `most`.

    With `filling`, the gangs that fill a machine, also the number that fills the machines of the fewest; all for few trials.
    """
    gangs = min(trials, most)
    if filling and trials <= _ALL_GANGS:
        yield from range(gangs, 0, -1)
        return
    while gangs:
        waves, most_gangs = -(-trials // gangs), gangs
        gangs = -(-trials // waves)
        if filling and (filled := min(-(-gangs // filling) * filling, most_gangs)) > gangs:
            yield filled
        yield gangs
        gangs -= 1


def _choice(stage: Stage, allocation: Allocation, terms: Terms, *, is_first: bool) -> Choice:
    usd = 0.0
    if not terms.is_per_instance:
        segment_s = terms.segment_s(stage.iterations, allocation.gpus_per_trial, is_first=is_first)
        usd = stage.trials * function_usd(terms, allocation.gpus_per_trial, segment_s)
    train_s = expected_s(stage, allocation, terms, is_first=is_first)
    if not refunds(terms):
        return Choice(allocation, train_s, usd)
    mean_usd = held_usd(terms, terms.train_s(stage.iterations, allocation.gpus_per_trial))
    return Choice(allocation, train_s, usd, (ON_TIME,), refund(stage, allocation, terms.profile.stragglers), mean_usd)


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
