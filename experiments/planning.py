"""What planners make of a spec: plans side by side, the frontier, and the table its figure is drawn from.

Imports experiments.spec, the planners, `sim.model` and `traces`. A planner needs no curves: a spec without a bundle will do,
as long as it says how long an iteration takes and how it scales, and it may leave out the policy.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from experiments.spec import RunSpec
from experiments.spec_file import read_mapping, with_settings
from policies.halving import rungs
from policies.planning.bound import Bound
from policies.planning.frontier import cheapest_by, frontier
from policies.planning.naive import naive_plan
from policies.planning.plan import Terms
from policies.planning.rubberband_search import rubberband_plan
from policies.planning.static import static_plan
from sim.model.errors import InputError
from sim.model.profile import Profile, Stragglers, Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from policies.halving import Stage
    from policies.planning.plan import Plan
    from policies.planning.spaces import Space
    from sim.model.job import TuningJob

Planner: TypeAlias = Literal["static", "rubberband", "frontier", "all"]
NAIVE_GPUS = (1, 2, 4, 8)
"""GPUs per trial of the naive plans."""

_CURVE_POINTS, _BOUND_POINTS = 9, 400


def load_plan_spec(path: Path, settings: Sequence[str] = ()) -> RunSpec:
    """The spec of a YAML file, in which the policy may be missing.

    Raises:
        InputError: as `RunSpec.load`.
    """
    mapping = with_settings(read_mapping(path), settings)
    return RunSpec.of(**{"policy": "rubberband", **mapping})


def planning_profile(spec: RunSpec) -> Profile:
    """What planners believe about workload and cloud.

    Raises:
        InputError: neither the spec nor a bundle says how long an iteration takes, or how it scales.
    """
    workload, cloud = spec.workload, spec.cloud
    overrides, errors = workload.overrides(cloud.rescale_s), workload.profile.errors()
    if workload.bundle is not None:
        bundle = spec.bundle()
        return bundle.profile_of(bundle.terms(overrides, sync_s=cloud.sync_s), cloud.startup_delays(), errors)
    for key, value in (("iteration_s", overrides.iteration_s), ("scaling", overrides.scaling)):
        if value is None:
            raise InputError(f"workload.{key} is missing: without workload.bundle it must be given")
    assert overrides.iteration_s is not None
    assert overrides.scaling is not None
    return Profile(
        overrides.iteration_s * (1 + errors.iteration_s_error),
        errors.scaling_believed(overrides.scaling),
        overrides.timings(None) or Timings(),
        cloud.startup_delays(),
        overrides.stragglers or Stragglers(),
        cloud.sync_s,
    )


@dataclass(frozen=True)
class Plans:
    """The plans of one job.

    Attributes:
        asked: which planners were asked.
        space: the plan space of the frontier.
        job: the job.
        stages: what is to be trained.
        terms: under which.
        static: the cheapest constant cluster by the deadline.
        rubberband: RubberBand's greedy plan ("all" lower levels).
        rubberband_next: the same with steps to the next lower level only.
        frontier: every efficient plan, whatever the limits and whoever was asked, fastest first.
        best: the frontier's cheapest plan within the limits.
        naive: by GPUs per trial, whatever the limits.
    """

    asked: Planner
    space: Space
    job: TuningJob
    stages: tuple[Stage, ...]
    terms: Terms
    static: Plan | None
    rubberband: Plan | None
    rubberband_next: Plan | None
    frontier: tuple[Plan, ...]
    best: Plan | None
    naive: dict[int, Plan | None]

    @functools.cached_property
    def bound(self) -> Bound:
        """What no plan can beat."""
        return Bound(self.stages, self.terms)

    def rows(self) -> Iterator[tuple[str, Plan | None]]:
        """(name, plan) of each planner that was asked, the frontier's best last but for the naive ones."""
        if self.asked in ("static", "all"):
            yield "static", self.static
        if self.asked in ("rubberband", "all"):
            yield "rubberband, next", self.rubberband_next
            yield "rubberband, all", self.rubberband
        if self.asked in ("frontier", "all"):
            yield f"frontier, {self.space}", self.best
        if self.asked == "all":
            for gpus, plan in self.naive.items():
                yield f"naive, {gpus} GPU{'s' if gpus > 1 else ''} a trial", plan

    def to_json(self) -> dict[str, object]:
        """What `elastune plan --json` prints; plans not asked for, and not found, are None."""
        return {
            "static": self._json(self.static),
            "rubberband": self._json(self.rubberband),
            "frontier": [self._json(plan) for plan in self.frontier] if self.asked in ("frontier", "all") else [],
            "naive": {str(gpus): self._json(plan) for gpus, plan in self.naive.items()},
        }

    def _json(self, plan: Plan | None) -> dict[str, object] | None:
        if plan is None:
            return None
        gap = self.bound.gap(plan)
        return {
            "gpus_per_stage": list(plan.gpus_per_stage),
            "instances_per_stage": list(plan.instances_per_stage),
            "makespan_s": plan.makespan_s,
            "cost_usd": plan.cost_usd,
            "gap_to_bound": gap if math.isfinite(gap) else None,
        }


