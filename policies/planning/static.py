"""Plans that do not search: the best constant cluster, and the same gang for every trial on whatever machines that takes. Pure.

The constant cluster is RubberBand's baseline and the fair form of every fixed-cluster tuner; the constant gang is the naive
extension of a tuner to the cloud [ours].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.policies.planning.bill import cluster_usd
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.lateness import Makespan, estimator
from elastune.policies.planning.plan import Allocation, Plan, Terms
from elastune.policies.planning.spaces import Space, fair_on_cluster, on_cluster, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.rules.halving import Stage


def plan_on_cluster(
    stages: Sequence[Stage], instances: int, terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
) -> Plan:
    """The stages on a constant cluster, each with the gang size that makes it fastest.

    Args:
        stages: what is to be trained.
        instances: machines of the cluster.
        terms: profile, prices; limits are not looked at.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
    """
    allocations = _on_cluster(stages, instances, terms, is_resumed=is_resumed)
    assert allocations is not None  # in uneven waves, whatever has a gang can be trained
    return estimate(stages, allocations, terms, live_instances=live_instances, is_resumed=is_resumed)


def cluster_sizes(stages: Sequence[Stage], terms: Terms) -> Sequence[int]:
    """Numbers of machines of constant clusters that are tried; none holds more than all trials at once on the largest gang."""
    allowed = terms.cluster_sizes
    useful = -(-max(stage.trials for stage in stages) * terms.gang_sizes[-1] // terms.gpus_per_instance)
    return tried(range(allowed.start, max(min(useful + 1, allowed.stop), allowed.start + 1)))


def constant_plans(
    stages: Sequence[Stage],
    terms: Terms,
    is_kept: Callable[[Plan], bool],
    *,
    space: Space = "wide",
    makespan: Makespan = "mean",
    live_instances: int = 0,
    is_resumed: bool = False,
    most_usd: float = math.inf,
) -> list[Plan]:
    """The plans on constant clusters that are kept, but for late ones and those that cost more than a smaller cluster."""
    planned = estimator(stages, terms, makespan, live_instances=live_instances, is_resumed=is_resumed)
    least_s = _least_s(stages, terms, is_resumed=is_resumed)
    kept: list[Plan] = []
    for count in cluster_sizes(stages, terms):
        if not live_instances:
            # What a cluster of any size needs rises with the size; what this one needs may fall where quanta are coarse.
            if cluster_usd(terms, count, least_s(math.inf), 0.0) > most_usd * (1 + 1e-9):
                break
            if cluster_usd(terms, count, least_s(count), 0.0) > most_usd * (1 + 1e-9):
                continue
        if makespan == "mean" and least_s(count) > terms.deadline_s:
            continue
        allocations = _on_cluster(stages, count, terms, space, is_resumed=is_resumed)
        if allocations is not None and is_kept(plan := planned(allocations)):
            kept.append(plan)
            most_usd = min(most_usd, plan.cost_usd)
    return kept


def _least_s(stages: Sequence[Stage], terms: Terms, *, is_resumed: bool) -> Callable[[float], float]:
    """By machines, seconds that no cluster of so many trains faster than: the longest trial, or all GPUs at all times."""
    chains, works = [], []
    for index, stage in enumerate(stages):
        is_first = index == 0 and not is_resumed
        each = [(size, terms.segment_s(stage.iterations, size, is_first=is_first)) for size in terms.gang_sizes]
        chains.append(min(seconds for _, seconds in each))
        works.append(stage.trials * min(size * seconds for size, seconds in each) / terms.gpus_per_instance)
    barriers_s = (len(stages) - 1) * terms.profile.sync_s

    def least_s(count: float) -> float:
        trained_s = sum(max(chain_s, work_s / count) for chain_s, work_s in zip(chains, works, strict=True))
        return (trained_s + barriers_s) * (1 - 1e-9)

    return least_s


def static_plan(
    stages: Sequence[Stage],
    terms: Terms,
    *,
    space: Space = "wide",
    makespan: Makespan = "mean",
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Plan | None:
    """The cheapest constant cluster that ends by the deadline, billed until the job ends; None where none does.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits.
        space: how each stage uses the cluster: `fair`, with an equal share for each trial, which may leave machines idle, or
            `wide`, in uneven waves if those are faster.
        makespan: what must be within the deadline; see `policies.planning.frontier.frontier`.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
    """
    on_time = constant_plans(
        stages,
        terms,
        lambda plan: plan.promised_s <= terms.deadline_s,
        space=space,
        makespan=makespan,
        live_instances=live_instances,
        is_resumed=is_resumed,
    )
    return min(on_time, key=lambda plan: (plan.cost_usd, plan.promised_s), default=None)


def naive_plan(
    stages: Sequence[Stage], terms: Terms, gpus_per_trial: int, *, makespan: Makespan = "mean"
) -> Plan | None:
    """The plan, whatever deadline and budget are; None where such a gang cannot be had.

    Machines follow the need of each stage; where the quota is smaller than a stage, its trials take turns.
    """
    if not terms.profile.min_gpus <= gpus_per_trial <= terms.largest_gang:
        return None
    most = terms.max_gpus // gpus_per_trial
    gangs = (min(stage.trials, most) for stage in stages)
    allocations = [
        Allocation(stage.trials, count * gpus_per_trial, gpus_per_trial, terms.gpus_per_instance)
        for stage, count in zip(stages, gangs, strict=True)
    ]
    return estimator(stages, terms, makespan)(allocations)


def _on_cluster(
    stages: Sequence[Stage], instances: int, terms: Terms, space: Space = "wide", *, is_resumed: bool = False
) -> list[Allocation] | None:
    """What each stage gets of a constant cluster; None where one cannot be trained on it."""
    found = [
        held_on_cluster(stage, instances, terms, space, is_first=index == 0 and not is_resumed)
        for index, stage in enumerate(stages)
    ]
    allocations = [allocation for allocation in found if allocation is not None]
    return allocations if len(allocations) == len(stages) else None


def held_on_cluster(stage: Stage, instances: int, terms: Terms, space: Space, *, is_first: bool) -> Allocation | None:
    """The fastest allocation of a space on a cluster of this size, which it holds whole; None where there is none."""
    if space == "fair":
        return fair_on_cluster(stage, instances, terms, is_first=is_first)
    return on_cluster(stage, instances, terms, is_first=is_first).allocation
