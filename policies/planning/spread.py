"""How a trial's training time is spread when iterations vary. Pure [ours].

A trial's factor on its mean training time is P x S: P stays with the trial, S is the mean of one factor per iteration. P and
a single iteration's factor are log-normal; the mean of several is a shifted log-normal with the same first three moments, and
so is the product.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elastune.policies.planning.arrays import Ids
    from elastune.sim.model.profile import Stragglers

    Floats = NDArray[np.floating]  # of either precision


_STEPS = 200
"""Quantiles over which a mean is taken; more of them change it by less than a hundredth where factors vary by 1."""


@dataclass(frozen=True)
class ShiftedLogNormal:
    """shift + scale * exp(sigma * Z) with Z standard normal; a constant where sigma is 0."""

    shift: float
    scale: float
    sigma: float

    @classmethod
    def of_moments(cls, variance: float, skewness: float) -> ShiftedLogNormal:
        """With mean 1, this variance, and this skewness (positive)."""
        if variance <= 0:
            return cls(0.0, 1.0, 0.0)
        # cv ** 3 + 3 cv = skewness, solved for the coefficient of variation of the part that is log-normal.
        cv = 2.0 * math.sinh(math.asinh(skewness / 2.0) / 3.0)
        mean, sigma = math.sqrt(variance) / cv, math.sqrt(math.log1p(cv**2))
        return cls(1.0 - mean, mean * math.exp(-(sigma**2) / 2), sigma)

    @classmethod
    def standard(cls, skewness: Floats) -> ShiftedLogNormal:
        """Those with mean and variance 1 and these skewnesses (positive), as arrays."""
        cv = 2.0 * np.sinh(np.arcsinh(skewness / 2.0) / 3.0)
        sigma = np.sqrt(np.log1p(cv**2))
        return cls(1.0 - 1.0 / cv, np.exp(-(sigma**2) / 2) / cv, sigma)

    def at(self, normal: Floats) -> Floats:
        """Its values where a standard normal has these; the same shape and precision."""
        values: Floats = np.exp(self.sigma * normal)
        values *= self.scale
        values += self.shift
        return values


def iteration_mean(cv: float, iterations: int) -> ShiftedLogNormal:
    """The mean of so many independent log-normal factors."""
    return ShiftedLogNormal.of_moments(cv**2 / iterations, (cv**3 + 3 * cv) / math.sqrt(iterations))


def trial_factor(stragglers: Stragglers, iterations: int) -> ShiftedLogNormal:
    """The factor on a trial's mean training time over so many iterations."""
    persistent, each = stragglers.persistent_cv, stragglers.per_iteration_cv
    variance = each**2 / iterations
    third = (each**3 + 3 * each) * each**3 / iterations**2
    second_raw = (1 + persistent**2) * (1 + variance)
    third_raw = (1 + persistent**2) ** 3 * (1 + 3 * variance + third)
    spread = second_raw - 1
    if spread <= 0:
        return ShiftedLogNormal(0.0, 1.0, 0.0)
    return ShiftedLogNormal.of_moments(spread, (third_raw - 3 * second_raw + 2) / spread**1.5)


def persistent_share(stragglers: Stragglers, iterations: int) -> float:
    """The share of the (logarithmic) variance of a trial's factor that stays with it from stage to stage."""
    persistent = math.log1p(stragglers.persistent_cv**2)
    each = math.log1p(stragglers.per_iteration_cv**2 / iterations)
    return persistent / (persistent + each) if persistent else 0.0


class Places:
    """When groups of gangs are done with their last trials, for several numbers of groups at once.

    Exact where each gang trains one trial. Trials in waves take the gang that is free first; gangs are then apart by about one
    trial.

    Args:
        groups: (kinds,) that are told apart.
        gangs: (kinds,) of each; a group is done with its slowest gang.
    """

    def __init__(self, groups: Ids, gangs: Ids) -> None:
        kinds, self._kind_of = np.unique(np.stack((groups, gangs)), axis=1, return_inverse=True)
        found = [_normals_of_groups(*kind) for kind in kinds.T.tolist()]
        self._of_slowest = np.array([of_slowest for of_slowest, _ in found]).reshape(-1, _STEPS)
        self._of_others = np.full((len(found), int(groups.max(initial=1)) - 1), np.inf)
        for row, (_, of_others) in zip(self._of_others, found, strict=True):
            row[: len(of_others)] = of_others

    def ends(self, variance: float) -> tuple[Floats, Floats]:
        """Over the mean time of one trial: the slowest group, (kinds,), and all others, (kinds, others), earliest first.

        Rows with fewer others end with infinite ones.

        Args:
            variance: of the logarithm of a trial's time, above 0.
        """
        deviation, mean = math.sqrt(variance), variance / 2
        slowest = np.add.reduce(np.exp(self._of_slowest * deviation - mean), axis=1) / _STEPS
        others = np.exp(self._of_others * deviation - mean)
        return slowest[self._kind_of], others[self._kind_of]


@functools.lru_cache(4096)
def _normals_of_groups(groups: int, gangs: int) -> tuple[Floats, Floats]:
    """Standard normals at which groups of gangs end: quantiles of the slowest group, and the others, earliest first."""
    at = NormalDist().inv_cdf
    # Blom's places; the greatest, on which most depends, is integrated over its quantiles.
    others = [at(((rank - 0.375) / (groups + 0.25)) ** (1 / gangs)) for rank in range(1, groups)]
    slowest = [at((((step + 0.5) / _STEPS) ** (1 / groups)) ** (1 / gangs)) for step in range(_STEPS)]
    return np.array(slowest), np.array(others)


@functools.lru_cache(4096)
def normal_of_slowest(count: int) -> float:
    """Blom's expected maximum of so many standard normals."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def normals_of_slowest(counts: Ids) -> Floats:
    """(counts,) the same of each."""
    return np.array([normal_of_slowest(count) for count in counts.tolist()])
