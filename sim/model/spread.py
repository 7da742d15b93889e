"""The shapes in which a factor of mean 1 varies from iteration to iteration. Imports only the standard library; numpy inside.

Each shape can be drawn as a whole array. `exceeded_by` gives the value that a share of all draws exceeds, so the slowest of
several workers needs no draw per worker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_CELLS = 2048
"""Terms of the sum that approximates an expectation: within 0.1 % up to 64 workers and a coefficient of variation of 1.5."""


@dataclass(frozen=True)
class LogNormalTail:
    """Log-normal with mean 1."""

    def draw(self, rng: np.random.Generator, cv: float, shape: tuple[int, int]) -> Floats:
        """Factors of this shape with this coefficient of variation."""
        import numpy as np

        if cv == 0:
            return np.ones(shape)
        variance = math.log1p(cv**2)
        return rng.lognormal(-variance / 2, math.sqrt(variance), shape)

    def exceeded_by(self, shares: Floats, cv: float) -> Floats:
        """The values that these shares of all draws exceed, of the same shape."""
        import numpy as np

        variance = math.log1p(cv**2)
        normal = NormalDist()
        levels = np.array([-normal.inv_cdf(share) for share in shares])
        values: Floats = np.exp(levels * math.sqrt(variance) - variance / 2)
        return values


LOG_NORMAL = LogNormalTail()


@dataclass(frozen=True)
class ParetoTail:
    """Pareto with mean 1: usually a little faster than the mean, rarely very slow.

    The exponent follows from the coefficient of variation, 1 + sqrt(1 + 1 / cv^2), and is above 2, so that both moments exist.
    """

    def draw(self, rng: np.random.Generator, cv: float, shape: tuple[int, int]) -> Floats:
        """Factors of this shape with this coefficient of variation."""
        import numpy as np

        return self.exceeded_by(1.0 - rng.random(shape), cv) if cv else np.ones(shape)

    def exceeded_by(self, shares: Floats, cv: float) -> Floats:
        """The values that these shares of all draws exceed, of the same shape."""
        exponent = 1.0 + math.sqrt(1.0 + 1.0 / cv**2)
        values: Floats = (exponent - 1.0) / exponent * shares ** (-1.0 / exponent)
        return values


@dataclass(frozen=True)
class EmpiricalTail:
    """A measured distribution divided by its mean; built by `of_samples` and `of_quantiles`.

    Attributes:
        values: ascending factors, mean 1.
        shares: of all draws below each value, from 0 to 1, linear in between; empty where each value is equally frequent.
        mean: the measured mean, in the unit of the measurement.
        cv: coefficient of variation.
    """

    values: tuple[float, ...]
    shares: tuple[float, ...]
    mean: float
    cv: float

    @classmethod
    def of_samples(cls, samples: tuple[float, ...]) -> EmpiricalTail:
        """Each sample is drawn equally often.

        Raises:
            InputError: there are none, or one is not a positive number.
        """
        ascending = _positive("samples", sorted(samples), least=1)
        mean = math.fsum(ascending) / len(ascending)
        values = tuple(value / mean for value in ascending)
        second = math.fsum(value**2 for value in values) / len(values)
        return cls(values, (), mean, _cv(second))

    @classmethod
    def of_quantiles(cls, quantiles: tuple[float, ...], shares: tuple[float, ...] | None = None) -> EmpiricalTail:
        """Linear between quantiles.

        Args:
            quantiles: ascending, the least first and the largest last.
            shares: of all draws below each, ascending from 0 to 1; None where they are evenly spaced.

        Raises:
            InputError: they are out of order or fewer than 2, or the shares do not go from 0 to 1.
        """
        _positive("quantiles", list(quantiles), least=2)
        last = len(quantiles) - 1
        shares = tuple(at / last for at in range(last + 1)) if shares is None else shares
        if list(quantiles) != sorted(quantiles):
            raise InputError(f"quantiles are {list(quantiles)}, but must not fall")
        if len(shares) != len(quantiles) or shares[0] != 0 or shares[-1] != 1 or sorted(set(shares)) != list(shares):
            raise InputError(f"the shares of quantiles are {list(shares)}, but must rise from 0 to 1, one per quantile")
        widths = [right - left for left, right in pairwise(shares)]
        pieces = list(zip(widths, pairwise(quantiles), strict=True))
        mean = math.fsum(width * (low + high) / 2 for width, (low, high) in pieces)
        second = math.fsum(width * (low * low + low * high + high * high) / 3 for width, (low, high) in pieces)
        return cls(tuple(value / mean for value in quantiles), shares, mean, _cv(second / mean**2))

    def draw(self, rng: np.random.Generator, cv: float, shape: tuple[int, int]) -> Floats:
        """Factors of this shape; `cv` is ignored, because the measurement has its own."""
        return self.exceeded_by(1.0 - rng.random(shape), cv)

    def exceeded_by(self, shares: Floats, cv: float) -> Floats:  # noqa: ARG002  the measurement has a spread of its own
        """The values that these shares of all draws exceed, of the same shape."""
        import numpy as np

        if self.shares:
            return np.interp(1.0 - shares, self.shares, self.values)
        at = np.minimum(((1.0 - shares) * len(self.values)).astype(np.intp), len(self.values) - 1)
        picked: Floats = np.array(self.values)[at]
        return picked


Tail: TypeAlias = LogNormalTail | ParetoTail | EmpiricalTail


def _positive(what: str, numbers: list[float], *, least: int) -> list[float]:
    if len(numbers) < least or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise InputError(
            f"{what} are {numbers}, but must be at least {least} positive number{'s' if least > 1 else ''}"
        )
    return numbers


def _cv(second_moment: float) -> float:
    # Rounding may leave the variance of equal numbers just below zero.
    return math.sqrt(max(second_moment - 1.0, 0.0))


@lru_cache(maxsize=1024)
def slowest_mean(tail: Tail, cv: float, workers: int) -> float:
    """The expected largest of so many independent factors."""
    import numpy as np

    if workers == 1 or cv == 0:
        return 1.0
    # The expectation is the integral over v of 2 v times the value that the largest exceeds with probability v^2. The integrand
    # is bounded, and the steps are finest in the tail.
    v = (np.arange(_CELLS) + 0.5) / _CELLS
    of_one = -np.expm1(np.log1p(-(v**2)) / workers)
    return float((tail.exceeded_by(of_one, cv) * 2 * v).mean())
