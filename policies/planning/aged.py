"""The frontier where the ages of machines matter: a minimum charge that can bind, or coarse billing quanta. Pure [ours].

Partial plans carry their machines by age. One is dropped only if another that holds as many machines is as soon and cannot
become dearer whatever follows: its accrued price and all that minimum and rounding may still add to it are at most the
other's accrued price; or if its machines are as old, one by one. Partial plans whose least further time and cost
cannot beat the known plans are cut off. Of more than `MOST_PARTIALS` after a stage only so many are kept, with a warning:
then the frontier may miss plans (large jobs on machines billed by the hour).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import Leases
from elastune.policies.planning.estimate import lead_s
from elastune.policies.planning.hulls import Hull
from elastune.policies.planning.labels import TIME_GRAIN_S
from elastune.policies.planning.lateness import ON_TIME, Lateness, growth_class
from elastune.policies.planning.spaces import by_instances, holding, tails_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.planning.spaces import Choice, Space

MOST_PARTIALS = 2500
"""Partial plans that are followed from stage to stage: half a minute for 7 stages on 16 machines billed by the hour."""


class InexactFrontierWarning(UserWarning):
    """Minimum charge or quanta leave too many partial plans to follow: the frontier may miss efficient ones."""


@dataclass(frozen=True)
class _Partial:
    """A plan up to the end of some stage.

    Attributes:
        time_s: its end, by which machines are billed.
        spread: its lateness so far, all stages together, where percentiles count.
        leases: its machines.
        accrued_usd: what was billed, and the machines held by their ages alone.
        margin_usd: the most that minimum and rounding may still add.
        held: machines, by stage.
        picked: choices, by stage.
        lead_s: how early the next stage's machines can be asked for.
    """

    time_s: float
    spread: Lateness
    leases: Leases
    accrued_usd: float
    margin_usd: float
    held: tuple[int, ...]
    picked: tuple[Choice, ...]
    lead_s: float

    def late_s(self, added_tail_s2: float) -> float:
        """Its end, or its 95th percentile if so much were added to its tail."""
        return self.time_s + self.spread.shift_s + math.sqrt(self.spread.tail_s2 + added_tail_s2)

    def beats(self, other: _Partial, most_tail_s2: float) -> bool:
        """Whether the other, which holds as many machines and is no sooner, can be dropped.

        Args:
            other: a partial plan that is as late or later if the least is added to both tails.
            most_tail_s2: the most that may be added.
        """
        if (
            self.late_s(most_tail_s2) > other.late_s(most_tail_s2) + TIME_GRAIN_S
            or self.time_s > other.time_s + TIME_GRAIN_S
        ):
            return False
        if self.accrued_usd + self.margin_usd <= other.accrued_usd:
            return True
        return self.accrued_usd <= other.accrued_usd and self.leases.ages(self.time_s) == other.leases.ages(
            other.time_s
        )


def aged_allocations(
    per_stage: Sequence[Sequence[Choice]], terms: Terms, space: Space, live_instances: int, known: Sequence[Plan]
) -> list[list[Allocation]]:
    """The allocations of plans among which are all efficient ones.

    Args:
        per_stage: what each stage may be given.
        terms: profile, prices, limits.
        space: the plan space.
        live_instances: machines held already.
        known: plans of the space, priced exactly.
    """
    profile = terms.profile
    limits = _Limits(per_stage, terms, known)
    partials = [_Partial(0.0, ON_TIME, Leases(terms, live_instances), 0.0, 0.0, (), (), 0.0)]
    tails_s2 = tails_from(per_stage)
    for index, stage in enumerate(per_stage):
        sync_s = profile.sync_s if index < len(per_stage) - 1 else 0.0
        extended = _extended(partials, stage, terms, space, live_instances, sync_s)
        least_s2, most_s2 = tails_s2[index + 1]
        within = (p for p in extended if limits.may_improve(p, index, least_s2))
        partials = _at_most(_undominated(within, least_s2, most_s2), MOST_PARTIALS)
    found = [holding(p.picked, p.held, live_instances, prefetches=space == "wide") for p in partials]
    return [*found, *(list(plan.allocations) for plan in known)]


def _extended(
    partials: Sequence[_Partial], stage: Sequence[Choice], terms: Terms, space: Space, live: int, sync_s: float
) -> Iterator[_Partial]:
    """All partial plans with one more stage."""
    options = by_instances(stage, terms, space)
    startup_s = terms.profile.startup.mean_s
    for partial in partials:
        before = partial.held[-1] if partial.held else live
        for held, of_stage in options.items():
            growth = growth_class(held - before)
            for _, choice in of_stage:
                late = choice.late(growth)
                leases = partial.leases.copy()
                ahead_s = partial.lead_s if held > before else 0.0
                start_s = partial.time_s + leases.resize(held, partial.time_s, ahead_s)
                busy_s = choice.train_s + sync_s
                time_s = start_s + busy_s
                yield _Partial(
                    time_s,
                    Lateness(partial.spread.shift_s + late.shift_s, partial.spread.tail_s2 + late.tail_s2),
                    leases,
                    leases.accrued_usd(time_s),
                    leases.margin_usd(time_s),
                    (*partial.held, held),
                    (*partial.picked, choice),
                    lead_s(busy_s, startup_s) if space == "wide" else 0.0,
                )


class _Limits:
    """What a partial plan must be able to undercut: deadline, budget and the known plans."""

    def __init__(self, per_stage: Sequence[Sequence[Choice]], terms: Terms, known: Sequence[Plan]) -> None:
        efficient = sorted(known, key=lambda plan: (plan.promised_s, plan.cost_usd))
        # Sooner than the first plan whatever it costs, sooner than the second for less than the first, and so on.
        self._before_s = np.array([*(plan.promised_s for plan in efficient), terms.deadline_s + 1e-6])
        self._before_s = np.minimum(self._before_s, terms.deadline_s + 1e-6)
        costs_usd = np.minimum.accumulate([math.inf, *(plan.cost_usd for plan in efficient)])
        self._below_usd = np.minimum(costs_usd, terms.budget_usd * (1 + 1e-9) + 1e-9)
        usd_per_s, sync_s = terms.usd_per_s, terms.profile.sync_s
        self._later = [
            Hull.total([_least_bill(stage, usd_per_s) for stage in per_stage[index + 1 :]])
            for index in range(len(per_stage) - 1)
        ]
        self._barriers_s = [max(len(per_stage) - 2 - index, 0) * sync_s for index in range(len(per_stage))]

    def may_improve(self, partial: _Partial, index: int, least_tail_s2: float) -> bool:
        """Whether a plan that goes on from it after this stage may keep the limits and beat all known plans."""
        left_s = self._before_s - (partial.late_s(least_tail_s2) + self._barriers_s[index])
        if index == len(self._later):
            return bool(((left_s >= 0) & (partial.leases.paid_usd(partial.time_s) < self._below_usd)).any())
        times_s, amounts_usd = zip(*self._later[index].points, strict=True)
        least_usd = partial.accrued_usd + np.interp(left_s, times_s, amounts_usd, left=math.inf)
        # What is paid so far is paid, whatever of it is still used.
        least_usd = np.maximum(least_usd, partial.leases.paid_usd(partial.time_s))
        return bool((least_usd < self._below_usd).any())


def _least_bill(stage: Sequence[Choice], usd_per_s: float) -> Hull:
    """Of a stage whose machines are there, without minimum and rounding, by its seconds (with the least lateness)."""
    return Hull.below(
        (choice.train_s + min(late.shift_s for late in choice.lateness), choice.train_s * choice.instances * usd_per_s)
        for choice in stage
    )


def _at_most(partials: list[list[_Partial]], most: int) -> list[_Partial]:
    """So many of them, the same number for each number of machines, those that have paid least."""
    found = sum(map(len, partials))
    if found > most:
        warnings.warn(
            f"frontier: {found} partial plans under this billing rule, of which {most} are followed; a deadline or a budget"
            " leaves fewer",
            InexactFrontierWarning,
            stacklevel=2,
        )
    cheapest_first = (sorted(rivals, key=lambda p: p.leases.paid_usd(p.time_s)) for rivals in partials)
    by_turns = (p for p in chain.from_iterable(zip_longest(*cheapest_first)) if p is not None)
    return [partial for partial, _ in zip(by_turns, range(most), strict=False)]


def _undominated(partials: Iterator[_Partial], least_tail_s2: float, most_tail_s2: float) -> list[list[_Partial]]:
    """By machines held and lead: those that none beats."""
    kept: dict[tuple[int, float], list[_Partial]] = {}
    for partial in sorted(partials, key=lambda p: (p.late_s(least_tail_s2), p.accrued_usd)):
        rivals = kept.setdefault((partial.held[-1], partial.lead_s), [])
        if not any(rival.beats(partial, most_tail_s2) for rival in rivals):
            rivals.append(partial)
    return list(kept.values())
