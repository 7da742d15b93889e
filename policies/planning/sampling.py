"""Makespan and cost of a plan by Monte Carlo: stragglers, queueing and initialisation as distributions. Pure [ours].

Follows the executor: gangs start as soon as their machines are ready, trials take turns on them in order, the machines of a
prefetched stage are asked for at the planned time or at the barrier, whichever is sooner. That a quota full of machines on
their way out delays new ones is not followed. Shares no code with the simulated world.

Plans without waves take the slowest trial of each stage by order statistics. Plans with waves, billed per function, or whose
gangs do not start at once although some trials are always slow, draw every trial, in single precision, which is finer than any
number of samples could tell.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from policies.planning.machines import Machines, billed_s
from policies.planning.spread import (
    iteration_mean,
    persistent_share,
    slowest_normals,
    slowest_of_each,
    trial_factor,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from policies.halving import Stage
    from policies.planning.plan import Allocation, Plan, Terms

    Floats = NDArray[np.floating]


LEAST_NORMAL = -4.5
"""A standard normal is below this three times in a million."""


class Samples(NamedTuple):
    """Sampled courses of one plan.

    Attributes:
        makespan_s: (samples,) float.
        cost_usd: (samples,) float.
        stage_s: (samples, stages) float; growth and barrier included.
    """

    makespan_s: Floats
    cost_usd: Floats
    stage_s: Floats


def sample(plan: Plan, terms: Terms, samples: int, rng: np.random.Generator) -> Samples:
    """Possible courses of a plan that starts from nothing.

    Args:
        plan: what is executed.
        terms: profile, prices; limits are not looked at.
        samples: how many.
        rng: the source of randomness.
    """
    stages, held = plan.stages, plan.instances_per_stage
    machines = Machines(terms, samples, rng)
    durations = _durations(plan, terms, samples, rng)
    now_s = np.zeros(samples)
    functions_usd = np.zeros(samples)
    stage_s = np.empty((samples, len(stages)))
    machines.ask(held[0], now_s)
    for index, (stage, allocation) in enumerate(zip(stages, plan.allocations, strict=True)):
        began_s = now_s
        ready, late_s = machines.offsets_s(now_s)
        now_s = now_s + durations.longest_s(index, allocation, ready, late_s)
        functions_usd += durations.functions_usd(stage, allocation)
        if index < len(stages) - 1:
            now_s = now_s + terms.profile.sync_s
            _resize(machines, plan, index, began_s, now_s)
        stage_s[:, index] = now_s - began_s
    machines.give_back(machines.held, now_s)
    cost_usd = machines.usd if terms.is_per_instance else functions_usd
    around_usd = machines.started * terms.ingress_usd + now_s * terms.standing_usd_per_s
    return Samples(now_s, cost_usd + around_usd, stage_s)


def _resize(machines: Machines, plan: Plan, index: int, began_s: Floats, barrier_s: Floats) -> None:
    """From the machines of one stage to those of the next."""
    wanted = plan.allocations[index + 1].instances
    if wanted < machines.held:
        machines.give_back(machines.held - wanted, barrier_s)
    elif wanted > machines.held:
        after_s = plan.prefetch_after_s[index]
        asked_s = barrier_s if after_s is None else np.minimum(began_s + after_s, barrier_s)
        machines.ask(wanted - machines.held, asked_s)


def _durations(plan: Plan, terms: Terms, samples: int, rng: np.random.Generator) -> _Ordered | _EachTrial:
    startup = terms.profile.startup
    in_waves = any(allocation.waves > 1 for allocation in plan.allocations)
    falls = all(before.trials >= after.trials for before, after in pairwise(plan.stages))
    # What stays with a trial ties its stages together, and order statistics follow that only where all gangs start at once.
    is_steady = startup.queue.cv == startup.init.cv == startup.setup.cv == 0
    starts_at_once = is_steady and max(plan.instances_per_stage) == plan.instances_per_stage[0]
    is_tied = terms.profile.stragglers.persistent_cv > 0 and not starts_at_once
    if in_waves or is_tied or not falls or not terms.is_per_instance:
        return _EachTrial(plan, terms, samples, rng)
    return _Ordered(plan, terms, samples, rng)


class _Ordered:
    """Durations of stages whose trials all train at once, by order statistics."""

    def __init__(self, plan: Plan, terms: Terms, samples: int, rng: np.random.Generator) -> None:
        self._stages = plan.stages
        self._terms = terms
        self._samples = samples
        self._rng = rng
        stragglers = terms.profile.stragglers
        self._normals: Floats = np.zeros((samples, len(plan.stages)))
        if stragglers.any:
            shares = [persistent_share(stragglers, stage.iterations) for stage in plan.stages]
            self._normals = slowest_normals([stage.trials for stage in plan.stages], shares, samples, rng)

    def longest_s(self, index: int, allocation: Allocation, ready: int, late_s: Floats) -> Floats:
        """(samples,) seconds from the start of a stage until its last trial has ended."""
        stage = self._stages[index]
        fixed_s, train_s = _segment_parts_s(self._terms, stage, allocation, is_first=index == 0)
        factor = trial_factor(self._terms.profile.stragglers, stage.iterations)
        columns, gangs = _gangs_by_machine(allocation, ready, late_s)
        if not len(columns):
            return fixed_s + train_s * factor.at(self._normals[:, index])
        # Gangs on machines that are ready now start at once; the others with the last of their machines.
        starts_s = _starts_s(late_s, columns)
        shortest_s = fixed_s + train_s * float(factor.at(np.array(LEAST_NORMAL)))
        if (starts_s[:, -1] - starts_s[:, 0]).max() > shortest_s:
            # Some trial may end before the last machine is there, and another take its place.
            normals = self._rng.standard_normal((self._samples, stage.trials), np.float32)
            return list_schedule_s(np.repeat(starts_s, gangs, axis=1), fixed_s + train_s * factor.at(normals))
        slowest = fixed_s + train_s * factor.at(slowest_of_each(gangs, self._samples, self._rng))
        longest: Floats = (starts_s + slowest).max(axis=1)
        return longest

    def functions_usd(self, stage: Stage, allocation: Allocation) -> float:  # noqa: ARG002  only machines are billed here
        """Nothing."""
        return 0.0


class _EachTrial:
    """Durations of stages from a draw per trial; what stays with a trial goes with it from stage to stage."""

    def __init__(self, plan: Plan, terms: Terms, samples: int, rng: np.random.Generator) -> None:
        self._stages = plan.stages
        self._terms = terms
        self._samples = samples
        self._rng = rng
        self._trial_s = np.empty((samples, 0))
        most = max(stage.trials for stage in plan.stages)
        self._persistent = self._factors(terms.profile.stragglers.persistent_cv, 1, most)

    def _factors(self, cv: float, iterations: int, trials: int) -> Floats:
        """(samples, trials) mean factors over so many iterations; (1, trials) where they do not vary."""
        if cv == 0:
            return np.ones((1, trials))
        return iteration_mean(cv, iterations).at(self._rng.standard_normal((self._samples, trials), np.float32))

    def longest_s(self, index: int, allocation: Allocation, ready: int, late_s: Floats) -> Floats:
        """(samples,) seconds from the start of a stage until its last trial has ended."""
        stage = self._stages[index]
        fixed_s, train_s = _segment_parts_s(self._terms, stage, allocation, is_first=index == 0)
        each = self._factors(self._terms.profile.stragglers.per_iteration_cv, stage.iterations, stage.trials)
        self._trial_s = fixed_s + train_s * (self._persistent[:, : stage.trials] * each)
        columns, gangs = _gangs_by_machine(allocation, ready, late_s)
        starts_s = np.zeros((1, allocation.gangs))
        if len(columns):
            starts_s = np.repeat(_starts_s(late_s, columns), gangs, axis=1)
        return np.broadcast_to(list_schedule_s(starts_s, self._trial_s), (self._samples,))

    def functions_usd(self, stage: Stage, allocation: Allocation) -> Floats | float:  # noqa: ARG002  as drawn last
        """(samples,) price of the stage's segments, where functions are billed."""
        terms = self._terms
        if terms.is_per_instance:
            return 0.0
        gpu_usd_per_s = terms.usd_per_s / terms.gpus_per_instance
        billed: Floats = billed_s(terms.price_book.billing, self._trial_s).sum(axis=1)
        return billed * (allocation.gpus_per_trial * gpu_usd_per_s)


