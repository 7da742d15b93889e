"""PASHA: ASHA whose highest rung rises only while the ranking of the best is not stable."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.policies.execution.asynchronous import AsynchronousPolicy, Task
from elastune.policies.execution.limits import Limits
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import percentile
from elastune.policies.sizing.list_scheduling import promotion_load
from elastune.policies.sizing.targets import Truncate, best_cluster_of_targets
from elastune.policies.tuners.promotion import PromotionRule
from elastune.sim.model.errors import InputError
from elastune.sim.model.job import TuningJob, loss_of

if TYPE_CHECKING:
    import numpy as np

    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile


def pasha_fixed(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    noise_percentile: float = 90.0,
    truncate: Truncate = "never",
) -> AsynchronousPolicy:
    """Bohdal et al., "PASHA: Efficient HPO and NAS with Progressive Resource Allocation" (ICLR 2023).

    On the best fixed cluster. ASHA's promotions (sections 3 and 4.1) up to a highest rung, at first the second; the rung
    rises by one each time that a trial comes to it and the soft rankings of the two highest rungs disagree. Trials are equal
    in a soft ranking where their losses differ by at most epsilon, estimated from the noise of curves that cross twice
    (section 4.2).

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        noise_percentile: of the distances between curves that cross twice; N of the paper.
        truncate: where the cluster may be one on which no trial can reach R; see `policies.sizing.targets`.

    Raises:
        InputError: the percentile is not between 0 and 100, or `truncate` has none of its values.
        InfeasibleJobError: no cluster trains even one configuration to R, or to the lowest target, on one GPU.

    Deviations:
        The paper trains the configuration it finds anew; here it goes on from its checkpoint, when nothing else is left to do.
        Distances are taken between trials that have come to the highest rung, when one comes to it: rankings change only then.
        n and m are those of ASHA under the same limits: how far PASHA goes is not known before the run [ours].
    """
    if not 0 <= noise_percentile <= 100:
        raise InputError(f"pasha-fixed: noise_percentile is {noise_percentile}, but must be between 0 and 100")
    terms = Terms.of(job, profile, price_book)
    cluster = best_cluster_of_targets("pasha-fixed", job, terms, truncate, promotion_load, is_anytime=True)
    rule = PashaRule(job, cluster.trials, noise_percentile=noise_percentile)
    return AsynchronousPolicy(rule, Limits(job, profile, price_book), instances=cluster.instances)


class PashaRule:
    """ASHA's promotions under a highest rung that rises; see `policies.execution.asynchronous.Rule`.

    Attributes:
        epsilon: losses that differ by no more count as equal.
    """

    def __init__(self, job: TuningJob, trials: int, *, noise_percentile: float = 90.0) -> None:
        self._promotions = PromotionRule(job, trials, report_every=1)
        self._last = self._promotions.top
        self._promotions.top = min(1, self._last)
        self._direction = job.direction
        self._percentile = noise_percentile
        self._curves: dict[TrialId, dict[int, float]] = {}
        self._arrived: list[TrialId] = []
        self._distances: list[float] = []
        self.epsilon = 0.0

    @property
    def top(self) -> int:
        """The highest rung that is promoted to now."""
        return self._promotions.top

    def next_task(self) -> Task | None:
        """See `policies.tuners.promotion.PromotionRule`."""
        return self._promotions.next_task()

    def last_resort(self) -> Task | None:
        """The configuration that was found goes on to R."""
        return self._promotions.last_resort()

    def reported(self, trial: TrialId, iteration: int, score: float | None) -> bool:
        """Remember the curve; the trial goes on."""
        self._curves.setdefault(trial, {})[iteration] = loss_of(score, self._direction)
        return True

    def reached(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """A trial has come to its rung; raise the highest one where the rankings disagree."""
        self.reported(trial, iteration, score)
        self._promotions.reached(trial, iteration, score)
        top = self._promotions.top
        if self._promotions.rung_of(trial) != top or top in (0, self._last):
            return
        self._distances += [d for other in self._arrived if (d := self._noise(trial, other, iteration)) is not None]
        self._arrived.append(trial)
        if self._distances:
            self.epsilon = percentile(sorted(self._distances), self._percentile)
        if not self._is_stable():
            self._promotions.top = top + 1
            self._arrived, self._distances = [], []

    def _noise(self, trial: TrialId, other: TrialId, iteration: int) -> float | None:
        """How far two trials are apart if their curves have crossed twice by now; None where they have not."""
        mine, theirs = self._curves[trial], self._curves[other]
        distance = abs(mine[iteration] - theirs[iteration])
        is_worse = mine[iteration] > theirs[iteration]
        has_crossed = False
        for earlier in range(iteration - 1, 0, -1):
            if earlier not in mine or earlier not in theirs:
                continue
            was_worse = mine[earlier] > theirs[earlier]
            if was_worse is not is_worse:
                has_crossed = True
            elif has_crossed:
                return distance if math.isfinite(distance) else None
        return None

    def _is_stable(self) -> bool:
        """Whether each trial of the highest rung is, in the rung below, equal to whoever had its rank there."""
        top, levels, epsilon = self._promotions.top, self._promotions.levels, self.epsilon
        level_below = levels[top - 1]
        pairs = zip(self._ranked(levels[top]), self._ranked(level_below), strict=True)
        return all(_are_equal(self._curves[a][level_below], self._curves[b][level_below], epsilon) for a, b in pairs)

    def _ranked(self, level: int) -> list[TrialId]:
        return sorted(self._arrived, key=lambda trial: (self._curves[trial][level], trial))


def _are_equal(loss: float, other: float, epsilon: float) -> bool:
    return loss == other or abs(loss - other) <= epsilon
