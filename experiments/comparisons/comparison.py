"""Policies side by side on the same seeds: same configurations, same luck of the cloud.

Imports the other modules of `experiments`; pandas inside the functions that need it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from elastune.experiments.runs.ledger import PARTS
from elastune.experiments.runs.placements import PARTS as PLACEMENT_PARTS
from elastune.experiments.runs.simulate import execute
from elastune.experiments.runs.world import World
from elastune.experiments.statistics.differences import (
    interquartile_mean_interval,
    mean_interval,
    paired_difference,
)
from elastune.experiments.statistics.summary import json_records
from elastune.experiments.sweeps.paired_seeds import of_each_seed
from elastune.policies.registry import POLICIES
from elastune.sim.model.errors import InfeasibleJobError, InputError, TuningError
from elastune.sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.spec.run import RunSpec
    from elastune.sim.model.job import Direction
    from elastune.traces import Bundle

Status = Literal["done", "infeasible", "failed"]

MEASURES = ("score", "regret", "cost_usd", "makespan_s", "gpu_utilisation", "trials_started")
"""What the summary gives a mean and an interval of."""
SHARES = ("deadline_met", "budget_met")
"""What the summary gives the share of runs of."""
_RESULT_COLUMNS = (
    *("policy", "seed", "status", "error", "best_trial", "score", "test_score"),
    *("regret", "regret_sampling", "regret_selection", "regret_truncation"),
    *("cost_usd", "makespan_s", "deadline_met", "budget_met"),
    *("trials_started", "iterations_trained", "gpu_utilisation", "digest"),
    *(f"ledger_usd.{part}" for part in PARTS),
    *(f"placement.{part}" for part in PLACEMENT_PARTS),
    *(f"ledger_gpu_s.{part}" for part in PARTS),
)
_PAIRED = ("score", "regret", "cost_usd", "makespan_s")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came out of a comparison.

    Attributes:
        runs: by policy, then seed: policy, seed, status (done, infeasible, failed), error, and the fields of `run --json` of
            those that are done.
        results: the same as a table, without `best_config` and `provenance`; `ledger_usd`, `ledger_gpu_s`, `placement` by part
            in columns; and deadline_s, budget_usd, direction.
        summary: one row per policy: runs, infeasible, failed, `<measure>`, `<measure>_low`, `<measure>_high` for `MEASURES`,
            the same of the interquartile mean of regret, the share of runs for `SHARES`, and the first error or an empty text.
        paired: one row per policy but the first and measure: mean difference to the first policy, low, high, better (share
            of the seeds on which it beats the first), ties, pairs.
        ledger: one row per policy that has runs and part of `experiments.runs.ledger.PARTS`: policy, part, means over
        the runs of
            usd and gpu_hours, share of the mean bill, and budget_usd.
        trajectories: policy, seed, direction, and the columns of `RunResult.trajectory()`.
    """

    runs: Sequence[Mapping[str, object]]
    results: pd.DataFrame
    summary: pd.DataFrame
    paired: pd.DataFrame
    ledger: pd.DataFrame
    trajectories: pd.DataFrame

    @property
    def failed(self) -> int:
        """Runs that broke down; an infeasible job is not one of them."""
        return int((self.results["status"] == "failed").sum())

    def to_json(self) -> dict[str, object]:
        """What `elastune compare --json` prints: NaN is null."""
        tables = {"summary": self.summary, "paired": self.paired, "ledger": self.ledger}
        return {"runs": list(self.runs), **{name: json_records(table) for name, table in tables.items()}}


def default_policies(spec: RunSpec) -> tuple[str, ...]:
    """Every registered policy, and the naive elastic ones also at one whole machine per trial."""
    whole = spec.price_book().default_type.gpus_per_instance
    is_known = 1 < whole <= World.of(spec).profile.scaling.max_gpus
    wide = (
        f"{name}:gpus_per_trial={whole}" for name, entry in POLICIES.items() if "gpus_per_trial" in entry.parameters
    )
    return (*POLICIES, *(wide if is_known else ()))


