"""Drawing means with their intervals over a setting, one line per policy. Imports numpy and matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures.style import INK, NOTE_PT, Array, Look, Truths, handle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from elastune.experiments.figures.tables import Series


SPREAD = 0.5
"""The share of the least gap between two settings that the marks of all policies may take."""
NEAR = 0.02
"""By which share of the axis neighbouring marks are moved apart."""


def offsets(settings: Array, policies: int, *, is_log: bool = False) -> Array:
    """By how much to move each policy's marks sideways, so that equal values show side by side; (policies,).

    On a logarithmic axis these are differences of logarithms.
    """
    at = np.unique(np.log(settings) if is_log else settings)
    if policies < 2:
        return np.zeros(policies)
    gap = float(np.diff(at).min()) if len(at) > 1 else 1.0
    reach = float(at[-1] - at[0]) or SPREAD / NEAR
    step = min(NEAR * reach, SPREAD * gap / (policies - 1))
    moved: Array = step * (np.arange(policies, dtype=np.float64) - (policies - 1) / 2)
    return moved


def draw_series(axes: Axes, series: Series, look: Look, label: str, hollow: Truths | None = None) -> None:
    """A line through the means, their intervals as bars, and a mark at each mean, white where it is hollow."""
    known = np.isfinite(series.value)
    at, value = series.at[known], series.value[known]
    axes.plot(at, value, color=look.color, linestyle=look.dashes, linewidth=1.1, zorder=3, label=label)
    axes.errorbar(
        at, value, yerr=[value - series.low[known], series.high[known] - value], fmt="none", ecolor=look.color,
        elinewidth=0.9, zorder=3.5, label="_interval",
    )  # fmt: skip
    is_hollow = np.zeros(len(at), dtype=bool) if hollow is None else hollow[known]
    for chosen, face, name in ((~is_hollow, look.color, "_means"), (is_hollow, "white", "_hollow")):
        if chosen.any():
            axes.plot(
                at[chosen], value[chosen], look.marker, color=look.color, markerfacecolor=face, markersize=3.8,
                markeredgewidth=0.8, markeredgecolor=look.color, zorder=4, label=name,
            )  # fmt: skip


def policy_samples(looks: Mapping[str, Look], *, has_crosses: bool) -> list[Artist]:
    """The legend's samples of the policies, and what crosses mean where there are some."""
    legend: list[Artist] = [handle(look, policy) for policy, look in looks.items()]
    if has_crosses:
        legend.append(sign("x", "no plan within the limits"))
    return legend


def sign(marker: str, label: str) -> Line2D:
    """The legend's sample of a mark that every policy may have; circles are hollow."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=INK, marker=marker, markerfacecolor="white", markersize=4, linestyle="None", label=label
    )


def crosses(axes: Axes, at: Array, look: Look) -> None:
    """A cross on the lower edge for each setting in which the policy found no plan."""
    if len(at):
        axes.plot(
            at, [0.0] * len(at), "x", color=look.color, markersize=4.5, markeredgewidth=1.1, clip_on=False, zorder=5,
            transform=axes.get_xaxis_transform(), label="_infeasible",
        )  # fmt: skip


def note(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why nothing is drawn."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=NOTE_PT, color="#777777")
