"""What planners make of a spec: plans side by side, the frontier, and the table its figure is drawn from.

Imports experiments.plans.plan_spec, the planners, `sim.model` and `traces`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from elastune.experiments.plans.plan_spec import planning_profile
from elastune.policies.planning.bound import Bound
from elastune.policies.planning.frontier import cheapest_by, cheapest_of, earliest_within, frontier_of
from elastune.policies.planning.lateness import Latenesses, Makespan, late_probability
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.planning.rubberband_search import rubberband_plan
from elastune.policies.planning.static import naive_plan, static_plan
from elastune.policies.rules.halving import Stage, rungs
from elastune.sim.model.errors import InputError
from elastune.traces.formats.html_table import table_html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from elastune.experiments.spec.run import RunSpec
    from elastune.policies.planning.spaces import Space
    from elastune.sim.model.job import TuningJob

Planner: TypeAlias = Literal["static", "rubberband", "frontier", "all"]
NAIVE_GPUS = (1, 2, 4, 8)
"""GPUs per trial of the naive plans."""

_CURVE_POINTS, _BOUND_POINTS = 9, 400


@dataclass(frozen=True)
class Planning:
    """What is planned, and for whom.

    Attributes:
        job: the job.
        stages: what is to be trained.
        offers: the terms of each kind of machine, by its name; plans are on one of them.
        space: the plan space, of the naive plans apart, which have no choice.
        makespan: what is compared with the deadline.
    """

    job: TuningJob
    stages: tuple[Stage, ...]
    offers: dict[str, Terms]
    space: Space
    makespan: Makespan

    def cheapest(self, planner: Callable[..., Plan | None], deadline_s: float, **parameters: object) -> Plan | None:
        """A planner's plan by the deadline on the kind of machine where it is cheapest; None where it breaks a limit."""

        def plan_on(terms: Terms) -> Plan | None:
            plan = planner(self.stages, terms, **parameters, space=self.space, makespan=self.makespan)
            return plan if plan is not None and terms.are_kept_by(plan) else None

        return cheapest_of([replace(terms, deadline_s=deadline_s) for terms in self.offers.values()], plan_on)

    def naive(self, gpus_per_trial: int) -> Plan | None:
        """The naive plan on the kind of machine where it is cheapest, whatever the limits."""
        return cheapest_of(
            list(self.offers.values()),
            lambda terms: naive_plan(self.stages, terms, gpus_per_trial, makespan=self.makespan),
        )

    def frontier(self) -> list[Plan]:
        """Every efficient plan, whatever the limits."""
        unlimited = [terms.without_limits() for terms in self.offers.values()]
        return frontier_of(self.stages, unlimited, space=self.space, makespan=self.makespan)

    def kept(self, plan: Plan | None, deadline_s: float) -> Plan | None:
        """The plan where it keeps the limits with this deadline, else None."""
        if plan is None or not replace(self.terms_of(plan), deadline_s=deadline_s).are_kept_by(plan):
            return None
        return plan

    def terms_of(self, plan: Plan) -> Terms:
        """The terms of the machines of a plan."""
        return self.offers[plan.instance_type]

    @functools.cached_property
    def is_random(self) -> bool:
        """Whether a plan may end sooner or later than expected."""
        return any(Latenesses(self.stages, terms).is_random for terms in self.offers.values())

    @functools.cached_property
    def bounds(self) -> list[Bound]:
        """What no plan can beat, by kind of machine."""
        return [Bound(self.stages, terms) for terms in self.offers.values()]

    def bound_usd(self, makespan_s: float) -> float:
        """No plan on any of the machines that ends by then costs less."""
        return min(bound.usd(makespan_s) for bound in self.bounds)

    def late_probability(self, plan: Plan, deadline_s: float) -> float | None:
        """That the plan ends after the deadline; None without one, and where nothing is random."""
        return (
            None if not self.is_random else late_probability(plan, replace(self.terms_of(plan), deadline_s=deadline_s))
        )

    def gap(self, plan: Plan) -> float:
        """By which share a plan costs more than the least that anything which ends as soon might."""
        return min_gap(plan.cost_usd, self.bound_usd(plan.makespan_s))


