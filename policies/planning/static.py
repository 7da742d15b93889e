"""The best constant cluster: RubberBand's baseline, and the fair form of every fixed-cluster tuner. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.lateness import estimator
from elastune.policies.planning.options import on_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.lateness import Makespan
    from elastune.policies.planning.plan import Allocation, Plan, Terms
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
    return estimate(stages, allocations, terms, live_instances=live_instances, is_resumed=is_resumed)


def static_plan(stages: Sequence[Stage], terms: Terms, *, makespan: Makespan = "mean") -> Plan | None:
    """The cheapest constant cluster that ends by the deadline, billed until the job ends; None where none does.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits.
        makespan: what must be within the deadline; see `policies.planning.frontier.frontier`.
    """
    planned = estimator(stages, terms, makespan)
    plans = (planned(_on_cluster(stages, count, terms)) for count in terms.cluster_sizes)
    on_time = [plan for plan in plans if plan.promised_s <= terms.deadline_s]
    return min(on_time, key=lambda plan: (plan.cost_usd, plan.promised_s), default=None)


def _on_cluster(stages: Sequence[Stage], instances: int, terms: Terms, *, is_resumed: bool = False) -> list[Allocation]:
    options = (
        on_cluster(stage, instances, terms, is_first=index == 0 and not is_resumed)
        for index, stage in enumerate(stages)
    )
    return [choice.allocation for choice in options]
