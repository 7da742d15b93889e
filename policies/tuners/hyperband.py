"""Hyperband, on the best fixed cluster and elastic: brackets of SHA, from many short trainings to few long ones.

Names are `room.module.name` below `policies`:

    for each bracket, again and again while time is left:    tuners.hyperband.BracketsInOrder.next_bracket
      n by Algorithm 1, the most explorative bracket first   tuners.hyperband.bracket_sizes
      fewer, if T, B or the configurations do not suffice    tuners.hyperband.Schedule.largest
      rungs of SHA: bracket k skips the first k              tuners.hyperband.bracket_stages
      for each rung, the gang size that ends it soonest      tuners.hyperband.HyperbandDirector.shares
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elastune.policies.execution.director import Director, Shares
from elastune.policies.execution.limits import Limits, live_instances
from elastune.policies.execution.planned import staged
from elastune.policies.planning.bill import cluster_usd
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.plan import Allocation, Plan, Terms
from elastune.policies.planning.spaces import on_cluster
from elastune.policies.planning.static import cluster_sizes
from elastune.policies.rules.halving import Bracket, Stage, rung_levels
from elastune.policies.rules.margin import PLAN_MARGIN_S, most_usd
from elastune.policies.sizing.constant import check_gang, constant_allocation
from elastune.policies.sizing.list_scheduling import largest_number
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import Possible, refusal
from elastune.policies.sizing.targets import Truncate, best_of_brackets, check_truncate, least_job, target_jobs
from elastune.sim.model.ids import TrialId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from elastune.policies.execution.staged import StagedPolicy
    from elastune.sim.model.errors import InfeasibleJobError
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView


def hyperband_fixed(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    truncate: Truncate = "never",
) -> StagedPolicy:
    """Li et al., "Hyperband" (JMLR 2018), Algorithm 1, on the best fixed cluster, brackets back to back while time is left.

    Survivors share the cluster: gangs of the size that ends the stage first, uneven waves allowed.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        truncate: where brackets may end at less than R; see `policies.sizing.targets`.

    Raises:
        InputError: `truncate` has none of its values.
        InfeasibleJobError: no cluster size finishes even one configuration.

    Deviations:
        The paper counts brackets by floor(log_eta R) + 1 with r = 1; here there is one per rung of the job, whose last level is
        R even where R / r is no power of eta.
        A bracket that is too large for what is left of time, budget or configurations starts with fewer [ours].
        The paper has no machines; how survivors share them, n and m are ours, and so are brackets that end before R.
    """
    check_truncate("hyperband-fixed", truncate)
    terms = Terms.of(job, profile, price_book)
    best = _best_target(job, terms, truncate)
    if best is None:
        free, least = terms.for_any_deadline().without_limits(), least_job(job, profile, truncate)
        schedules = (Schedule(least, free, count) for count in _cluster_sizes(least, terms))
        raise _refusal("hyperband-fixed", least, [schedule.possible() for schedule in schedules])
    target, (instances, sizes) = best
    director = HyperbandDirector(Schedule(target, terms, instances), sizes[0])
    return staged(director, Limits(job, profile, price_book), profile, price_book)


@memoized
def _best_target(
    job: TuningJob, terms: Terms, truncate: Truncate
) -> tuple[TuningJob, tuple[int, tuple[int, ...]]] | None:
    """The job with the best of its targets, and its `_best_cluster`; None if no target can be reached."""
    found = {}
    for target in target_jobs(job, terms.profile, truncate):
        cluster = _best_cluster(target, terms)
        if cluster is not None:
            found[target] = cluster
    best = best_of_brackets({target: _brackets(target, sizes) for target, (_, sizes) in found.items()}, job, terms)
    return None if best is None else (best, found[best])


def _brackets(job: TuningJob, sizes: Sequence[int]) -> list[tuple[Stage, ...]]:
    """Stages of each bracket that starts so many configurations."""
    count = len(bracket_sizes(job))
    return [bracket_stages(job, index % count, size) for index, size in enumerate(sizes)]


def _best_cluster(job: TuningJob, terms: Terms) -> tuple[int, tuple[int, ...]] | None:
    """Machines that finish the most configurations at least cost, and the sizes of the brackets; None if none does."""
    sized = []
    for count in _cluster_sizes(job, terms):
        schedule = Schedule(job, terms, count)
        sizes = schedule.sizes()
        trials = sum(sizes)
        if trials and (trials == job.trials or not job.exact):
            total = sum((schedule.load(index, size) for index, size in enumerate(sizes)), BracketLoad(0.0, 0.0))
            sized.append((trials, -schedule.cost_usd(total), -count, sizes))
    if not sized:
        return None
    _, _, negative_count, sizes = max(sized)
    return -negative_count, tuple(sizes)


def _cluster_sizes(job: TuningJob, terms: Terms) -> Sequence[int]:
    """Numbers of machines that are tried: the most explorative bracket has the most trials at once."""
    return cluster_sizes(bracket_stages(job, 0, min(bracket_sizes(job)[0], job.trials)), terms)


def bracket_sizes(job: TuningJob) -> tuple[int, ...]:
    """Configurations of each bracket, the most explorative one first: n = ceil(K eta^s / (s + 1)), K brackets, s = K-1 .. 0."""
    count, eta = len(rung_levels(job)), job.reduction_factor
    return tuple(math.ceil(count * eta**s / (s + 1)) for s in range(count - 1, -1, -1))


def bracket_stages(job: TuningJob, bracket: int, trials: int) -> tuple[Stage, ...]:
    """Stages of a bracket: it skips the first `bracket` rungs, and begins with `trials` configurations."""
    levels = rung_levels(job)[bracket:]
    stages, before, size = [], 0, trials
    for level in levels:
        # Who is alone has nobody left to compare with, and trains to R.
        until = levels[-1] if size == 1 else level
        stages.append(Stage(size, until - before, until))
        if until == levels[-1]:
            break
        before, size = until, max(1, size // job.reduction_factor)
    return tuple(stages)


@dataclass(frozen=True)
class BracketLoad:
    """Seconds on the cluster, and the price of the function calls where those are billed."""

    seconds: float
    functions_usd: float

    def __add__(self, other: BracketLoad) -> BracketLoad:
        return BracketLoad(self.seconds + other.seconds, self.functions_usd + other.functions_usd)


@dataclass(frozen=True)
class Schedule:
    """Brackets one after the other on a cluster, and what they are expected to take.

    Attributes:
        instances: machines of the cluster.
    """

    job: TuningJob
    terms: Terms
    instances: int

    def gang(self, stage: Stage, *, is_first: bool) -> int:
        """GPUs per trial with which the stage ends first."""
        return on_cluster(stage, self.instances, self.terms, is_first=is_first).allocation.gpus_per_trial

    def largest(self, bracket: int, most: int, is_kept: Callable[[BracketLoad], bool]) -> int:
        """The most configurations with which the bracket's load is kept; 0 if one is too many."""
        sizes = bracket_sizes(self.job)
        return largest_number(min(sizes[bracket % len(sizes)], most), lambda n: is_kept(self.load(bracket, n)))

    def sizes(self) -> list[int]:
        """Configurations of each bracket that is finished by T and B, in order."""
        sizes: list[int] = []
        total, left = BracketLoad(0.0, 0.0), self.job.trials

        def is_kept(load: BracketLoad) -> bool:
            end_s = self.terms.profile.startup.mean_s + total.seconds + load.seconds
            return end_s <= self.terms.deadline_s and self.needed_usd(total + load) <= most_usd(self.terms.budget_usd)

        while left and (trials := self.largest(len(sizes), left, is_kept)):
            total += self.load(len(sizes), trials)
            left -= trials
            sizes.append(trials)
        return sizes

    def possible(self) -> Possible:
        """Limits under which this cluster does what the job asks for at least."""
        sizes = self.sizes() if self.job.exact else [1]
        total = sum((self.load(index, size) for index, size in enumerate(sizes)), BracketLoad(0.0, 0.0))
        return Possible.of(self.terms.profile.startup.mean_s + total.seconds, self.needed_usd(total))

    def load(self, bracket: int, trials: int) -> BracketLoad:
        """What one bracket takes, the barriers in it included."""
        load = BracketLoad(0.0, 0.0)
        for index, stage in enumerate(bracket_stages(self.job, bracket % len(rung_levels(self.job)), trials)):
            choice = on_cluster(stage, self.instances, self.terms, is_first=index == 0)
            load += BracketLoad(choice.seconds + (self.terms.profile.sync_s if index else 0.0), choice.usd)
        return load

    def cost_usd(self, load: BracketLoad) -> float:
        """The bill of so much, quanta and minimum charges included."""
        return cluster_usd(self.terms, self.instances, load.seconds, load.functions_usd)

    def needed_usd(self, load: BracketLoad) -> float:
        """The budget for so much: the run ends one margin before its money does, and a quantum may begin in that."""
        margin_s = max(self.terms.price_book.billing.granularity_s, PLAN_MARGIN_S)
        margin_usd = margin_s * self.instances * self.terms.usd_per_s
        return self.cost_usd(load + BracketLoad(PLAN_MARGIN_S, margin_usd))


