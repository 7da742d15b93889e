"""The label-setting dynamic program over (stage, machines held) behind the frontier. Pure [ours].

What a stage costs depends on the machines before it only by whether there were more (nothing is added) or fewer (the price of
waiting is linear in how many): labels are merged from above and from below, not for each pair of counts. How late new
machines may be depends on how many they are, up to a power of two: labels from below are then merged for each power.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import held_usd, start_usd
from elastune.policies.planning.held import by_instances, holding
from elastune.policies.planning.labels import NONE, NOTHING_MORE, Labels, Range, efficient, joined, order_of
from elastune.policies.planning.lateness import growth_class, most_of_class
from elastune.policies.planning.program_limits import ProgramLimits
from elastune.policies.planning.spaces import MOST_COUNTS, MOST_RELEASED, Space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.arrays import Ids
    from elastune.policies.planning.choices import Choices
    from elastune.policies.planning.plan import Allocation, Terms

    Held = tuple[int, float, int]
    """Machines held, how early the next stage's can be asked for, and the choice where it says what is given back, else 0."""


@dataclass(frozen=True)
class _Layer:
    """What is known after a stage.

    Attributes:
        labels: by machines held and lead; the ids are positions in the layer before.
        first_id: the position of the first of these labels among all labels of the layer.
        parents: (labels,) position in the layer before, of every label of this one.
        held: (labels,) machines held.
        picked: (labels,) which choice was taken.
    """

    labels: Mapping[Held, Labels]
    first_id: Mapping[Held, int]
    parents: NDArray[np.int64]
    held: NDArray[np.int64]
    picked: NDArray[np.int64]


