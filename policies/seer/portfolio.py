"""`portfolio`: ASHA where configurations differ much in cost, SEER elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.seer.seer import seer
from elastune.policies.tuners.asha import asha_fixed

if TYPE_CHECKING:
    import numpy as np

    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import Policy

MOST_SPREAD = 0.5
"""Above this coefficient of variation of seconds per iteration between configurations, waiting at barriers is too dear."""


def portfolio(job: TuningJob, profile: Profile, price_book: PriceBook, rng: np.random.Generator) -> Policy:
    """`asha-fixed:truncate=always` where the profile's persistent spread of seconds is above `MOST_SPREAD`, else `seer` [ours].

    Args:
        job: the tuning job.
        profile: what was measured; its spread decides.
        price_book: the cloud's terms.
        rng: not used.

    Raises:
        InfeasibleJobError: the chosen policy can do nothing by T within B.

    Deviations:
        Those of the policy that is played.
    """
    if profile.stragglers.persistent_cv > MOST_SPREAD and profile.min_gpus == 1:
        return asha_fixed(job, profile, price_book, rng, truncate="always")
    return seer(job, profile, price_book, rng)