def min_gap(usd: float, least_usd: float) -> float:
    """By which share something costs more than the least possible; 0 where both are free."""
    if least_usd <= 0:
        return 0.0 if usd <= 0 else math.inf
    return max(usd / least_usd - 1.0, 0.0)


@dataclass(frozen=True)
class ByDeadline:
    """The plans for one deadline; None where a planner finds none within the limits.

    Attributes:
        deadline_s: infinite for none.
        static: the cheapest constant cluster.
        rubberband_next: RubberBand's greedy plan with steps to the next lower level only.
        rubberband: the same with steps to all lower levels.
        best: the frontier's cheapest.
        naive: by GPUs per trial.
    """

    deadline_s: float
    static: Plan | None
    rubberband_next: Plan | None
    rubberband: Plan | None
    best: Plan | None
    naive: dict[int, Plan | None]

    def rows(self, asked: Planner, space: Space) -> Iterator[tuple[str, Plan | None]]:
        """(name, plan) of each planner that was asked, the naive ones last."""
        if asked in ("static", "all"):
            yield "static", self.static
        if asked in ("rubberband", "all"):
            yield "rubberband, next", self.rubberband_next
            yield "rubberband, all", self.rubberband
        if asked in ("frontier", "all"):
            yield f"frontier, {space}", self.best
        for gpus, plan in self.naive.items():
            yield f"naive, {gpus} GPU{'s' if gpus > 1 else ''} a trial", plan


