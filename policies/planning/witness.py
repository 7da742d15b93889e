"""Whether allocations in hand show that other stages have a plan too, so that none needs to be searched. Pure [ours].

Machines and gangs are kept, as far as the trials of the other stages fill them. What that takes and costs is a plan of the
space that the frontier searches. So where it keeps T and B, the frontier finds one: it leaves out only what something else
beats. That holds where its program is exact (`is_exact`), up to the rounding of leases, for which some money is kept back.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from elastune.policies.planning.estimate import estimate, log_variance, refunds
from elastune.policies.planning.held import holding
from elastune.policies.planning.plan import FINE_QUANTUM_S
from elastune.policies.planning.spaces import MOST_RELEASED, allocations_of
from elastune.policies.rules.margin import PLAN_MARGIN_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Allocation, Terms
    from elastune.policies.rules.halving import Stage

_MOST_VARIANCE = 2.0
"""Of the logarithm of a trial's time, up to which less than a quarter of a bill is given back."""
_ROUNDINGS = 2.5
"""The rounding of each lease, counted so many times: in the bill and in the margin before B, of a bill before refunds."""
_CLOSE_S = 1e-5


def is_shown_by(
    allocations: Sequence[Allocation],
    stages: Sequence[Stage],
    terms: Terms,
    *,
    live_instances: int = 0,
    is_resumed: bool = False,
) -> bool:
    """Whether these allocations show that some plan of these stages keeps T and B, by expected makespans; False says nothing.

    Args:
        allocations: of other stages, as many as these.
        stages: what is to be trained.
        terms: profile, prices, limits.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
    """
    if len(allocations) != len(stages):
        return False
    least_s = _least_lease_s(stages, terms, is_resumed=is_resumed)
    if not is_exact(stages, terms, least_s):
        return False
    chosen = []
    for stage, allocation in zip(stages, allocations, strict=True):
        found = _most_gangs(
            stage.trials,
            terms.placeable_gang_sizes,
            terms.gpus_per_instance,
            terms.max_gpus,
            refunds(terms),
            (allocation.gpus_per_trial, allocation.instances),
        )
        if found is None:
            return False
        chosen.append(found)
    held = [allocation.instances for allocation in allocations]
    given = holding(chosen, held, live_instances, prefetches=True)
    shown = estimate(stages, given, terms, live_instances=live_instances, is_resumed=is_resumed)
    quantum_s = terms.price_book.billing.granularity_s + PLAN_MARGIN_S
    most_usd = terms.budget_usd * (1 - _ROUNDINGS * quantum_s / least_s)
    return shown.makespan_s <= terms.deadline_s - _CLOSE_S and shown.needed_usd <= most_usd


def is_exact(stages: Sequence[Stage], terms: Terms, least_lease_s: float) -> bool:
    """Whether the frontier finds some plan of the space wherever there is one.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits.
        least_lease_s: no new machine is paid for less.
    """
    rule = terms.price_book.billing
    if not terms.is_per_instance or rule.granularity_s > FINE_QUANTUM_S or rule.minimum_s > least_lease_s:
        return False
    if not refunds(terms):
        return True
    variance = max(log_variance(terms.profile.stragglers, stage.iterations) for stage in stages)
    return terms.price_book.max_instances <= MOST_RELEASED and variance <= _MOST_VARIANCE


def _least_lease_s(stages: Sequence[Stage], terms: Terms, *, is_resumed: bool) -> float:
    iteration_s = min(iteration_s for _, iteration_s in terms.placeable_gangs)
    least_s = min(
        terms.fixed_s(is_first=not (index or is_resumed)) + stage.iterations * iteration_s
        for index, stage in enumerate(stages)
    )
    return least_s + terms.profile.startup.billed_mean_s(terms.price_book.billing) + terms.price_book.release_s


@functools.lru_cache(4096)
def _most_gangs(
    trials: int, sizes: tuple[int, ...], whole: int, max_gpus: int, gives_back: bool, given: tuple[int, int]
) -> Allocation | None:
    """The allocation of the space with gangs of a given size and as many of them as fit on given machines."""
    size, instances = given
    every = allocations_of(trials, "wide", sizes, whole, max_gpus, gives_back)
    fitting = (one for one in every if one.gpus_per_trial == size and one.needed_instances <= instances)
    return max(fitting, key=lambda one: one.gpus, default=None)
