"""A lower bound on the price of every plan with barriers, for each time it may take: the certificate printed with plans [ours].

Fluid: each stage may divide its GPUs among its trials in any mixture of gangs, machines may be fractions of one, and grow and
shrink for nothing. What remains is the GPU-seconds of each stage, at least the lower hull of (seconds, GPU-seconds) over all
gangs; the time left over by the fastest course goes greedily to the stage that saves most with it, which is optimal as hulls
are convex. Added are one barrier's machine, and the start of as many machines as hold that work in that time.

It holds for plans from nothing, expected and realised without randomness alike, per instance and per function.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import function_usd, held_usd, least_usd, start_usd
from elastune.policies.planning.estimate import log_variance, refunds
from elastune.policies.planning.hulls import Hull, Point
from elastune.policies.planning.spread import Places
from elastune.policies.rules.margin import most_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Plan, Terms
    from elastune.policies.rules.halving import Stage

_FEW_GROUPS = 8
_MOST_VARIANCE = 4.0
"""Of the logarithm of a trial's time, up to which a few groups of gangs use the least of their mean."""
_LOG_STEP = math.log(1.02)
"""Of the variances for which `almost_least_used` knows the share."""
SLACK = 1e-9
"""The bound is lowered by this share, so that rounding cannot lift it above a plan that attains it."""


class Bound:
    """The bound of one job; made once, asked for many plans.

    Attributes:
        least_s: no plan ends sooner.
    """

    def __init__(self, stages: Sequence[Stage], terms: Terms) -> None:
        self._terms = terms
        work = [_gangs(stage, terms, is_first=index == 0) for index, stage in enumerate(stages)]
        self._hulls = [_capped(Hull.below(points), terms.max_gpus) for points in work]
        self._work = Hull.total(self._hulls)
        # The quota caps what is done at a time, not what it costs: cut in time where the work hull is.
        self._functions = Hull.total(
            [
                Hull.below(_functions(stage, terms, is_first=index == 0)).from_(self._hulls[index].points[0][0])
                for index, stage in enumerate(stages)
            ]
        )
        self._barriers_s = (len(stages) - 1) * terms.profile.sync_s
        self._fixed_s = terms.profile.startup.mean_s + self._barriers_s
        self.least_s = (self._fixed_s + sum(hull.points[0][0] for hull in self._hulls)) * (1 - SLACK)

    def usd(self, makespan_s: float) -> float:
        """No plan that ends by then costs less; infinite where none does."""
        if makespan_s < self.least_s:
            return math.inf
        training_s = max(makespan_s * (1 + SLACK) - self._fixed_s, 0.0)
        terms = self._terms
        gpu_s = self._work.at(max(training_s, self._work.points[0][0]))
        machines = self._machines(gpu_s, training_s)
        functions_usd = self._functions.at(max(training_s, self._functions.points[0][0]))
        used_machine_s = gpu_s / terms.gpus_per_instance + self._barriers_s
        # A plan that ends by then may end sooner: at the soonest, when any can.
        return least_usd(terms, machines, used_machine_s, functions_usd, self.least_s) * (1 - SLACK)

    def gap(self, plan: Plan) -> float:
        """By which share of the bound a plan costs more than anything that ends as soon might; 0 where both are free."""
        least_usd = self.usd(plan.makespan_s)
        if least_usd <= 0:
            return 0.0 if plan.cost_usd <= 0 else math.inf
        return max(plan.cost_usd / least_usd - 1.0, 0.0)

    def _machines(self, gpu_s: float, training_s: float) -> int:
        """Some stage holds at least so many: that of the average, or one with all the time the others leave it."""
        whole = self._terms.gpus_per_instance
        spare_s = training_s - sum(hull.points[0][0] for hull in self._hulls)
        longest = [(hull, hull.points[0][0] + max(spare_s, 0.0)) for hull in self._hulls]
        averages = [gpu_s / training_s, *(hull.at(seconds) / seconds for hull, seconds in longest)]
        return max(1, math.ceil(max(averages) / whole * (1 - SLACK)))


def is_out_of_reach(
    stages: Sequence[Stage], terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
) -> bool:
    """Whether no plan keeps T and B, however it uses its machines, so that none need be searched; for arguments see `Paid`."""
    paid = Paid(stages, terms, live_instances=live_instances, is_resumed=is_resumed, is_whole=True)
    least_usd = paid.usd(terms.deadline_s)
    return math.isinf(least_usd) or least_usd > most_usd(terms.budget_usd)


