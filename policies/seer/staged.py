"""SEER, the reading that plans without R: survivors shrink from stage to stage and train longer, as long as T and B allow.

`job.max_iterations` is still needed: it is where recorded curves end, and nothing trains beyond it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from elastune.policies.execution.limits import live_instances
from elastune.policies.execution.planned import staged
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.rules.halving import Bracket, Stage
from elastune.policies.seer.director import Replanner, SeerDirector
from elastune.policies.seer.mechanisms import Mechanisms, TowardsR
from elastune.policies.seer.seer import run_seer
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible
from elastune.policies.sizing.replanning import fastest_or_cheapest, terms_left
from elastune.policies.sizing.targets import best_expected
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from elastune.policies.execution.observed import Observed
    from elastune.policies.execution.staged import StagedPolicy
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView

STEPS = 50
"""Each training that is tried is shorter than the one before by one part in so many, or by one iteration of the last stage."""


@dataclass(frozen=True, kw_only=True)
class StagedMechanisms(Mechanisms):
    """Those that both readings have."""

    policy: str = "seer-staged"


def seer_staged(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    stages: int = 0,
    **mechanisms: Any,  # noqa: ANN401  `Mechanisms` checks them
) -> StagedPolicy:
    """Dunlap et al., "Elastic Hyperparameter Tuning on the Cloud" (SoCC 2021), planned from T and B instead of towards R.

    `job.max_iterations` is not a goal here, but it is needed: nothing trains beyond it.
    K stages; from each to the next, one in eta survives and trains eta times as long. The first stage trains as long as the
    cheapest on-time allocation costs at most B. At each barrier, what was learned about seconds per iteration and scaling
    decides again how long the survivors train.

    K stages start the most configurations for which cuts by eta leave one in the last stage and T and B allow the least
    training; all configurations if the job says `exact`. If the job gives the stages, nothing is left to choose, and this is
    `seer`.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        stages: K; 0 takes the K with the best expected score of the winner, under a curve model fitted on other families.
        mechanisms: see `policies.seer.mechanisms.Mechanisms`.

    Raises:
        InputError: a parameter has none of its values, there are no configurations for so many `stages`, or the job gives the
            stages and `stages` does as well.
        InfeasibleJobError: not even one configuration, or as many as must be started, trains `job.min_iterations` by T
            within B.

    Deviations:
        The full text of the paper is not at hand; this is our second reading of its abstract, nearer to the authors' earlier
        papers. Statements about SEER are made where it agrees with `seer`.
        A stage's seconds of one GPU are those of an average configuration: all survivors of a stage train equally many
        iterations, so that their scores compare.
        The first stage is sized with the profile's seconds per iteration, as a guess; the first barrier corrects it.
        Nothing trains beyond `job.max_iterations`, where recorded curves end: what a stage would train beyond it is left
        out, and stages that have nothing left to train with it. The rule for K measures winners against that end, too.
        `job.min_iterations` is the least training of the first stage; `job.levels` has no meaning here.
        Training is found on a grid of steps of at most 2 %, or of one iteration of the last stage.
        Within a stage a trial gets a larger gang only on GPUs that others of the stage have left; nothing is rented for it.
        Nothing is kept back for the winner, and no stage is cut, unless `reserve` says so: there is no R that the winner must
        reach, and later stages shrink with what is left.
    """
    chosen = StagedMechanisms(**mechanisms)
    _check_stages(job, stages)
    if job.stages is not None:
        return run_seer(job, profile, price_book, TowardsR(**asdict(chosen)))
    terms = replace(Terms.of(job, profile, price_book), gives_back=chosen.elastic)
    counts = (stages,) if stages else tuple(range(1, most_stages(job) + 1))
    found = best_staged_plan(counts, job, terms, chosen)
    if found is None:
        raise _infeasible(job, terms, counts[0], chosen)
    plan, count = found
    director = SeerDirector(plan, terms, job, chosen, GrowingReplanner(count, terms, chosen))
    return staged(director, chosen.limits(job, profile, price_book), profile, price_book)


@memoized
def best_staged_plan(
    counts: Sequence[int], job: TuningJob, terms: Terms, mechanisms: Mechanisms
) -> tuple[Plan, int] | None:
    """The plan with the best expected score of its winner, made safer, and its K; None where none is on time and paid."""
    found = ((count, plan_of_stages(count, job, terms, mechanisms)) for count in counts)
    # Plans that curves cut short may be equal; more cuts are then open to later barriers.
    plans = {plan: count for count, plan in found if plan is not None}
    best = best_expected(list(plans), terms.profile, job.max_iterations)
    return None if best is None else (mechanisms.safer(best, terms), plans[best])


def _check_stages(job: TuningJob, stages: int) -> None:
    if stages and job.stages is not None:
        raise InputError(f"seer-staged: stages is {stages}, but the job gives the stages itself (job.stages)")
    if not 0 <= stages <= most_stages(job):
        raise InputError(
            f"seer-staged: stages is {stages}, but must be between 0 and {most_stages(job)}: {job.trials}"
            f" configurations cannot be cut by {job.reduction_factor} more often"
        )


def most_stages(job: TuningJob) -> int:
    """Stages after which cuts by eta leave one of all configurations."""
    return len(_cut(job.trials, job.reduction_factor, job.trials))


def first_sizes(job: TuningJob, stages: int) -> Iterator[tuple[int, ...]]:
    """Trials of each of so many stages, most configurations first: only all of them if the job says `exact`."""
    if job.exact:
        yield _cut(job.trials, job.reduction_factor, stages)
        return
    for trials in range(min(job.trials, 2 * job.reduction_factor ** (stages - 1) - 1), 0, -1):
        sizes = _cut(trials, job.reduction_factor, stages)
        if len(sizes) < stages:
            return
        yield sizes


def plan_of_stages(stages: int, job: TuningJob, terms: Terms, mechanisms: Mechanisms) -> Plan | None:
    """The plan of so many stages: the most configurations, then the longest training; None where none is on time and paid."""
    plans = (longest_plan(schedules(sizes, job), terms, mechanisms) for sizes in first_sizes(job, stages))
    return next((plan for plan in plans if plan is not None), None)


def _cut(trials: int, reduction_factor: int, stages: int) -> tuple[int, ...]:
    """Trials of each of at most so many stages; none after a stage with only one."""
    sizes = [trials]
    while len(sizes) < stages and sizes[-1] > 1:
        sizes.append(max(1, sizes[-1] // reduction_factor))
    return tuple(sizes)


def schedules(sizes: Sequence[int], job: TuningJob, done: int = 0) -> Iterator[tuple[Stage, ...]]:
    """Stages with these trials, each training eta times as long as the one before; longest training first.

    The last stage trains j further iterations, the k-th stage before it floor(j / eta^k). j falls in steps that shrink with it,
    so that they are finer than an iteration of the first stage, which is eta^(K - 1) iterations of the last.

    Args:
        sizes: trials of each stage.
        job: its reduction factor, and where curves end.
        done: iterations behind all of these trials; where there are none, the first stage trains `job.min_iterations` at least.
    """
    unit = job.reduction_factor ** (len(sizes) - 1)
    least = unit * (1 if done else job.min_iterations)
    last = unit * (job.max_iterations - done)
    before: tuple[Stage, ...] = ()
    while last >= least:
        stages = _grown(sizes, last, job, done)
        if stages != before:
            yield stages
        before = stages
        last = max(last - max(last // STEPS, 1), least) if last > least else 0


def _grown(sizes: Sequence[int], last: int, job: TuningJob, done: int) -> tuple[Stage, ...]:
    """The stages whose last one would train `last` iterations, cut off where curves end."""
    stages, until = [], done
    for index, trials in enumerate(sizes):
        further = last // job.reduction_factor ** (len(sizes) - 1 - index)
        further = min(further, job.max_iterations - until)
        if further == 0:
            break
        until += further
        stages.append(Stage(trials, further, until))
    return tuple(stages)


def longest_plan(
    candidates: Iterator[tuple[Stage, ...]],
    terms: Terms,
    mechanisms: Mechanisms,
    *,
    live_instances: int = 0,
    is_resumed: bool = False,
) -> Plan | None:
    """The plan of the first of these schedules that T and B allow; None where they do not allow the last.

    Args:
        candidates: longest training first.
        terms: profile, prices, limits.
        mechanisms: find the cheapest on-time allocation of a schedule.
        live_instances: machines held already.
        is_resumed: whether the first stage continues earlier ones.
    """

    def plan_of(stages: Sequence[Stage]) -> Plan | None:
        return mechanisms.plan(stages, terms, live_instances=live_instances, is_resumed=is_resumed)

    *longer, least = candidates
    of_least = plan_of(least)
    if of_least is None:
        return None
    plans = (plan for stages in longer if (plan := plan_of(stages)) is not None)
    return next(plans, of_least)


def _infeasible(job: TuningJob, terms: Terms, stages: int, mechanisms: Mechanisms) -> Exception:
    """The error for a job whose shortest schedule of so many stages is late or too dear."""
    *_, fewest = first_sizes(job, stages)
    *_, least = schedules(fewest, job)
    pairs = tuple((stage.trials, stage.iterations) for stage in least)
    until = least[-1].until_iteration
    shortest = msgspec.structs.replace(job, stages=pairs, max_iterations=until)
    return infeasible("seer-staged", shortest, terms, mechanisms.plan)


class GrowingReplanner(Replanner):
    """Finds at each barrier how long the survivors can train; see `policies.seer.director.Replanner`.

    Args:
        stages: K; the plan has fewer where curves end earlier.
        terms: what was known before the run.
        mechanisms: how plans are made.
    """

    def __init__(self, stages: int, terms: Terms, mechanisms: Mechanisms) -> None:
        self._stages = stages
        self._terms = terms
        self._mechanisms = mechanisms

    def replanned(self, bracket: Bracket, view: RunView, observed: Observed) -> Plan:
        """The plan for what is left; the bracket goes on with its stages.

        The survivors train as long as T and B allow at their mean speed and with their spread. A slow winner needs no
        insurance, because there is no R to reach, and the last barrier knows the winner's own speed. If not even the least
        training keeps T and B, the worst survivors are dropped, one by one. If that does not help, the best one alone trains
        one iteration by `fastest_or_cheapest`: by the fastest plan if B pays for it, else by the cheapest. `Limits` ends the
        run by T within B, unless `hard_stop` is off.
        """
        plan = self._longest(bracket, view, observed)
        bracket.stages = (*bracket.stages[: bracket.index], *plan.stages)
        return plan

    def _longest(self, bracket: Bracket, view: RunView, observed: Observed) -> Plan:
        live, done = live_instances(view), bracket.stages[bracket.index - 1].until_iteration
        for trials in range(len(bracket.trials), 0, -1):
            sizes = _cut(trials, view.job.reduction_factor, self._stages - bracket.index)
            profile = observed.profile(bracket.trials[:trials], of_slowest=False)
            terms = terms_left(self._terms, profile, view)
            plan = longest_plan(
                schedules(sizes, view.job, done), terms, self._mechanisms, live_instances=live, is_resumed=True
            )
            if plan is not None:
                return plan
        terms = terms_left(self._terms, observed.profile(bracket.trials[:1], of_slowest=False), view)
        return fastest_or_cheapest([Stage(1, 1, done + 1)], terms, live)
