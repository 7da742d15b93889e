"""How far the winner is trained: to R, or to less where that leaves room for more configurations. Pure [ours]."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar, get_args

import msgspec

from elastune.policies.rules.halving import Stage, rungs
from elastune.policies.sizing.curve_prior import CurvePrior, prior_for
from elastune.policies.sizing.list_scheduling import Cluster, Load, best_cluster
from elastune.policies.sizing.refusal import require_one_of
from elastune.policies.sizing.sizing import largest
from elastune.sim.model.errors import InfeasibleJobError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.policies.planning.plan import Plan, Terms
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.profile import Profile

Truncate: TypeAlias = Literal["always", "prefix-only", "never"]
"""Where the winner may be trained to fewer iterations than R.

"prefix-only": where a shorter run follows the same curve as a longer one, because the learning rate is constant. "always":
under any schedule. A run that stops in the middle of a decaying schedule reports what it has reached by then.
"""

TARGETS = (1.0, 2 / 3, 1 / 2, 1 / 3, 1 / 5)
"""Shares of R to which a plan may train the winner."""


def check_truncate(policy: str, truncate: Truncate) -> None:
    """Accept a `truncate` that has one of its values.

    Raises:
        InputError: it has another.
    """
    require_one_of(policy, "truncate", truncate, get_args(Truncate))


def winner_targets(job: TuningJob, profile: Profile, truncate: Truncate) -> list[int]:
    """Iterations to which a plan may train its winner, most first; at most one for each of `TARGETS`.

    None is less than eta times `job.min_iterations`. R alone where the job gives the stages or the winner must reach R.
    """
    is_allowed = truncate == "always" or (truncate == "prefix-only" and profile.is_prefix_schedule)
    if job.stages is not None or not is_allowed:
        return [job.max_iterations]
    least = min(job.min_iterations * job.reduction_factor, job.max_iterations)
    return sorted({max(round(job.max_iterations * share), least) for share in TARGETS}, reverse=True)


def target_jobs(job: TuningJob, profile: Profile, truncate: Truncate) -> list[TuningJob]:
    """The job for each target, as if that were its R; most iterations first."""
    return [msgspec.structs.replace(job, max_iterations=target) for target in winner_targets(job, profile, truncate)]


def least_job(job: TuningJob, profile: Profile, truncate: Truncate) -> TuningJob:
    """The job with the lowest of its targets, for the message that not even this one can be done."""
    return target_jobs(job, profile, truncate)[-1]


def best_of_targets(
    job: TuningJob, terms: Terms, truncate: Truncate, plan_for: Callable[[Sequence[Stage]], Plan | None]
) -> Plan | None:
    """For each target the plan of the most configurations, and of these the one with the best expected score; None of none.

    Args:
        job: the tuning job.
        terms: its terms.
        truncate: which targets there are.
        plan_for: the rule's plan for these stages, None where it is late or too dear.
    """
    found = (largest(target, terms, plan_for) for target in target_jobs(job, terms.profile, truncate))
    return best_expected([plan for _, plan in filter(None, found)], terms.profile, job.max_iterations)


class Staged(Protocol):
    """A plan, or whatever else goes through stages."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that it goes through."""


StagedT = TypeVar("StagedT", bound=Staged)


def best_expected(
    plans: Sequence[StagedT], profile: Profile, max_iterations: int, before: Sequence[Stage] = ()
) -> StagedT | None:
    """The plan whose winner has the best expected score, under a curve model fitted on other families; None of none.

    Args:
        plans: to choose from.
        profile: family and schedule of the workload.
        max_iterations: R.
        before: stages that all of them continue.
    """
    if len(plans) < 2:
        return plans[0] if plans else None
    prior = _prior_for(profile)
    # Rounded, so that the last bits of a matrix product do not decide; ties go to the longer training.
    return min(
        plans,
        key=lambda plan: (
            round(prior.expected_regret((*before, *plan.stages), max_iterations), 9),
            -plan.stages[-1].until_iteration,
        ),
    )


def best_of_brackets(
    brackets: Mapping[TuningJob, Sequence[Sequence[Stage]]], job: TuningJob, terms: Terms
) -> TuningJob | None:
    """The job whose best bracket of successive halving has the best expected score.

    Args:
        brackets: stages of every bracket, by job.
        job: the one whose R counts.
        terms: for family and schedule of the workload.
    """
    if len(brackets) < 2:
        return next(iter(brackets), None)
    prior = _prior_for(terms.profile)

    def regret(target: TuningJob) -> float:
        return round(min(prior.expected_regret(stages, job.max_iterations) for stages in brackets[target]), 9)

    return min(brackets, key=lambda target: (regret(target), -target.max_iterations))


def best_cluster_of_targets(
    policy: str,
    job: TuningJob,
    terms: Terms,
    truncate: Truncate,
    load_of: Callable[[TuningJob, Terms], Load],
    *,
    grows_gangs: bool = False,
    is_anytime: bool = False,
) -> Cluster:
    """Of the best cluster for each target the one with the best expected score, for a rule without barriers.

    The rule is weighed as successive halving of as many configurations. It trains on beyond the target where time and money
    allow. Where no target can be reached, two rungs are enough, because such a rule always has something to report.

    Args:
        policy: its name, for messages.
        job: the tuning job.
        terms: its terms.
        truncate: which targets there are.
        load_of: what configurations take that are trained to a target.
        grows_gangs: as in `policies.sizing.list_scheduling.best_cluster`.
        is_anytime: likewise.

    Raises:
        InputError: `truncate` has none of its values.
        InfeasibleJobError: no target can be reached; that of the lowest.
    """

    def cluster_for(target: TuningJob) -> Cluster:
        load = load_of(target, terms)
        return best_cluster(policy, target, terms, load, grows_gangs=grows_gangs, is_anytime=is_anytime)

    check_truncate(policy, truncate)
    targets = target_jobs(job, terms.profile, truncate)
    found: dict[TuningJob, Cluster] = {}
    for target in targets:
        with suppress(InfeasibleJobError):
            found[target] = cluster_for(target)
    if not found:
        two_rungs = min(job.min_iterations * job.reduction_factor, job.max_iterations)
        return cluster_for(msgspec.structs.replace(job, max_iterations=two_rungs) if len(targets) > 1 else job)
    best = best_of_brackets({target: [rungs(target, found[target].trials)] for target in found}, job, terms)
    assert best is not None  # one was found
    return found[best]


def _prior_for(profile: Profile) -> CurvePrior:
    return prior_for(profile.family, decays=not profile.is_prefix_schedule)
