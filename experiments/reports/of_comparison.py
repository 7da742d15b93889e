"""The page of a comparison, from the folder of `elastune compare -o`. Imports experiments.spec, and pandas when it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from elastune.experiments.files import read_table
from elastune.experiments.formats import NONE, interval, number, percent, seconds, usd
from elastune.experiments.reports.charts import best_chart, ledger_chart, score_chart
from elastune.experiments.reports.page import (
    Heading,
    Page,
    PageSection,
    PageTable,
    between,
    cells_of,
    interval_of,
    numbers,
    shares,
    texts,
)
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.yaml_file import read_spec
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from elastune.experiments.reports.what_if import WhatIf

_TRIED = 3
"""Of so many of the best policies it is tried what more time or money would change."""
_SHARES = {"completed": "completed", "deadline_met": "T met", "budget_met": "B met"}
_MEASURES = {
    "score": "score",
    "regret": "regret",
    "cost_usd": "cost, USD",
    "makespan_s": "makespan, s",
    "trials_started": "trials",
    "gpu_utilisation": "GPU use",
}


@dataclass(frozen=True, eq=False)
class RecordedComparison:
    """A comparison as its folder holds it; see `experiments.comparisons.comparison.Comparison`."""

    spec: RunSpec
    results: pd.DataFrame
    trajectories: pd.DataFrame
    summary: pd.DataFrame
    paired: pd.DataFrame
    ledger: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> RecordedComparison:
        """Read a folder of `elastune compare -o`.

        Raises:
            InputError: a file is missing or damaged.
        """
        files = {name: folder / f"{name}.parquet" for name in ("results", "trajectories")}
        files |= {name: folder / f"{name}.csv" for name in ("summary", "paired", "ledger")}
        tables = {}
        for name, path in files.items():
            try:
                tables[name] = read_table(path)
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: cannot be read: {error}; compare again into {folder}") from error
        return cls(RunSpec.recorded(read_spec(folder / "spec.yaml")), **tables)

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """Rows of the summary that have runs: those within T and B most often first, then by regret."""
        rows = [row for row in cast("list[dict[str, Any]]", self.summary.to_dict("records")) if row["runs"]]
        kept = {row["policy"]: _share(row["deadline_met"]) * _share(row["budget_met"]) for row in rows}
        return sorted(rows, key=lambda row: (-round(kept[row["policy"]], 2), _regret(row)))


def _share(value: float) -> float:
    """A share; 1 where there is no such limit, because then it is kept."""
    return 1.0 if value != value else value  # noqa: PLR0124  NaN


def _regret(row: dict[str, Any]) -> float:
    return float("inf") if row["regret"] != row["regret"] else float(row["regret"])


def comparison_page(folder: Path, tried: WhatIf) -> Page:
    """The page of a comparison.

    Raises:
        InputError: see `RecordedComparison.read`.
    """
    found = RecordedComparison.read(folder)
    done, ranked = found.results[found.results["status"] == "done"], found.ranked
    job = found.spec.job
    facts = {
        "best": ranked[0]["policy"] if ranked else NONE,
        "policies": str(len(found.summary)),
        "runs": f"{len(done)} of {len(found.results)} done",
        "deadline T": NONE if job.deadline_s is None else f"{seconds(job.deadline_s)} s",
        "budget B": NONE if job.budget_usd is None else f"{usd(job.budget_usd)} USD",
    }
    charts = (
        [score_chart(done), best_chart(found.trajectories, done, str(found.summary["policy"].iloc[0]))]
        if ranked
        else []
    )
    sections = [
        PageSection("Who won, and why", _why(found, done), [_summary_table(found.summary), *charts]),
        PageSection(
            "Where the money went, and what idled", _money(found), [ledger_chart(found.ledger)] if ranked else []
        ),
        PageSection("Differences on the same seeds", [_against(found)], [_paired_table(found.paired)]),
        *tried.section(
            [RunSpec.recorded({**found.spec.to_dict(), "policy": row["policy"]}) for row in ranked[:_TRIED]],
            sorted(int(seed) for seed in done["seed"].unique()),
        ),
        PageSection("Every run", (), [_runs_table(found.results)]),
    ]
    told = found.spec.job.tuning_job("minimize")
    subtitle = f"{found.spec.workload.bundle}: {told.trials} trials of up to {told.max_iterations} iterations."
    return Page("Comparison of policies", subtitle, facts, sections, found.spec.notes())


def _why(found: RecordedComparison, done: pd.DataFrame) -> list[str]:
    """The best two policies, how sure their difference is, and which part of the regret explains it."""
    ranked = found.ranked
    if not ranked:
        return ["No policy has a run that is done."]
    best = ranked[0]
    kept = ", ".join(f"{told} in {percent(best[name])}" for name, told in _SHARES.items() if best[name] == best[name])
    regret = interval(best["regret"], best["regret_low"], best["regret_high"])
    sentences = [f"{best['policy']} has the least regret of those that keep T and B most often: {regret}; {kept}."]
    if len(ranked) > 1:
        from elastune.experiments.statistics.differences import paired_difference

        second = ranked[1]
        mine, other = (done[done["policy"] == row["policy"]].set_index("seed")["regret"] for row in (best, second))
        seeds = mine.index.intersection(other.index)
        gap = paired_difference(other[seeds].tolist(), mine[seeds].tolist(), [int(seed) for seed in seeds])
        sure = "may be noise" if gap.low <= 0 <= gap.high else "is more than noise"
        sentences.append(
            f"The runner-up is {second['policy']}: its regret is larger by {gap.mean:.3g} [{gap.low:.3g}, {gap.high:.3g}] on"
            f" {gap.pairs} common seeds, which {sure}."
        )
        sentences += _parts(done, best["policy"], second["policy"])
    return sentences


def _parts(done: pd.DataFrame, best: str, second: str) -> list[str]:
    """Which part of the regret separates two policies most."""
    told = {
        "regret_sampling": "better configurations were not started",
        "regret_selection": "a worse one of those started was chosen",
        "regret_truncation": "the choice was not trained to the end",
    }
    means = done.groupby("policy")[list(told)].mean()
    of_policy = {str(policy): row for policy, row in means.iterrows()}
    gaps = {name: float(of_policy[second][name]) - float(of_policy[best][name]) for name in told}
    part = max(gaps, key=lambda name: gaps[name])
    if not gaps[part] > 0:
        return []
    return [
        f"Most of it ({number(gaps[part], 3)}) is that with {second} {told[part]}, more often or further than with {best}."
    ]


def _money(found: RecordedComparison) -> list[str]:
    spent = found.ledger.pivot_table(index="policy", columns="part", values="share", sort=False)
    idle = (
        found.ledger[found.ledger["part"].isin(["idle", "idle_at_barriers"])].groupby("policy", sort=False)["usd"].sum()
    )
    sentences = []
    for row in found.ranked[:_TRIED]:
        policy = row["policy"]
        others = spent.loc[policy].drop("training")
        largest = str(others.idxmax())
        sentences.append(
            f"{policy} spent {percent(spent.loc[policy, 'training'])} of {usd(row['cost_usd'])} USD on training and"
            f" {usd(idle[policy])} USD on idle GPUs; its largest other part is {largest.replace('_', ' ')}"
            f" ({percent(others[largest])})."
        )
    return sentences


def _against(found: RecordedComparison) -> str:
    if not len(found.paired):
        return "There is one policy, and nothing to compare it with."
    return f"All against {found.paired['against'].iloc[0]}, seed by seed, with 95 % intervals; below zero is less than it has."


def _summary_table(summary: pd.DataFrame) -> PageTable:
    limits = [name for name in _SHARES if summary[name].notna().any()]
    headings = [
        *texts("policy"),
        *shares(*(_SHARES[name] for name in limits)),
        *numbers("runs", *_MEASURES.values()),
        Heading("error", "remark"),
    ]
    rows = [
        (
            row["policy"],
            *(row[name] for name in limits),
            row["runs"],
            *(interval_of(row, name) for name in _MEASURES),
            row["error"] if isinstance(row["error"], str) else None,
        )
        for row in cast("list[dict[str, Any]]", summary.sort_values("regret", kind="stable").to_dict("records"))
    ]
    return PageTable("Means over the seeds", headings, rows, "With 95 % intervals; the least regret first.")


def _paired_table(paired: pd.DataFrame) -> PageTable:
    rows = [
        (row["policy"], row["measure"], between(row["mean"], row["low"], row["high"]), row["better"], row["pairs"])
        for row in paired.to_dict("records")
    ]
    headings = [*texts("policy", "measure"), *numbers("difference"), *shares("better"), *numbers("pairs")]
    return PageTable("Paired differences", headings, rows)


def _runs_table(results: pd.DataFrame) -> PageTable:
    measures = {**_MEASURES, "iterations_trained": "iterations"}
    headings = [
        *texts("policy"),
        *numbers("seed"),
        *texts("status"),
        *(Heading(told, "share" if name == "gpu_utilisation" else "number") for name, told in measures.items()),
    ]
    return PageTable("Runs", headings, cells_of(results[["policy", "seed", "status", *measures]]), shown=10)
