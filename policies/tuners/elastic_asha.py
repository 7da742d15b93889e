"""ASHA on machines that come and go, with admission control."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from elastune.policies.execution.asynchronous import Admission, AsynchronousPolicy
from elastune.policies.execution.limits import Limits
from elastune.policies.planning.plan import Terms
from elastune.policies.sizing.list_scheduling import best_cluster, promotion_load
from elastune.policies.tuners.naive_elastic import check_gang
from elastune.policies.tuners.promotion import PromotionRule

if TYPE_CHECKING:
    import numpy as np

    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def asha_elastic(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    gpus_per_trial: int = 1,
) -> AsynchronousPolicy:
    """ASHA (Li et al., MLSys 2020, Algorithm 2), elastic, a constant number of GPUs per trial: a naive cloud extension [ours].

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
        The paper has a fixed cluster and neither deadline nor budget. It starts with the machines on which the list-scheduling
        bound finishes the most configurations when idle ones are not paid.
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
