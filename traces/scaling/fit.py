"""Scaling laws fitted to a few measured gangs. Imports sim.model, numpy and the tables of this package; scipy when it fits.

Least squares on the logarithm of the speed-up, so that an error of 10 % counts the same for 2 and for 16 GPUs. The error of the
measurement on 1 GPU is in every speed-up and in no interval.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError
from elastune.traces.scaling.laws import FITTED_FAMILIES, Law, law_of
from elastune.traces.scaling.tables import MeasuredTable, slower_phrase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.sim.model.scaling import Scaling

    Gang = tuple[int, int]

LEVEL = 0.9
USUAL_ERRORS = {"linear": 1.36, "amdahl": 0.118, "power": 0.331, "allreduce": 0.132}
"""Root mean square of the logarithmic error with which each family predicts a size that was left out [ours]: 111 sizes of 25
series, of MLPerf Training v0.7 to v2.1 and of ElasticFlow's A100 tables."""
_AT_BOUND = 1e-9
_STEP = 1e-6  # of finite differences, relative to 1, the scale of every parameter


@dataclass(frozen=True)
class SpeedupEstimate:
    """A number with its interval of level `LEVEL`; without one where there are no more points than parameters."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class FamilyFit:
    """One family, fitted.

    Attributes:
        family: its name.
        parameters: by name, in units of one step on 1 GPU where they are seconds.
        residuals: by (GPUs, nodes), measured over fitted speed-up less 1.
        degrees_of_freedom: points beyond 1 GPU, less parameters.
        left_out_error: root mean square of the logarithmic error where each point is predicted from the others; None where
            too few are left to fit.
        notes: what was assumed.
    """

    family: str
    scaling: Scaling
    parameters: Mapping[str, SpeedupEstimate]
    residuals: Mapping[Gang, float]
    degrees_of_freedom: int
    left_out_error: float | None
    notes: tuple[str, ...]
    _law: Law
    _at: np.ndarray
    _covariance: np.ndarray | None
    _variance: float

    def predict(self, gpus: int, nodes: int = 1) -> SpeedupEstimate:
        """Speed-up of a gang, with the interval in which a new measurement of it is expected.

        It is the wider of two [ours]: the one that holds if the family is right, and that of the family's usual error. A few
        points that a family happens to fit well say little of its shape beyond them.

        Raises:
            InputError: the gang is larger than the fit was asked to reach.
        """
        speedup = self.scaling.speedup(gpus, nodes)
        if self._covariance is None:
            return SpeedupEstimate(speedup)
        if gpus == 1:
            return SpeedupEstimate(speedup, speedup, speedup)  # by definition
        slope = self._law.slope(self._at, (gpus, nodes), _STEP)
        spread = math.sqrt(self._variance + float(slope @ self._covariance @ slope))
        usual = _quantile(math.inf) * USUAL_ERRORS[self.family]
        factor = math.exp(min(max(_quantile(self.degrees_of_freedom) * spread, usual), 700.0))
        return SpeedupEstimate(speedup, speedup / factor, speedup * factor)


@dataclass(frozen=True, eq=False)
class ScalingFit:
    """Families fitted to one table.

    Attributes:
        table: what was measured; those of `fitted_on` were used.
        fitted_on: (GPUs, nodes).
        families: by name, those that could be fitted.
        chosen: the one that was asked for; of several, the one with the least `left_out_error` times `USUAL_ERRORS`.
        notes: what to know before the fit is used.
    """

    table: MeasuredTable
    fitted_on: tuple[Gang, ...]
    families: Mapping[str, FamilyFit]
    chosen: FamilyFit
    notes: tuple[str, ...]

    def predict(self, gpus: int, nodes: int = 1) -> SpeedupEstimate:
        """What the chosen family predicts; see `FamilyFit.predict`."""
        return self.chosen.predict(gpus, nodes)


def fit_scaling(
    table: MeasuredTable, family: str = "auto", *, on: Sequence[int] | None = None, max_gpus: int = 64
) -> ScalingFit:
    """Fit a scaling law to measured speed-ups.

    Args:
        table: what was measured.
        family: linear, amdahl, power or allreduce; `auto` fits all and takes the one that best predicts each point from the
            others, its error times the usual one of the family; see `USUAL_ERRORS`.
        on: use gangs of these numbers of GPUs only; 1 always counts.
        max_gpus: the largest gang the result reaches.

    Raises:
        InputError: there is no such family, or there are too few points for it, or to choose.
    """
    points = _chosen_points(table, on)
    if family != "auto":
        if family not in FITTED_FAMILIES:
            raise InputError(f"--family {family!r}: a fit is of one of auto, {', '.join(FITTED_FAMILIES)}")
        fitted = _fit(family, points, table, max_gpus)
        return ScalingFit(table, (*points,), {family: fitted}, fitted, (*_notes(table, points), *fitted.notes))
    families: dict[str, FamilyFit] = {}
    problems: list[str] = []
    for name in FITTED_FAMILIES:
        try:
            families[name] = _fit(name, points, table, max_gpus)
        except InputError as error:
            problems.append(str(error))
    rated = {name: one for name, one in families.items() if one.left_out_error is not None}
    if len(rated) < 2:
        raise InputError(
            f"too few gangs beyond 1 GPU ({len(points)}) to choose a family by predicting each from the others: measure at"
            " least 2, or say which with --family"
        )
    # Chosen by a few points alone, a family predicts worse than the one that usually predicts best. Families are listed by
    # their number of parameters; rounding must not prefer a later one.
    chosen = min(rated.values(), key=lambda one: round((one.left_out_error or 0.0) * USUAL_ERRORS[one.family], 9))
    left_out = tuple(f"left out: {problem}" for problem in problems)
    return ScalingFit(table, (*points,), families, chosen, (*_notes(table, points), *chosen.notes, *left_out))


def _chosen_points(table: MeasuredTable, on: Sequence[int] | None) -> dict[Gang, float]:
    if on is not None:
        known = sorted({gpus for gpus, _ in table.speedups})
        for gpus in on:
            if gpus not in known:
                raise InputError(f"{gpus} GPUs were not measured, so nothing can be fitted on them; measured: {known}")
    points = {gang: s for gang, s in table.speedups.items() if gang != (1, 1) and (on is None or gang[0] in on)}
    if not points:
        raise InputError("nothing but 1 GPU was measured: a fit needs at least one larger gang")
    return points


def _notes(table: MeasuredTable, points: Mapping[Gang, float]) -> list[str]:
    notes = []
    if slower := slower_phrase(table.scaling()):
        notes.append(slower)
    above = sorted({gpus for (gpus, _), speedup in points.items() if speedup > gpus * (1 + 1e-9)})
    if above:
        notes.append(f"{', '.join(map(str, above))} GPUs are faster than linear, which no family can be")
    return notes


def _fit(family: str, points: Mapping[Gang, float], table: MeasuredTable, max_gpus: int) -> FamilyFit:
    law = law_of(family, tuple(points), table.kind, max_gpus)
    at = _least_squares(law, points)
    residuals = _residuals(law, at, points)
    freedom = len(points) - len(at)
    variance, covariance = 0.0, None
    if freedom > 0:
        variance = float(residuals @ residuals) / freedom
        slopes = np.array([law.slope(at, gang, _STEP) for gang in points]).reshape(len(points), len(at))
        covariance = variance * np.linalg.pinv(slopes.T @ slopes)
    return FamilyFit(
        family,
        law.build(at),
        _parameters(law, at, covariance, freedom),
        {gang: math.exp(error) - 1 for gang, error in zip(points, residuals.tolist(), strict=True)},
        freedom,
        _left_out_error(law, points, table, max_gpus),
        law.notes,
        law,
        at,
        covariance,
        variance,
    )


def _residuals(law: Law, at: np.ndarray, points: Mapping[Gang, float]) -> np.ndarray:
    scaling = law.build(at)
    return np.array([math.log(speedup / scaling.speedup(*gang)) for gang, speedup in points.items()])


def _least_squares(law: Law, points: Mapping[Gang, float]) -> np.ndarray:
    if len(points) < len(law.names):
        raise InputError(
            f"{law.family} has {len(law.names)} parameters ({', '.join(law.names)}), too many for the gangs beyond 1 GPU"
            f" ({len(points)}): measure more, or fit a simpler family"
        )
    if not law.names:
        return np.empty(0)
    from scipy.optimize import least_squares

    bounds = ([0.0] * len(law.names), list(law.upper))
    found = least_squares(
        lambda at: _residuals(law, at, points), law.start, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12
    )
    # The solver stops a little above a lower bound.
    return np.where(found.x < _AT_BOUND, 0.0, found.x)


def _parameters(law: Law, at: np.ndarray, covariance: np.ndarray | None, freedom: int) -> dict[str, SpeedupEstimate]:
    estimates = {}
    for index, name in enumerate(law.names):
        value = float(at[index])
        if covariance is None:
            estimates[name] = SpeedupEstimate(value)
            continue
        half = _quantile(freedom) * math.sqrt(covariance[index, index])
        estimates[name] = SpeedupEstimate(value, max(value - half, 0.0), min(value + half, law.upper[index]))
    return estimates


def _left_out_error(law: Law, points: Mapping[Gang, float], table: MeasuredTable, max_gpus: int) -> float | None:
    errors = []
    for left_out, speedup in points.items():
        others = {gang: s for gang, s in points.items() if gang != left_out}
        again = law_of(law.family, tuple(others), table.kind, max_gpus)
        # Without this point a parameter cannot be fitted, so another law would be judged.
        if not others or again.names != law.names or len(others) < len(law.names):
            return None
        errors.append(math.log(speedup / again.build(_least_squares(again, others)).speedup(*left_out)))
    return math.sqrt(sum(error**2 for error in errors) / len(errors))


@functools.cache
def _quantile(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))
