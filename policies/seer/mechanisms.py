"""The mechanisms of both readings of SEER, and how they find the allocations of a plan. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, get_args, get_type_hints

import msgspec

from elastune.policies.execution.limits import Limits
from elastune.policies.planning.bound import is_out_of_reach
from elastune.policies.planning.frontier import cheapest_plan, frontier
from elastune.policies.planning.greedy import greedy_plan
from elastune.policies.planning.labels import TIME_GRAIN_S
from elastune.policies.planning.lateness import Makespan, with_p95
from elastune.policies.planning.static import cluster_sizes, constant_plans, plan_on_cluster
from elastune.policies.planning.witness import is_shown_by
from elastune.policies.sizing.refusal import require_one_of
from elastune.policies.sizing.targets import Truncate, winner_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile

Objective = Literal["expected_score", "largest_n"]
Solver = Literal["frontier", "greedy"]
ResizeRule = Literal["gain", "never", "always"]
Parallelism = Literal["uniform", "ranked"]


@dataclass(frozen=True, kw_only=True)
class Mechanisms:
    """What makes SEER SEER. Each mechanism can be switched off; this is the only list of them.

    Some switches depend on others. `solver` has no effect with `elastic=false`. `makespan` has no effect with `elastic=false`,
    with `solver=greedy` or without a deadline. `resize_rule` has no effect without a deadline. `reserve` and `hard_stop` have
    none where the job has neither a deadline nor a budget.

    Attributes:
        policy: name in messages.
        solver: how allocations are found: "frontier", exactly, on the time-cost frontier, or "greedy", see
            `policies.planning.greedy`.
        makespan: what the plan before the run keeps T with: "p95", the 95th percentile of its makespan, or "mean". Where B
            does not pay for the percentile, the plan with the earliest one that B pays for is taken.
        replan: the remaining rungs are planned anew at each barrier, with what was learned. The stage beyond the plan always
            is.
        reserve: the time and money to finish the best trial by T are kept back: a rung that would use them up is cut. Off,
            because it cut rungs for trials that did not win.
        resize_rule: when a trial gets a larger gang in the middle of a rung because it would end too late for the rungs to
            come: "gain", where its projected progress rises by a tenth, "always", where it rises at all, or "never".
        elastic: the cluster fits each rung, and machines that a rung no longer needs are given back before it ends; else it
            is constant.
        parallelism: "uniform", the same gang for all trials of a rung, or "ranked", larger gangs for better trials. "ranked"
            changes nothing in the first rung and in rungs that train in waves.
        hard_stop: everything stops at T and before the committed bill exceeds B; without it neither is promised.

    Raises:
        InputError: a value is not allowed.
    """

    policy: str = "seer"
    solver: Solver = "frontier"
    makespan: Makespan = "p95"
    replan: bool = True
    reserve: bool = False
    resize_rule: ResizeRule = "gain"
    elastic: bool = True
    parallelism: Parallelism = "uniform"
    hard_stop: bool = True

    def __post_init__(self) -> None:
        for name, allowed in self.values().items():
            require_one_of(self.policy, name, getattr(self, name), allowed)

    @classmethod
    def parameters(cls) -> dict[str, object]:
        """The mechanisms, with their defaults."""
        return {name: getattr(cls, name) for name in cls.values()}

    @classmethod
    def switches(cls) -> tuple[str, ...]:
        """Each mechanism switched to each of its other values, as `name=value`."""
        default = cls.parameters()
        others = ((name, value) for name, values in cls.values().items() for value in values if value != default[name])
        return tuple(f"{name}={str(value).lower()}" for name, value in others)

    @classmethod
    def values(cls) -> dict[str, tuple[object, ...]]:
        """What each mechanism may be set to, by its type."""
        types = get_type_hints(cls)
        return {one.name: get_args(types[one.name]) or (True, False) for one in fields(cls) if one.name != "policy"}

    def limits(self, job: TuningJob, profile: Profile, price_book: PriceBook) -> Limits:
        """The limits of the job; without `hard_stop`, limits that allow everything."""
        if not self.hard_stop:
            job = msgspec.structs.replace(job, deadline_s=None, budget_usd=None)
        return Limits(job, profile, price_book)

    def plan(
        self, stages: Sequence[Stage], terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
    ) -> Plan | None:
        """The cheapest plan by the deadline, the fastest where there is only a deadline; None where none keeps both.

        By expected makespans; see `safer`.
        """
        if is_out_of_reach(stages, terms, live_instances=live_instances, is_resumed=is_resumed):
            return None
        return self.search(stages, terms, live_instances=live_instances, is_resumed=is_resumed)

    def is_shown_by(
        self,
        allocations: Sequence[Allocation],
        stages: Sequence[Stage],
        terms: Terms,
        *,
        live_instances: int = 0,
        is_resumed: bool = False,
    ) -> bool:
        """Whether the allocations of another plan prove that there is one; False: unknown."""
        # The proof is about what the frontier finds.
        if not self.elastic or self.solver != "frontier":
            return False
        return is_shown_by(allocations, stages, terms, live_instances=live_instances, is_resumed=is_resumed)

    def search(
        self, stages: Sequence[Stage], terms: Terms, *, live_instances: int = 0, is_resumed: bool = False
    ) -> Plan | None:
        """As `plan`, without asking the bound first."""
        if not self.elastic:
            return _constant_plan(stages, terms, live_instances, is_resumed=is_resumed)
        if self.solver == "greedy":
            plan = greedy_plan(stages, terms, live_instances=live_instances, is_resumed=is_resumed)
            return plan if plan is not None and terms.are_kept_by(plan) else None
        return _best_elastic(stages, terms, "mean", live_instances, is_resumed=is_resumed)

    def safer(self, plan: Plan, terms: Terms, *, is_cheapest: bool = True) -> Plan:
        """The plan of the same stages that keeps T 19 times in 20 and costs least, or is the fastest where there is no budget.

        Where B does not pay for such a plan, it is the one with the earliest 95th percentile that fits B and is on time on
        average. The plan itself is returned where there is no such plan, or where `makespan` has no effect.
        """
        if self.makespan == "mean" or self.solver == "greedy" or not self.elastic or math.isinf(terms.deadline_s):
            return plan
        known = with_p95(plan, terms)
        if is_cheapest and not _is_fastest_asked(terms) and terms.are_kept_by(known):
            return known  # the cheapest that is on time on average
        found = _best_elastic(plan.stages, terms, "p95")
        if found is None:
            # The plan itself is on time on average, so the one that is looked for ends no later at its 95th percentile.
            late = frontier(plan.stages, replace(terms, deadline_s=known.promised_s + TIME_GRAIN_S), makespan="p95")
            # Fastest first, without those that are late on average: the plan itself is not.
            found = next((other for other in late if other.makespan_s <= terms.deadline_s), None)
        return plan if found is None else found


@dataclass(frozen=True, kw_only=True)
class TowardsR(Mechanisms):
    """The mechanisms of `seer`, which plans towards R.

    Attributes:
        objective: "expected_score" weighs more configurations against longer training of the winner, under a curve model that
            was fitted on other families. "largest_n" trains to R and starts as many configurations as it can.
        truncate: where a plan may train its winner to less than R; see `policies.sizing.targets.Truncate`. A winner that was
            trained to less goes on if time and money are left. No effect with `objective=largest_n`.
        fill: time and money that are left are spent on more survivors, before the run and with `replan` at each barrier. No
            effect without a budget, and where the job gives the stages.
    """

    objective: Objective = "expected_score"
    truncate: Truncate = "always"
    fill: bool = True

    def targets(self, job: TuningJob, profile: Profile) -> list[int]:
        """Iterations to which a plan may train its winner, most first."""
        return winner_targets(job, profile, self.truncation)

    def fills(self, job: TuningJob) -> bool:
        """Whether time and money that are left are spent on more survivors."""
        return self.fill and job.budget_usd is not None and job.stages is None

    @property
    def truncation(self) -> Truncate:
        """Where the winner may be trained to less than R."""
        return "never" if self.objective == "largest_n" else self.truncate


def _is_fastest_asked(terms: Terms) -> bool:
    """A deadline without a budget asks for the fastest plan, all else for the cheapest."""
    return math.isinf(terms.budget_usd) and math.isfinite(terms.deadline_s)


def _best_elastic(
    stages: Sequence[Stage], terms: Terms, makespan: Makespan, live_instances: int = 0, *, is_resumed: bool = False
) -> Plan | None:
    """The cheapest plan of all, or the fastest where there is a deadline and no budget."""
    if _is_fastest_asked(terms):
        plans = frontier(stages, terms, makespan=makespan, live_instances=live_instances, is_resumed=is_resumed)
        return _best_of(plans, terms)
    return cheapest_plan(stages, terms, makespan=makespan, live_instances=live_instances, is_resumed=is_resumed)


def _best_of(plans: Sequence[Plan], terms: Terms) -> Plan | None:
    """The cheapest of these, or the fastest where there is a deadline and no budget."""
    within = [plan for plan in plans if terms.are_kept_by(plan)]
    if _is_fastest_asked(terms):
        return min(within, key=lambda plan: (plan.promised_s, plan.cost_usd), default=None)
    return min(within, key=lambda plan: (plan.cost_usd, plan.promised_s), default=None)


def _constant_plan(stages: Sequence[Stage], terms: Terms, live_instances: int, *, is_resumed: bool) -> Plan | None:
    """On a cluster that does not change: of the size that is there, or of any where none is there."""
    is_cheapest = math.isfinite(terms.budget_usd) or math.isinf(terms.deadline_s)
    if is_cheapest and not live_instances:
        kept = constant_plans(stages, terms, terms.are_kept_by, is_resumed=is_resumed, most_usd=terms.budget_usd)
        return _best_of(kept, terms)
    counts = [live_instances] if live_instances else cluster_sizes(stages, terms)
    plans = [
        plan_on_cluster(stages, count, terms, live_instances=live_instances, is_resumed=is_resumed)
        for count in counts
        if count in terms.cluster_sizes
    ]
    return _best_of(plans, terms)
