"""Plan spaces: what each stage may be given, by the machines it needs. Pure [ours, but for `fair`].

`fair` is RubberBand's plan space as recalled: every trial of a stage gets the same share; machines follow the need of each
stage. `wide` allows any number of gangs with uneven waves, machines held through a dip, and prefetching.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from elastune.policies.planning.bill import function_usd, held_usd
from elastune.policies.planning.estimate import expected_s, refunds
from elastune.policies.planning.plan import Allocation, Terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elastune.policies.rules.halving import Stage

Space: TypeAlias = Literal["fair", "wide"]

MOST_COUNTS = 256
"""Numbers of machines of which each may be held where how late they are depends on how many are new."""
MOST_RELEASED = 64
"""The same where what is given back depends on how many are released; on more, the fastest choices are all that is weighed."""
ALL_GANGS = 12
"""Trials of which every number is weighed that may train at once, where machines are given back within a stage."""
_ALL_TRIED = 256
_LARGEST_STEP = 1.01


THINNED = 12
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
        said.append(f"with more than {MOST_COUNTS} machines, {THINNED} allocations of each stage were weighed")
    elif refunds(terms) and terms.price_book.max_instances > MOST_RELEASED:
        said.append(f"with more than {MOST_RELEASED} machines, not all gangs on each number of machines were weighed")
    most_gangs = [terms.max_gpus // size for size in terms.placeable_gang_sizes]
    if space == "wide" and any(
        refunds(terms) and len(allocations(stage, terms, space)) < sum(min(stage.trials, most) for most in most_gangs)
        for stage in stages
    ):
        said.append(
            f"of stages of more than {ALL_GANGS} trials, for each number of waves only the fewest gangs and those that fill"
            " their machines were weighed"
        )
    return "; ".join(said)


def allocations(stage: Stage, terms: Terms, space: Space) -> tuple[Allocation, ...]:
    """The allocations of one stage in a space, without spare machines; see `allocations_of`."""
    sizes = terms.gang_sizes if space == "fair" else terms.placeable_gang_sizes
    return allocations_of(stage.trials, space, sizes, terms.gpus_per_instance, terms.max_gpus, refunds(terms))


@functools.lru_cache(512)
def allocations_of(
    trials: int, space: Space, sizes: tuple[int, ...], whole: int, max_gpus: int, gives_back: bool
) -> tuple[Allocation, ...]:
    """The allocations of one stage in a space, without spare machines.

    In `wide`, the fewest gangs for each number of waves: more gangs that take as many waves train no faster, on no fewer
    machines. Where machines are given back within a stage, some of more gangs end earlier: then all numbers for few trials,
    and for many those as well that fill the machines.

    Args:
        trials: of the stage.
        space: the plan space.
        sizes: of gangs, in GPUs.
        whole: GPUs of one machine.
        max_gpus: GPUs of the quota.
        gives_back: whether machines are given back within the stage.
    """
    if space == "fair":
        return _fair(trials, sizes, whole, max_gpus)
    return tuple(
        Allocation(trials, gangs * size, size, whole)
        for size in sizes
        for gangs in _gang_counts(trials, max_gpus // size, max(whole // size, 1) if gives_back else 0)
    )


def fair_levels(trials: int, terms: Terms) -> list[Allocation]:
    """What a stage may be given when every trial gets the same share, smallest first.

    x GPUs with x mod trials = 0 (gangs of x / trials), or trials mod x = 0 (waves of trials / x at one GPU each, or at as many
    as the memory takes at least).
    """
    return list(_fair(trials, terms.gang_sizes, terms.gpus_per_instance, terms.max_gpus))


def _fair(trials: int, sizes: tuple[int, ...], whole: int, max_gpus: int) -> tuple[Allocation, ...]:
    waves = [Allocation(trials, gangs * sizes[0], sizes[0], whole) for gangs in range(1, trials) if trials % gangs == 0]
    gangs = [Allocation(trials, trials * size, size, whole) for size in sizes]
    return tuple(level for level in waves + gangs if level.gpus <= max_gpus)


def _gang_counts(trials: int, most: int, filling: int) -> Iterator[int]:
    """For each number of waves, the fewest gangs that take it; at most `most`.

    With `filling`, the gangs that fill a machine, also the number that fills the machines of the fewest; all for few trials.
    """
    gangs = min(trials, most)
    if filling and trials <= ALL_GANGS:
        yield from range(gangs, 0, -1)
        return
    while gangs:
        waves, most_gangs = -(-trials // gangs), gangs
        gangs = -(-trials // waves)
        if filling and (filled := min(-(-gangs // filling) * filling, most_gangs)) > gangs:
            yield filled
        yield gangs
        gangs -= 1


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
    train_s = expected_s(stage, allocation, terms, is_first=is_first)
    segment_s = terms.segment_s(stage.iterations, gpus_per_trial, is_first=is_first)
    usd = stage.trials * function_usd(terms, gpus_per_trial, segment_s) + held_usd(
        terms, allocation.instances * train_s
    )
    if live_instances is not None:
        boot_s = terms.profile.startup.billed_mean_s(terms.price_book.billing)
        usd += held_usd(terms, max(allocation.instances - live_instances, 0) * boot_s)
    return Option(allocation, train_s, usd)


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