def _segment_parts_s(terms: Terms, stage: Stage, allocation: Allocation, *, is_first: bool) -> tuple[float, float]:
    """Seconds of a segment that do not vary, and mean seconds of its iterations."""
    timings = terms.profile.timings
    fixed_s = (timings.launch_s if is_first else timings.resume_s) + timings.checkpoint_s
    return fixed_s, stage.iterations * terms.profile.iteration_s / terms.speedup(allocation.gpus_per_trial)


def _gangs_by_machine(
    allocation: Allocation, ready: int, late_s: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which machines gangs wait for: columns of `late_s` (-1 for none) with how many gangs each lets start.

    Empty where no gang waits.
    """
    whole, size = allocation.gpus_per_instance, allocation.gpus_per_trial
    if not late_s.shape[1] or allocation.gangs * size <= ready * whole:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    gpus_needed = np.arange(1, allocation.gangs + 1) * size - ready * whole
    columns, gangs = np.unique(np.maximum(-(-gpus_needed // whole) - 1, -1), return_counts=True)
    return columns, gangs


def _starts_s(late_s: Floats, columns: NDArray[np.int64]) -> Floats:
    """(samples, columns) when those gangs start that wait for these machines; at 0 s for column -1."""
    return np.where(columns < 0, 0.0, late_s[:, np.maximum(columns, 0)])


def list_schedule_s(starts_s: Floats, trial_s: Floats) -> Floats:
    """(samples,) when the last trial ends if each takes the gang that is free first, in order.

    Args:
        starts_s: (samples or 1, gangs) when gangs can start, each row rising.
        trial_s: (samples or 1, trials) how long trials take; at least as many as gangs.
    """
    gangs, trials = starts_s.shape[1], trial_s.shape[1]
    if trials > gangs:
        return _in_turns_s(starts_s, trial_s)
    done_s = starts_s + trial_s
    ends_s: Floats = done_s.max(axis=1)
    if starts_s.any():
        # Where a trial ends before the last gang can start, the next one takes its place.
        is_overtaken = done_s.min(axis=1) < starts_s[:, -1]
        if is_overtaken.any():
            rows = (len(is_overtaken), trials)
            starts_s, trial_s = (np.broadcast_to(each, rows)[is_overtaken] for each in (starts_s, trial_s))
            ends_s[is_overtaken] = _in_turns_s(starts_s, trial_s)
    return ends_s


def _in_turns_s(starts_s: Floats, trial_s: Floats) -> Floats:
    """As `list_schedule_s`, one trial after the other."""
    gangs, trials = starts_s.shape[1], trial_s.shape[1]
    rows = max(len(starts_s), len(trial_s))
    in_order_s = np.ascontiguousarray(np.broadcast_to(trial_s, (rows, trials)).T)
    if starts_s.any():
        first, ends_s = 0, np.zeros(rows)
        free_s = np.array(np.broadcast_to(starts_s, (rows, gangs)), in_order_s.dtype)
    else:
        first, free_s = gangs, in_order_s[:gangs].T.copy()
        ends_s = free_s.max(axis=1)
    flat_s, row_starts = free_s.reshape(-1), np.arange(rows) * gangs
    for of_trial_s in in_order_s[first:]:
        soonest = free_s.argmin(axis=1) + row_starts
        done_s = flat_s[soonest] + of_trial_s
        flat_s[soonest] = done_s
        np.maximum(ends_s, done_s, out=ends_s)
    return ends_s
