"""The page of a sweep, from its results folder. Imports `experiments.statistics` for means and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from elastune.experiments.figures.style import looks_of
from elastune.experiments.formats import number, percent, usd
from elastune.experiments.reports.charts import ledger_chart
from elastune.experiments.reports.page import (
    Explorer,
    Heading,
    Page,
    PageSection,
    PageTable,
    cells_of,
    interval_of,
    numbers,
)
from elastune.experiments.runs.ledger import PARTS
from elastune.experiments.sweeps.paired import POOLED, paired_table
from elastune.experiments.sweeps.rows import spec_columns, spec_of_row
from elastune.experiments.sweeps.store import Store
from elastune.experiments.sweeps.summary import KEPT_APART, MEASURES, summarise, varying
from elastune.sim.model.errors import InputError
from elastune.sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

_IDS = ("seed", "results_version")
_SHARES = ("completed", "deadline_met", "budget_met", "gpu_utilisation")
_SHOWN = (
    "score",
    "regret",
    "regret_sampling",
    "regret_selection",
    "regret_truncation",
    "cost_usd",
    "makespan_s",
    "completed",
    "deadline_met",
    "budget_met",
    "gpu_utilisation",
    "trials_started",
    "iterations_trained",
)
_NOTED, _LIMITS = ("job.", "workload.", "cloud."), ("job.deadline_s", "job.budget_usd")
_IDLE = ("ledger_usd.idle", "ledger_usd.idle_at_barriers")


def sweep_page(folder: Path) -> Page:
    """The page of a sweep.

    Raises:
        InputError: the folder holds no results, or a file of it is damaged.
    """
    table = Store(folder).read()
    results = table.to_pandas()
    if not len(results):
        raise InputError(f"{folder}: holds no results")
    done = results[results["status"] == "done"]
    keys = [name for name in varying(results) if name not in ("policy", "policy.name", "policy.params", "seed")]
    facts = {
        "runs": f"{len(done):,} done of {len(results):,}",
        "policies": str(results["policy"].nunique()),
        "seeds": str(results["seed"].nunique()),
        "varied": ", ".join(keys) or "nothing but policy and seed",
        "without a plan": str(int((results["status"] == "infeasible").sum())),
        "failed": str(int((results["status"] == "failed").sum())),
    }
    sections = [
        PageSection(
            "Who won, and where", _why(results, keys) if len(done) else ["No run is done."], [_groups(results)]
        ),
        PageSection("Where the money went, and what idled", _money(done), [_ledger(done)] if len(done) else []),
        PageSection(
            "Every run",
            ["The figure shows the rows that meet the filters of the table above it."],
            _runs(results, keys),
        ),
    ]
    return Page(f"Sweep {folder.resolve().name}", f"{len(results):,} runs.", facts, sections, _notes(table))


def _notes(table: pa.Table) -> list[str]:
    """What to know before the numbers of any of these runs are used, as commands say it; limits have no part in it."""
    known = [name for name in spec_columns() if name.startswith(_NOTED) and name not in _LIMITS]
    notes: dict[str, None] = {}
    for row in table.select(known).group_by(known).aggregate([]).to_pylist():
        try:
            notes |= dict.fromkeys(spec_of_row(row).notes())
        except InputError:  # such as a scaling file that is not here
            continue
    return list(notes)


def _why(results: pd.DataFrame, keys: list[str]) -> list[str]:
    """Which policy has the least regret in most settings, and how it differs from the others where all are pooled."""
    if len(set(results["policy"])) == 1:
        return [f"All runs are of {results['policy'].iloc[0]}."]
    means = summarise(results, ["policy", *keys], ["regret"], over="seeds").dropna(subset="regret")
    if not len(means):
        return ["No run has a regret to compare by."]
    if keys:
        first = means.loc[means.groupby(keys, dropna=False)["regret"].idxmin(), "policy"]
        wins = first.value_counts()
        told = ", ".join(f"{policy} in {count}" for policy, count in wins.items())
        sentences = [f"The least mean regret, setting by setting ({len(first)} of them): {told}."]
        best = str(wins.index[0])
    else:
        best = str(means.sort_values("regret")["policy"].iloc[0])
        sentences = [f"{best} has the least mean regret: {number(means['regret'].min())}."]
    pooled = paired_table(results, best, measure="regret", over="seeds")
    pooled = pooled[pooled["scope"] == POOLED].sort_values("mean")
    for row in cast("list[dict[str, Any]]", pooled.head(3).to_dict("records")):
        sure = "may be noise" if row["low"] <= 0 <= row["high"] else "is more than noise"
        sentences.append(
            f"The regret of {row['policy']} minus that of {best} is {row['mean']:+.3g} [{row['low']:+.3g},"
            f" {row['high']:+.3g}] over {row['pairs']} pairs, which {sure}."
        )
    return sentences


def _groups(results: pd.DataFrame) -> PageTable:
    """One row per policy and setting; means with intervals over the seeds."""
    summary = summarise(results, over="seeds")
    names = list(summary.columns)
    group = [name for name in names[: names.index("runs")] if name not in ("policy.name", "policy.params")]
    measures = [name for name in MEASURES if name in names]
    headings = [*(_heading(name, summary) for name in group), *numbers("runs", *measures)]
    rows = [
        (*(_cell(row[name]) for name in group), row["runs"], *(interval_of(row, name) for name in measures))
        for row in cast("list[dict[str, Any]]", summary.sort_values("regret", kind="stable").to_dict("records"))
    ]
    return PageTable("Means by setting", headings, rows, "With 95 % intervals over the seeds; the least regret first.")


def _heading(name: str, table: pd.DataFrame) -> Heading:
    if name in _IDS:
        return Heading(name, "id")
    return Heading(name, "number" if table[name].dtype.kind in "fiu" else "text")


def _cell(value: Any) -> Any:  # noqa: ANN401  whatever a column holds
    return None if value != value else value  # noqa: PLR0124  NaN


def _money(done: pd.DataFrame) -> list[str]:
    by_policy = done.groupby("policy", sort=False)
    sentences = []
    for policy, rows in list(by_policy)[:4]:
        total_usd, idle_usd = rows["cost_usd"].mean(), rows[list(_IDLE)].sum(axis=1).mean()
        training = rows["ledger_usd.training"].mean() / total_usd
        sentences.append(
            f"{policy} spent {percent(training)} of {usd(total_usd)} USD on training and {usd(idle_usd)} USD on idle GPUs."
        )
    return sentences


def _ledger(done: pd.DataFrame) -> Any:  # noqa: ANN401  a chart
    import pandas as pd

    grouped = done.groupby("policy", sort=False)
    parts = [
        pd.DataFrame(
            {
                "part": part,
                "usd": grouped[f"ledger_usd.{part}"].mean(),
                "gpu_hours": grouped[f"ledger_gpu_s.{part}"].mean() / SECONDS_PER_HOUR,
            }
        )
        for part in PARTS
    ]
    return ledger_chart(pd.concat(parts).rename_axis("policy").reset_index())


def _runs(results: pd.DataFrame, keys: list[str]) -> list[PageTable | Explorer]:
    """All rows, and the figure that follows their filters."""
    table = results.assign(idle_usd=results[list(_IDLE)].sum(axis=1, min_count=1))
    measures = [name for name in (*_SHOWN, "idle_usd") if table[name].notna().any()]
    columns = [
        "policy",
        *keys,
        *(name for name in KEPT_APART if name in table and len(set(table[name])) > 1),
        "seed",
        "status",
    ]
    headings = [_heading(name, table) for name in columns]
    headings += [Heading(name, "share" if name in _SHARES else "number") for name in measures]
    axes = [*keys, "cost_usd", "makespan_s", "seed"]
    colors = {policy: look.color for policy, look in looks_of(results["policy"]).items()}
    note = (
        "Means where the horizontal axis has at most 40 values, else a mark for each run. Shares are 0 or 1 for a run."
    )
    return [
        PageTable("Runs", headings, cells_of(table[[*columns, *measures]]), shown=10),
        Explorer(
            "Runs, drawn", "policy", axes, [name for name in ("regret", *measures) if name in measures], colors, note
        ),
    ]
