"""What no policy can do: runs in which the goal is out of reach on a machine, whoever decides. Nothing is simulated for it.

A trial counts if one gang could take it from the start to the score by the deadline and for the budget, were nothing else paid
for: no start-up, no checkpoint, no other trial. Where durations vary, it is as quick as five standard deviations allow.
Imports the worlds of runs; ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.comparisons.race import SURE, TOLERANCE, Candidate, Goal
from elastune.policies.rules.margin import most_usd
from elastune.sim.model.node_scaling import knows_nodes
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import ON_DEMAND, SECONDS_PER_HOUR, SPOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elastune.experiments.runs.world import World
    from elastune.sim.model.profile import Stragglers

_STANDARD_DEVIATIONS = 5.0
OUT_OF_REACH = "out of reach"
"""Status of a candidate that was left out for it."""


@dataclass(frozen=True, eq=False)
class Reach:
    """What the trials that the seeds draw need at least on one kind of machine.

    Attributes:
        least_s: for each run, (trials,) seconds from the start to the score; infinite where a trial never has it.
        least_usd: for each run, (trials,) what they cost.
    """

    least_s: Sequence[np.ndarray]
    least_usd: Sequence[np.ndarray]

    @classmethod
    def of(cls, worlds: Iterable[World], goal: Goal) -> Reach:
        """The reach in these worlds, one for each run."""
        needs = [_needs(world, goal) for world in worlds]
        return cls([seconds for seconds, _ in needs], [usd for _, usd in needs])

    def runs_within(self, deadline_s: float | None, budget_usd: float | None) -> int:
        """In how many runs some trial can have the score by the deadline and for the budget."""
        most_s, cost = (deadline_s or math.inf) * TOLERANCE, most_usd(budget_usd or math.inf)
        return sum(
            bool(((seconds <= most_s) & (usd <= cost) & np.isfinite(seconds)).any())
            for seconds, usd in zip(self.least_s, self.least_usd, strict=True)
        )


def is_bounded(world: World) -> bool:
    """Whether durations and prices are such that nothing can be sooner or cheaper than `Reach` says."""
    cloud = world.spec.cloud
    is_even = cloud.slow_nodes is None and not knows_nodes(world.truth.scaling)
    is_free = cloud.spot is not None and world.price_book.billing.free_if_reclaimed_within_s > 0
    return is_even and not is_free and not world.spec.draws_anew


def leave_out(candidates: Sequence[Candidate], reach: Reach) -> None:
    """Mark those that cannot keep the goal in 95 % of the runs, whatever their policy does; says why.

    Where all would be, the largest limits of each policy stay, so that the answer says what came nearest.
    """
    runs = len(reach.least_s)
    within = {limits: reach.runs_within(*limits) for limits in {_limits(one) for one in candidates}}
    for one in candidates:
        deadline_s, budget_usd = _limits(one)
        if (able := within[deadline_s, budget_usd]) < SURE * runs:
            limits = {"by {:,.4g} s": deadline_s, "for {:,.4g} USD": budget_usd}
            asked = " and ".join(words.format(value) for words, value in limits.items() if value is not None)
            one.status = OUT_OF_REACH
            one.error = (
                f"in {runs - able} of {runs} runs no trial that is drawn can reach the goal {asked} on this machine"
            )


def keep_nearest(candidates: Sequence[Candidate]) -> None:
    """Where all candidates were left out or have no plan, take the largest limits of each policy and machine back."""
    if any(one.status == "done" for one in candidates):
        return
    nearest: dict[object, Candidate] = {}
    for one in candidates:
        if one.status == OUT_OF_REACH:
            nearest[one.spec.policy.label, one.spec.cloud.model_dump_json()] = one  # limits ascend
    for one in nearest.values():
        one.status, one.error = "done", ""


def _limits(one: Candidate) -> tuple[float | None, float | None]:
    return one.spec.job.deadline_s, one.spec.job.budget_usd


def _needs(world: World, goal: Goal) -> tuple[np.ndarray, np.ndarray]:
    """(trials,) seconds and USD from the start of each trial to the score, on the gang that is best for either."""
    truth = world.truth
    losses = world.recorded_scores if goal.direction == "minimize" else -world.recorded_scores
    has_it = np.isfinite(losses) & (losses <= goal.most_loss)
    iterations = has_it.argmax(axis=1) + 1
    work_s = np.where(
        has_it.any(axis=1), iterations * truth.iteration_s * _quickest(truth.stragglers, iterations), math.inf
    )
    gangs = range(1, truth.scaling.max_gpus + 1)
    speedups = np.array([truth.scaling.speedup(gpus) for gpus in gangs])
    gpu_s_per_s = float((np.array(gangs) / speedups).min())
    return work_s / speedups.max(), work_s * gpu_s_per_s * _least_usd_per_gpu_s(world)


def _quickest(stragglers: Stragglers, iterations: np.ndarray) -> np.ndarray:
    """(trials,) the smallest factor on the seconds of so many iterations, but for some three in ten million."""
    spread = math.sqrt(math.log1p(stragglers.persistent_cv**2))
    of_trial = math.exp(-_STANDARD_DEVIATIONS * spread - spread**2 / 2)  # log-normal, mean 1
    of_iterations = 1 - _STANDARD_DEVIATIONS * stragglers.per_iteration_cv / np.sqrt(iterations)
    return np.asarray(of_trial * np.maximum(of_iterations, 0.0))


def _least_usd_per_gpu_s(world: World) -> float:
    """The lowest price of a GPU that is ever paid, on whichever market the run may use."""
    markets = ON_DEMAND, *([] if world.spec.cloud.spot is None else [SPOT])
    usd_per_hour = (
        min(price.usd_per_hour if isinstance(price, PriceSeries) else [price]) / kind.gpus_per_instance
        for kind in world.price_book.instance_types
        for market, price in kind.usd_per_hour.items()
        if market in markets
    )
    return min(usd_per_hour) / SECONDS_PER_HOUR