class BracketsInOrder(Director):
    """Brackets in order, again and again; see `policies.execution.director.Director`.

    Args:
        job: the tuning job.
        first: configurations of the first bracket, as planned: its limit is not known before the machines are.
    """

    def __init__(self, job: TuningJob, first: int) -> None:
        self._job = job
        self._first = first
        self._begun = 0
        self._started = 0

    def next_bracket(self, view: RunView, stop_at_s: float) -> Bracket | None:
        """The next bracket, as large as it can be finished."""
        job, index = self._job, self._begun
        trials = self._largest(index, job.trials - self._started, view, stop_at_s) if index else self._first
        if not trials:
            return None
        numbers = [TrialId(self._started + number) for number in range(trials)]
        self._started += trials
        self._begun += 1
        return Bracket(bracket_stages(job, index % len(bracket_sizes(job)), trials), numbers, job.direction)

    @abstractmethod
    def _largest(self, bracket: int, most: int, view: RunView, stop_at_s: float) -> int:
        """The most configurations with which this bracket is finished by T and B; 0 if one is too many."""


class HyperbandDirector(BracketsInOrder):
    """Brackets on a fixed cluster.

    Args:
        schedule: on the cluster that was chosen.
        first: configurations of the first bracket.
    """

    def __init__(self, schedule: Schedule, first: int) -> None:
        super().__init__(schedule.job, first)
        self._schedule = schedule

    def _largest(self, bracket: int, most: int, view: RunView, stop_at_s: float) -> int:
        return self._schedule.largest(bracket, most, self._fits(view, stop_at_s))

    def _fits(self, view: RunView, stop_at_s: float) -> Callable[[BracketLoad], bool]:
        """Whether a bracket fits what is left: machines are paid until the stop, functions as they are used."""
        terms = self._schedule.terms
        left_usd = math.inf if terms.is_per_instance else terms.budget_usd - view.committed_usd
        return lambda load: load.seconds <= stop_at_s - view.now_s and load.functions_usd <= left_usd

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:  # noqa: ARG002  the cluster is fixed
        """Gangs of the size that ends the stage first."""
        gpus = self._schedule.gang(bracket.stage, is_first=bracket.index == 0)
        return Shares(self._schedule.instances, (gpus,) * len(bracket.trials))