@dataclass(frozen=True)
class Plans:
    """The plans of one job.

    Attributes:
        asked: which planners were asked.
        planning: what is planned.
        frontier: every efficient plan, whatever the limits and whoever was asked, fastest first.
        naive: by GPUs per trial, whatever the limits.
        within: the plans within the job's own limits.
        by_deadline: the plans for each further deadline that was named.
    """

    asked: Planner
    planning: Planning
    frontier: tuple[Plan, ...]
    naive: dict[int, Plan | None]
    within: ByDeadline
    by_deadline: tuple[ByDeadline, ...] = ()

    def __repr__(self) -> str:
        """On one line."""
        best = (
            "none within the limits"
            if self.best is None
            else f"the cheapest within the limits takes {_told(self.best)}"
        )
        return f"<Plans: {len(self.frontier)} efficient ones, {best}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the plans that were asked for, and the frontier."""
        from elastune.experiments.figures.style import picture_html

        rows = [(name, "-" if plan is None else _told(plan)) for name, plan in self.rows()]
        return table_html("Plans within the limits", ("planner", "takes"), rows) + picture_html(self.plot_frontier())

    def plot_frontier(self) -> Figure:
        """Cost over makespan of all efficient plans, and those of other planners; see `experiments.figures.frontier`.

        Returns:
            A figure of matplotlib.

        Example:
            >>> from elastune import RunSpec, plan
            >>> plan(RunSpec.load("tight")).plot_frontier().axes[0].get_ylabel()
            'cost (USD)'
        """
        from elastune.experiments.figures.frontier import frontier

        return frontier(frontier_table(self))

    @property
    def best(self) -> Plan | None:
        """The frontier's cheapest plan within the job's own limits."""
        return self.within.best

    def rows(self) -> Iterator[tuple[str, Plan | None]]:
        """(name, plan) of each planner that was asked; naive plans are shown whatever the limits."""
        yield from replace(self.within, naive=self.naive).rows(self.asked, self.planning.space)

    @property
    def search_gap(self) -> float:
        """The largest share of its price that a plan of the frontier may lose, as not all partial plans were followed."""
        return max((plan.search_gap for plan in self.frontier), default=0.0)

    @property
    def left_out(self) -> str:
        """What the search for the frontier did not weigh, in words; of several kinds of machines, each once."""
        return "; ".join(sorted({plan.left_out for plan in self.frontier} - {""}))

    def achievable(self) -> str:
        """What can be had where nothing keeps the limits."""
        job, fastest, cheapest = self.planning.job, self.frontier[0], self.frontier[-1]
        told = [f"The fastest of all takes {_told(fastest)}, the cheapest {_told(cheapest)}."]
        budget_usd = math.inf if job.budget_usd is None else job.budget_usd
        in_budget = earliest_within(self.frontier, budget_usd)
        if math.isfinite(budget_usd):
            asked_s = [one.deadline_s for one in self.by_deadline or (self.within,) if math.isfinite(one.deadline_s)]
            for deadline_s in asked_s:
                by_deadline = cheapest_by(self.frontier, deadline_s)
                if by_deadline is not None and by_deadline.cost_usd > budget_usd:
                    told.append(f"By {deadline_s:,.0f} s the least is {by_deadline.cost_usd:.2f} USD.")
            if in_budget is not None and any(in_budget.promised_s > deadline_s for deadline_s in asked_s):
                told.append(f"For {budget_usd:,.2f} USD the soonest is {in_budget.promised_s:,.0f} s.")
        return " ".join(told)

    def to_json(self) -> dict[str, object]:
        """What `elastune plan --json` prints; plans not asked for, and not found, are None."""
        printed: dict[str, object] = {
            "static": self._json(self.within.static, self.within.deadline_s),
            "rubberband": self._json(self.within.rubberband, self.within.deadline_s),
            "frontier": [self._json(plan) for plan in self.frontier] if self.asked in ("frontier", "all") else [],
            "naive": {str(gpus): self._json(plan) for gpus, plan in self.naive.items()},
        }
        if self.by_deadline:
            printed["by_deadline"] = [self._json_of_deadline(plans) for plans in self.by_deadline]
        return printed

    def _json_of_deadline(self, plans: ByDeadline) -> dict[str, object]:
        return {
            "deadline_s": plans.deadline_s,
            "static": self._json(plans.static, plans.deadline_s),
            "rubberband_next": self._json(plans.rubberband_next, plans.deadline_s),
            "rubberband": self._json(plans.rubberband, plans.deadline_s),
            "frontier": self._json(plans.best, plans.deadline_s),
            "naive": {str(gpus): self._json(plan) for gpus, plan in plans.naive.items()},
        }

    def _json(self, plan: Plan | None, deadline_s: float = math.inf) -> dict[str, object] | None:
        """A plan, with its probability to be late where it was made for a deadline."""
        if plan is None:
            return None
        gap = self.planning.gap(plan)
        printed: dict[str, object] = {
            "gpus_per_stage": list(plan.gpus_per_stage),
            "instances_per_stage": list(plan.instances_per_stage),
            "makespan_s": plan.makespan_s,
            "cost_usd": plan.cost_usd,
            "gap_to_bound": gap if math.isfinite(gap) else None,
        }
        late = self.planning.late_probability(plan, deadline_s)
        if late is not None:
            printed["late_probability"] = late
        if plan.left_out:
            printed |= {"search_gap": plan.search_gap, "left_out": plan.left_out}
        if plan.makespan_p95_s is not None:
            printed["makespan_p95_s"] = plan.makespan_p95_s
        if len(self.planning.offers) > 1:
            printed["instance_type"] = plan.instance_type
        return printed


def _told(plan: Plan) -> str:
    return f"{plan.promised_s:,.0f} s for {plan.cost_usd:.2f} USD"


