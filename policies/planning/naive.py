"""The naive cloud extension: every trial of a stage at once, each on the same number of GPUs in all stages. Pure [ours]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.planning.lateness import estimator
from elastune.policies.planning.plan import Allocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.lateness import Makespan
    from elastune.policies.planning.plan import Plan, Terms
    from elastune.policies.rules.halving import Stage


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
