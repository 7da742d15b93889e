"""Hyperband on machines that come and go, at a constant number of GPUs per trial: a naive cloud extension [ours]."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elastune.policies.execution.limits import Limits, live_instances
from elastune.policies.execution.planned import staged
from elastune.policies.execution.staged import Director, Shares
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import Bracket
from elastune.policies.sizing.list_scheduling import largest_number
from elastune.policies.sizing.sizing import infeasible
from elastune.policies.tuners.hyperband import bracket_sizes, bracket_stages
from elastune.policies.tuners.naive_elastic import check_gang, constant_allocation
from elastune.sim.model.ids import TrialId

if TYPE_CHECKING:
    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.planning.plan import Allocation, Plan
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView


def hyperband_elastic(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    gpus_per_trial: int = 1,
) -> StagedPolicy:
    """Hyperband (Li et al., JMLR 2018, Algorithm 1), all trials of a rung at once, each on `gpus_per_trial` GPUs.

    Brackets run one after the other while time, money and configurations are left; idle machines are given back, and each
    bracket asks for new ones.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        gpus_per_trial: size of every gang.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota.
        InfeasibleJobError: not one configuration, or with `exact` not all of them, is finished by T and B at this size.

    Deviations:
        Those of `policies.tuners.hyperband.hyperband_fixed` about brackets.
    """
    terms = Terms.of(job, profile, price_book)
    check_gang("hyperband-elastic", gpus_per_trial, terms)
    rounds = _Rounds(job, terms, gpus_per_trial)
    planned = rounds.planned()
    if not planned or (job.exact and sum(planned) < job.trials):
        raise infeasible(f"hyperband-elastic with {gpus_per_trial} GPUs per trial", job, terms)
    director = ElasticHyperbandDirector(rounds, planned[0])
    return staged(director, Limits(job, profile, price_book), profile, price_book)


@dataclass(frozen=True)
class _Rounds:
    """Brackets one after the other, each on machines of its own."""

    job: TuningJob
    terms: Terms
    gpus_per_trial: int

    def plan(self, bracket: int, trials: int, live_instances: int = 0) -> Plan:
        """What a bracket takes that begins with so many configurations."""
        stages = bracket_stages(self.job, bracket % len(bracket_sizes(self.job)), trials)
        allocations = [constant_allocation(stage, self.gpus_per_trial, self.terms) for stage in stages]
        return estimate(stages, allocations, self.terms, live_instances=live_instances)

    def largest(self, bracket: int, most: int, left: Terms, live_instances: int = 0) -> int:
        """The most configurations the bracket can begin with so that it keeps what is left; 0 where one is too many."""
        sizes = bracket_sizes(self.job)
        most = min(sizes[bracket % len(sizes)], most)
        return largest_number(most, lambda n: left.are_kept_by(self.plan(bracket, n, live_instances)))

    def planned(self) -> list[int]:
        """Configurations of each bracket that is finished by T and B, in order."""
        sizes: list[int] = []
        left, trials = self.terms, self.job.trials
        while trials and (size := self.largest(len(sizes), trials, left)):
            plan = self.plan(len(sizes), size)
            left = replace(
                left, deadline_s=left.deadline_s - plan.makespan_s, budget_usd=left.budget_usd - plan.cost_usd
            )
            trials -= size
            sizes.append(size)
        return sizes


class ElasticHyperbandDirector(Director):
    """Brackets in order, again and again; see `policies.execution.staged.Director`.

    Args:
        rounds: the brackets.
        first: configurations of the first one, as planned.
    """

    def __init__(self, rounds: _Rounds, first: int) -> None:
        self._rounds = rounds
        self._first = first
        self._begun = 0
        self._started = 0

    def next_bracket(self, view: RunView, stop_at_s: float) -> Bracket | None:  # noqa: ARG002  of fewer machines than held now
        """The next bracket, as large as it can be finished."""
        job, terms = self._rounds.job, self._rounds.terms
        trials = self._first
        if self._begun:
            budget_usd = math.inf if job.budget_usd is None else job.budget_usd - view.committed_usd
            left = replace(terms, deadline_s=terms.deadline_s - view.now_s, budget_usd=budget_usd)
            trials = self._rounds.largest(self._begun, job.trials - self._started, left, live_instances(view))
        if not trials:
            return None
        numbers = [TrialId(self._started + number) for number in range(trials)]
        stages = bracket_stages(job, self._begun % len(bracket_sizes(job)), trials)
        self._started += trials
        self._begun += 1
        return Bracket(stages, numbers, job.direction)

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:  # noqa: ARG002  the size is constant
        """See `policies.execution.staged.Director`."""
        return Shares.of(self._allocation(bracket, bracket.index))

    def kept_instances(self, bracket: Bracket) -> int | None:
        """See `policies.execution.staged.Director`."""
        return 0 if bracket.is_last else self._allocation(bracket, bracket.index + 1).instances

    def _allocation(self, bracket: Bracket, index: int) -> Allocation:
        return constant_allocation(bracket.stages[index], self._rounds.gpus_per_trial, self._rounds.terms)