def hyperband_elastic(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    gpus_per_trial: int = 1,
    truncate: Truncate = "never",
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
        truncate: where the winner may be trained to less than R; see `policies.sizing.targets`.

    Raises:
        InputError: the gang is larger than the scaling is known for, or than the quota; or `truncate` has none of its values.
        InfeasibleJobError: not one configuration, or with `exact` not all of them, is finished by T and B at this size.

    Deviations:
        Those of `hyperband_fixed` about brackets; machines that come and go are ours.
    """
    check_truncate("hyperband-elastic", truncate)
    terms = Terms.of(job, profile, price_book)
    check_gang("hyperband-elastic", gpus_per_trial, terms)
    rounds = {target: _Rounds(target, terms, gpus_per_trial) for target in target_jobs(job, profile, truncate)}
    planned = {target: of_target.planned() for target, of_target in rounds.items()}
    brackets = {
        target: _brackets(target, sizes)
        for target, sizes in planned.items()
        if sizes and (sum(sizes) == job.trials or not job.exact)
    }
    best = best_of_brackets(brackets, job, terms)
    if best is None:
        least = least_job(job, profile, truncate)
        free = replace(rounds[least], terms=terms.for_any_deadline().without_limits())
        raise _refusal(f"hyperband-elastic:gpus_per_trial={gpus_per_trial}", least, [free.possible()])
    director = ElasticHyperbandDirector(rounds[best], planned[best][0])
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
        """The most configurations with which the bracket keeps these limits; 0 if one is too many."""
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

    def possible(self) -> Possible:
        """Limits under which the brackets do what the job asks for at least."""
        plans = [self.plan(index, size) for index, size in enumerate(self.planned() if self.job.exact else [1])]
        return Possible.of(math.fsum(plan.promised_s for plan in plans), math.fsum(plan.needed_usd for plan in plans))


def _refusal(name: str, job: TuningJob, possible: list[Possible]) -> InfeasibleJobError:
    return refusal(name, job, job.trials if job.exact else 1, possible)


class ElasticHyperbandDirector(BracketsInOrder):
    """Brackets on machines that come and go.

    Args:
        rounds: the brackets.
        first: configurations of the first one.
    """

    def __init__(self, rounds: _Rounds, first: int) -> None:
        super().__init__(rounds.job, first)
        self._rounds = rounds

    def _largest(self, bracket: int, most: int, view: RunView, stop_at_s: float) -> int:  # noqa: ARG002  of the machines now
        job, terms = self._job, self._rounds.terms
        budget_usd = math.inf if job.budget_usd is None else job.budget_usd - view.committed_usd
        left = replace(terms, deadline_s=terms.deadline_s - view.now_s, budget_usd=budget_usd)
        return self._rounds.largest(bracket, most, left, live_instances(view))

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:  # noqa: ARG002  the size is constant
        """See `policies.execution.director.Director`."""
        return Shares.of(self._allocation(bracket, bracket.index))

    def kept_instances(self, bracket: Bracket) -> int | None:
        """See `policies.execution.director.Director`."""
        return 0 if bracket.is_last else self._allocation(bracket, bracket.index + 1).instances

    def _allocation(self, bracket: Bracket, index: int) -> Allocation:
        return constant_allocation(bracket.stages[index], self._rounds.gpus_per_trial, self._rounds.terms)
