"""The oracle: what a policy that knows all curves could reach. An upper bound, not a tuner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from elastune.policies.execution.director import Shares
from elastune.policies.execution.limits import Limits
from elastune.policies.execution.planned import OneBracket, staged
from elastune.policies.planning.greedy import greedy_plan
from elastune.policies.planning.plan import Allocation, Plan, Terms
from elastune.policies.rules.halving import Bracket, Stage
from elastune.policies.sizing.list_scheduling import largest_number
from elastune.policies.sizing.refusal import infeasible
from elastune.sim.model.errors import InputError
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import TuningJob, loss_of

if TYPE_CHECKING:
    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView


def oracle(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    scores: np.ndarray | None = None,
) -> StagedPolicy:
    """Trains only the best reachable configuration, only as far as it is best, at the cheapest on-time parallelism [ours].

    Reachable is what one configuration trained alone can do by T and B, as far as the profile tells. Its score is an upper
    bound on the score of every policy where the profile is right.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        scores: (trials, iterations) float; the true curves in the order of the run's draw, not finite where a run diverged.

    Raises:
        InputError: the curves are not given, or are fewer or shorter than the job says.
        InfeasibleJobError: not one iteration of one configuration is durable by T and B.

    Deviations:
        None: it is no paper's algorithm.
    """
    if scores is None or scores.shape[0] < job.trials or scores.shape[1] < job.max_iterations:
        given = "none" if scores is None else f"{scores.shape[0]} of {scores.shape[1]} iterations"
        raise InputError(
            f"oracle: it must be handed the true curves of all {job.trials} trials up to {job.max_iterations} iterations;"
            f" given: {given}"
        )
    terms = Terms.of(job, profile, price_book)
    reachable = largest_number(job.max_iterations, lambda iterations: _plan(iterations, terms) is not None)
    if not reachable:
        one = msgspec.structs.replace(job, exact=False, stages=None)
        raise infeasible("oracle", one, terms, lambda stages, within: _plan(stages[-1].until_iteration, within))
    trial, iterations = best_point(scores[: job.trials, :reachable], job)
    plan = _plan(iterations, terms)
    assert plan is not None  # fewer iterations than are reachable
    return staged(_Alone(trial, plan, job), Limits(job, profile, price_book), profile, price_book)


def best_point(scores: np.ndarray, job: TuningJob) -> tuple[TrialId, int]:
    """The trial with the best score anywhere, and after how many iterations; the earliest, then the lowest number, of several.

    Args:
        scores: (trials, iterations) float.
        job: says what is better.
    """
    rows: list[list[float]] = scores.tolist()
    points = (
        (loss_of(score, job.direction), at, trial) for trial, row in enumerate(rows) for at, score in enumerate(row, 1)
    )
    _, iterations, trial = min(points)
    return TrialId(trial), iterations


class _Alone(OneBracket):
    """One trial, one stage; see `policies.execution.director.Director`."""

    def __init__(self, trial: TrialId, plan: Plan, job: TuningJob) -> None:
        super().__init__(plan.stages, job, [trial])
        self._allocation: Allocation = plan.allocations[0]

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:  # noqa: ARG002  planned before the run
        return Shares(self._allocation.instances, (self._allocation.gpus_per_trial,))


def _plan(iterations: int, terms: Terms) -> Plan | None:
    """The cheapest on-time plan for one configuration; None where it is late or too dear."""
    plan = greedy_plan((Stage(1, iterations, iterations),), terms)
    return plan if plan is not None and terms.are_kept_by(plan) else None
