"""SHA, synchronous successive halving: on the best fixed cluster, on the naive one, and elastic.

Names are `room.module.name` below `policies`:

    for each target of the winner's training, R, or also
      less if `truncate` allows it:                       sizing.targets.winner_targets
      the first n, largest first, that has a plan:        sizing.sizing.largest
        rungs of n, n/eta, n/eta^2, ... trials            rules.halving.rungs
        fixed: machines and gangs of the best cluster     sizing.constant.cheapest_fixed_plan
        naive: B / (c T) machines                         sizing.constant.naive_instances
        elastic: one gang size, machines come and go      sizing.constant.constant_plan
        the plan must keep T and B                        planning.plan.Terms.are_kept_by
    take the plan with the best expected score            sizing.targets.best_expected
    run each rung, all its trials to the same iteration   execution.planned.run_plan
      keep the best 1/eta and stop the others             rules.halving.Bracket.advance
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.planning.static import plan_on_cluster
from elastune.policies.sizing.constant import (
    cheapest_fixed_plan,
    check_gang,
    constant_plan,
    naive_instances,
    naive_refusal,
)
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible
from elastune.policies.sizing.targets import Truncate, best_of_targets, check_truncate, least_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def sha_fixed(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    truncate: Truncate = "never",
) -> StagedPolicy:
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016) on the best fixed cluster.

    The cluster finishes the most configurations by T within B; of several that do, it is the cheapest. Survivors share it:
    each stage uses the gang size that ends the stage first, in uneven waves if need be.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        truncate: where the winner may be trained to less than R; see `policies.sizing.targets`.

    Raises:
        InputError: `truncate` has none of its values.
        InfeasibleJobError: no cluster size finishes even one configuration.

    Deviations:
        The paper has no machines: how survivors share them, the number of configurations and the cluster are ours. So is a
        winner that is trained to less than R.
    """
    check_truncate("sha-fixed", truncate)
    terms = Terms.of(job, profile, price_book)
    plan = _best_fixed_plan(job, terms, truncate)
    if plan is None:
        raise infeasible("sha-fixed", least_job(job, profile, truncate), terms, cheapest_fixed_plan)
    return run_plan(plan, job, profile, price_book)


@memoized
def _best_fixed_plan(job: TuningJob, terms: Terms, truncate: Truncate) -> Plan | None:
    """The plan for the most configurations that any fixed cluster finishes, on the cheapest such cluster."""
    return best_of_targets(job, terms, truncate, partial(cheapest_fixed_plan, terms=terms))


def sha_fixed_naive(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    truncate: Truncate = "never",
) -> StagedPolicy:
    """Successive halving on floor(B / (c T)) machines, held for all of T.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        truncate: where the winner may be trained to less than R; see `policies.sizing.targets`.

    Raises:
        InputError: `truncate` has none of its values.
        InfeasibleJobError: T or B is missing, B does not pay one machine for all of T, or not one configuration is finished.

    Deviations:
        Those of `sha_fixed`, but the cluster is the naive one.
    """
    check_truncate("sha-fixed-naive", truncate)
    terms = Terms.of(job, profile, price_book)
    instances = naive_instances("sha-fixed-naive", job, price_book)
    free = replace(terms, budget_usd=math.inf)

    def on_time(stages: Sequence[Stage]) -> Plan | None:
        plan = plan_on_cluster(stages, instances, free) if instances in terms.cluster_sizes else None
        return plan if plan is not None and terms.are_kept_by(plan) else None

    plan = best_of_targets(job, free, truncate, on_time)
    if plan is None:
        raise naive_refusal("sha-fixed-naive", least_job(job, profile, truncate), terms)
    return run_plan(plan, job, profile, price_book, holds=True)


def sha_elastic(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    gpus_per_trial: int = 1,
    truncate: Truncate = "never",
) -> StagedPolicy:
    """Successive halving with all trials of a stage at once, each on `gpus_per_trial` GPUs; idle machines are given back.

    Where the quota is smaller than a stage, its trials take turns.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        gpus_per_trial: size of every gang.
        truncate: where the winner may be trained to less than R; see `policies.sizing.targets`.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota; or `truncate` has none of its values.
        InfeasibleJobError: not one configuration is finished by T and B at this size.

    Deviations:
        The paper has no machines; this is the obvious extension to machines that come and go, and ours.
    """
    check_truncate("sha-elastic", truncate)
    terms = Terms.of(job, profile, price_book)
    check_gang("sha-elastic", gpus_per_trial, terms)

    plan_for = partial(constant_plan, gpus_per_trial=gpus_per_trial)
    plan = best_of_targets(job, terms, truncate, partial(plan_for, terms=terms))
    if plan is None:
        least = least_job(job, profile, truncate)
        raise infeasible(f"sha-elastic:gpus_per_trial={gpus_per_trial}", least, terms, plan_for)
    return run_plan(plan, job, profile, price_book, gives_back=True)
