"""The time-cost frontier: every efficient plan of a stated space at once, by a label-setting dynamic program. Pure [ours].

Cost is additive over stages given the machines held, so partial plans that hold equally many machines compare by (time, cost)
alone. What a stage costs depends on the machines before it only by whether there were more (nothing is added) or fewer (the
price of waiting is linear in how many): labels are merged from above and from below, not for each pair of counts.

Exact within its space, by the closed form of `policies.planning.estimate`, up to the rounding of leases to a quantum of
at most `FINE_QUANTUM_S`. Coarser quanta, and a minimum charge that can bind, are handled by `policies.planning.aged`, exactly
unless it warns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from policies.planning.aged import aged_allocations
from policies.planning.estimate import estimate, lead_s
from policies.planning.labels import NONE, Labels, efficient, efficient_order
from policies.planning.plan import FINE_QUANTUM_S
from policies.planning.spaces import by_instances, choices, holding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from policies.halving import Stage
    from policies.planning.plan import Allocation, Plan, Terms
    from policies.planning.spaces import Choice, Space


def frontier(
    stages: Sequence[Stage],
    terms: Terms,
    *,
    space: Space = "wide",
    live_instances: int = 0,
    is_resumed: bool = False,
) -> list[Plan]:
    """All efficient plans within the terms' limits, fastest and dearest first; empty where none keeps them.

    No plan of the space ends as soon and costs less. `fair`: every trial of a stage gets the same share, machines follow the
    need. `wide`: any number of gangs, uneven waves, machines held beyond the need, and new ones asked for before the barrier.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits; plans beyond deadline or budget are left out.
        space: the plan space.
        live_instances: machines held already, whose further time is charged and whose start is not.
        is_resumed: whether the first stage continues earlier ones.
    """
    per_stage = [
        choices(stage, terms, space, is_first=index == 0 and not is_resumed) for index, stage in enumerate(stages)
    ]
    if not all(per_stage):
        return []
    if not terms.is_per_instance and space == "wide":
        found: Iterable[Sequence[Allocation]] = _all_held(per_stage, terms, live_instances)
    else:
        found = _Program(per_stage, terms, space, live_instances).solve()
        if _ages_matter(per_stage, terms):
            bounds = [estimate(stages, a, terms, live_instances=live_instances, is_resumed=is_resumed) for a in found]
            found = aged_allocations(per_stage, terms, space, live_instances, bounds)
    plans = [estimate(stages, a, terms, live_instances=live_instances, is_resumed=is_resumed) for a in found]
    return efficient_plans(plan for plan in plans if terms.are_kept_by(plan))


def efficient_plans(plans: Iterable[Plan]) -> list[Plan]:
    """The plans than which none is both sooner and cheaper, fastest first."""
    listed = list(plans)
    times_s, usd = np.array([p.makespan_s for p in listed]), np.array([p.cost_usd for p in listed])
    return [listed[index] for index in efficient_order(times_s, usd)]


def cheapest_by(plans: Sequence[Plan], deadline_s: float) -> Plan | None:
    """The cheapest plan of a frontier that ends by the deadline; None where none does."""
    on_time = (plan for plan in plans if plan.makespan_s <= deadline_s)
    return min(on_time, key=lambda plan: (plan.cost_usd, plan.makespan_s), default=None)


def earliest_within(plans: Sequence[Plan], budget_usd: float) -> Plan | None:
    """The plan of a frontier that ends first and costs at most the budget; None where none does."""
    paid_for = (plan for plan in plans if plan.cost_usd <= budget_usd)
    return min(paid_for, key=lambda plan: (plan.makespan_s, plan.cost_usd), default=None)


def _ages_matter(per_stage: Sequence[Sequence[Choice]], terms: Terms) -> bool:
    """Whether quanta are coarse, or some machine may live shorter than the minimum charge."""
    rule, profile = terms.price_book.billing, terms.profile
    if not terms.is_per_instance:
        return False
    shortest_s = min(choice.train_s for stage in per_stage for choice in stage) + terms.price_book.release_s
    shortest_s += profile.startup.billed_mean_s(rule)
    return rule.granularity_s > FINE_QUANTUM_S or rule.minimum_s > shortest_s


@dataclass(frozen=True)
class _Layer:
    """What is known after a stage.

    Attributes:
        labels: by machines held; the ids are positions in the layer before.
        first_id: by machines held, the position of the first of these labels among all labels of the layer.
        parents: (labels,) position in the layer before, of every label of this one.
        held: (labels,) machines held.
        picked: (labels,) which choice was taken.
    """

    labels: Mapping[int, Labels]
    first_id: Mapping[int, int]
    parents: NDArray[np.int64]
    held: NDArray[np.int64]
    picked: NDArray[np.int64]


class _Program:
    """The dynamic program over (stage, machines held)."""

    def __init__(self, per_stage: Sequence[Sequence[Choice]], terms: Terms, space: Space, live_instances: int) -> None:
        self._per_stage = per_stage
        self._terms = terms
        self._space = space
        self._live = live_instances
        profile, book = terms.profile, terms.price_book
        self._startup_s = profile.startup.mean_s
        self._sync_s = profile.sync_s
        self._usd_per_s = terms.usd_per_s if terms.is_per_instance else 0.0
        boot_s = profile.startup.billed_mean_s(book.billing)
        self._start_usd = (boot_s + book.release_s) * self._usd_per_s + terms.ingress_usd
        later_s = [min(choice.train_s for choice in stage) for stage in per_stage]
        last = len(per_stage) - 1
        self._later_s = [
            sum(later_s[index + 1 :]) + max(last - 1 - index, 0) * self._sync_s for index in range(len(per_stage))
        ]
        self._lead_s: dict[int, float] = {}

    def solve(self) -> list[list[Allocation]]:
        """The allocations of every efficient plan."""
        release_usd = self._terms.price_book.release_s * self._usd_per_s
        start = Labels(np.zeros(1), np.full(1, self._live * release_usd), np.zeros(1, np.int64))
        known: Mapping[int, Labels] = {self._live: start}
        layers: list[_Layer] = []
        for index in range(len(self._per_stage)):
            layer = self._stage(index, known)
            layers.append(layer)
            known = {
                held: replace(labels, ids=np.arange(len(labels)) + layer.first_id[held])
                for held, labels in layer.labels.items()
            }
        best = efficient(list(known.values()))
        return [self._traced(layers, int(last)) for last in best.ids]

    def _stage(self, index: int, known: Mapping[int, Labels]) -> _Layer:
        """Extend all labels by one stage."""
        options = by_instances(self._per_stage[index], self._terms, self._space)
        shrunk = self._from_more(known, sorted(options))
        grown = self._from_fewer(known, sorted(options))
        is_last = index == len(self._per_stage) - 1
        sync_s = 0.0 if is_last else self._sync_s
        labels: dict[int, Labels] = {}
        picked: list[NDArray[np.int64]] = []
        for held, of_stage in options.items():
            starts = efficient([shrunk[held], grown[held].plus(0.0, held * self._start_usd)])
            kept, taken = self._extended(starts, held, of_stage, sync_s, self._later_s[index])
            labels[held] = kept
            picked.append(taken)
        if self._space == "wide":
            self._lead_s = {
                held: lead_s(of_stage[0][1].train_s + sync_s, self._startup_s) for held, of_stage in options.items()
            }
        sizes = [len(mine) for mine in labels.values()]
        first = np.concatenate(([0], np.cumsum(sizes)))
        return _Layer(
            labels,
            {held: int(position) for held, position in zip(labels, first, strict=False)},
            np.concatenate([mine.ids for mine in labels.values()]),
            np.repeat(np.array(list(labels), np.int64), sizes),
            np.concatenate(picked),
        )

    def _from_more(self, known: Mapping[int, Labels], targets: Sequence[int]) -> dict[int, Labels]:
        """By machines held: the labels of as many or more, which go on at once."""
        merged, sources, found = NONE, sorted(known), {}
        for held in reversed(targets):
            parts = [merged]
            while sources and sources[-1] >= held:
                parts.append(known[sources.pop()])
            merged = found[held] = efficient(parts)
        return found

    def _from_fewer(self, known: Mapping[int, Labels], targets: Sequence[int]) -> dict[int, Labels]:
        """By machines held: the labels of fewer, which wait for new ones; the price of as many starts is not yet added."""
        merged, sources, found = NONE, sorted(known, reverse=True), {}
        for held in targets:
            parts = [merged]
            while sources and sources[-1] < held:
                before = sources.pop()
                wait_s = self._startup_s - self._lead_s.get(before, 0.0)
                parts.append(known[before].plus(wait_s, before * (wait_s * self._usd_per_s - self._start_usd)))
            merged = found[held] = efficient(parts)
        return found

    def _extended(
        self,
        starts: Labels,
        held: int,
        of_stage: Sequence[tuple[int, Choice]],
        sync_s: float,
        later_s: float,
    ) -> tuple[Labels, NDArray[np.int64]]:
        """The labels after the stage, and which choice each took."""
        terms = self._terms
        parts: list[Labels] = []
        for _, choice in of_stage:
            busy_s = choice.train_s + sync_s
            extended = starts.plus(busy_s, choice.usd + held * busy_s * self._usd_per_s)
            # The tolerance leaves the last word to the closed form.
            parts.append(
                extended.within(terms.deadline_s - later_s + 1e-6, terms.budget_usd * (1 + 1e-9) + 1e-9)
                if math.isfinite(terms.deadline_s) or math.isfinite(terms.budget_usd)
                else extended
            )
        numbers = np.repeat(np.array([number for number, _ in of_stage], np.int64), [len(part) for part in parts])
        if len(parts) == 1:
            return parts[0], numbers
        together = Labels(
            np.concatenate([part.time_s for part in parts]),
            np.concatenate([part.usd for part in parts]),
            np.concatenate([part.ids for part in parts]),
        )
        order = efficient_order(together.time_s, together.usd) if len(together) else np.empty(0, np.int64)
        return Labels(together.time_s[order], together.usd[order], together.ids[order]), numbers[order]

    def _traced(self, layers: Sequence[_Layer], last: int) -> list[Allocation]:
        """The allocations that lead to a label of the last layer."""
        held: list[int] = []
        picked: list[int] = []
        for layer in reversed(layers):
            held.append(int(layer.held[last]))
            picked.append(int(layer.picked[last]))
            last = int(layer.parents[last])
        chosen = [stage[number] for stage, number in zip(self._per_stage, reversed(picked), strict=True)]
        return holding(chosen, held[::-1], self._live, prefetches=self._space == "wide")


def _all_held(per_stage: Sequence[Sequence[Choice]], terms: Terms, live: int) -> list[list[Allocation]]:
    """Where idle machines are free: the most that any stage needs are held from the start, and stages add up.

    No more than those that are there, which saves the wait; any number; and where data is paid for, each number.
    """
    needs = {choice.instances for stage in per_stage for choice in stage}
    caps = {max(needs), live} | (needs if terms.ingress_usd else set())
    return [plan for cap in sorted(caps) for plan in _sums(per_stage, cap, live)]


def _sums(per_stage: Sequence[Sequence[Choice]], cap: int, live: int) -> list[list[Allocation]]:
    """The efficient sums of choices that need at most `cap` machines; none where a stage has no such choice."""
    if any(min(choice.instances for choice in stage) > cap for stage in per_stage):
        return []
    within = [_cheaper([choice for choice in stage if choice.instances <= cap]) for stage in per_stage]
    time_s, usd = np.zeros(1), np.zeros(1)
    steps: list[NDArray[np.int64]] = []
    for stage in within:
        all_s = (time_s[:, None] + [choice.train_s for choice in stage]).ravel()
        all_usd = (usd[:, None] + [choice.usd for choice in stage]).ravel()
        order = efficient_order(all_s, all_usd)
        time_s, usd = all_s[order], all_usd[order]
        steps.append(order)
    found = []
    for last in range(len(time_s)):
        chosen, at = [], last
        for order, stage in zip(reversed(steps), reversed(within), strict=True):
            at, number = divmod(int(order[at]), len(stage))
            chosen.append(stage[number])
        held = [max(choice.instances for choice in chosen)] * len(chosen)
        found.append(holding(chosen[::-1], held, live, prefetches=False))
    return found


def _cheaper(found: Sequence[Choice]) -> list[Choice]:
    """Those cheaper than all faster ones."""
    order = efficient_order(np.array([c.train_s for c in found]), np.array([c.usd for c in found]))
    return [found[index] for index in order]
