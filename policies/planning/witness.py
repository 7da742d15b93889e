"""Proves without a search that some stages have a plan: the allocations of another plan are the witness. Pure [ours].

Each stage keeps its machines and the size of its gangs, with as many gangs as its trials fill. This is a plan in the space
that the frontier searches. If it keeps T and B, the frontier finds a plan too: it drops a plan only for a better one. That
holds where the frontier is exact (`is_exact`), up to the rounding of leases. So B is lowered a little.
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
"""Largest variance of the logarithm of a trial's training time. Up to it, machines are paid for at least four fifths of the
mean training time (`bound.least_used`), so a lease is at least four fifths of the least one before machines are given back."""
_ROUNDINGS = 2.5
"""Each lease may be rounded up twice, in the bill and in the margin before B; over the four fifths of `_MOST_VARIANCE`."""
_CLOSE_S = 1e-5
"""T is kept by so much: more than the grain of times in the frontier, and its tolerance."""


def is_shown_by(
    allocations: Sequence[Allocation],
    stages: Sequence[Stage],
    terms: Terms,
    *,
    live_instances: int = 0,
    is_resumed: bool = False,
) -> bool:
    """Whether these allocations prove that some plan of these stages keeps T and B. T is compared with the expected makespan.

    False: unknown.

    Args:
        allocations: of another plan, one for each stage; a different number proves nothing.
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
            allocation.gpus_per_trial,
            allocation.instances,
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
        least_lease_s: new machines are paid for so long at least. Machines that were held before are not rounded.
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
    trials: int,
    sizes: tuple[int, ...],
    gpus_per_instance: int,
    max_gpus: int,
    gives_back: bool,
    gang: int,
    instances: int,
) -> Allocation | None:
    """The allocation with the most gangs of this size that fit on so many machines; None where none does.

    It takes plain numbers, because results are kept by them.
    """
    every = allocations_of(trials, "wide", sizes, gpus_per_instance, max_gpus, gives_back)
    fitting = (one for one in every if one.gpus_per_trial == gang and one.needed_instances <= instances)
    return max(fitting, key=lambda one: one.gpus, default=None)