def make_plans(
    spec: RunSpec,
    *,
    planner: Planner = "all",
    space: Space = "wide",
    makespan: Makespan = "mean",
    deadlines_s: Sequence[float] = (),
    others: Sequence[RunSpec] = (),
) -> Plans:
    """The plans of a spec.

    Args:
        spec: job, workload and cloud; policy and seed do not matter.
        planner: which planners are asked.
        space: the plan space.
        makespan: what is compared with deadlines: the expected makespan, or its 95th percentile.
        deadlines_s: further deadlines that each planner is asked for.
        others: the same job on other kinds of machines, among which planners may choose, one for a plan.

    Raises:
        InputError: the spec says too little for planning, no machine can hold a single GPU of the job, or two kinds of machines
            have the same name.
    """
    job = spec.job.tuning_job("minimize")
    offers: dict[str, Terms] = {}
    for each in (spec, *others):
        terms = Terms.of(job, planning_profile(each), each.price_book())
        if terms.instance_type in offers:
            raise InputError(f"there are two kinds of machines called {terms.instance_type}: each is offered once")
        offers[terms.instance_type] = terms
    planning = Planning(job, rungs(job), offers, space, makespan)
    found = tuple(planning.frontier())
    naive = {gpus: planning.naive(gpus) for gpus in NAIVE_GPUS} if planner == "all" else {}
    by_deadline = functools.partial(_by_deadline, planning, planner, found, naive)
    return Plans(
        planner,
        planning,
        found,
        naive,
        by_deadline(next(iter(offers.values())).deadline_s),
        tuple(by_deadline(deadline_s) for deadline_s in deadlines_s),
    )


def _by_deadline(
    planning: Planning, asked: Planner, found: Sequence[Plan], naive: dict[int, Plan | None], deadline_s: float
) -> ByDeadline:
    has_static, has_rubberband, has_frontier = (asked in (name, "all") for name in ("static", "rubberband", "frontier"))
    return ByDeadline(
        deadline_s,
        planning.cheapest(static_plan, deadline_s) if has_static else None,
        planning.cheapest(rubberband_plan, deadline_s, steps="next") if has_rubberband else None,
        planning.cheapest(rubberband_plan, deadline_s) if has_rubberband else None,
        planning.kept(cheapest_by(found, deadline_s), deadline_s) if has_frontier else None,
        {gpus: planning.kept(plan, deadline_s) for gpus, plan in naive.items()},
    )


def frontier_table(plans: Plans) -> pd.DataFrame:
    """Every plan as a point: planner, makespan_s, cost_usd, deadline_s, budget_usd (NaN for no such limit), makespan.

    Planners that make one plan for a deadline are asked at several, spread evenly over the logarithm of the frontier's times.
    Where 95th percentiles are compared with deadlines (makespan is p95), they are the times.
    """
    import pandas as pd

    planning = plans.planning
    unlimited = replace(planning, offers={name: terms.without_limits() for name, terms in planning.offers.items()})
    rows = [("frontier", plan.promised_s, plan.cost_usd) for plan in plans.frontier]
    rows += [(f"naive p={gpus}", p.promised_s, p.cost_usd) for gpus, p in plans.naive.items() if p is not None]
    times_s = [plan.promised_s for plan in plans.frontier]
    rows += [("bound", time_s, planning.bound_usd(time_s)) for time_s in spread(times_s, _BOUND_POINTS)]
    for deadline_s in spread(times_s, _CURVE_POINTS) if plans.asked == "all" else []:
        for name, (planner, parameters) in _PLANNERS.items():
            plan = unlimited.cheapest(planner, deadline_s, **parameters)
            if plan is not None:
                rows.append((name, plan.promised_s, plan.cost_usd))
    table = pd.DataFrame(rows, columns=["planner", "makespan_s", "cost_usd"]).drop_duplicates(ignore_index=True)
    limits = {"deadline_s": planning.job.deadline_s, "budget_usd": planning.job.budget_usd}
    return table.assign(
        **{name: math.nan if value is None else value for name, value in limits.items()}, makespan=planning.makespan
    )


_PLANNERS: dict[str, tuple[Callable[..., Plan | None], dict[str, object]]] = {
    "static": (static_plan, {}),
    "rubberband-next": (rubberband_plan, {"steps": "next"}),
    "rubberband": (rubberband_plan, {}),
}


def spread(times_s: Sequence[float], points: int) -> list[float]:
    """Deadlines evenly over the logarithm of the times, slightly above each, so that the plan with that time meets it.

    Args:
        times_s: of plans; none for no deadlines.
        points: how many.
    """
    if not times_s:
        return []
    low, high = min(times_s), max(times_s)
    return [low * (high / low) ** (index / max(points - 1, 1)) * (1 + 1e-6) for index in range(points)]
