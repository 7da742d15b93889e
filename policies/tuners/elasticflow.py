"""ElasticFlow's rule for one tuning job: the minimum share that meets the deadline, spare GPUs where they help most."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from elastune.policies.execution.director import Shares
from elastune.policies.execution.limits import Limits
from elastune.policies.execution.planned import OneBracket, staged
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.sizing.constant import constant_allocation
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible
from elastune.policies.sizing.sizing import largest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.rules.halving import Bracket, Stage
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView


def elasticflow(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
) -> StagedPolicy:
    """Gu et al., "ElasticFlow: An Elastic Serverless Training Platform" (ASPLOS 2023), sections 4.1 and 4.2.

    Every trial gets the minimum satisfactory share: the least gang with which the job still meets its deadline. GPUs that the
    machines have beyond that go one step at a time to the trial whose speed-up rises most per GPU. Promotion is successive
    halving's; shares are computed anew for each rung, with the time that is left.

    Raises:
        InfeasibleJobError: not one configuration is finished by T and B.

    Deviations:
        The paper admits jobs to a shared cluster; here the jobs are the trials of a rung, with the deadline of the tuning job
        if the share is held for all rungs, and admission is the largest n whose minimum shares cost at most B [ours]. A larger
        share is the minimum where it alone fits the budget, as on whole machines one GPU per trial may be dearer [ours].
        The cluster is as many whole machines as the minimum shares need, so only what rounding leaves over is spare [ours].
        Shares change at rungs only, where every trial is checkpointed anyway; gangs fill or divide machines.
        Without a deadline one GPU is enough.
    """
    terms = Terms.of(job, profile, price_book)
    stages = _most_stages(job, terms)
    if stages is None:
        raise infeasible("elasticflow", job, terms, least_plan)
    director = ElasticFlowDirector(stages, terms, job)
    return staged(director, Limits(job, profile, price_book), profile, price_book)


@memoized
def _most_stages(job: TuningJob, terms: Terms) -> tuple[Stage, ...] | None:
    """Of the most configurations whose minimum shares keep T and B."""
    found = largest(job, terms, lambda stages: least_plan(stages, terms))
    return None if found is None else found[1].stages


def least_plan(
    stages: Sequence[Stage], terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
) -> Plan | None:
    """The plan with the least gang, the same in all stages, that keeps deadline and budget; None if no gang does.

    All trials of a stage train at once, as far as the quota allows.
    """
    for size in terms.gang_sizes:
        allocations = [constant_allocation(stage, size, terms) for stage in stages]
        plan = estimate(stages, allocations, terms, live_instances=live_instances, is_resumed=is_resumed)
        if terms.are_kept_by(plan):
            return plan
    return None


def spread_spare(shares: Sequence[int], spare: int, terms: Terms) -> list[int]:
    """The shares, raised step by step where the speed-up rises most per GPU; the better trial first where several are equal.

    Args:
        shares: (trials,) GPUs of each trial, best trial first.
        spare: GPUs to give away.
        terms: for the scaling and the sizes that can be placed.
    """
    raised = list(shares)
    steps = [step for rank, size in enumerate(raised) if (step := _step(rank, size, terms)) is not None]
    heapq.heapify(steps)
    while steps:
        _, rank, size = heapq.heappop(steps)
        if size - raised[rank] > spare:
            continue
        spare -= size - raised[rank]
        raised[rank] = size
        further = _step(rank, size, terms)
        if further is not None:
            heapq.heappush(steps, further)
    return raised


def _step(rank: int, size: int, terms: Terms) -> tuple[float, int, int] | None:
    """(minus the speed-up per further GPU, rank, next size); None where no larger gang is faster."""
    larger = next((other for other in terms.gang_sizes if other > size), None)
    if larger is None:
        return None
    gain = terms.speedup(larger) - terms.speedup(size)
    return -gain / (larger - size), rank, larger


class ElasticFlowDirector(OneBracket):
    """One bracket; see `policies.execution.director.Director`."""

    def __init__(self, stages: Sequence[Stage], terms: Terms, job: TuningJob) -> None:
        super().__init__(stages, job)
        self._terms = terms
        self._kept = 0

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:  # noqa: ARG002  T is the deadline here
        """Minimum shares for the time and budget left, or the largest if none is on time; then spare GPUs."""
        left_usd = self._terms.budget_usd - view.committed_usd
        terms = replace(self._terms, deadline_s=self._terms.deadline_s - view.now_s, budget_usd=left_usd)
        stages, live = (bracket.stage, *bracket.remaining), len(view.instances)
        for budget_usd in (left_usd, math.inf):
            affordable = replace(terms, budget_usd=budget_usd)
            plan = least_plan(stages, affordable, live_instances=live, is_resumed=bracket.index > 0)
            if plan is not None:
                break
        size = terms.gang_sizes[-1] if plan is None else plan.allocations[0].gpus_per_trial
        self._kept = terms.price_book.max_instances if plan is None else (*plan.instances_per_stage, 0)[1]
        trials, whole = len(bracket.trials), terms.gpus_per_instance
        gangs = min(trials, terms.max_gpus // size)
        instances = math.ceil(gangs * size / whole)
        sizes = [size] * trials
        # Where functions are billed, idle GPUs cost nothing, and so none is spare.
        if gangs == trials and terms.is_per_instance:
            sizes = spread_spare(sizes, instances * whole - gangs * size, terms)
        return Shares(instances, tuple(sizes))

    def kept_instances(self, bracket: Bracket) -> int | None:  # noqa: ARG002  as it was when the rung began
        """See `policies.execution.director.Director`."""
        return self._kept
