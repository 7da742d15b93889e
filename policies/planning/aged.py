"""The frontier where the ages of machines matter: a minimum charge that can bind, or coarse billing quanta. Pure [ours].

Partial plans carry their machines by what is paid for them; `policies.planning.partials` says which of them others beat. Those
whose least further time and cost cannot beat the known plans are cut off. Where more are left after a stage than `MOST_STARTED`
allows, only so many are followed. What the others could have come to at best is kept, as the gap of the plans found.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.aged_limits import AgedLimits, AgedPlans, most_refunds_usd
from elastune.policies.planning.bill import Prepaid
from elastune.policies.planning.held import by_instances, holding, tails_from
from elastune.policies.planning.labels import TIME_GRAIN_S, Range, efficient_order
from elastune.policies.planning.lateness import growth_class
from elastune.policies.planning.partials import Partials, Work, undominated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.arrays import Floats, Ids
    from elastune.policies.planning.bound import Bound, Paid
    from elastune.policies.planning.choices import Choices
    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.planning.spaces import Space

MOST_STARTED = 64_000_000
"""Work of one stage: partial plans, times numbers of machines to go on with, times the square of the quota."""
MOST_BEGUN = 250_000
"""Partial plans of one stage, before any is beaten: those that begin it, times the choices of each."""
MOST_COMPARED = 12_000_000
"""Machines whose credits are compared, all stages together."""

MOST_MACHINES = 512
"""Machines that are followed one by one; where more are worth holding, the known plans are all that is found."""


class InexactFrontierWarning(UserWarning):
    """Minimum charge or quanta leave too many partial plans to follow: the frontier may miss efficient ones."""


def aged_allocations(
    per_stage: Sequence[Choices],
    terms: Terms,
    space: Space,
    live_instances: int,
    known: Sequence[Plan],
    bound: Callable[[], Bound | Paid],
) -> AgedPlans:
    """What is efficient besides the known plans.

    Args:
        per_stage: what each stage may be given.
        terms: profile, prices, limits.
        space: the plan space.
        live_instances: machines held already.
        known: plans of the space, priced exactly.
        bound: what any plan costs at least; made only where nothing is followed.
    """
    search = _AgedSearch(per_stage, terms, space, live_instances, known)
    if search.most_machines > MOST_MACHINES:
        return search.limits.nothing_followed(bound())
    layers = search.layers()
    found = [] if layers is None else _traced(layers, per_stage, live_instances, prefetches=space == "wide")
    limits = search.limits
    return AgedPlans(found, search.left_out, limits.before_s, limits.missed_usd)


class _AgedSearch:
    """Stage by stage, all partial plans that may become efficient."""

    def __init__(
        self,
        per_stage: Sequence[Choices],
        terms: Terms,
        space: Space,
        live_instances: int,
        known: Sequence[Plan],
    ) -> None:
        self._per_stage = per_stage
        self._terms = terms
        self._space = space
        self._prepaid = Prepaid(terms)
        self._quota = self.most_machines = max(
            _most_worth(per_stage, terms, self._prepaid, live_instances), live_instances
        )
        self._startup_s, self._sync_s = terms.profile.startup.mean_s, terms.profile.sync_s
        self._is_spread = any(stage.is_spread for stage in per_stage)
        self._starts_vary = per_stage[0].classes > 1
        classes = (growth_class(new) if self._starts_vary else 0 for new in range(self._quota + 1))
        self._growth_classes = np.fromiter(classes, np.int64)
        self._tails_s2 = tails_from(per_stage)
        self._first = Partials.start(self._prepaid, live_instances, self._quota)
        self.limits = AgedLimits(per_stage, terms, known, self._prepaid, self._quota)
        self.left_out = 0
        self._work = Work(0)

    def layers(self) -> list[Partials] | None:
        """The partial plans after each stage; None where none can beat what is known."""
        layers, last = list[Partials](), self._first
        if not all(self._options):
            return None  # the budget starts too few machines for some stage
        for index in range(len(self._per_stage)):
            options = self._options[index]
            self._work = Work(max(self._work.machines, 0) + MOST_COMPARED // len(self._per_stage))
            starts = self._starts(index, last, sorted(options))
            starts = self._begun(index, starts, options)
            last = self._through(index, starts, options)
            if not len(last):
                return None
            last = self._followed(index, last) if index < len(self._per_stage) - 1 else self._efficient(last)
            layers.append(last)
        return layers

    @cached_property
    def _options(self) -> list[dict[int, Ids]]:
        """By stage and machines held, what it may be given."""
        counts = range(1, self._quota + 1)
        every = (by_instances(stage, self._terms, self._space, counts, by_age=True) for stage in self._per_stage)
        return [{held: some for held, some in of_stage.items() if held <= self._quota} for of_stage in every]

    def _starts(self, index: int, last: Partials, targets: Sequence[int]) -> Partials:
        """The partial plans from which the stage begins, on each of so many machines."""
        before = self._per_stage[index - 1] if index else None
        waiting = _Waiting(last, self._prepaid, self._startup_s, targets, before)
        parts = []
        for number, held in enumerate(targets):
            starts = waiting.resized(number, None if self._is_spread else waiting.unbeaten[number])
            starts = replace(starts, growth=self._growth_classes[np.maximum(held - last.held[starts.parents], 0)])
            parts.append(self._unbeaten(starts, starts.growth, self._tails_s2[index]))
        return Partials.joined(parts)

    def _unbeaten(self, partials: Partials, kinds: Floats | Ids, later_tail_s2: Range) -> Partials:
        """Those that none of their own kind beats; all hold as many machines."""
        if len(partials) < 2:
            return partials
        latest_s = self.limits.latest_s
        if kinds.min() == kinds.max():
            return partials.at(undominated(partials, self._prepaid, later_tail_s2, latest_s, self._work))
        kept = []
        for kind in np.unique(kinds):
            some = np.flatnonzero(kinds == kind)
            if len(some) > 1:
                some = some[undominated(partials.at(some), self._prepaid, later_tail_s2, latest_s, self._work)]
            kept.append(some)
        return partials.at(np.concatenate(kept))

    def _through(self, index: int, starts: Partials, options: Mapping[int, Ids]) -> Partials:
        """What comes of each of them after the stage, with each of the choices that its machines allow."""
        stage = self._per_stage[index]
        numbers = [options[held] for held in starts.held.tolist()]
        begun = starts.at(np.repeat(np.arange(len(starts)), [len(some) for some in numbers]))
        picked = np.concatenate(numbers)
        is_last = index == len(self._per_stage) - 1
        busy_s = stage.train_s[picked] + (0.0 if is_last else self._sync_s)
        late_s, late_s2 = stage.shift_s[picked, begun.growth], stage.tail_s2[picked, begun.growth]
        credits_s, used_usd = self._prepaid.used(begun.credits_s, busy_s)
        ended = replace(
            begun,
            time_s=begun.time_s + busy_s,
            shift_s=begun.shift_s + late_s,
            tail_s2=begun.tail_s2 + late_s2,
            paid_usd=begun.paid_usd + used_usd - begun.held * stage.each_refund_usd[picked],
            credits_s=credits_s,
            lead_s=np.minimum(busy_s, self._startup_s) if self._space == "wide" else np.zeros(len(begun)),
            picked=picked,
        )
        ended = ended.at(self.limits.may_improve(ended, index))
        if not len(ended) or (len(begun) == len(starts) and not self._starts_vary):
            return ended
        # With another refund ahead, or another lead, they do not go on alike.
        kinds = ended.picked if stage.is_refunded else np.unique(ended.lead_s, return_inverse=True)[1]
        some = (np.flatnonzero(ended.held == held) for held in np.unique(ended.held))
        return Partials.joined([self._unbeaten(ended.at(at), kinds[at], self._tails_s2[index + 1]) for at in some])

    def _efficient(self, partials: Partials) -> Partials:
        """Those of the last stage than which none is both sooner and cheaper."""
        usd = self.limits.bill_usd(partials) - _released_usd(self._per_stage[-1], partials, partials.held)
        return partials.at(efficient_order(partials.late_s(0.0), usd))

    def _begun(self, index: int, starts: Partials, options: Mapping[int, Ids]) -> Partials:
        """As many of those that begin a stage as there is room for, with all choices of each; of the first stage all."""
        if not index:
            return starts
        return self._thinned(
            starts, np.array([len(options[held]) for held in starts.held.tolist()]), MOST_BEGUN, index - 1
        )

    def _followed(self, index: int, partials: Partials) -> Partials:
        """As many of those that end a stage as there is work for."""
        most = MOST_STARTED // (len(self._options[index + 1]) * self._quota**2)
        return self._thinned(partials, np.ones(len(partials), np.int64), max(most, 1), index)

    def _thinned(self, partials: Partials, each: Ids, most: int, index: int) -> Partials:
        """So many of each number of machines as fit, evenly from the soonest to the latest; what is left out is remembered.

        Args:
            partials: to choose from.
            each: (plans,) what each counts.
            most: what they may count together.
            index: of the stage that they have ended.
        """
        if each.sum() <= most:
            return partials
        by_time = np.lexsort((partials.time_s, partials.held))
        _, first, counts = np.unique(partials.held[by_time], return_index=True, return_counts=True)
        rank = (np.arange(len(partials)) - np.repeat(first, counts)) / np.repeat(np.maximum(counts - 1, 1), counts)
        # 0, 1, 1/2, 1/4, 3/4, ...: each new one halves a gap.
        in_turn = by_time[np.argsort(_halving_turns(rank), kind="stable")]
        fits = np.cumsum(each[in_turn]) <= most
        fits[0] = True  # one goes on, however much it counts
        chosen = np.zeros(len(partials), bool)
        chosen[in_turn[fits]] = True
        self.left_out += int((~chosen).sum())
        self.limits.miss(partials.at(~chosen), index)
        return partials.at(chosen)


def _most_worth(per_stage: Sequence[Choices], terms: Terms, prepaid: Prepaid, live_instances: int) -> int:
    """The most machines that are worth holding: no stage trains on more, and the budget starts no more."""
    needed = max(int(stage.instances.max()) for stage in per_stage)
    if math.isinf(terms.budget_usd) or not prepaid.new_usd:
        return needed
    most_usd: float = terms.budget_usd * (1 + 1e-9) + sum(most_refunds_usd(per_stage, needed))
    return min(needed, live_instances + math.floor(most_usd / prepaid.new_usd))


def _released_usd(stage: Choices | None, partials: Partials, released: Ids) -> Floats:
    """The part of the refund for machines that are released after the stage, by what the partial plans picked in it."""
    if stage is None or not stage.is_refunded:
        return np.zeros(released.shape)
    most = int(partials.held.max())
    usd: Floats = stage.released_by(most)[partials.picked, np.maximum(released, 0)]
    return usd


class _Waiting:
    """The partial plans after a stage, and what comes of them with other numbers of machines.

    Attributes:
        unbeaten: (targets, plans) bool; which of them none beats by what each has paid and will pay at least, were all
            machines paid by the second; see `policies.planning.partials`.
    """

    def __init__(
        self, last: Partials, prepaid: Prepaid, startup_s: float, targets: Sequence[int], before: Choices | None
    ) -> None:
        self._last, self._prepaid, self._targets = last, prepaid, targets
        self._quota = last.credits_s.shape[1]
        self._wait_s = startup_s - last.lead_s
        self._waited_s, waited_usd = prepaid.used(last.credits_s, self._wait_s)
        held = np.array(targets)[:, None]
        # Machines are given back from the left end of a row, and new ones are added.
        self._grows, gone, new = last.held < held, self._quota - held[:, 0], np.maximum(held - last.held, 0)
        self._paid_usd = np.where(
            self._grows,
            last.paid_usd + waited_usd + new * prepaid.new_usd,
            last.paid_usd
            + _sums(prepaid.release_usd(last.credits_s))[:, gone].T
            - _released_usd(before, last, last.held - held),
        )
        self.unbeaten = self._unbeaten(gone, new)

    def _unbeaten(self, gone: Ids, new: Ids) -> NDArray[np.bool_]:
        prepaid, last = self._prepaid, self._last

        def left(amounts_of: Callable[[Floats], Floats]) -> Floats:
            stays, waited = amounts_of(last.credits_s), amounts_of(self._waited_s)
            added = amounts_of(np.full((1, 1), prepaid.new_credit_s))[0, 0]
            kept = stays.sum(axis=1) - _sums(stays)[:, gone].T
            amounts: Floats = np.where(self._grows, waited.sum(axis=1) + new * added, kept)
            return amounts

        accrued_usd = self._paid_usd - prepaid.usd(left(lambda credits_s: np.maximum(credits_s, 0.0)))
        most_usd = self._paid_usd + prepaid.usd(left(prepaid.most_beyond_s))
        time_s = np.where(self._grows, last.time_s + self._wait_s, last.time_s)
        order = np.lexsort((self._paid_usd, np.rint(time_s / TIME_GRAIN_S)), axis=1)
        least_usd = np.minimum.accumulate(np.take_along_axis(most_usd, order, axis=1), axis=1)
        sorted_usd = np.take_along_axis(accrued_usd, order, axis=1)
        is_kept = np.ones(order.shape, bool)
        is_kept[:, 1:] = sorted_usd[:, 1:] + 1e-10 * np.abs(sorted_usd[:, 1:]) < least_usd[:, :-1]
        unbeaten = np.empty(order.shape, bool)
        np.put_along_axis(unbeaten, order, is_kept, axis=1)
        return unbeaten

    def resized(self, number: int, chosen: NDArray[np.bool_] | None) -> Partials:
        """Those chosen, or all, with a target's machines from the start of the next stage on."""
        last, prepaid, held = self._last, self._prepaid, self._targets[number]
        parents = np.arange(len(last)) if chosen is None else np.flatnonzero(chosen)
        grows = self._grows[number, parents]
        before = last.at(parents)
        credits_s = np.where(grows[:, None], self._waited_s[parents], before.credits_s)
        column = np.arange(self._quota)
        is_new = (column >= self._quota - held) & (column < (self._quota - before.held)[:, None])
        credits_s[is_new] = prepaid.new_credit_s
        credits_s[:, : self._quota - held] = prepaid.NO_MACHINE
        credits_s.sort(axis=1)
        return replace(
            before,
            time_s=before.time_s + np.where(grows, self._wait_s[parents], 0.0),
            paid_usd=self._paid_usd[number, parents],
            credits_s=credits_s,
            held=np.full(len(parents), held),
            parents=parents,
        )