def compare(
    spec: RunSpec,
    policies: Sequence[str] = (),
    seeds: int | Sequence[int] = 20,
    *,
    jobs: int = 2,
    bundle: Bundle | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Comparison:
    """Run every policy on every seed.

    A policy that finds no plan, or breaks down, gets rows that say so and does not stop the others.

    Args:
        spec: the run; its policy is not used.
        policies: as the command line takes them; none for `default_policies`.
        seeds: the seeds, or how many, counted from the spec's.
        jobs: processes; 1 runs everything in this one.
        bundle: used instead of the one that the spec names.
        on_progress: called with the runs that are done and that there are.

    Raises:
        InputError: the input is wrong whatever the policy, a run needs real workers, or no policy finds a plan.
    """
    specs = [spec.with_policy(policy) for policy in policies or default_policies(spec)]
    for one in specs:
        one.require_simulable()
    labels = [one.policy.label for one in specs]
    doubles = sorted({label for label in labels if labels.count(label) > 1})
    if doubles:
        raise InputError(f"policy {doubles[0]} is given twice")
    numbers = range(spec.seed, spec.seed + seeds) if isinstance(seeds, int) else tuple(seeds)
    if not numbers or jobs < 1 or len(set(numbers)) < len(numbers):
        raise InputError(f"compare: {len(numbers)} seeds and {jobs} jobs: at least one of each, and no seed twice")
    world = World.of(spec, bundle)
    runs: list[_Run] = []
    for done in of_each_seed(functools.partial(_runs_of_seed, specs, bundle), numbers, jobs):
        runs.extend(done)
        on_progress(len(runs), len(specs) * len(numbers))
    runs.sort(key=lambda run: (labels.index(run.policy), run.seed))
    _require_one_feasible(runs)
    return _comparison(world, labels, runs)


@dataclass(frozen=True, eq=False)
class _Run:
    policy: str
    seed: int
    status: Status
    error: str | None = None
    result: RunResult | None = None
    trajectory: pd.DataFrame | None = None

    def to_json(self) -> dict[str, object]:
        told = {"policy": self.policy, "seed": self.seed, "status": self.status, "error": self.error}
        return told if self.result is None else {**told, **self.result.to_json()}


def _runs_of_seed(specs: Sequence[RunSpec], bundle: Bundle | None, seed: int) -> list[_Run]:
    return [_run(spec.with_seed(seed), bundle or _bundle_of(spec.workload.bundle or "")) for spec in specs]


@functools.cache
def _bundle_of(name: str) -> Bundle:
    """Once per worker process, not once per run."""
    from elastune.traces import load_bundle

    return load_bundle(name)


def _run(spec: RunSpec, bundle: Bundle) -> _Run:
    label = spec.policy.label
    try:
        result = execute(spec, bundle=bundle, record_trajectory=True)
    except InfeasibleJobError as error:
        return _Run(label, spec.seed, "infeasible", str(error))
    except TuningError as error:
        return _Run(label, spec.seed, "failed", str(error))
    # Without the recording, which is larger than its table and would have to cross the processes.
    return _Run(label, spec.seed, "done", None, replace(result, recording=None), result.trajectory())


def _require_one_feasible(runs: Iterable[_Run]) -> None:
    first: dict[str, str] = {}
    for run in runs:
        if run.status != "infeasible":
            return
        first.setdefault(run.policy, str(run.error))
    raise InfeasibleJobError(f"no policy finds a plan; {'; '.join(first.values())}")


def _comparison(world: World, labels: Sequence[str], runs: Sequence[_Run]) -> Comparison:
    import pandas as pd

    job = world.job
    given = {"deadline_s": job.deadline_s, "budget_usd": job.budget_usd, "direction": job.direction}
    results = pd.DataFrame([_row(run) | given for run in runs], columns=[*_RESULT_COLUMNS, *given])
    for column in (*MEASURES, *SHARES):
        # Also where no run has a value, as of budget_met without a budget.
        results[column] = results[column].astype(float)
    trajectories = [
        run.trajectory.assign(policy=run.policy, seed=run.seed, direction=job.direction)
        for run in runs
        if run.trajectory is not None
    ]
    return Comparison(
        [run.to_json() for run in runs],
        results,
        summary=pd.DataFrame([_summary(label, results[results["policy"] == label]) for label in labels]),
        paired=pd.DataFrame(list(_paired(results, labels, job.direction)), columns=list(_PAIRED_COLUMNS)),
        ledger=ledger_table([run.result for run in runs if run.result is not None], job.budget_usd),
        trajectories=pd.concat(trajectories, ignore_index=True) if trajectories else pd.DataFrame(),
    )


def _row(run: _Run) -> dict[str, object]:
    row = run.to_json()
    if run.result is None:
        return row
    tables = {name: getattr(run.result, name) for name in ("ledger_usd", "ledger_gpu_s", "placement")}
    return row | {f"{name}.{part}": number for name, parts in tables.items() for part, number in parts.items()}


def ledger_table(results: Iterable[RunResult], budget_usd: float | None = None) -> pd.DataFrame:
    """Where the money of runs went, as means over the runs of each policy; see `Comparison.ledger`."""
    import pandas as pd

    by_policy: dict[str, list[RunResult]] = {}
    for result in results:
        by_policy.setdefault(result.policy, []).append(result)
    rows = []
    for policy, runs in by_policy.items():
        cost_usd = fmean(run.cost_usd for run in runs)
        for part in PARTS:
            usd = fmean(run.ledger_usd[part] for run in runs)
            gpu_hours = fmean(run.ledger_gpu_s[part] for run in runs) / SECONDS_PER_HOUR
            rows.append((policy, part, usd, usd / cost_usd if cost_usd else math.nan, gpu_hours, budget_usd))
    table = pd.DataFrame(rows, columns=["policy", "part", "usd", "share", "gpu_hours", "budget_usd"])
    return table.astype({"budget_usd": float})


def _summary(label: str, results: pd.DataFrame) -> dict[str, object]:
    done = results[results["status"] == "done"]
    row: dict[str, object] = {
        "policy": label,
        "runs": len(done),
        "infeasible": int((results["status"] == "infeasible").sum()),
        "failed": int((results["status"] == "failed").sum()),
    }
    intervals = {measure: mean_interval(done[measure].tolist()) for measure in MEASURES}
    intervals["regret_iqm"] = interquartile_mean_interval(done["regret"].tolist())
    for name, interval in intervals.items():
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    row |= {share: float(done[share].mean()) if len(done) else float("nan") for share in SHARES}
    errors = results["error"].dropna()
    return row | {"error": errors.iloc[0] if len(errors) else ""}


_PAIRED_COLUMNS = ("policy", "against", "measure", "mean", "low", "high", "better", "ties", "pairs")


def _paired(results: pd.DataFrame, labels: Sequence[str], direction: Direction) -> Iterator[tuple[object, ...]]:
    first, *others = labels
    tables = {label: results[results["policy"] == label].set_index("seed") for label in labels}
    for label in others:
        for measure in _PAIRED:
            # Both tables are sorted by the same seeds.
            a, b = tables[label][measure], tables[first][measure]
            wanted: Direction = direction if measure == "score" else "minimize"
            found = paired_difference(a.tolist(), b.tolist(), direction=wanted)
            yield (label, first, measure, found.mean, found.low, found.high, found.better, found.ties, found.pairs)
