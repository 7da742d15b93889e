"""Makespan and cost of a plan by Monte Carlo: stragglers, queueing and initialisation as distributions. Pure [ours].

Follows the executor: gangs start as soon as their machines are ready, trials take turns on them in order, the machines of a
prefetched stage are asked for at the planned time or at the barrier, whichever is sooner. That a quota full of machines on
their way out delays new ones is not followed. Shares no code with the simulated world.

Plans without waves take the slowest trial of each stage by order statistics, except in stages whose gangs do not start at once
and may well overtake each other. There, in plans with waves, and where functions are billed, every trial is drawn, in single
precision, which is finer than any number of samples could tell.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sampled_machines import Machines, billed_s
from slowest import slowest_normals, slowest_of_first, slowest_of_groups

from elastune.policies.planning.spread import iteration_mean, persistent_share, trial_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.rules.halving import Stage

    Floats = NDArray[np.floating]


RARE = 1e-3
"""Share of trials that take another's place and are not followed: each moves the end only if that place is the last one's."""


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
    now_s = np.zeros(samples)
    functions_usd = np.zeros(samples)
    stage_s = np.empty((samples, len(stages)))
    machines.ask(held[0], now_s)
    durations = _durations(plan, terms, machines, rng)
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


def _durations(plan: Plan, terms: Terms, machines: Machines, rng: np.random.Generator) -> _Ordered | _EachTrial:
    in_waves = any(allocation.waves > 1 for allocation in plan.allocations)
    falls = all(before.trials >= after.trials for before, after in pairwise(plan.stages))
    if in_waves or not falls or not terms.is_per_instance:
        return _EachTrial(plan, terms, machines.samples, rng)
    return _Ordered(plan, terms, machines, rng)


class _Ordered:
    """Durations of stages whose trials all train at once, by order statistics unless gangs may overtake each other.

    What stays with a trial ties its stages together: it is drawn trial by trial where some stage needs that.
    """

    def __init__(self, plan: Plan, terms: Terms, machines: Machines, rng: np.random.Generator) -> None:
        self._stages = plan.stages
        self._terms = terms
        self._samples = samples = machines.samples
        self._rng = rng
        stragglers = terms.profile.stragglers
        self._factors = [trial_factor(stragglers, stage.iterations) for stage in plan.stages]
        self._shares = [persistent_share(stragglers, stage.iterations) for stage in plan.stages]
        trials = [stage.trials for stage in plan.stages]
        first = _Starts.of(plan.allocations[0], *machines.offsets_s(np.zeros(samples)))
        grows = max(plan.instances_per_stage) > plan.instances_per_stage[0]
        self._kept: Floats | None = None
        if stragglers.persistent_cv > 0 and (grows or not self._is_overtaking_rare(0, plan.allocations[0], first)):
            self._kept = rng.standard_normal((trials[0], samples), np.float32)
        self._normals: Floats = np.zeros((samples, len(trials)))
        if stragglers.any:
            slowest = None if self._kept is None else slowest_of_first(self._kept, trials)
            self._normals = slowest_normals(trials, self._shares, samples, rng, slowest)

    def longest_s(self, index: int, allocation: Allocation, ready: int, late_s: Floats) -> Floats:
        """(samples,) seconds from the start of a stage until its last trial has ended."""
        factor = self._factors[index]
        fixed_s, train_s = self._segment_parts_s(index, allocation)
        starts = _Starts.of(allocation, ready, late_s)
        if starts is None:
            return fixed_s + train_s * factor.at(self._normals[:, index])
        if factor.sigma == 0:
            return list_schedule_s(starts.of_gangs_s(), np.full((1, allocation.trials), fixed_s + train_s))
        if self._kept is None and self._is_overtaking_rare(index, allocation, starts):
            normals = slowest_of_groups(self._normals[:, index], starts.gangs, self._rng)
            longest: Floats = (starts.at_s + fixed_s + train_s * factor.at(normals)).max(axis=1)
            return longest
        trial_s = factor.at(self._trial_normals(index))
        trial_s *= np.float32(train_s)
        trial_s += np.float32(fixed_s)
        return list_schedule_s(starts.of_gangs_s().astype(np.float32), trial_s.T)

    def _is_overtaking_rare(self, index: int, allocation: Allocation, starts: _Starts | None) -> bool:
        """Whether hardly any trial ends before the last gang can start: then none takes another's place."""
        factor = self._factors[index]
        if starts is None or factor.sigma == 0:
            return True
        from scipy.special import ndtr

        fixed_s, train_s = self._segment_parts_s(index, allocation)
        at_s = starts.at_s[:: max(self._samples // 100, 1)]
        factors = (at_s[:, -1:] - at_s - fixed_s) / train_s
        normals = np.log(np.maximum((factors - factor.shift) / factor.scale, 1e-300)) / factor.sigma
        return bool((ndtr(normals) * starts.gangs).sum(axis=1).mean() < RARE * allocation.trials)

    def _segment_parts_s(self, index: int, allocation: Allocation) -> tuple[float, float]:
        """Seconds of a segment that do not vary, and mean seconds of those that do."""
        iterations = self._stages[index].iterations
        return self._terms.fixed_s(is_first=index == 0), self._terms.train_s(iterations, allocation.gpus_per_trial)

    def _trial_normals(self, index: int) -> Floats:
        """(trials, samples) float; the standard normal value at which each trial of a stage is."""
        trials = self._stages[index].trials
        normals: Floats = self._rng.standard_normal((trials, self._samples), np.float32)
        if self._kept is not None:
            normals *= math.sqrt(1 - self._shares[index])
            normals += np.float32(math.sqrt(self._shares[index])) * self._kept[:trials]
        return normals

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
        fixed_s = self._terms.fixed_s(is_first=index == 0)
        train_s = self._terms.train_s(stage.iterations, allocation.gpus_per_trial)
        each = self._factors(self._terms.profile.stragglers.per_iteration_cv, stage.iterations, stage.trials)
        self._trial_s = fixed_s + train_s * (self._persistent[:, : stage.trials] * each)
        starts = _Starts.of(allocation, ready, late_s)
        starts_s = np.zeros((1, allocation.gangs)) if starts is None else starts.of_gangs_s()
        return np.broadcast_to(list_schedule_s(starts_s, self._trial_s), (self._samples,))

    def functions_usd(self, stage: Stage, allocation: Allocation) -> Floats | float:  # noqa: ARG002  as drawn last
        """(samples,) price of the stage's segments, where functions are billed."""
        terms = self._terms
        if terms.is_per_instance:
            return 0.0
        gpu_usd_per_s = terms.usd_per_s / terms.gpus_per_instance
        billed: Floats = billed_s(terms.price_book.billing, self._trial_s).sum(axis=1)
        return billed * (allocation.gpus_per_trial * gpu_usd_per_s)


class _Starts(NamedTuple):
    """When gangs start that do not all start at once.

    Attributes:
        at_s: (samples, groups) float, each row rising.
        gangs: (groups,) how many start then.
    """

    at_s: Floats
    gangs: NDArray[np.int64]

    @classmethod
    def of(cls, allocation: Allocation, ready: int, late_s: Floats) -> _Starts | None:
        """By the machine that they wait for last; None where none waits.

        Args:
            allocation: what the stage gets.
            ready: machines that are there.
            late_s: (samples, others) when the others are, soonest first.
        """
        whole, size = allocation.gpus_per_instance, allocation.gpus_per_trial
        if not late_s.shape[1] or allocation.gangs * size <= ready * whole:
            return None
        gpus_needed = np.arange(1, allocation.gangs + 1) * size - ready * whole
        columns, gangs = np.unique(np.maximum(-(-gpus_needed // whole) - 1, -1), return_counts=True)
        return cls(np.where(columns < 0, 0.0, late_s[:, np.maximum(columns, 0)]), gangs)

    def of_gangs_s(self) -> Floats:
        """(samples, gangs) when each starts."""
        return np.repeat(self.at_s, self.gangs, axis=1)


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
            ends_s[is_overtaken] = _overtaken_s(starts_s, trial_s)
    return ends_s


def _overtaken_s(starts_s: Floats, trial_s: Floats) -> Floats:
    """As `list_schedule_s` for as many gangs as trials.

    The n-th trial starts when the n-th gang is free, of those that can start then and those whose trials have ended: at the
    n-th smallest of all these times. They are found by going over them until none changes, from those without overtaking.
    """
    trials = starts_s.shape[1]
    began_s = starts_s
    while True:
        done_s = began_s + trial_s
        # Those before the first that may be overtaken stay as they are, and ends after the last start change nothing.
        first = int((starts_s <= done_s.min(axis=1, keepdims=True)).sum(axis=1).min())
        count = int((done_s < starts_s[:, -1:]).sum(axis=1).max())
        soonest_s = np.partition(done_s, count - 1, axis=1)[:, :count] if count < trials else done_s
        free_s = np.sort(np.concatenate((starts_s[:, first:], soonest_s), axis=1), axis=1)[:, : trials - first]
        if np.array_equal(free_s, began_s[:, first:]):
            ends_s: Floats = done_s.max(axis=1)
            return ends_s
        began_s = np.concatenate((starts_s[:, :first], free_s), axis=1)


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
