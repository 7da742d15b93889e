"""RubberBand: the cheapest elastic plan for a tuning job under a deadline, made before the run and followed as it stands.

Names are `room.module.name` below `policies`:

    for n configurations, largest first:                          sizing.sizing.largest
      the cheapest constant cluster that ends by T                planning.static.static_plan
      from it, and from 2, 3 and 4 times its size, take
        GPUs from one stage at a time while that saves
        money within T;
        the constant cluster itself where that is cheaper         planning.rubberband_search.rubberband_plan
      keep the first n whose plan costs at most B                 planning.plan.Terms.are_kept_by
    run the plan: resize at each barrier                          execution.planned.PlannedDirector
      and drop the worst trials                                   rules.halving.Bracket.advance
    `replan=true`: plan anew where a stage took over 5 % more
      or less than planned                                        tuners.rubberband.RubberbandDirector.shares
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, get_args

from elastune.policies.execution.limits import Limits, live_instances
from elastune.policies.execution.observed import Observed
from elastune.policies.execution.planned import PlannedDirector, staged
from elastune.policies.planning.lateness import Makespan, late_probability
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.planning.rubberband_search import Steps, rubberband_plan
from elastune.policies.planning.spaces import Space
from elastune.policies.sizing.memoize import memoized
from elastune.policies.sizing.refusal import infeasible, require_one_of
from elastune.policies.sizing.replanning import fastest_or_cheapest, terms_left
from elastune.policies.sizing.targets import Truncate, best_of_targets, check_truncate, least_job
from elastune.policies.tuners.static import Planner, plan_within

if TYPE_CHECKING:
    import numpy as np

    from elastune.policies.execution.director import Shares
    from elastune.policies.execution.staged import StagedPolicy
    from elastune.policies.rules.halving import Bracket
    from elastune.sim.model.events import SegmentEnded
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView

DEPARTURE = 0.05
"""Share of a stage's planned seconds by which it may miss them before the rest is planned anew."""


def rubberband(  # noqa: PLR0913  what a factory is given, and its own parameters
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    space: Space = "fair",
    steps: Steps = "all",
    makespan: Makespan = "mean",
    replan: bool = False,
    truncate: Truncate = "never",
) -> StagedPolicy:
    """Misra et al., "RubberBand: Cloud-based Hyperparameter Tuning" (EuroSys 2021).

    The static optimum, the greedy descent from it, and stage-by-stage execution with whole instances given back.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        space: the plan space; `fair` is the paper's, as recalled. See `policies.planning.rubberband_search.rubberband_plan`.
        steps: which lower levels of a stage the descent looks at: the "next" one, as recalled of the paper, or "all"; or
            "exact", the frontier instead; see `policies.planning.rubberband_search.rubberband_plan`.
        makespan: what must be within the deadline: the expected makespan, which about half of all runs exceed where anything is
            random, or its 95th percentile; see `policies.planning.lateness`. Results tell the estimated share of late runs.
        replan: where a stage took longer or shorter than planned by more than `DEPARTURE`, plan the remaining ones anew for
            the time that is left, with the seconds per iteration and the scaling that were seen; off is the paper.
        truncate: where the winner may be trained to less than R, "never" is the paper; see `policies.sizing.targets`.

    Raises:
        InputError: `space`, `steps`, `makespan` or `truncate` has none of its values.
        InfeasibleJobError: no plan ends by the deadline within the budget.

    Deviations:
        The full text of the paper is not at hand: plan space and greedy are as recalled from talks and notes about it.
        The paper's job is pre-determined and has no budget; with one, the largest SHA whose plan fits it is run [ours].
        Makespans are closed forms (with the expected slowest gang of a stage) instead of sampled critical paths.
        The static plan is among the candidates, so that the greedy is never dearer than it [ours].
        Gangs fill or divide whole machines, so that every plan can be placed as it is priced [ours].
        Without a deadline the cheapest plan of all is made [ours].
        Re-planning is ours, and so is a winner that is trained to less than R.
    """
    check_truncate("rubberband", truncate)
    for parameter, value, allowed in (("space", space, get_args(Space)), ("steps", steps, get_args(Steps))):
        require_one_of("rubberband", parameter, value, allowed)
    require_one_of("rubberband", "makespan", makespan, get_args(Makespan))
    terms = Terms.of(job, profile, price_book)
    planner = partial(rubberband_plan, space=space, steps=steps)
    planned = _best_plan(job, terms, planner, makespan, truncate)
    if planned is None:
        plan_for = partial(plan_within, planner=planner, makespan=makespan)
        raise infeasible("rubberband", least_job(job, profile, truncate), terms, plan_for)
    plan, late = planned
    again = partial(planner, makespan=makespan)
    director = RubberbandDirector(plan, job, terms, again) if replan else PlannedDirector(plan, job)
    return staged(director, Limits(job, profile, price_book), profile, price_book, late=late)


@memoized
def _best_plan(
    job: TuningJob, terms: Terms, planner: Planner, makespan: Makespan, truncate: Truncate
) -> tuple[Plan, float | None] | None:
    """The plan of the largest SHA whose plan keeps T and B, and the probability that it is late."""
    plan_for = partial(plan_within, terms=terms, planner=planner, makespan=makespan)
    plan = best_of_targets(job, terms, truncate, plan_for)
    return None if plan is None else (plan, late_probability(plan, terms))


class RubberbandDirector(PlannedDirector):
    """Executes a plan as long as reality keeps to it, and a new one for what is left where it does not [ours]."""

    def __init__(self, plan: Plan, job: TuningJob, terms: Terms, planner: Planner) -> None:
        super().__init__(plan, job)
        self._terms = terms
        self._planner = planner
        self._observed = Observed(terms.profile)
        self._began_s = 0.0

    def observe(self, event: SegmentEnded, gpus: int, iterations: int) -> None:
        """See `policies.execution.director.Director`."""
        self._observed.segment(event, gpus, iterations)

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:
        """See `policies.execution.director.Director`."""
        if bracket.index > 0:
            planned_s = self.plan.stage_s[bracket.index - 1 - self.first]
            if abs(view.now_s - self._began_s - planned_s) > DEPARTURE * planned_s:
                self.plan, self.first = self._replanned(bracket, view), bracket.index
        self._began_s = view.now_s
        return super().shares(bracket, view, stop_at_s)

    def _replanned(self, bracket: Bracket, view: RunView) -> Plan:
        profile = self._observed.profile(bracket.trials, of_slowest=False)
        terms = terms_left(self._terms, profile, view)
        stages, live = (bracket.stage, *bracket.remaining), live_instances(view)
        plan = self._planner(stages, terms, live_instances=live, is_resumed=True)
        return fastest_or_cheapest(stages, terms, live) if plan is None else plan
