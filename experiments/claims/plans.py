"""Experiments on plans: several planners plan every job of a claim at several deadlines. Nothing is run.

Imports the planners through `experiments.plans.planning`, sim and traces; pandas, pyarrow and joblib inside the
functions that need them. Rows are kept like those of sweeps: by a key of spec and results version, in whole files, so that
what is done is not done again.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastune.experiments.claims.sweeps import plan_sweep, r_tau_s
from elastune.experiments.files import locked, next_part, read_table, write_whole
from elastune.experiments.plans.planning import Plans, frontier_table, make_plans, spread
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.statistics.differences import mean_interval
from elastune.experiments.sweeps.pools import run_all
from elastune.sim.model.errors import InputError, unknown
from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from elastune.experiments.claims.entries import Claim, PlanExperiment, SizeName
    from elastune.experiments.sweeps.grid import Cell
    from elastune.policies.planning.plan import Plan

_PART_S = 10.0


@dataclass(frozen=True, eq=False)
class PlannedJob:
    """A job that is planned.

    Attributes:
        key: of spec, deadlines and the version of results.
        settings: what tells it from the others of its experiment, as rows have it.
        points: how many deadlines there are, where they are not told.
        deadlines_s: what they are; none where they follow from the frontier.
    """

    key: str
    spec: RunSpec
    settings: Mapping[str, Any]
    points: int
    deadlines_s: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class ClaimPlans:
    """The plans of an experiment.

    Attributes:
        folder: of its results.
    """

    claim: Claim
    experiment: str
    jobs: Sequence[PlannedJob]
    folder: Path

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.claim.id} {self.experiment}, plans"

    def missing(self) -> list[PlannedJob]:
        """Jobs without rows."""
        known = set() if (rows := self._rows()) is None else set(rows["key"])
        return [job for job in self.jobs if job.key not in known]

    def read(self) -> pd.DataFrame:
        """One row per job, deadline and planner, in the order of the jobs; empty where nothing is there.

        Columns: key, seed, job, the experiment's axes; deadline_s, planner (static, rubberband-next, rubberband and fair, the
        frontier, of the fair space; static-wide, rubberband-wide and wide, the frontier, of the wide one; bound), cost_usd (NaN
        where it finds no plan), makespan_s, instances (the most that are held in a stage).
        """
        import pandas as pd

        rows = self._rows()
        if rows is None:
            return pd.DataFrame()
        # Sort by job, because the order of finishing would change the bootstrap's resamples.
        places = {job.key: place for place, job in enumerate(self.jobs)}
        mine = rows[rows["key"].isin(list(places))]
        return mine.sort_values("key", key=lambda keys: keys.map(places), kind="stable", ignore_index=True)

    def as_runs(self) -> tuple[pd.DataFrame, list[str]]:
        """The plans as rows of runs, planners as policies, and what varies between them.

        Jobs are what intervals resample, or the deadlines of a single one.
        """
        rows = self.read()
        if not len(rows):
            return rows, []
        is_single = len(rows["seed"].unique()) == 1
        units = rows["deadline_s"].rank(method="dense") if is_single else rows["seed"]
        alike = dict.fromkeys(("bundle_family", "bundle_sha256"), "plans")
        return rows.rename(columns={"planner": "policy"}).assign(seed=units, direction="minimize", **alike), axes_of(
            rows
        )

    def _rows(self) -> pd.DataFrame | None:
        import pandas as pd

        parts = sorted(self.folder.glob("plans-*.parquet"))
        return pd.concat(map(_read_part, parts), ignore_index=True) if parts else None

    def run(self, jobs: int, on_progress: Callable[[int], None]) -> None:
        """Plan what is missing; `on_progress` is called with how many are done.

        Raises:
            InputError: another process writes to the folder.
            StoreError: the disk is full.
        """
        done: list[dict[str, Any]] = []
        written_s = time.monotonic()
        with locked(self.folder):
            try:
                for count, rows in enumerate(run_all(rows_of_job, self.missing(), jobs), start=1):
                    done.extend(rows)
                    on_progress(count)
                    if time.monotonic() - written_s > _PART_S:
                        self._write(done)
                        done, written_s = [], time.monotonic()
            finally:
                self._write(done)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        import pandas as pd

        if rows:
            table = pd.DataFrame(rows)
            write_whole(next_part(self.folder, "plans"), lambda path: table.to_parquet(path, index=False))


def _read_part(part: Path) -> pd.DataFrame:
    try:
        return read_table(part)
    except (OSError, ValueError) as error:
        raise InputError(f"{part}: is damaged: {error}; remove it, and its jobs are planned again") from error


def plans_of(claim: Claim, name: str, size: SizeName, *, results: Path, most_seeds: int | None = None) -> ClaimPlans:
    """The jobs of an experiment on plans, on so many seeds at most.

    Raises:
        InputError: one of them is no job, or says too little for planning.
    """
    experiment = claim.plans[name]
    try:
        sweep = plan_sweep(experiment, size, most_seeds)
        jobs = [_planned_job(experiment, cell, seed) for cell in sweep.cells() for seed in sweep.seeds]
    except InputError as error:
        raise InputError(f"{claim.id}: {name}: {error}") from error
    return ClaimPlans(claim, name, jobs, results / size / claim.id / name)


def _planned_job(experiment: PlanExperiment, cell: Cell, seed: int) -> PlannedJob:
    spec = _with_random_job(cell.spec, seed) if experiment.random_jobs else cell.spec.with_seed(seed)
    deadlines_s = tuple(float(f"{multiple * r_tau_s(spec):.6g}") for multiple in experiment.deadlines)
    told = f"{spec.digest()} {deadlines_s or experiment.points} {RESULTS_VERSION}"
    settings = {"seed": seed, "job": _job_name(spec), **_as_columns(cell.settings)}
    return PlannedJob(hashlib.sha256(told.encode()).hexdigest(), spec, settings, experiment.points, deadlines_s)


def _as_columns(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str | int | float) else json.dumps(value) for key, value in settings.items()
    }


def _job_name(spec: RunSpec) -> str:
    stages = spec.job.stages or ()
    return f"SHA({', '.join(f'{trials}x{iterations}' for trials, iterations in stages)})"


def _with_random_job(spec: RunSpec, seed: int) -> RunSpec:
    """A job drawn by the seed: 8 to 96 trials, log-uniform, eta 2 to 4, first rungs of 1 to 4 iterations, until one is left."""
    rng = Streams(seed).rng("random job")
    trials, eta, first = round(8 * 12 ** rng.uniform()), int(rng.integers(2, 5)), int(rng.integers(1, 5))
    stages = [[trials, first]]
    while stages[-1][0] > 1:
        before, iterations = stages[-1]
        stages.append([max(1, before // eta), iterations * eta])
    document = spec.to_dict()
    document["job"] = {"stages": stages}
    return RunSpec.of(**document).with_seed(seed)


def rows_of_job(job: PlannedJob) -> list[dict[str, Any]]:
    """The rows of one job; see `ClaimPlans.read`.

    Deadlines that are not told are spread evenly over the logarithm of the frontiers' times.
    """
    at: Sequence[float] = job.deadlines_s
    if not at:
        frontiers = (make_plans(job.spec, planner="frontier", space=space).frontier for space in ("fair", "wide"))
        at = spread([plan.promised_s for plans in frontiers for plan in plans], job.points)
    fair, wide = (make_plans(job.spec, planner="all", space=space, deadlines_s=at) for space in ("fair", "wide"))
    rows = []
    for deadline_s, of_fair, of_wide in zip(at, fair.by_deadline, wide.by_deadline, strict=True):
        plans: dict[str, Plan | None] = {
            "static": of_fair.static,
            "rubberband-next": of_fair.rubberband_next,
            "rubberband": of_fair.rubberband,
            "fair": of_fair.best,
            "static-wide": of_wide.static,
            "rubberband-wide": of_wide.rubberband,
            "wide": of_wide.best,
        }
        told = {"key": job.key, **job.settings, "deadline_s": deadline_s}
        rows += [{**told, "planner": planner, **_of_plan(plan)} for planner, plan in plans.items()]
        bound_usd = wide.planning.bound_usd(deadline_s)
        rows.append({**told, "planner": "bound", "cost_usd": bound_usd, "makespan_s": math.nan, "instances": math.nan})
    return rows


def _of_plan(plan: Plan | None) -> dict[str, float]:
    if plan is None:
        return dict.fromkeys(("cost_usd", "makespan_s", "instances"), math.nan)
    instances = float(max(plan.instances_per_stage))
    return {"cost_usd": plan.cost_usd, "makespan_s": plan.promised_s, "instances": instances}


COMPARISONS = {
    "static, fair": ("static", "fair"),
    "static, wide": ("static-wide", "wide"),
    "greedy, next level, fair": ("rubberband-next", "fair"),
    "greedy, fair": ("rubberband", "fair"),
    "greedy, wide": ("rubberband-wide", "wide"),
    "fair frontier": ("fair", "wide"),
    "wide frontier": ("wide", "bound"),
}
"""Which planner is compared with which, by the figure's name for it: with the frontier of its space, this with a larger one."""


