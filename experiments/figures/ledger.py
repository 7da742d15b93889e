"""Figure: where the dollars and the GPU-hours of each policy went, as stacked bars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import done_runs, limits_of, numbers, require_columns, require_one_run_each
from elastune.experiments.statistics.differences import mean_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = "ledger"
NEAR = 1.3
"""A limit up to so many times the longest bar is within the axes."""

# Work is blue and green, waiting warm, work in vain purple, what no GPU does grey.
COLORS: Mapping[str, str] = {
    "training": "#0072B2",
    "rescale": "#56B4E9",
    "launch": "#A6D8F0",
    "checkpoint": "#009E73",
    "startup": "#F0C04A",
    "idle_at_barriers": "#D55E00",
    "idle": "#F2A97E",
    "redone": "#7B3294",
    "data": "#555555",
    "head_node": "#999999",
    "rounding": "#D0D0D0",
}


def ledger(table: pd.DataFrame) -> Figure:
    """Dollars (a) and GPU-hours (b) of each policy by part, means over its runs.

    Args:
        table: one row per policy and part: policy, part, usd, gpu_hours; budget_usd where there is one. Or rows of sweeps:
            policy, seed, ledger_usd.*, ledger_gpu_s.*; status, job.budget_usd, workload.bundle where there are such. The sums
            then have 95 % bootstrap intervals over the seeds of the runs done. Parts that are zero everywhere are left out.

    Raises an InputError for a missing column, or for rows of sweeps where two runs of one policy have one seed.
    """
    if "part" not in table and any(str(column).startswith("ledger_usd.") for column in table):
        table = _by_part(table)
    require_columns(table, FIGURE, ("policy", "part", "usd", "gpu_hours"))
    policies = list(style.looks_of(table["policy"]))
    figure = style.new_figure(style.DOUBLE_IN, 1.35 + 0.22 * len(policies))
    left, right = figure.subplots(1, 2, sharey=True)
    shown = [part for part in COLORS if _has_any(table, part)]
    budgets_usd = limits_of(table, FIGURE, "budget_usd")
    _draw(left, table, policies, shown, "usd", "cost (USD)", budgets_usd)
    _draw(right, table, policies, shown, "gpu_hours", "GPU-hours rented")
    style.limit_lines(left, "budget", budgets_usd, "USD")
    for axes, letter in ((left, "a"), (right, "b")):
        style.panel_letter(axes, letter)
    told = "means over the runs; the number is the sum of the parts"
    style.legend_below(figure, _samples(shown), f"{told}, with its 95 % bootstrap interval" if "run" in table else told)
    return style.finished(figure)


def _by_part(results: pd.DataFrame) -> pd.DataFrame:
    """Rows of sweeps as one row per run and part, `run` being the run's number."""
    import pandas as pd

    require_columns(
        results, FIGURE, ("policy", "seed", *(f"ledger_{unit}.{part}" for part in COLORS for unit in ("usd", "gpu_s")))
    )
    require_one_run_each(results, FIGURE, ())
    done = done_runs(results)
    budgets_usd = numbers(done, FIGURE, "job.budget_usd") if "job.budget_usd" in done else math.nan
    parts = []
    for part in COLORS:
        usd, gpu_hours = (
            numbers(done, FIGURE, f"ledger_usd.{part}"),
            numbers(done, FIGURE, f"ledger_gpu_s.{part}") / 3600,
        )
        mine = {name: done[name].to_numpy() for name in ("policy", "seed")} | {"run": range(len(done)), "part": part}
        parts.append(pd.DataFrame({**mine, "usd": usd, "gpu_hours": gpu_hours, "budget_usd": budgets_usd}))
    return pd.concat(parts, ignore_index=True)


def _has_any(table: pd.DataFrame, part: str) -> bool:
    mine = table[table["part"] == part]
    return any(abs(number) > 1e-9 for column in ("usd", "gpu_hours") for number in numbers(mine, FIGURE, column))


def _draw(
    axes: Axes,
    table: pd.DataFrame,
    policies: Sequence[str],
    parts: Sequence[str],
    column: str,
    label: str,
    limits: Sequence[float] = (),
) -> None:
    amounts = table.groupby(["policy", "part"])[column].mean()
    places = range(len(policies))
    ends = [0.0] * len(policies)
    for part in parts:
        widths = [float(amounts.get((policy, part), 0.0)) for policy in policies]
        axes.barh(
            places, widths, left=ends, height=0.72, color=COLORS[part], edgecolor="white", linewidth=0.3, label=part
        )
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    tops = _draw_intervals(axes, table, policies, column) if "run" in table else ends
    longest = max(*tops, 1e-9)
    # In a column, beyond all bars and the line of a limit that is near.
    right = max([longest, *(limit for limit in limits if limit <= NEAR * longest)])
    for place, end in zip(places, ends, strict=True):
        axes.annotate(
            f"{end:#.3g}".removesuffix("."), (right, place), xytext=(3.5, 0), textcoords="offset points", va="center",
            fontsize=style.NOTE_PT, color=style.INK,
        )  # fmt: skip
    style.dress(axes, label, "")
    axes.grid(visible=False, axis="y")
    axes.set_yticks(places, policies, fontsize=style.TICK_PT)
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.set_xlim(min(0.0, *ends), 1.12 * right)


def _draw_intervals(axes: Axes, table: pd.DataFrame, policies: Sequence[str], column: str) -> list[float]:
    """The interval of each policy's sum; returns their upper ends."""
    tops = []
    for place, policy in enumerate(policies):
        sums = table[table["policy"] == policy].groupby(["run", "seed"])[column].sum()
        found = mean_interval(sums.tolist(), sums.index.get_level_values("seed").tolist())
        axes.errorbar(
            found.value,
            place,
            xerr=[[found.value - found.low], [found.high - found.value]],
            fmt="none",
            ecolor=style.INK,
            elinewidth=0.9,
            capsize=1.5,
            label="_interval",
        )
        tops.append(found.high)
    return tops


def _samples(parts: Sequence[str]) -> list[Artist]:
    from matplotlib.patches import Patch

    return [Patch(facecolor=COLORS[part], label=part.replace("_", " ")) for part in parts]
