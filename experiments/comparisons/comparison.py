"""Policies side by side on the same seeds: same configurations, same luck of the cloud.

Imports `experiments.sweeps` for the runs and `experiments.statistics` for the tables; pandas inside the functions that need it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from elastune.experiments.comparisons.paired_runs import Interrupted, on_each_seed
from elastune.experiments.formats import number
from elastune.experiments.runs.ledger import PARTS
from elastune.experiments.runs.simulate import execute
from elastune.experiments.runs.world import World
from elastune.experiments.spec.yaml_file import names_in
from elastune.experiments.sweeps.paired import PAIRED_COLUMNS, paired_table
from elastune.experiments.sweeps.rows import SEARCH_GAP, table_of
from elastune.experiments.sweeps.summary import json_records, summarise
from elastune.experiments.sweeps.worker import bundle_of, row_of
from elastune.policies.registry import POLICIES
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.prices import SECONDS_PER_HOUR
from elastune.traces.formats.html_table import table_html

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from elastune.experiments.spec.run import RunSpec
    from elastune.traces import Bundle

MEASURES = (
    *("score", "regret", "cost_usd", "makespan_s", "gpu_utilisation", "trials_started"),
    *("completed", "deadline_met", "budget_met"),
    *("flops", "constraint_met", SEARCH_GAP),
)
"""What the summary gives a mean and an interval of."""
_PAIRED = ("score", "regret", "cost_usd", "makespan_s")

_Told: TypeAlias = "tuple[dict[str, Any], dict[str, Any], pd.DataFrame | None]"
"""A run's row, what `run --json` prints of it, and its trajectory."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came out of a comparison.

    Attributes:
        runs: by policy, then seed: policy, seed, status (done, infeasible, failed), error, and the fields of `run --json` of
            those that are done.
        results: rows as of a sweep, and deadline_s, budget_usd.
        summary: one row per policy, as of `summarise`, with the interquartile mean of regret and the first error or "".
        paired: one row per policy but the first and measure, as of `paired_table`: differences to the first policy.
        ledger: one row per policy that has runs and part of `experiments.runs.ledger.PARTS`: policy, part, means over the runs
            of usd and gpu_hours, share of the mean bill, and budget_usd.
        trajectories: policy, seed, direction, and the columns of `RunResult.trajectory()`.
    """

    runs: Sequence[Mapping[str, object]]
    results: pd.DataFrame
    summary: pd.DataFrame
    paired: pd.DataFrame
    ledger: pd.DataFrame
    trajectories: pd.DataFrame

    def __repr__(self) -> str:
        """On one line."""
        names = ", ".join(self.summary["policy"])
        return f"<Comparison of {names} on {self.results['seed'].nunique()} seeds>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the means, the least regret first, and the picture of scores over costs."""
        shown = ("score", "regret", "cost_usd", "makespan_s", "deadline_met", "budget_met")
        rows = self.summary.sort_values("regret", kind="stable")[["policy", *shown]].to_dict("records")
        cells = [(row["policy"], *(number(row[name]) for name in shown)) for row in rows]
        table = table_html(f"Means over {self.results['seed'].nunique()} seeds", ("policy", *shown), cells)
        if not (self.results["status"] == "done").any():
            return table
        from elastune.experiments.figures.style import picture_html

        return table + picture_html(self.plot_cost())

    def plot_cost(self) -> Figure:
        """What each policy's runs scored, over what they cost; see `experiments.figures.score_over_cost`.

        Returns:
            A figure of matplotlib, of at most eight policies: the first, and those of least regret.

        Raises:
            InputError: no run is done.

        Example:
            >>> from elastune import RunSpec, compare
            >>> comparison = compare(RunSpec.load("tight"), ["seer", "sha-fixed"], seeds=2, jobs=1)
            >>> comparison.plot_cost().axes[0].get_xlabel()
            'cost (USD)'
        """
        from elastune.experiments.figures.score_cost import score_over_cost
        from elastune.experiments.figures.tables import few_policies

        done = self.results[self.results["status"] == "done"]
        if not len(done):
            raise InputError("plot_cost: no run of the comparison is done")
        return score_over_cost(done[done["policy"].isin(few_policies(done, str(self.results["policy"].iloc[0])))])

    @property
    def failed(self) -> int:
        """Runs that broke down; an infeasible job is not one of them."""
        return int((self.results["status"] == "failed").sum())

    def to_json(self) -> dict[str, object]:
        """What `elastune compare --json` prints: NaN is null."""
        tables = {"summary": self.summary, "paired": self.paired, "ledger": self.ledger}
        return {"runs": list(self.runs), **{name: json_records(table) for name, table in tables.items()}}