def gaps_of(rows: pd.DataFrame, family: str | None = None) -> pd.DataFrame:
    """By which share plans cost more than others: family, comparison, job (its key), gap. No row where a plan is missing.

    Args:
        rows: of `ClaimPlans.read`.
        family: the column that tells panels apart, whose numbers ascend; None for the scaling.
    """
    import pandas as pd

    family = family or "workload.scaling"
    wide = rows.pivot_table(index=["key", "deadline_s"], columns="planner", values="cost_usd")
    told = rows.drop_duplicates("key").set_index("key")
    names = told[family].fillna("of the bundle") if family in told else pd.Series("all jobs", index=told.index)
    tables = [
        pd.DataFrame({"gap": wide[dearer] / wide[cheaper] - 1}).assign(comparison=comparison)
        for comparison, (dearer, cheaper) in COMPARISONS.items()
        if dearer in wide and cheaper in wide
    ]
    together = pd.concat(tables).dropna(subset="gap").reset_index()
    return together.assign(family=together["key"].map(names), job=together["key"])[
        ["family", "comparison", "job", "gap"]
    ]


_OF_JOBS = ("key", "seed", "job", "deadline_s", "planner", "cost_usd", "makespan_s", "instances")


def axes_of(rows: pd.DataFrame) -> list[str]:
    """The columns of `ClaimPlans.read` that the experiment varies."""
    return [str(name) for name in rows.columns if name not in _OF_JOBS and len(rows[name].unique()) > 1]