def _sums(amounts: Floats) -> Floats:
    """(plans, machines + 1) sums of the first none, one, two, ... of each row."""
    return np.concatenate((np.zeros((len(amounts), 1)), np.cumsum(amounts, axis=1)), axis=1)


def _halving_turns(shares: Floats) -> Ids:
    """(shares,) 0 for both ends of a range, 1 for its middle, 2 for the quarters, and so on up to 10."""
    turns = np.full(len(shares), 10)
    for turn in range(9, -1, -1):
        parts = shares * 2**turn
        turns[np.abs(parts - np.round(parts)) <= 1e-9] = turn
    return turns


def _traced(
    layers: Sequence[Partials], per_stage: Sequence[Choices], live_instances: int, *, prefetches: bool
) -> list[list[Allocation]]:
    """The allocations that lead to each partial plan of the last layer."""
    at = np.arange(len(layers[-1]))
    held: list[Ids] = []
    picked: list[Ids] = []
    for layer in reversed(layers):
        held.append(layer.held[at])
        picked.append(layer.picked[at])
        at = layer.parents[at]
    by_plan = zip(np.array(picked[::-1]).T.tolist(), np.array(held[::-1]).T.tolist(), strict=True)
    return [
        holding(
            [stage.allocations[number] for stage, number in zip(per_stage, numbers, strict=True)],
            counts,
            live_instances,
            prefetches=prefetches,
        )
        for numbers, counts in by_plan
    ]
