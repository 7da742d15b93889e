"""ASHA, asynchronous successive halving: on the best fixed cluster, on the naive one, and elastic.

Names are `room.module.name` below `policies`:

    fixed: machines on which the most configurations fit T
      and B, for the best of the targets                         sizing.targets.best_cluster_of_targets
    naive: B / (c T) machines                                    sizing.constant.naive_instances
    whenever the GPUs of a gang are free:                        execution.asynchronous.AsynchronousPolicy
      from the highest rung down, else a new configuration:      tuners.promotion.PromotionRule.next_task
        the best trial that is in the top 1/eta of its rung and
        was not promoted yet goes on                             rules.halving.AsynchronousRung.promote
    when a trial reaches its rung, its score is recorded         tuners.promotion.PromotionRule.reached
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from elastune.policies.execution.asynchronous import Admission, AsynchronousPolicy
from elastune.policies.execution.limits import Limits
from elastune.policies.planning.plan import Terms
from elastune.policies.sizing.constant import check_gang, naive_instances
from elastune.policies.sizing.list_scheduling import best_cluster, promotion_load
from elastune.policies.sizing.targets import Truncate, best_cluster_of_targets
from elastune.policies.tuners.promotion import PromotionRule

if TYPE_CHECKING:
    import numpy as np

    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def asha_fixed(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    truncate: Truncate = "never",
) -> AsynchronousPolicy:
    """ASHA (Li et al., MLSys 2020, Algorithm 2), one GPU per trial, on the best fixed cluster.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        truncate: where the cluster may be one on which no trial can reach R; see `policies.sizing.targets`.

    Raises:
        InputError: `truncate` has none of its values.
        InfeasibleJobError: no cluster trains even one configuration to R, or to the lowest target, on one GPU.

    Deviations:
        The paper has neither machines nor limits: the cluster is the one on which the work of the most configurations fits
        T and B, and one trial can reach R; of several, one that also has time for the last promotions, then the cheapest.
        The paper assumes an endless stream of configurations; ours ends, see
        `policies.tuners.promotion.PromotionRule.last_resort`.
    """
    terms = Terms.of(job, profile, price_book)
    cluster = best_cluster_of_targets("asha-fixed", job, terms, truncate, promotion_load, is_anytime=True)
    return asha_on(cluster.instances, job, profile, price_book, trials=cluster.trials)


def asha_fixed_naive(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
) -> AsynchronousPolicy:
    """ASHA on floor(B / (c T)) machines, held for all of T; new configurations are started as long as there are any.

    Raises:
        InfeasibleJobError: T or B is missing, or B does not pay one machine for all of T.

    Deviations:
        Those of `asha_fixed`, but the cluster is the naive one.
    """
    instances = naive_instances("asha-fixed-naive", job, price_book)
    return asha_on(instances, job, profile, price_book, trials=job.trials, holds=True)


def asha_on(
    instances: int, job: TuningJob, profile: Profile, price_book: PriceBook, *, trials: int, holds: bool = False
) -> AsynchronousPolicy:
    """ASHA with one GPU per trial on so many machines.

    Args:
        instances: machines of the cluster.
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        trials: configurations that may be started.
        holds: keep the machines until the limit although the work is done.
    """
    rule = PromotionRule(job, trials, climbs=True)
    return AsynchronousPolicy(rule, Limits(job, profile, price_book), instances=instances, holds=holds)


def asha_elastic(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    gpus_per_trial: int = 1,
) -> AsynchronousPolicy:
    """ASHA (Li et al., MLSys 2020, Algorithm 2) on machines that come and go, a constant number of GPUs per trial.

    A trial starts only if it still reaches the next rung before deadline and budget end the run. Machines with nothing to do
    are given back; where the budget then lasts longer, what was declined is tried again on fewer machines.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        gpus_per_trial: size of every gang.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota.
        InfeasibleJobError: not one configuration is finished by T and B at this size.

    Deviations:
        The paper has a fixed cluster and neither deadline nor budget. This is the naive cloud extension, and ours: it starts
        with the machines on which the most configurations are finished when idle machines are not paid.
        The stream of configurations ends, see `policies.tuners.promotion.PromotionRule.last_resort`.
    """
    terms = Terms.of(job, profile, price_book)
    check_gang("asha-elastic", gpus_per_trial, terms)
    load = promotion_load(job, terms, gpus_per_trial)
    cluster = best_cluster("asha-elastic", job, terms, load, is_elastic=True, is_anytime=True)
    return AsynchronousPolicy(
        PromotionRule(job, cluster.trials),
        Limits(job, profile, price_book),
        instances=cluster.instances,
        gpus_per_trial=gpus_per_trial,
        min_gpus=profile.min_gpus,
        gpus_per_instance=terms.gpus_per_instance,
        admission=Admission(partial(_lasts_s, terms, gpus_per_trial)),
    )


def _lasts_s(terms: Terms, gpus: int, iterations: int, is_new: bool) -> float:
    return terms.segment_s(iterations, gpus, is_first=is_new)
