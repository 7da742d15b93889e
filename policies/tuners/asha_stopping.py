"""ASHA, stopping variant: a trial trains on where it is until a rung stops it."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from elastune.policies.execution.asynchronous import AsynchronousPolicy, Task
from elastune.policies.execution.limits import Limits
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import rung_levels
from elastune.policies.sizing.list_scheduling import stopping_load
from elastune.policies.sizing.targets import Truncate, best_cluster_of_targets
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import TuningJob, loss_of

if TYPE_CHECKING:
    import numpy as np

    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def asha_stopping_fixed(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    truncate: Truncate = "never",
) -> AsynchronousPolicy:
    """ASHA (Li et al., MLSys 2020) in its stopping variant, one GPU per trial, on the best fixed cluster.

    Nothing is paused or resumed: a trial runs towards R, and at each rung goes on only if it is in the top 1/eta of those
    that have come so far.

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
        The paper's Algorithm 2 promotes; the variant that stops is that of its authors' later systems (Ray Tune, Syne Tune),
        and the threshold is Syne Tune's: the quantile 1/eta of the rung, linear in between, so the top ceil(n / eta) go on
        and the first always does.
        A diverged trial is stopped at once [ours].
        n, m and the run time are ours: see `policies.sizing.list_scheduling`.
    """
    terms = Terms.of(job, profile, price_book)
    cluster = best_cluster_of_targets("asha-stopping-fixed", job, terms, truncate, stopping_load, is_anytime=True)
    rule = StoppingRule(job, cluster.trials)
    return AsynchronousPolicy(rule, Limits(job, profile, price_book), instances=cluster.instances)


class StoppingRule:
    """The rungs of ASHA that stops; see `policies.execution.asynchronous.Rule`."""

    def __init__(self, job: TuningJob, trials: int) -> None:
        self._levels = rung_levels(job)
        self._rung_at = {level: rung for rung, level in enumerate(self._levels[:-1])}
        # Reports come at multiples of one number only.
        self._report_every = math.gcd(*self._levels[:-1])
        self._losses: list[list[float]] = [[] for _ in self._rung_at]
        self._reached = [0] * trials
        self._eta = job.reduction_factor
        self._direction = job.direction
        self._next = 0

    def next_task(self) -> Task | None:
        """The next new configuration, as far as R."""
        if self._next == len(self._reached):
            return None
        self._next += 1
        return Task(TrialId(self._next - 1), self._levels[-1], self._report_every)

    def last_resort(self) -> Task | None:
        """Nothing: a trial that was stopped never runs again."""
        return None

    def reached(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """At R nothing is decided any more."""

    def reported(self, trial: TrialId, iteration: int, score: float | None) -> bool:
        """Whether it is in the top 1/eta of the rung that it has just reached, if any."""
        rung = self._rung_at.get(iteration)
        if rung is None or iteration <= self._reached[trial]:
            return True
        self._reached[trial] = iteration
        losses, loss = self._losses[rung], loss_of(score, self._direction)
        insort(losses, loss)
        return math.isfinite(loss) and bisect_left(losses, loss) <= (len(losses) - 1) // self._eta