def planner_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per setting that varies and planner: jobs, deadlines, plans found, mean cost and mean machines."""
    by = [*axes_of(rows), "planner"]
    told = rows.groupby(by, sort=False).agg(
        jobs=("key", "nunique"),
        deadlines=("deadline_s", "size"),
        plans=("cost_usd", "count"),
        cost_usd=("cost_usd", "mean"),
        instances=("instances", "mean"),
    )
    return told.reset_index()


def gap_table(rows: pd.DataFrame) -> pd.DataFrame:
    """By what varies and comparison: how much dearer one plan is than the other.

    Returns:
        jobs, plans, none (share of plans without a gap), mean with low and high (95 % bootstrap interval over the jobs' means;
        none of a single job), median, p90, most.
    """
    import pandas as pd

    axes = axes_of(rows)
    settings = rows.drop_duplicates("key").set_index("key")[axes]
    gaps = gaps_of(rows).drop(columns="family").join(settings, on="job")
    told = []
    for names, mine in gaps.groupby([*axes, "comparison"], sort=False):
        of_jobs = mine.groupby("job", sort=False)["gap"].mean()
        over_jobs = mean_interval(of_jobs.tolist())
        low, high = (over_jobs.low, over_jobs.high) if len(of_jobs) > 1 else (math.nan, math.nan)
        half, most_of, most = mine["gap"].quantile([0.5, 0.9, 1.0])
        none = float((mine["gap"] <= _NO_GAP).mean())
        told.append((*names, len(of_jobs), len(mine), none, over_jobs.value, low, high, half, most_of, most))
    measured = ("jobs", "plans", "none", "mean", "low", "high", "median", "p90", "most")
    return pd.DataFrame(told, columns=[*axes, "comparison", *measured])


_NO_GAP = 1e-9


def planners_as_policies(rows: pd.DataFrame, fixed: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Plans as a figure of policies takes them: means over deadlines, of the planners that make plans.

    Args:
        rows: of `ClaimPlans.read`.
        fixed: by column, the value of the rows that are kept.

    Returns:
        policy, seed, what varies, cost_usd, makespan_s, instances, status: `infeasible` where no plan meets some deadline.

    Raises:
        InputError: there are none, or some column is unknown.
    """
    kept = rows[rows["planner"] != "bound"]
    for name, value in (fixed or {}).items():
        if name not in kept:
            raise unknown("column of plans", name, list(map(str, kept.columns)))
        kept = kept[kept[name] == value]
    if not len(kept):
        raise InputError(
            f"there is no plan with {', '.join(f'{name} {value}' for name, value in (fixed or {}).items())}"
        )
    by = ["planner", "key", "seed", *axes_of(rows)]
    measured = kept.groupby(by, sort=False)[["cost_usd", "makespan_s", "instances"]]
    means = measured.mean().assign(status="done")
    means.loc[measured.count()["cost_usd"] < measured.size(), "status"] = "infeasible"
    return means.reset_index().rename(columns={"planner": "policy"})


def frontier_of_first(plans: ClaimPlans) -> pd.DataFrame:
    """The table of the frontier's figure for the experiment's first job."""
    made: Plans = make_plans(plans.jobs[0].spec, planner="all", space="wide")
    return frontier_table(made)
