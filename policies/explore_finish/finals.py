"""Who trains at the end, on how many GPUs and machines [ours]. Pure.

The final rounds take equally long. From round to round half of the finalists go on. A gang is as large as still pays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from elastune.policies.explore_finish.phases import instances_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Terms

KEPT = 2
"""One finalist in so many goes on to the next round."""
LEAST_GAIN = 1.15
"""A gang of twice the size must train faster by this factor."""


class FinalRound(NamedTuple):
    """A round of the finals.

    Attributes:
        finalists: how many train.
        gpus: of each gang.
        instances: machines that hold them.
        ends_s: when the next round begins, or the run ends.
    """

    finalists: int
    gpus: int
    instances: int
    ends_s: float


def gangs_that_pay(terms: Terms, *, widens: bool) -> Sequence[int]:
    """The gangs that a finalist may train on, ascending; only the least one unless `widens`."""
    sizes = terms.gang_sizes[:1]
    if widens:
        for size in terms.gang_sizes[1:]:
            gain = terms.speedup(size) / terms.speedup(sizes[-1])
            if gain >= LEAST_GAIN ** math.log2(size / sizes[-1]):
                sizes = (*sizes, size)
    return sizes


def gangs_of_use(gangs: Sequence[int], terms: Terms, *, iterations: int, seconds: float) -> Sequence[int]:
    """The gangs up to the least that trains so many iterations in this time; all of them if none does."""
    fixed_s = terms.fixed_s(is_first=False)
    for count, gpus in enumerate(gangs, start=1):
        if fixed_s + terms.train_s(iterations, gpus) <= seconds:
            return gangs[:count]
    return gangs


def ends_of_rounds(now_s: float, ends_s: float, rounds: int) -> Sequence[float]:
    """(rounds,) when each round ends: all take equally long."""
    return [now_s + (ends_s - now_s) * (index + 1) / rounds for index in range(rounds)]


def final_round(
    gangs: Sequence[int],
    terms: Terms,
    *,
    candidates: int,
    live: int,
    now_s: float,
    ends_s: Sequence[float],
    left_usd: float,
) -> FinalRound:
    """The round that begins: the largest gang with which this round and those after it can be paid, and the most finalists.

    Where not even one finalist can be paid to the end, it trains on the least gang until the money ends.

    Args:
        gangs: that may be used, ascending.
        terms: profile and prices.
        candidates: trials that can go on; at least one.
        live: machines that are held.
        now_s: when the round begins.
        ends_s: (rounds,) when this round and those after it end.
        left_usd: money that is not committed.
    """

    def fits(finalists: int, gpus: int) -> bool:
        needed = instances_of(finalists, gpus, terms)
        return needed <= live and _cost_usd(finalists, gpus, terms, now_s, ends_s) <= left_usd

    for gpus in reversed(gangs):
        most = sum(1 for finalists in range(1, candidates + 1) if fits(finalists, gpus))
        if most:
            return FinalRound(most, gpus, instances_of(most, gpus, terms), ends_s[0])
    return FinalRound(1, gangs[0], min(instances_of(1, gangs[0], terms), live), ends_s[0])


def _cost_usd(finalists: int, gpus: int, terms: Terms, now_s: float, ends_s: Sequence[float]) -> float:
    """Price of the machines of this round and those after it."""
    cost_usd = 0.0
    for end_s in ends_s:
        cost_usd += instances_of(finalists, gpus, terms) * terms.usd_per_s * (end_s - now_s)
        now_s, finalists = end_s, math.ceil(finalists / KEPT)
    return cost_usd