class Program:
    """Finds the allocations of every efficient plan.

    Args:
        per_stage: what each stage may be given.
        terms: profile, prices, limits.
        space: the plan space.
        live_instances: machines held already.
        is_spread: whether ends are compared by their 95th percentiles, with the lateness that choices carry.

    Attributes:
        limits: T, B, and the least that any plan costs.
    """

    def __init__(
        self,
        per_stage: Sequence[Choices],
        terms: Terms,
        space: Space,
        live_instances: int,
        *,
        is_spread: bool = False,
    ) -> None:
        self._per_stage = per_stage
        self._terms = terms
        self._space = space
        self._live = live_instances
        self._is_spread = is_spread
        # With one entry, it does not matter how many machines are new.
        self._starts_vary = per_stage[0].classes > 1
        self._refunded = per_stage[0].is_refunded
        self._startup_s = terms.profile.startup.mean_s
        self._start_usd = start_usd(terms)
        self.limits = ProgramLimits(per_stage, terms, live_instances)

    def options(self) -> list[dict[int, Ids]]:
        """By stage and machines held, the choices that some plan may take that keeps the limits."""
        counts, found = self._counts(), []
        for index, (stage, useful) in enumerate(zip(self._per_stage, self._most_useful(), strict=True)):
            most_held = self.limits.most_held(index)
            most = min(useful, float(most_held.max()))
            within = [held for held in counts if held <= most]
            found.append(by_instances(stage, self._terms, self._space, within, most_held=most_held))
        return found

    def _counts(self) -> Sequence[int]:
        """Numbers of machines that are held: those on which some stage trains, and the one that is there.

        Holding another one for some stages costs an amount that is linear in it up to the next of these, and no time. So one of
        the two next ones is no dearer. Where it depends on how many machines are new or released how late they are or what they
        cost, all numbers are tried if they are few.
        """
        most = self._terms.price_book.max_instances
        if (self._starts_vary and most <= MOST_COUNTS) or (self._refunded and most <= MOST_RELEASED):
            return range(1, most + 1)
        return sorted({self._live, *(held for stage in self._per_stage for held in stage.instances.tolist())})

    def _most_useful(self) -> Sequence[float]:
        """By stage, the machines beyond which none is worth its price: neither it nor any later stage trains on more."""
        if self._space == "fair" or held_usd(self._terms, 1.0) == 0:
            return [math.inf] * len(self._per_stage)
        needed = (int(stage.instances.max()) for stage in reversed(self._per_stage))
        return list(accumulate(needed, max))[::-1]

    def solve(self, most_usd: float = math.inf) -> list[list[Allocation]]:
        """The allocations of every efficient plan that costs at most so much, within the budget."""
        self.limits.set_usd(most_usd)
        if not self.limits.are_kept_by_some:
            return []
        options = self.options()
        start = Labels(
            np.zeros(1),
            np.full(1, self.limits.release_usd),
            np.zeros(1, np.int64),
            np.zeros(1) if self._is_spread else None,
        )
        known: Mapping[Held, Labels] = {(self._live, 0.0, 0): start}
        layers: list[_Layer] = []
        for index in range(len(self._per_stage)):
            if not options[index] or not any(len(labels) for labels in known.values()):
                return []
            layer = self._stage(index, known, options[index])
            layers.append(layer)
            known = {held: labels.numbered(layer.first_id[held]) for held, labels in layer.labels.items()}
        if self._refunded:
            best = self._from_more_refunded(self._per_stage[-1], known, [0], NOTHING_MORE)[0]
        else:
            best = efficient(list(known.values()))
        return [self._traced(layers, int(last)) for last in best.ids]

    def _stage(self, index: int, known: Mapping[Held, Labels], options: Mapping[int, Ids]) -> _Layer:
        """Extend all labels by one stage."""
        starts = self._starts(index, known, sorted(options))
        found: dict[Held, tuple[Labels, NDArray[np.int64]]] = {}
        leads_s = self._leads_s(index)
        usd, machine_usd = self._per_stage[index].usd, self.limits.machine_usd[index]
        for held, numbers in options.items():
            costs_usd = usd[numbers] + held * machine_usd[numbers]
            alike: dict[tuple[float, int], list[tuple[int, float]]] = {}
            for number, cost_usd in zip(numbers.tolist(), costs_usd.tolist(), strict=True):
                kind = leads_s[number], number if self._refunded else 0
                alike.setdefault(kind, []).append((number, cost_usd))
            for (ahead_s, number), some in alike.items():
                found[held, ahead_s, number] = self._extended(index, starts[held], some)
        sizes = [len(labels) for labels, _ in found.values()]
        return _Layer(
            {held: labels for held, (labels, _) in found.items()},
            dict(zip(found, accumulate(sizes, initial=0), strict=False)),
            np.concatenate([labels.ids for labels, _ in found.values()]),
            np.array([count for count, *_ in found], np.int64).repeat(sizes),
            np.concatenate([numbers for _, numbers in found.values()]),
        )

    def _leads_s(self, index: int) -> list[float]:
        """(choices,) how long before the barrier after each machines can be asked for, as `estimate.lead_s` says."""
        stage = self._per_stage[index]
        if self._space == "fair":
            return [0.0] * len(stage)
        leads_s: list[float] = np.minimum(stage.train_s + self._barrier_s(index), self._startup_s).tolist()
        return leads_s

    def _barrier_s(self, index: int) -> float:
        return 0.0 if index == len(self._per_stage) - 1 else self._terms.profile.sync_s

    def _starts(
        self, index: int, known: Mapping[Held, Labels], targets: Sequence[int]
    ) -> dict[int, list[tuple[int, Labels]]]:
        """By machines held: (growth class, labels) that go on with them, each class apart if starts vary."""
        later = self.limits.tails_s2[index]
        shrunk = self._from_more(index, known, targets, later)
        waiting: dict[int, list[Labels]] = {}
        for (before, ahead_s, _), labels in known.items():
            if before >= targets[-1]:
                continue
            wait_s = self._startup_s - ahead_s
            # The price of as many starts as are held then is added once that is known.
            waited = labels.plus(wait_s, before * (held_usd(self._terms, wait_s) - self._start_usd))
            waiting.setdefault(before, []).append(waited)
        merged = {before: efficient(parts, later) for before, parts in waiting.items()}
        if not self._starts_vary:
            grown = self._from_fewer(merged, targets, later)
            return {
                held: [(0, efficient([shrunk[held], grown[held].plus(0.0, held * self._start_usd)], later))]
                for held in targets
            }
        below = _Below(merged, later)
        return {
            held: _by_class(
                [
                    (0, shrunk[held]),
                    *((growth, labels.plus(0.0, held * self._start_usd)) for growth, labels in below(held)),
                ],
                later,
            )
            for held in targets
        }

    def _from_more(
        self, index: int, known: Mapping[Held, Labels], targets: Sequence[int], later: Range
    ) -> dict[int, Labels]:
        """By machines held: the labels of as many or more, which go on at once, less what is given back for that."""
        if self._refunded and index > 0:
            return self._from_more_refunded(self._per_stage[index - 1], known, targets, later)
        merged, sources, found = NONE, sorted(known), {}
        for held in reversed(targets):
            parts = [merged]
            while sources and sources[-1][0] >= held:
                parts.append(known[sources.pop()])
            merged = found[held] = efficient(parts, later)
        return found

    def _from_more_refunded(
        self, before: Choices, known: Mapping[Held, Labels], targets: Sequence[int], later: Range
    ) -> dict[int, Labels]:
        refund_usd = before.released_by(max(known)[0])
        sizes = [len(labels) for labels in known.values()]
        held = np.array([held for held, *_ in known]).repeat(sizes)
        rows = np.array([number for *_, number in known]).repeat(sizes)
        together = joined(list(known.values()))
        found = {}
        for target in targets:
            chosen = np.flatnonzero(held >= target)
            labels = together.at(chosen).less(refund_usd[rows[chosen], held[chosen] - target])
            found[target] = labels.at(order_of(labels, later)) if len(labels) > 1 else labels
        return found

    def _from_fewer(self, waiting: Mapping[int, Labels], targets: Sequence[int], later: Range) -> dict[int, Labels]:
        """By machines held: the labels of fewer, which wait for new ones."""
        merged, sources, found = NONE, sorted(waiting, reverse=True), {}
        for held in targets:
            parts = [merged]
            while sources and sources[-1] < held:
                parts.append(waiting[sources.pop()])
            merged = found[held] = efficient(parts, later)
        return found

    def _extended(
        self, index: int, starts: Sequence[tuple[int, Labels]], some: Sequence[tuple[int, float]]
    ) -> tuple[Labels, NDArray[np.int64]]:
        """The labels after some choices of the stage, given with what each costs, and which choice each took."""
        parts: list[Labels] = []
        numbers: list[int] = []
        stage, later = self._per_stage[index], self.limits.tails_s2[index + 1]
        for number, usd in some:
            busy_s = float(stage.train_s[number]) + self._barrier_s(index)
            for growth, labels in starts:
                if not len(labels):
                    continue
                late = number, growth if self._starts_vary else 0
                ended = labels.plus(busy_s + float(stage.shift_s[late]), usd, float(stage.tail_s2[late]))
                parts.append(self.limits.within(ended, index, float(stage.most_refund_usd[number])))
                numbers.append(number)
        picked = np.array(numbers, np.int64).repeat([len(part) for part in parts])
        together = joined(parts)
        if len(parts) < 2 or not len(together):
            return together, picked
        order = order_of(together, later)
        return together.at(order), picked[order]

    def _traced(self, layers: Sequence[_Layer], last: int) -> list[Allocation]:
        """The allocations that lead to a label of the last layer."""
        held: list[int] = []
        picked: list[int] = []
        for layer in reversed(layers):
            held.append(int(layer.held[last]))
            picked.append(int(layer.picked[last]))
            last = int(layer.parents[last])
        chosen = [stage.allocations[number] for stage, number in zip(self._per_stage, reversed(picked), strict=True)]
        return holding(chosen, held[::-1], self._live, prefetches=self._space == "wide")


