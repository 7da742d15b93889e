"""The frontier where the ages of machines matter: a minimum charge that can bind, or coarse billing quanta. Pure [ours].

Partial plans carry their machines by age. One is dropped only if another that holds as many machines is as soon and cannot
become dearer whatever follows: its accrued price and all that minimum and rounding may still add to it are at most the
other's accrued price; or if its machines are as old, one by one. Partial plans whose least further time and cost already
exceed a known plan are cut off. Of more than `MOST_PARTIALS` after a stage only so many are kept, with a warning: then the
frontier may miss plans (large jobs on machines billed by the hour).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from policies.planning.estimate import Leases, lead_s
from policies.planning.spaces import by_instances, holding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from policies.planning.plan import Allocation, Plan, Terms
    from policies.planning.spaces import Choice, Space

MOST_PARTIALS = 1500
"""Partial plans that are followed from stage to stage: about 20 s for 7 stages on up to 32 machines."""


class InexactFrontierWarning(UserWarning):
    """Minimum charge or quanta leave too many partial plans to follow: the frontier may miss efficient ones."""


@dataclass(frozen=True)
class _Partial:
    """A plan up to the end of some stage.

    Attributes:
        time_s: its end.
        leases: its machines.
        accrued_usd: what was billed, and the machines held by their ages alone.
        margin_usd: the most that minimum and rounding may still add.
        held: machines, by stage.
        picked: choices, by stage.
        lead_s: how early the next stage's machines can be asked for.
    """

    time_s: float
    leases: Leases
    accrued_usd: float
    margin_usd: float
    held: tuple[int, ...]
    picked: tuple[Choice, ...]
    lead_s: float

    def beats(self, other: _Partial) -> bool:
        """Whether the other, which holds as many machines and is no sooner, can be dropped."""
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
    usd_per_s = terms.usd_per_s
    partials = [_Partial(0.0, Leases(terms, live_instances), 0.0, 0.0, (), (), 0.0)]
    for index, stage in enumerate(per_stage):
        sync_s = profile.sync_s if index < len(per_stage) - 1 else 0.0
        later = per_stage[index + 1 :]
        later_s = sum(min(c.train_s for c in s) for s in later) + max(len(later) - 1, 0) * profile.sync_s
        later_usd = sum(min(c.train_s * c.instances for c in s) for s in later) * usd_per_s
        extended = _extended(partials, stage, terms, space, live_instances, sync_s)
        within = (p for p in extended if not _is_cut_off(p, later_s, later_usd, known, terms))
        partials = _at_most(_undominated(within), MOST_PARTIALS)
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
            for _, choice in of_stage:
                leases = partial.leases.copy()
                ahead_s = partial.lead_s if held > before else 0.0
                start_s = partial.time_s + leases.resize(held, partial.time_s, ahead_s)
                busy_s = choice.train_s + sync_s
                time_s = start_s + busy_s
                yield _Partial(
                    time_s,
                    leases,
                    leases.accrued_usd(time_s),
                    leases.margin_usd(time_s),
                    (*partial.held, held),
                    (*partial.picked, choice),
                    lead_s(busy_s, startup_s) if space == "wide" else 0.0,
                )


def _is_cut_off(partial: _Partial, later_s: float, later_usd: float, known: Sequence[Plan], terms: Terms) -> bool:
    """Whether whatever follows breaks a limit, or is no better than a known plan."""
    least_s = partial.time_s + later_s
    least_usd = max(partial.accrued_usd + later_usd, partial.leases.paid_usd(partial.time_s))
    if least_s > terms.deadline_s + 1e-6 or least_usd > terms.budget_usd * (1 + 1e-9) + 1e-9:
        return True
    return any(plan.makespan_s <= least_s and plan.cost_usd <= least_usd for plan in known)


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


def _undominated(partials: Iterator[_Partial]) -> list[list[_Partial]]:
    """By machines held: those that none beats."""
    kept: dict[int, list[_Partial]] = {}
    for partial in sorted(partials, key=lambda p: (p.time_s, p.accrued_usd)):
        rivals = kept.setdefault(partial.held[-1], [])
        if not any(rival.beats(partial) for rival in rivals):
            rivals.append(partial)
    return list(kept.values())
