"""What each stage may be given, as arrays over its choices: seconds, price, lateness, and what is given back. Pure [ours].

What depends on the number of trials alone is worked out once (`_shapes`): planners ask for it again and again. Imports numpy.
"""

from __future__ import annotations

import functools
from bisect import bisect_right, insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import function_usd, held_usd
from elastune.policies.planning.estimate import log_variance, refunds
from elastune.policies.planning.refund import EndingGroups
from elastune.policies.planning.spaces import MOST_RELEASED, THINNED, Space, allocations_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from elastune.policies.planning.arrays import Floats, Ids
    from elastune.policies.planning.plan import Allocation, Terms
    from elastune.policies.rules.halving import Stage

    LatenessOf = Callable[[tuple[Allocation, ...]], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Choices:
    """What one stage may be given, fewest machines first.

    Attributes:
        allocations: (choices,) without spare machines.
        instances: (choices,) machines that each needs.
        train_s: (choices,) expected seconds from when its machines are there to its last checkpoint.
        usd: (choices,) of its function calls; 0 where machines are billed.
        shift_s: (choices, classes) expected end beyond that, by `growth_class` of the machines it waits for; one column where
            that does not matter. See `policies.planning.lateness.Lateness`.
        tail_s2: (choices, classes) square of the tail, likewise.
        each_refund_usd: (choices,) what each machine that is held costs less than for the whole stage.
        released_usd: (choices, machines) what it need not pay beside that for none, one, two, ... machines that the next stage
            does not hold; for more, as for the last. One column of zeros where nothing is given back.
        is_refunded: whether machines are given back within the stage.
        is_spread: whether ends are compared by their 95th percentiles, and any of them varies.
    """

    allocations: tuple[Allocation, ...]
    instances: Ids
    train_s: Floats
    usd: Floats
    shift_s: Floats
    tail_s2: Floats
    each_refund_usd: Floats
    released_usd: Floats
    is_refunded: bool
    is_spread: bool = False

    def __len__(self) -> int:
        return len(self.allocations)

    @property
    def classes(self) -> int:
        """Kinds of growth that are told apart."""
        return int(self.shift_s.shape[1])

    @functools.cached_property
    def least_end_s(self) -> Floats:
        """(choices,) expected end with the least lateness."""
        least_s: Floats = self.train_s + self.shift_s.min(axis=1) if self.is_spread else self.train_s
        return least_s

    @property
    def most_refund_usd(self) -> Floats:
        """(choices,) what each need not pay beside `each_refund_usd` if the next stage holds no machine."""
        return self.released_usd[:, -1]

    def released_by(self, most: int) -> Floats:
        """(choices, most + 1) `released_usd` for up to so many machines."""
        return self.released_usd[:, np.minimum(np.arange(most + 1), self.released_usd.shape[1] - 1)]

    def at(self, positions: Ids) -> Choices:
        """Those at these positions."""
        return Choices(
            tuple([self.allocations[at] for at in positions.tolist()]),
            self.instances[positions],
            self.train_s[positions],
            self.usd[positions],
            self.shift_s[positions],
            self.tail_s2[positions],
            self.each_refund_usd[positions],
            self.released_usd[positions],
            is_refunded=self.is_refunded,
            is_spread=self.is_spread,
        )

    def with_lateness(self, lateness_of: LatenessOf) -> Choices:
        """The same, with how their ends are spread."""
        shift_s, tail_s2 = lateness_of(self.allocations)
        is_spread = shift_s.shape[1] > 1 or bool(shift_s.any() or tail_s2.any())
        return replace(self, shift_s=shift_s, tail_s2=tail_s2, is_spread=is_spread)


def choices(
    stage: Stage,
    terms: Terms,
    space: Space,
    *,
    is_first: bool,
    lateness_of: LatenessOf | None = None,
    is_thinned: bool = False,
) -> Choices:
    """What a stage may be given and nothing else beats.

    Where machines are billed, the fastest choice by number of machines that is faster (in `fair`: of its own) than with
    fewer; where functions are billed, all that are faster, cheaper or (in `wide`) on fewer machines than the others. Where
    ends are spread, or machines given back, all, or `THINNED` of those that would be kept if they were not.

    Args:
        stage: what is to be trained.
        terms: profile, prices, limits.
        space: the plan space.
        is_first: whether its trials are new.
        lateness_of: `Latenesses.by_growth` of the stage, where percentiles count and anything varies.
        is_thinned: whether a sample is enough where ends are spread.
    """
    if lateness_of is not None and is_thinned:
        return _sampled(choices(stage, terms, space, is_first=is_first)).with_lateness(lateness_of)
    found = _every(stage, terms, space, is_first=is_first)
    if space == "fair" and not terms.is_per_instance and lateness_of is None:
        return found
    # Of equally fast ones on as many machines, the cheapest or else the first.
    found = found.at(np.lexsort((found.usd, found.train_s, found.instances)))
    if lateness_of is not None:
        return found.with_lateness(lateness_of)
    if refunds(terms) and terms.price_book.max_instances <= MOST_RELEASED:
        return found
    if terms.is_per_instance:
        return _fastest(found, must_gain=space == "wide")
    return _worthwhile(found)


@dataclass(frozen=True)
class _Shapes:
    """What the allocations of a stage are, whatever machines cost and however fast trials train.

    Attributes:
        allocations: all of the space.
        size_of: (allocations,) position of each one's gangs among the sizes.
        instances: (allocations,) machines.
        waves: (allocations,) how often the gangs train.
        ending: their groups of gangs.
    """

    allocations: tuple[Allocation, ...]
    size_of: Ids
    instances: Ids
    waves: Ids
    ending: EndingGroups


@functools.lru_cache(512)
def _shapes(trials: int, space: Space, sizes: tuple[int, ...], whole: int, max_gpus: int, gives_back: bool) -> _Shapes:
    found = allocations_of(trials, space, sizes, whole, max_gpus, gives_back)
    position = {size: at for at, size in enumerate(sizes)}
    return _Shapes(
        found,
        np.array([position[allocation.gpus_per_trial] for allocation in found], np.int64),
        np.array([allocation.needed_instances for allocation in found], np.int64),
        np.array([allocation.waves for allocation in found], np.int64),
        EndingGroups(found),
    )


def _every(stage: Stage, terms: Terms, space: Space, *, is_first: bool) -> Choices:
    """All choices of the space, with what they take and cost under these terms."""
    sizes = terms.gang_sizes if space == "fair" else terms.placeable_gang_sizes
    gives_back = refunds(terms)
    shapes = _shapes(stage.trials, space, sizes, terms.gpus_per_instance, terms.max_gpus, gives_back)
    variance = log_variance(terms.profile.stragglers, stage.iterations)
    if space == "fair":
        each_s = np.array([terms.train_s(stage.iterations, size) for size in sizes])
    else:
        each_s = np.array([stage.iterations * iteration_s for _, iteration_s in terms.placeable_gangs])
    stretch, mean_s = shapes.ending.stretch(variance), each_s[shapes.size_of]
    train_s = shapes.waves * (terms.fixed_s(is_first=is_first) + mean_s * stretch)
    usd = np.zeros(len(train_s))
    if not terms.is_per_instance:
        unstretched_s = (each_s + terms.fixed_s(is_first=is_first)).tolist()
        calls_usd = [stage.trials * function_usd(terms, *one) for one in zip(sizes, unstretched_s, strict=True)]
        usd = np.array(calls_usd)[shapes.size_of]
    on_time = np.zeros((len(train_s), 1))
    each_refund_usd, released_usd = on_time[:, 0], on_time
    if gives_back:
        refund, mean_usd = shapes.ending.refund(variance, stretch), held_usd(terms, 1.0) * mean_s
        each_refund_usd, released_usd = refund.of_each * mean_usd, refund.released * mean_usd[:, None]
    return Choices(
        shapes.allocations,
        shapes.instances,
        train_s,
        usd,
        on_time,
        on_time,
        each_refund_usd,
        released_usd,
        is_refunded=gives_back,
    )


def _sampled(found: Choices) -> Choices:
    """At most `THINNED` of these, the first and the last among them."""
    if len(found) <= THINNED:
        return found
    return found.at(np.array([round(at * (len(found) - 1) / (THINNED - 1)) for at in range(THINNED)]))


def _fastest(found: Choices, *, must_gain: bool) -> Choices:
    """Sorted by (machines, seconds): the first of each number of machines, where `must_gain` only if faster than before."""
    is_kept = np.ones(len(found), bool)
    is_kept[1:] = found.instances[1:] > found.instances[:-1]
    if must_gain:
        is_kept[1:] &= found.train_s[1:] < np.minimum.accumulate(found.train_s)[:-1]
    return found.at(np.flatnonzero(is_kept))


def _worthwhile(found: Choices) -> Choices:
    """Sorted by (machines, seconds, price): those that none before is as fast and as cheap as."""
    kept: list[int] = []
    stairs: list[tuple[float, float]] = []  # (seconds, price) of the efficient ones among those kept, fastest first
    for number, (train_s, usd) in enumerate(zip(found.train_s.tolist(), found.usd.tolist(), strict=True)):
        at = bisect_right(stairs, (train_s, float("inf")))
        if at and stairs[at - 1][1] <= usd:
            continue
        kept.append(number)
        stairs = [step for step in stairs if step[0] < train_s or step[1] < usd]
        insort(stairs, (train_s, usd))
    return found.at(np.array(kept, np.int64))
