"""Figure: how much each policy differs from one of them, with intervals: a forest plot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import LEAST_PAIRS, numbers, require_columns
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = "paired_differences"
COLUMNS = 3
TICK_IN = 0.45
"""Inches for the number of a tick, with some air."""
FAR = 2.0
"""Intervals that reach beyond so many times what four fifths of them reach do not stretch the axis."""


def paired_differences(
    table: pd.DataFrame, *, reference: str = "seer", label: str = "regret", less_is_better: bool = True
) -> Figure:
    """Per policy its mean paired difference to the reference with its interval, and how often it is better and equal as text.

    One panel per `bundle_family` where there is such a column. A filled mark says that the interval of at least 6 pairs
    leaves out 0. A mean far beyond the others is an arrow on the edge with its number.

    Args:
        table: one row per policy (and family): policy, mean, low, high, better, ties, pairs, where the mean is of policy minus
            reference, better and ties are shares of the pairs; bundle_family where there are several.
        reference: what was subtracted; its own rows are left out.
        label: what differs, with its unit.
        less_is_better: which side of zero is said to be better than the reference.

    Raises an InputError for a missing column, or where only the reference is there.
    """
    from matplotlib.ticker import MaxNLocator

    require_columns(table, FIGURE, ("policy", "mean", "low", "high", "better", "ties", "pairs"))
    others = table[table["policy"] != reference]
    require_columns(others, FIGURE, ())
    families = _families(others)
    policies = list(style.looks_of(others["policy"]))
    columns = style.balanced(len(families), COLUMNS)
    rows = math.ceil(len(families) / columns)
    figure = style.new_figure(
        style.SINGLE_IN if columns == 1 else style.DOUBLE_IN, (0.75 + 0.17 * len(policies)) * rows + 0.3
    )
    grid = style.panels_on(figure, len(families), columns, sharey=True)
    width_in = (figure.get_figwidth() - 1.9) / columns  # beside the names and the shares
    for axes, (name, mine) in zip((panel.axes for panel in grid), families.items(), strict=True):
        _draw_panel(axes, mine, policies)
        style.dress(axes, f"{label}: policy \N{MINUS SIGN} {reference}", "")
        axes.xaxis.set_major_locator(MaxNLocator(max(int(width_in / TICK_IN), 2)))
        axes.set_title(name, loc="left", fontsize=style.TICK_PT, color=style.INK, pad=11)
        axes.grid(visible=False, axis="y")
        axes.set_yticks(range(len(policies)), policies, fontsize=style.TICK_PT)
    grid[0].axes.set_ylim(len(policies) - 0.5, -0.5)
    side = "left" if less_is_better else "right"
    style.legend_below(
        figure, [],
        f"mean difference with 95 % interval, filled where it leaves out 0; {side} of 0: better than {reference}\n"
        "right: share of pairs in which the policy is better / equal",
    )  # fmt: skip
    return style.finished(figure)


def _families(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows by family; raises an InputError where a policy has two rows of one."""
    keys = ["policy", *(["bundle_family"] if "bundle_family" in table else [])]
    if table.duplicated(keys).any():
        raise InputError(f"{FIGURE}: some policy has two rows{' for one bundle_family' if len(keys) > 1 else ''}")
    if len(keys) == 1:
        return {"": table}
    return {str(name): rows for name, rows in table.groupby("bundle_family", sort=True)}


def _draw_panel(axes: Axes, rows: pd.DataFrame, policies: Sequence[str]) -> None:
    looks = style.looks_of(policies)
    axes.axvline(0.0, color=style.RULE, linewidth=0.9, zorder=1.5, label="_zero")
    columns = ("mean", "low", "high", "better", "ties", "pairs")
    by_policy = dict(
        zip(rows["policy"], zip(*(numbers(rows, FIGURE, column) for column in columns), strict=True), strict=True)
    )
    view = _view(rows)
    axes.set_xlim(*view)
    for place, policy in enumerate(policies):
        mean, low, high, better, ties, pairs = by_policy.get(policy, (np.nan,) * 6)
        if not np.isfinite(mean):
            _beside(axes, place, "no pairs")
            continue
        look = looks[policy]
        is_clear = pairs >= LEAST_PAIRS and (low > 0 or high < 0)
        if not view[0] <= mean <= view[1]:
            _at_edge(axes, place, mean, look, is_left=mean < view[0])
        axes.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], fmt=look.marker, color=look.color, markersize=4.2,
            markerfacecolor=look.color if is_clear else "white", markeredgewidth=0.9, elinewidth=1.1, label=policy,
        )  # fmt: skip
        _beside(axes, place, f"{better:.0%} / {ties:.0%}".replace("%", " %"))
    axes.annotate(
        "better / equal", (1.05, 1.0), xycoords="axes fraction", xytext=(0, 2.5), textcoords="offset points",
        fontsize=style.NOTE_PT - 0.5, color=style.INK, va="bottom", ha="left",
    )  # fmt: skip


def _view(rows: pd.DataFrame) -> tuple[float, float]:
    """From the least to the largest end of the intervals and zero; those far beyond four fifths of the others do not count."""
    low, high = numbers(rows, FIGURE, "low"), numbers(rows, FIGURE, "high")
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return -1.0, 1.0
    low, high = low[known], high[known]
    reach = np.maximum(np.abs(low), np.abs(high))
    usual = FAR * float(np.quantile(reach, 0.8))
    near = reach <= usual if usual > 0 else np.ones(len(reach), dtype=bool)
    least, most = min(0.0, float(low[near].min())), max(0.0, float(high[near].max()))
    pad = 0.06 * (most - least) or 1.0
    return least - pad, most + pad


def _at_edge(axes: Axes, place: int, mean: float, look: style.Look, *, is_left: bool) -> None:
    """An arrow on the edge, with the number, for a mean beyond it."""
    axes.plot(
        0.0 if is_left else 1.0, place, "<" if is_left else ">", color=look.color, markersize=5, clip_on=False, zorder=5,
        transform=axes.get_yaxis_transform(), label="_beyond",
    )  # fmt: skip
    number = axes.annotate(
        f"{mean:+.2g}".replace("-", "\N{MINUS SIGN}"), (0.0 if is_left else 1.0, place), xycoords=axes.get_yaxis_transform(),
        xytext=(5 if is_left else -5, 0), textcoords="offset points", ha="left" if is_left else "right", va="center",
    )  # fmt: skip
    number.set(
        fontsize=style.NOTE_PT - 0.5, color=style.INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    )


def _beside(axes: Axes, place: int, text: str) -> None:
    axes.annotate(
        text,
        (1.05, place),
        xycoords=("axes fraction", "data"),
        fontsize=style.NOTE_PT - 0.5,
        color=style.INK,
        va="center",
        ha="left",
    )
