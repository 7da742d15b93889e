"""How many configurations a rule without barriers finishes, on how many machines, by the list-scheduling bound [ours]. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.policies.planning.bill import around_usd, cluster_usd, function_usd, lease_usd
from elastune.policies.planning.spaces import tried
from elastune.policies.rules.halving import rung_levels, rungs
from elastune.policies.rules.margin import PLAN_MARGIN_S, most_usd
from elastune.policies.sizing.refusal import Possible, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.policies.planning.plan import Terms
    from elastune.sim.model.errors import InfeasibleJobError
    from elastune.sim.model.job import TuningJob


@dataclass(frozen=True)
class Load:
    """What configurations are expected to take.

    Attributes:
        gpus: of each gang.
        work_s: seconds of a gang that one configuration takes on average.
        chain_s: seconds of a configuration that is trained to R.
        segments: (share of the configurations that come so far, seconds) of each segment.
    """

    gpus: int
    work_s: float
    chain_s: float
    segments: tuple[tuple[float, float], ...] = ()

    def functions_usd(self, trials: int, terms: Terms, margin_s: float) -> float:
        """Price of so many configurations, or of the one that is trained to R, where functions are billed.

        Each segment may be so much longer.
        """
        shares = self.segments or ((1.0, self.work_s),)
        chain = self.segments or ((1.0, self.chain_s),)
        each_usd = math.fsum(share * function_usd(terms, self.gpus, seconds + margin_s) for share, seconds in shares)
        chain_usd = math.fsum(function_usd(terms, self.gpus, seconds + margin_s) for _, seconds in chain)
        return max(trials * each_usd, chain_usd)


@dataclass(frozen=True)
class Cluster:
    """A number of machines, and of configurations that are finished on them."""

    trials: int
    instances: int


def largest_number(most: int, is_kept: Callable[[int], bool]) -> int:
    """The largest number from 1 to `most` that is kept, where all smaller ones are kept too; 0 where 1 is not."""
    low, high = 0, most
    middle = most
    while low < high:
        low, high = (middle, high) if is_kept(middle) else (low, middle - 1)
        middle = (low + high + 1) // 2
    return low


def promotion_load(job: TuningJob, terms: Terms, gpus: int = 1) -> Load:
    """Each rung a segment of its own, reached by one in eta of the rung below."""
    segments = []
    before = 0
    for rung, level in enumerate(rung_levels(job)):
        seconds = terms.segment_s(level - before, gpus, is_first=rung == 0)
        segments.append((job.reduction_factor**-rung, seconds))
        before = level
    work_s = math.fsum(share * seconds for share, seconds in segments)
    return Load(gpus, work_s, math.fsum(seconds for _, seconds in segments), tuple(segments))


def stopping_load(job: TuningJob, terms: Terms) -> Load:
    """One segment per configuration, cut short at a rung that only one in eta passes."""
    levels = rung_levels(job)
    around_s = terms.segment_s(0, 1, is_first=True)
    shares = (job.reduction_factor**-rung for rung in range(len(levels)))
    steps = (level - before for level, before in zip(levels, (0, *levels), strict=False))
    iterations = math.fsum(share * step for share, step in zip(shares, steps, strict=True))
    return Load(1, around_s + iterations * terms.profile.iteration_s, terms.segment_s(levels[-1], 1, is_first=True))


def best_cluster(
    name: str,
    job: TuningJob,
    terms: Terms,
    load: Load,
    *,
    is_elastic: bool = False,
    grows_gangs: bool = False,
    is_anytime: bool = False,
) -> Cluster:
    """The machines on which the most configurations are finished by T and B, the cheapest of them where several are.

    The bound is start-up + n * work / gangs + (1 - 1 / gangs) * chain. With `job.exact` only the job's own number is tried.

    Args:
        name: of the policy, for messages.
        job: the tuning job.
        terms: profile, prices, limits.
        load: what configurations take.
        is_elastic: machines are paid while they are needed; fixed ones are until the end.
        grows_gangs: spare machines make trials faster, so where several numbers do, the largest is taken.
        is_anytime: the rule trains in all the time it is given and promotes on the way, so that the configurations' work must
            fit and one chain, but not one after the other; where several numbers of machines do, one on which they would.

    Raises:
        InfeasibleJobError: not one configuration is finished on any number of machines.
    """
    most = rungs(job)[0].trials if job.stages is not None else job.trials

    def bounds_under(terms: Terms) -> list[_Bound]:
        counts = tried(range(1, terms.price_book.max_instances + 1))
        bounds = (_Bound(count, terms, load, is_elastic=is_elastic, is_anytime=is_anytime) for count in counts)
        return [bound for bound in bounds if bound.gangs]

    sized = []
    for bound in bounds_under(terms):
        trials = bound.most_trials(most)
        if trials and (trials == most or not job.exact):
            preference = bound.instances if grows_gangs else -bound.cost_usd(trials)
            sized.append((trials, bound.has_time_for_tail(trials), preference, -bound.instances))
    if not sized:
        raise _infeasible(name, job, most if job.exact else 1, bounds_under(terms.for_any_deadline()))
    trials, _, _, negative_count = max(sized)
    useful = math.ceil(trials * load.gpus / terms.gpus_per_instance)
    return Cluster(trials, -negative_count if grows_gangs else min(-negative_count, useful))


def _infeasible(name: str, job: TuningJob, trials: int, bounds: Sequence[_Bound]) -> InfeasibleJobError:
    """The error that says what could be achieved instead."""
    possible = [Possible.of(bound.end_s(trials), bound.needed_usd(trials)) for bound in bounds]
    gpus = bounds[0].load.gpus
    lacks = f"with {gpus} GPU{'s' if gpus > 1 else ''} per trial, no number of machines"
    return refusal(name, job, trials, possible, lacks=lacks)


class _Bound:
    """Time and bill of n configurations on so many machines."""

    def __init__(self, instances: int, terms: Terms, load: Load, *, is_elastic: bool, is_anytime: bool) -> None:
        self.instances, self.load = instances, load
        self._terms, self._is_elastic, self._is_anytime = terms, is_elastic, is_anytime
        self.gangs = instances * terms.gpus_per_instance // load.gpus

    def most_trials(self, most: int) -> int:
        """The largest n up to `most` that keeps both limits; 0 where one is too many."""
        return largest_number(most, self._is_kept_by)

    def cost_usd(self, trials: int, margin_s: float = 0.0) -> float:
        """The expected bill if the last ones end so much later."""
        terms, load = self._terms, self.load
        usd_per_gpu_s = terms.usd_per_s / terms.gpus_per_instance
        functions_usd = load.functions_usd(trials, terms, margin_s)
        fixed_usd = cluster_usd(terms, self.instances, self._busy_s(trials) + margin_s, functions_usd)
        if not (self._is_elastic and terms.is_per_instance):
            return fixed_usd
        idle_s = math.fsum(self._idle_gpus(max(1.0, trials * share)) * seconds for share, seconds in load.segments)
        used_usd = (max(trials * load.work_s, load.chain_s) * load.gpus + idle_s) * usd_per_gpu_s
        beside_usd = around_usd(terms, self.instances, self.end_s(trials))
        # A machine that trains anything at all is billed its minimum and its first quantum.
        shortest_s = min((seconds for _, seconds in load.segments), default=load.chain_s)
        least_usd = self.instances * lease_usd(terms, shortest_s + margin_s)
        machines_usd = max(self.instances * lease_usd(terms, margin_s) + used_usd, least_usd)
        return min(fixed_usd, machines_usd + beside_usd)

    def _idle_gpus(self, trials: float) -> float:
        """GPUs that idle on whole machines while so many trials are left, each in the worst case on a machine of its own."""
        held = min(self.instances, math.ceil(trials)) * self._terms.gpus_per_instance
        return max(held - trials * self.load.gpus, 0.0)

    def has_time_for_tail(self, trials: int) -> bool:
        """Whether even one chain after all the other work is done by the deadline."""
        return self._terms.profile.startup.mean_s + self._busy_s(trials, with_tail=True) <= self._terms.deadline_s

    def _busy_s(self, trials: int, *, with_tail: bool | None = None) -> float:
        load = self.load
        has_tail = not self._is_anytime if with_tail is None else with_tail
        tail_s = (1 - 1 / self.gangs) * load.chain_s if has_tail else 0.0
        return max(trials * load.work_s / self.gangs + tail_s, load.chain_s)

    def end_s(self, trials: int) -> float:
        """When they are expected to be done."""
        return self._terms.profile.startup.mean_s + self._busy_s(trials)

    def _is_kept_by(self, trials: int) -> bool:
        if self.end_s(trials) > self._terms.deadline_s:
            return False
        return self.needed_usd(trials) <= most_usd(self._terms.budget_usd)

    def needed_usd(self, trials: int) -> float:
        """The budget that so many configurations take: their bill, and what the margin before its end costs."""
        return self.cost_usd(trials, PLAN_MARGIN_S)