class Paid:
    """As `Bound`, but of what is left to pay after machines are given back early, and from machines that are held.

    Lower, as it knows of no minimum charge and of one machine's start.

    Args:
        stages: what is to be trained.
        terms: profile, prices, limits.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
        is_whole: machines are whole, so that a stage holds one at least; made for many questions (`almost_least_used`).
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        terms: Terms,
        *,
        live_instances: int = 0,
        is_resumed: bool = False,
        is_whole: bool = False,
    ) -> None:
        paid = functools.partial(_paid, terms=terms, is_whole=is_whole)
        self._work = Hull.total(
            [Hull.below(paid(stage, is_first=not (index or is_resumed))) for index, stage in enumerate(stages)]
        )
        barriers_s, started = (len(stages) - 1) * terms.profile.sync_s, 0 if live_instances else 1
        self._fixed_s = barriers_s + started * terms.profile.startup.mean_s
        self._fixed_usd = held_usd(terms, barriers_s) + started * start_usd(terms)

    def usd(self, makespan_s: float) -> float:
        """No plan that ends by then costs less; infinite where none does."""
        training_s, fastest_s = makespan_s - self._fixed_s, self._work.points[0][0]
        if training_s < fastest_s * (1 - SLACK):
            return math.inf
        return (self._work.at(max(training_s, fastest_s)) + self._fixed_usd) * (1 - SLACK)


def _paid(stage: Stage, *, is_first: bool, terms: Terms, is_whole: bool) -> list[Point]:
    """(seconds, price of all trials) for every size of gang, below what any number of them takes and costs."""
    fixed_s, max_gpus, whole = terms.fixed_s(is_first=is_first), terms.max_gpus, terms.gpus_per_instance
    used = almost_least_used if is_whole else least_used
    share = used(log_variance(terms.profile.stragglers, stage.iterations)) if refunds(terms) else 1.0
    points = []
    for size, iteration_s in terms.placeable_gangs:
        train_s = stage.iterations * iteration_s
        gpus = stage.trials * size
        each_s = (fixed_s + train_s) * max(1.0, gpus / max_gpus)
        machines = max(gpus / whole, 1.0) if is_whole else gpus / whole
        if terms.is_per_instance:
            usd = held_usd(terms, machines * (fixed_s + train_s * share))
        else:
            usd = stage.trials * function_usd(terms, size, fixed_s + train_s)
        points.append((each_s, usd))
    return points


def least_used(variance: float) -> float:
    """The least share of the mean training time for which machines are paid that are given back early, by the closed form.

    It takes gangs to end at the median of their places, so that they use a little less than their mean together: least where
    there are two to five. It falls with the variance of the logarithm of a trial's time.
    """
    if variance > _MOST_VARIANCE:
        return math.exp(-variance / 2)
    slowest, earlier = _few_places().ends(variance)
    used = slowest + np.where(np.isfinite(earlier), earlier, 0.0).sum(axis=1)
    return float((used / np.arange(1, _FEW_GROUPS + 1)).min())


def almost_least_used(variance: float) -> float:
    """A little below `least_used`: that of a variance which is not much larger, and was mostly asked for before."""
    return _least_used_at(math.ceil(math.log(variance) / _LOG_STEP)) if variance > 0 else 1.0


@functools.lru_cache(4096)
def _least_used_at(step: int) -> float:
    return least_used(math.exp(step * _LOG_STEP))


@functools.cache
def _few_places() -> Places:
    """Of few groups of one gang."""
    groups = np.arange(1, _FEW_GROUPS + 1)
    return Places(groups, np.ones_like(groups))


def gap_to_bound(plan: Plan, terms: Terms) -> float:
    """By which share a plan costs more than the least that anything which ends as soon might; see `Bound`."""
    return Bound(plan.stages, terms).gap(plan)


def _gangs(stage: Stage, terms: Terms, *, is_first: bool) -> list[Point]:
    """(seconds, GPU-seconds of all trials) for every size of gang, placed as well as it can be."""
    sizes = range(terms.profile.min_gpus, terms.largest_gang + 1)
    seconds = ((p, terms.segment_s(stage.iterations, p, is_first=is_first)) for p in sizes)
    return [(each_s, stage.trials * p * each_s) for p, each_s in seconds]


def _functions(stage: Stage, terms: Terms, *, is_first: bool) -> list[Point]:
    """(seconds, price of all trials) for every size of gang."""
    sizes = range(terms.profile.min_gpus, terms.largest_gang + 1)
    seconds = ((p, terms.segment_s(stage.iterations, p, is_first=is_first)) for p in sizes)
    return [(each_s, stage.trials * function_usd(terms, p, each_s)) for p, each_s in seconds]


def _capped(hull: Hull, gpus: int) -> Hull:
    """The hull where at most so many GPUs are held: from where its work fits into them."""
    last_s, last = hull.points[-1]
    if last > gpus * last_s:
        return Hull(((last / gpus, last),))
    low_s, high_s = hull.points[0][0], last_s
    if hull.at(low_s) <= gpus * low_s:
        return hull
    for _ in range(100):
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (low_s, middle_s) if hull.at(middle_s) <= gpus * middle_s else (middle_s, high_s)
    return hull.from_(low_s)
