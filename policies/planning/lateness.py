"""By when a plan ends with 95 % probability, in closed form. Imports numpy, and scipy where quantiles are taken [ours].

A stage ends with its slowest gang. What its gangs take (start of new machines, then training, summed over waves) is fitted
by a shifted log-normal with the same three moments; mean and 95th percentile of the slowest follow from its quantiles. A
plan's percentile is the sum of the expected ends plus the root of the summed squares of what each stage's percentile lies
beyond its mean, which is exact for one stage and treats the tails of several as those of normals.

Slowness that stays with a trial ties stages together. The covariance of two stages' tails x and y, 2 r x y, is replaced by
r (x^2 v / u + y^2 u / v), where u and v are their tails at one GPU per trial: equal where tails keep that proportion,
above it otherwise. So squares add up over stages, whatever was chosen for the others, and a dynamic program can carry them.

What it leaves out: trials in waves take the gang that is free first, which evens slow ones out; gangs of one machine start
together.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from elastune.policies.planning.estimate import estimate, expected_stretch
from elastune.policies.planning.spread import ShiftedLogNormal, persistent_share, trial_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.planning.arrays import Floats, Ids
    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.profile import Delay


Makespan: TypeAlias = Literal["mean", "p95"]
"""What is compared with a deadline: the expected makespan or its 95th percentile."""

LEVEL = 0.95
LEAST_SKEWNESS = 1e-4
"""Log-normals that are less skewed are normals to within rounding."""
_NODES = 48
"""Of the quadrature over quantiles; more of them change no percentile by a ten-thousandth."""


class Lateness(NamedTuple):
    """How a stage's end is spread.

    Attributes:
        shift_s: expected end beyond the closed form of the mean, which knows neither the skewness of trials nor the slowest of
            several machines.
        tail_s2: square of the seconds from the expected end to the 95th percentile, raised for stages that are tied.
    """

    shift_s: float = 0.0
    tail_s2: float = 0.0


ON_TIME = Lateness()


class Moments(NamedTuple):
    """Arrays of mean, variance and third central moment of some seconds; those of sums of independent ones add up."""

    mean_s: Floats = np.zeros(1)
    second_s2: Floats = np.zeros(1)
    third_s3: Floats = np.zeros(1)

    def plus(self, other: Moments) -> Moments:
        """Of the sum with independent other ones."""
        return Moments(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def slowest(self, counts: Ids) -> tuple[Floats, Floats]:
        """Expected value and 95th percentile of the greatest of so many, both less the mean of one."""
        nodes, weights = _quadratures(counts)
        expected_s = (weights * self._beyond_mean_s(nodes)).sum(axis=1)
        return expected_s, self._beyond_mean_s(_late_normals(counts))[:, 0]

    def of_slowest(self, counts: Ids) -> Moments:
        """Of the greatest of so many."""
        nodes, weights = _quadratures(counts)
        values_s = self._beyond_mean_s(nodes)
        expected_s = (weights * values_s).sum(axis=1)
        around_s = values_s - expected_s[:, None]
        greatest = Moments(
            self.mean_s + expected_s, (weights * around_s**2).sum(axis=1), (weights * around_s**3).sum(axis=1)
        )
        return Moments(*(np.where(counts > 1, theirs, mine) for mine, theirs in zip(self, greatest, strict=True)))

    def _beyond_mean_s(self, normals: Floats) -> Floats:
        """Values less the mean, of the shifted log-normals with these moments, where a standard normal has these."""
        spread_s = np.sqrt(self.second_s2)
        skewness = self.third_s3 / np.where(spread_s > 0, spread_s, 1.0) ** 3
        fitted = ShiftedLogNormal.standard(np.maximum(skewness, LEAST_SKEWNESS)[:, None])
        return np.asarray(spread_s[:, None] * (fitted.at(normals) - 1.0))


class Latenesses:
    """How late stages of one job may be; made once, asked for many allocations.

    Attributes:
        is_random: whether anything varies at all.
        starts_vary: whether new machines do not all take the same time.
    """

    def __init__(self, stages: Sequence[Stage], terms: Terms) -> None:
        self._stages = stages
        self._terms = terms
        startup, stragglers = terms.profile.startup, terms.profile.stragglers
        self._startup = (
            _delay_moments(startup.queue).plus(_delay_moments(startup.init)).plus(_delay_moments(startup.setup))
        )
        self.starts_vary = bool(self._startup.second_s2[0] > 0)
        self.is_random = stragglers.any or self.starts_vary
        self._factors = [_factor_moments(trial_factor(stragglers, stage.iterations)) for stage in stages]
        self._ties = _ties(stages, terms, self._factors)
        self._found: dict[tuple[int, ...], Lateness] = {}

    def of(self, index: int, allocation: Allocation, new: int) -> Lateness:
        """Of one stage.

        Args:
            index: which.
            allocation: what it gets.
            new: for how many new machines it waits, rounded up to a power of two; 0 for none.
        """
        if not self.is_random:
            return ON_TIME
        key = (index, allocation.gpus_per_trial, allocation.gangs, allocation.waves, growth_class(new))
        if key not in self._found:
            shift_s, tail_s2 = self._late(index, [allocation], [key[-1] if self.starts_vary else 0])
            self._found[key] = Lateness(float(shift_s[0, 0]), float(tail_s2[0, 0]))
        return self._found[key]

    def by_growth(self, index: int, allocations: Sequence[Allocation]) -> tuple[Floats, Floats]:
        """`Lateness.shift_s` and `Lateness.tail_s2`, each (allocations, classes), of one stage.

        By `growth_class` of the machines it waits for; one column where that does not matter.
        """
        most = growth_class(self._terms.price_book.max_instances) if self.starts_vary else 0
        return self._late(index, allocations, range(most + 1))

    def p95_s(self, plan: Plan, live_instances: int = 0) -> float:
        """By when a plan that starts with so many machines ends with 95 % probability."""
        shift_s, tail_s = self.beyond(plan, live_instances)
        return plan.makespan_s + shift_s + tail_s

    def beyond(self, plan: Plan, live_instances: int = 0) -> tuple[float, float]:
        """Seconds from the closed form of a plan's end to its expected end, and from there to its 95th percentile."""
        before, shift_s, tail_s2 = live_instances, 0.0, 0.0
        for index, allocation in enumerate(plan.allocations):
            late = self.of(index, allocation, max(allocation.instances - before, 0))
            shift_s += late.shift_s
            tail_s2 += late.tail_s2
            before = allocation.instances
        return shift_s, math.sqrt(tail_s2)

    def _late(self, index: int, allocations: Sequence[Allocation], growths: Sequence[int]) -> tuple[Floats, Floats]:
        """(allocations, growths) shift and squared tail of a stage, by the `growth_class` of the machines that it waits for."""
        stage, terms = self._stages[index], self._terms
        factor = self._factors[index]
        gangs, waves = (np.array([getattr(one, of) for one in allocations]) for of in ("gangs", "waves"))
        each_s = {size: terms.train_s(stage.iterations, size) for size in {one.gpus_per_trial for one in allocations}}
        train_s = np.array([each_s[one.gpus_per_trial] for one in allocations])
        training = Moments(waves * train_s, waves * train_s**2 * factor.second_s2, waves * train_s**3 * factor.third_s3)
        expected_s, late_s = training.slowest(gangs)
        tied_s2 = (self._ties[index] - 1.0) * (late_s - expected_s) ** 2
        stretched = np.array([expected_stretch(terms.profile.stragglers, stage.iterations, one) for one in allocations])
        unstretched_s = training.mean_s * (1.0 - stretched)
        shift_s, tail_s2 = [], []
        for growth in growths:
            latest = expected_s, late_s
            if growth:
                on_new = self._slowest_on_new(training, allocations, gangs, growth)
                latest = np.maximum(expected_s, on_new[0]), np.maximum(late_s, on_new[1])
            shift_s.append(unstretched_s + latest[0])
            tail_s2.append((latest[1] - latest[0]) ** 2 + tied_s2)
        return np.stack(shift_s, axis=1), np.stack(tail_s2, axis=1)

    def _slowest_on_new(
        self, training: Moments, allocations: Sequence[Allocation], gangs: Ids, growth: int
    ) -> tuple[Floats, Floats]:
        """Expected value and 95th percentile of the last end on new machines, less the means of start and training.

        As many groups of gangs start with new machines as there are, or as the stage has.
        """
        whole = self._terms.gpus_per_instance
        sizes = np.array([one.gpus_per_trial for one in allocations])
        machines_each, gangs_each = -(-sizes // whole), np.maximum(whole // sizes, 1)
        groups = np.minimum(-(-most_of_class(growth) // machines_each), -(-gangs // gangs_each))
        together = training.of_slowest(np.minimum(gangs_each, gangs))
        ready = self._startup.of_slowest(machines_each)
        later_s = together.mean_s - training.mean_s + ready.mean_s - self._startup.mean_s
        expected_s, late_s = together.plus(ready).slowest(groups)
        return later_s + expected_s, later_s + late_s


def growth_class(new: int) -> int:
    """0 for no new machines, then 1 for one, 2 for two, 3 for up to four, and so on: all that is told apart."""
    return (new - 1).bit_length() + 1 if new > 0 else 0


def most_of_class(growth: int) -> int:
    """The most new machines of a `growth_class`, for which all of it are taken."""
    return 1 << (growth - 1)


def with_p95(plan: Plan, terms: Terms, *, live_instances: int = 0) -> Plan:
    """The plan with its `makespan_p95_s`; equal to `makespan_s` where nothing is random.

    Args:
        plan: made by `estimate` with the same arguments.
        terms: profile and prices.
        live_instances: machines held before it.
    """
    latenesses = Latenesses(plan.stages, terms)
    return replace(plan, makespan_p95_s=latenesses.p95_s(plan, live_instances))


def late_probability(plan: Plan, terms: Terms) -> float | None:
    """That a plan which starts from nothing ends after the deadline of the terms; None without one.

    Its end is taken as normal, with the mean and the 95th percentile that `with_p95` estimates. Ends are skewed, so this is a
    little too high near the mean.
    """
    if math.isinf(terms.deadline_s):
        return None
    latenesses = Latenesses(plan.stages, terms)
    shift_s, tail_s = latenesses.beyond(plan)
    early_s = terms.deadline_s - plan.makespan_s - shift_s
    if tail_s <= 0:
        return float(early_s < 0)
    normal = NormalDist()
    return normal.cdf(-early_s / tail_s * normal.inv_cdf(LEVEL))


def estimator(
    stages: Sequence[Stage],
    terms: Terms,
    makespan: Makespan,
    *,
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Callable[[Sequence[Allocation]], Plan]:
    """What turns allocations into plans: `estimate`, and `makespan_p95_s` as well where that is asked for."""

    def mean(allocations: Sequence[Allocation]) -> Plan:
        return estimate(stages, allocations, terms, live_instances=live_instances, is_resumed=is_resumed)

    if makespan == "mean":
        return mean
    latenesses = Latenesses(stages, terms)

    def late(allocations: Sequence[Allocation]) -> Plan:
        plan = mean(allocations)
        return replace(plan, makespan_p95_s=latenesses.p95_s(plan, live_instances))

    return late


def _delay_moments(delay: Delay) -> Moments:
    """Of a log-normal waiting time."""
    second, third = delay.cv**2, delay.cv**6 + 3 * delay.cv**4
    return Moments(*np.array([[delay.mean_s], [second * delay.mean_s**2], [third * delay.mean_s**3]]))


def _factor_moments(factor: ShiftedLogNormal) -> Moments:
    """Of a factor with mean 1."""
    cv2 = math.expm1(factor.sigma**2)
    mean = factor.scale * math.exp(factor.sigma**2 / 2)
    return Moments(*np.array([[1.0], [cv2 * mean**2], [(cv2**3 + 3 * cv2**2) * mean**3]]))


@functools.cache
def _quadrature(count: int) -> tuple[Floats, Floats]:
    """Standard normal values at which the greatest of so many is, and their weights, over its quantiles."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # Denser towards both ends, where quantiles run away: u = 3 t^2 - 2 t^3 on 0 < t < 1.
    at = (nodes + 1) / 2
    normals = _normal_quantiles((at**2 * (3 - 2 * at)) ** (1.0 / count))
    return normals, weights / 2 * 6 * at * (1 - at)


def _quadratures(counts: Ids) -> tuple[Floats, Floats]:
    """(counts, nodes) each, row by row."""
    found = [_quadrature(count) for count in counts.tolist()]
    return np.array([normals for normals, _ in found]), found[0][1]


@functools.cache
def _late_normal(count: int) -> float:
    return float(_normal_quantiles(np.array([LEVEL ** (1.0 / count)]))[0])


def _late_normals(counts: Ids) -> Floats:
    """(counts, 1) standard normal values that the greatest of so many exceeds once in twenty."""
    return np.array([[_late_normal(count)] for count in counts.tolist()])


def _normal_quantiles(shares: Floats) -> Floats:
    """Standard normal quantiles. By the standard library: scipy.special takes a third of a second to import."""
    below_one = np.minimum(shares, math.nextafter(1.0, 0.0))
    quantile = NormalDist().inv_cdf
    quantiles = [quantile(share) for share in below_one.ravel().tolist()]
    return np.reshape(quantiles, below_one.shape)


def _ties(stages: Sequence[Stage], terms: Terms, factors: Sequence[Moments]) -> list[float]:
    """By stage, the factor on the square of its tail for what it shares with the others; 1 where nothing stays."""
    stragglers = terms.profile.stragglers
    if stragglers.persistent_cv == 0:
        return [1.0] * len(stages)
    shares = [persistent_share(stragglers, stage.iterations) for stage in stages]
    tails = []
    for stage, factor in zip(stages, factors, strict=True):
        expected, late = factor.slowest(np.array([stage.trials]))
        tails.append(stage.iterations * float(late[0] - expected[0]))
    return [
        1.0
        + sum(
            math.sqrt(shares[one] * shares[other])
            * _nested_correlation(*_counts(stages, one, other))
            * tails[other]
            / tails[one]
            for other in range(len(stages))
            if other != one
        )
        for one in range(len(stages))
    ]


def _counts(stages: Sequence[Stage], one: int, other: int) -> tuple[int, int]:
    few, many = sorted((stages[one].trials, stages[other].trials))
    return few, many


@functools.cache
def _nested_correlation(few: int, many: int) -> float:
    """Correlation of the normal scores of the greatest of `many` and the greatest of `few` of them."""
    if few == many:
        return 1.0
    at = (np.arange(_NODES) + 0.5) / _NODES
    share = few / many
    of_few, of_all = at[:, None], np.maximum(at[:, None] ** (1 / share), at[None, :] ** (1 / (1 - share)))
    scores = _normal_quantiles(of_few) * _normal_quantiles(np.clip(of_all, 1e-12, 1 - 1e-12))
    return float(np.clip(scores.mean() / np.mean(_normal_quantiles(at) ** 2), 0.0, 1.0))