def _by_class(starts: Sequence[tuple[int, Labels]], later: Range) -> list[tuple[int, Labels]]:
    """Those of each class that none of their own or a lower one beats: fewer new machines never make a stage later."""
    found: list[tuple[int, Labels]] = []
    lower = NONE
    for growth, labels in starts:
        together = joined([lower, labels])
        order = order_of(together, later) if len(lower) and len(labels) else np.arange(len(together))
        kept = together.at(order[order >= len(lower)])
        if len(kept):
            found.append((growth, kept))
            lower = joined([lower, kept])
    return found


class _Below:
    """Labels by machines held before, joined for those with fewer, by how many are new."""

    def __init__(self, waiting: Mapping[int, Labels], later: Range) -> None:
        self._counts, self._later = sorted(waiting), later
        self._labels = [waiting[count] for count in self._counts]

    def __call__(self, held: int) -> list[tuple[int, Labels]]:
        """(growth class, labels) of those with fewer machines."""
        found = []
        for growth in range(1, growth_class(held) + 1):
            # One new machine, two, then three to four, five to eight, ...
            first = bisect_left(self._counts, held - most_of_class(growth))
            last = bisect_left(self._counts, held - (most_of_class(growth - 1) if growth > 1 else 0))
            labels = efficient(self._labels[first:last], self._later)
            if len(labels):
                found.append((growth, labels))
        return found
