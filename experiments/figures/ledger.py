"""Figure: where the dollars and the GPU-hours of each policy went, as stacked bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.figures.style import (
    DOUBLE_IN,
    INK,
    NOTE_PT,
    TICK_PT,
    dress,
    finished,
    legend_below,
    limit_lines,
    looks_of,
    new_figure,
    panel_letter,
)
from experiments.figures.tables import limits_of, numbers, require_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = "ledger"

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
        table: one row per policy and part: policy, part, usd, gpu_hours; budget_usd where there is one. Parts that are zero
            everywhere are left out.

    Raises an InputError for a missing column.
    """
    require_columns(table, FIGURE, ("policy", "part", "usd", "gpu_hours"))
    policies = list(looks_of(table["policy"]))
    figure = new_figure(DOUBLE_IN, 1.35 + 0.22 * len(policies))
    left, right = figure.subplots(1, 2, sharey=True)
    shown = [part for part in COLORS if _has_any(table, part)]
    _draw(left, table, policies, shown, "usd", "cost (USD)")
    _draw(right, table, policies, shown, "gpu_hours", "GPU-hours rented")
    limit_lines(left, "budget", limits_of(table, FIGURE, "budget_usd"), "USD")
    for axes, letter in ((left, "a"), (right, "b")):
        panel_letter(axes, letter)
    legend_below(figure, _samples(shown), "means over the runs; the number is the sum of the parts")
    return finished(figure)


def _has_any(table: pd.DataFrame, part: str) -> bool:
    mine = table[table["part"] == part]
    return any(abs(number) > 1e-9 for column in ("usd", "gpu_hours") for number in numbers(mine, FIGURE, column))


def _draw(
    axes: Axes, table: pd.DataFrame, policies: Sequence[str], parts: Sequence[str], column: str, label: str
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
    for place, end in zip(places, ends, strict=True):
        number = axes.annotate(
            f"{end:#.3g}".removesuffix("."), (end, place), xytext=(2.5, 0), textcoords="offset points", va="center"
        )
        # On white, so that it can be read across the line of a limit.
        number.set(fontsize=NOTE_PT, color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    dress(axes, label, "")
    axes.grid(visible=False, axis="y")
    axes.set_yticks(places, policies, fontsize=TICK_PT)
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.set_xlim(min(0.0, *ends), 1.12 * max(*ends, 1e-9))


def _samples(parts: Sequence[str]) -> list[Artist]:
    from matplotlib.patches import Patch

    return [Patch(facecolor=COLORS[part], label=part.replace("_", " ")) for part in parts]