def make_plans(spec: RunSpec, *, planner: Planner = "all", space: Space = "wide") -> Plans:
    """The plans of a spec.

    Args:
        spec: job, workload and cloud; policy and seed do not matter.
        planner: which planners are asked.
        space: the plan space of the frontier.

    Raises:
        InputError: the spec says too little for planning, or no machine can hold a single GPU of the job.
    """
    job = spec.job.tuning_job("minimize")
    stages = rungs(job)
    terms = Terms.of(job, planning_profile(spec), spec.price_book())
    has_static, has_rubberband, has_frontier = (
        planner in (name, "all") for name in ("static", "rubberband", "frontier")
    )
    everything = frontier(stages, terms.without_limits(), space=space)
    return Plans(
        planner,
        space,
        job,
        stages,
        terms,
        static=_kept(static_plan(stages, terms), terms) if has_static else None,
        rubberband=_kept(rubberband_plan(stages, terms), terms) if has_rubberband else None,
        rubberband_next=_kept(rubberband_plan(stages, terms, steps="next"), terms) if has_rubberband else None,
        frontier=tuple(everything),
        best=_kept(cheapest_by(everything, terms.deadline_s), terms) if has_frontier else None,
        naive={gpus: naive_plan(stages, terms, gpus) for gpus in NAIVE_GPUS} if planner == "all" else {},
    )


def _kept(plan: Plan | None, terms: Terms) -> Plan | None:
    return plan if plan is not None and terms.are_kept_by(plan) else None


def frontier_table(plans: Plans) -> pd.DataFrame:
    """Every plan as a point: planner, makespan_s, cost_usd, deadline_s, budget_usd (NaN for no such limit).

    Planners that make one plan for a deadline are asked at several, spread evenly over the logarithm of the frontier's times.
    """
    import pandas as pd

    rows = [("frontier", plan.makespan_s, plan.cost_usd) for plan in plans.frontier]
    rows += [(f"naive p={gpus}", p.makespan_s, p.cost_usd) for gpus, p in plans.naive.items() if p is not None]
    times_s = [plan.makespan_s for plan in plans.frontier]
    within_s = (min(times_s), max(times_s)) if times_s else None
    rows += [("bound", time_s, plans.bound.usd(time_s)) for time_s in _spread(within_s, _BOUND_POINTS)]
    for deadline_s in _spread(within_s, _CURVE_POINTS):
        for name, plan_by in _planners(plans.stages, plans.asked).items():
            plan = plan_by(replace(plans.terms, deadline_s=deadline_s, budget_usd=math.inf))
            if plan is not None:
                rows.append((name, plan.makespan_s, plan.cost_usd))
    table = pd.DataFrame(rows, columns=["planner", "makespan_s", "cost_usd"]).drop_duplicates(ignore_index=True)
    limits = {"deadline_s": plans.job.deadline_s, "budget_usd": plans.job.budget_usd}
    return table.assign(**{name: math.nan if value is None else value for name, value in limits.items()})


def _planners(stages: Sequence[Stage], asked: Planner) -> dict[str, Callable[[Terms], Plan | None]]:
    if asked != "all":
        return {}
    return {
        "static": functools.partial(static_plan, stages),
        "rubberband-next": functools.partial(rubberband_plan, stages, steps="next"),
        "rubberband": functools.partial(rubberband_plan, stages),
    }


def _spread(within: tuple[float, float] | None, points: int) -> list[float]:
    """Points between two, their ratios equal; a little more than each, so that a plan which takes it is on time."""
    if within is None:
        return []
    low, high = within
    return [low * (high / low) ** (index / (points - 1)) * (1 + 1e-6) for index in range(points)]