_FEW_REASONS = 2
"""Of so many policies without a plan each one's own reason is told [ours]."""


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
    policies: str | Sequence[str] = (),
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
        policies: names, each with its parameters if any, or one text with commas between; none for `default_policies`.
        seeds: the seeds, or how many, counted from the spec's.
        jobs: processes; 1 runs everything in this one.
        bundle: used instead of the one that the spec names.
        on_progress: called with the runs that are done and that there are.

    Raises:
        InputError: the input is wrong whatever the policy, a text names no policy, a policy is there twice, a run needs real
            workers, or no policy finds a plan.
        Interrupted: Ctrl-C; holds the comparison on the seeds that are finished.
    """
    specs = compared(spec, policies)
    labels = [one.policy.label for one in specs]
    numbers = range(spec.seed, spec.seed + seeds) if isinstance(seeds, int) else tuple(seeds)
    task = functools.partial(_run, bundle, World.of(spec, bundle).bundle.sha256)
    paired = on_each_seed(task, specs, numbers, jobs=jobs, on_progress=on_progress)
    runs = [of_seed[place] for place in range(len(specs)) for of_seed in paired.by_seed.values()]
    if all(row["status"] == "infeasible" for row, *_ in runs):
        raise no_plan(_refusals(specs, bundle))
    comparison = _comparison(labels, runs)
    if paired.interrupted is not None:
        raise Interrupted(comparison, paired.interrupted)
    return comparison


def compared(spec: RunSpec, policies: str | Sequence[str] = ()) -> list[RunSpec]:
    """The spec under each of the policies; see `compare`.

    Raises:
        InputError: a text names no policy, a policy is there twice, or one needs real workers.
    """
    named = names_in(policies, "policies") if isinstance(policies, str) else policies
    specs = [spec.with_policy(policy) for policy in named or default_policies(spec)]
    for one in specs:
        one.require_simulable()
    labels = [one.policy.label for one in specs]
    doubles = sorted({label for label in labels if labels.count(label) > 1})
    if doubles:
        raise InputError(f"policy {doubles[0]} is given twice")
    return specs


def _run(bundle: Bundle | None, sha256: str, spec: RunSpec) -> _Told:
    row, result = row_of(spec, bundle or bundle_of(spec.workload.bundle or "", None, sha256), record_trajectory=True)
    told = {"policy": row["policy"], "seed": spec.seed, "status": row["status"], "error": row.get("error")}
    if result is None:
        return row, told, None
    trajectory = result.trajectory().assign(policy=row["policy"], seed=spec.seed, direction=row["direction"])
    # Without the recording, which is larger than its table.
    return row, told | replace(result, recording=None).to_json(), trajectory


def _refusals(specs: Sequence[RunSpec], bundle: Bundle | None) -> dict[str, InfeasibleJobError]:
    """By policy, the error of each spec that has no plan; planned once more, as rows keep the text alone."""
    refused: dict[str, InfeasibleJobError] = {}
    for spec in specs:
        try:
            execute(spec, bundle=bundle)
        except InfeasibleJobError as error:
            refused[spec.policy.label] = error
    return refused


def no_plan(refused: Mapping[str, InfeasibleJobError]) -> InfeasibleJobError:
    """The error where no policy has a plan, given each one's own by its name.

    It names the least that would do where the reasons of all would fill a screen.
    """
    ways = [(*error.cheapest, label) for label, error in refused.items() if error.cheapest is not None]
    if ways and len(refused) > _FEW_REASONS:
        budget_usd, deadline_s, label = min(ways)
        told = f"the least that would do is a budget of {budget_usd:.2f} USD with a deadline of {deadline_s:,.0f} s, by {label}"
    else:
        told = "; ".join(dict.fromkeys(map(str, refused.values())))
    none = InfeasibleJobError(f"no policy finds a plan; {told}")
    none.reasons = {label: str(error) for label, error in refused.items()}
    return none


def _comparison(labels: Sequence[str], runs: Sequence[_Told]) -> Comparison:
    import pandas as pd

    results = table_of([row for row, *_ in runs]).to_pandas()
    results = results.assign(deadline_s=results["job.deadline_s"], budget_usd=results["job.budget_usd"])
    trajectories = [trajectory for *_, trajectory in runs if trajectory is not None]
    return Comparison(
        [told for _, told, _ in runs],
        results,
        _by_policy(_summary(results), labels),
        _paired(results, labels),
        _ledger(results, labels),
        pd.concat(trajectories, ignore_index=True) if trajectories else pd.DataFrame(),
    )


def _summary(results: pd.DataFrame) -> pd.DataFrame:
    means = summarise(results, ["policy"], MEASURES)
    middle = summarise(results, ["policy"], ["regret"], statistic="iqm")
    iqm = {f"regret_iqm{end}": middle[f"regret{end}"] for end in ("", "_low", "_high")}
    errors = results.dropna(subset="error").groupby("policy")["error"].first().to_dict()
    return means.assign(**iqm, error=[errors.get(policy, "") for policy in means["policy"]])


def _paired(results: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    if len(labels) == 1:
        return pd.DataFrame(columns=["policy", "against", "measure", *PAIRED_COLUMNS])
    tables = [paired_table(results, labels[0], measure=measure, group=[]) for measure in _PAIRED]
    return _by_policy(pd.concat(tables).drop(columns="scope"), labels)


def _by_policy(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The rows of each policy together, in the order of the labels."""
    return table.sort_values("policy", key=lambda names: names.map(labels.index), kind="stable", ignore_index=True)


def _ledger(results: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Where the money of the runs that are done went; see `Comparison.ledger`."""
    import pandas as pd

    done = results[results["status"] == "done"].groupby("policy", sort=False)
    parts = [
        pd.DataFrame(
            {
                "part": part,
                "usd": done[f"ledger_usd.{part}"].mean(),
                "share": done[f"ledger_usd.{part}"].mean() / done["cost_usd"].mean(),
                "gpu_hours": done[f"ledger_gpu_s.{part}"].mean() / SECONDS_PER_HOUR,
                "budget_usd": done["job.budget_usd"].first(),
            }
        )
        for part in PARTS
    ]
    return _by_policy(pd.concat(parts).rename_axis("policy").reset_index(), labels)
