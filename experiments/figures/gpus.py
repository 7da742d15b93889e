"""Figure: the GPUs that each policy rents and uses over time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures import style, tables
from elastune.experiments.figures.summary import View, mean_band

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from elastune.experiments.figures.style import Array


FIGURE = "gpus_over_time"
COLUMNS = 4
GRID_POINTS = 400


@dataclass(frozen=True)
class MeanGpus:
    """One policy's GPUs on the grid, as means over its seeds: ready with the 95 % interval of its mean, and held."""

    ready: Array
    low: Array
    high: Array
    held: Array
    seeds: int


@dataclass(frozen=True)
class Fleets:
    """The fleets of all policies on their common time axis."""

    at: Array
    unit: str
    view: View
    deadlines: Sequence[float]
    by_policy: Mapping[str, MeanGpus]

    @property
    def seeds(self) -> str:
        """How many seeds there are, as words."""
        return tables.seeds_phrase([fleet.seeds for fleet in self.by_policy.values()])

    @property
    def top(self) -> float:
        """A little above the most GPUs of any policy, its interval included."""
        highest = [
            float(line.max()) for fleet in self.by_policy.values() for line in (fleet.high, fleet.ready, fleet.held)
        ]
        return 1.05 * max(highest) or 1.0


def gpus_over_time(trajectories: pd.DataFrame) -> Figure:
    """Per policy, the GPUs that are rented and ready (line) and those that trials hold (fill), as means over the seeds.

    One small panel per policy on common axes, because eight fills on one another cannot be read. A run has no GPUs
    before its first row, and after its last row those of that row, which is 0 for a run that gave all of them back.

    Args:
        trajectories: columns policy, seed, at_s, gpus_held, gpus_ready and, where there is one, deadline_s; one row per
            change.

    Raises an InputError for a missing column.
    """
    fleets = fleets_of(trajectories)
    looks = style.looks_of(fleets.by_policy)
    columns = style.balanced(len(looks), COLUMNS)
    figure = style.new_figure(style.DOUBLE_IN, 0.75 + 1.15 * math.ceil(len(looks) / columns))
    for panel, (policy, look) in zip(
        style.panels_on(figure, len(looks), columns, sharex=True, sharey=True), looks.items(), strict=True
    ):
        _draw_panel(panel.axes, fleets, policy, look)
        style.dress(panel.axes, f"time ({fleets.unit})" if panel.is_lowest else "", "GPUs" if panel.is_left else "")
    style.legend_below(
        figure,
        _samples(has_deadline=bool(fleets.deadlines)),
        f"mean over {fleets.seeds}, with the 95 % bootstrap interval of the GPUs ready",
    )
    return style.finished(figure)


def draw_gpus_ready(axes: Axes, trajectories: pd.DataFrame) -> tuple[list[Line2D], str]:
    """Draw the mean GPUs ready of all policies on one axes; returns the legend's handles and what the lines are."""
    fleets = fleets_of(trajectories)
    looks = style.looks_of(fleets.by_policy)
    for policy, fleet in fleets.by_policy.items():
        style.step_line(axes, fleets.at, fleet.ready, looks[policy], 1.2, policy)
    fleets.view.on_x(axes)
    axes.set_ylim(0, fleets.top)
    style.dress(axes, f"time ({fleets.unit})", "GPUs ready")
    style.limit_lines(axes, "deadline", fleets.deadlines, fleets.unit)
    return [style.handle(looks[policy], policy, has_marker=False) for policy in looks], f"mean over {fleets.seeds}"


def fleets_of(trajectories: pd.DataFrame) -> Fleets:
    """The mean GPUs of every policy on a common grid of time, in the unit that reads best."""
    tables.require_columns(trajectories, FIGURE, ("policy", "seed", "at_s", "gpus_held", "gpus_ready"))
    deadlines_s = tables.limits_of(trajectories, FIGURE, "deadline_s")
    end_s = tables.usual_end(trajectories, FIGURE, "at_s", deadlines_s)
    unit = tables.time_unit(end_s)
    grid_s = np.linspace(0.0, end_s, GRID_POINTS)
    by_policy = {
        policy: _fleet(trajectories[trajectories["policy"] == policy], grid_s)
        for policy in style.looks_of(trajectories["policy"])
    }
    scale = tables.SECONDS[unit]
    return Fleets(
        grid_s / scale, unit, View(0.0, 1.02 * end_s / scale), [at_s / scale for at_s in deadlines_s], by_policy
    )


def _fleet(runs: pd.DataFrame, grid_s: Array) -> MeanGpus:
    ready = np.nan_to_num(tables.resampled(runs, FIGURE, "at_s", "gpus_ready", grid_s))
    held = np.nan_to_num(tables.resampled(runs, FIGURE, "at_s", "gpus_held", grid_s))
    return MeanGpus(*mean_band(ready), held.mean(axis=0), len(ready))


def _draw_panel(axes: Axes, fleets: Fleets, policy: str, look: style.Look) -> None:
    fleet, at = fleets.by_policy[policy], fleets.at
    axes.fill_between(at, fleet.held, step="post", color=look.color, alpha=0.35, linewidth=0, label="_held")
    style.step_band(axes, at, (fleet.low, fleet.high), look, 0.2, label="_interval")
    axes.plot(at, fleet.ready, drawstyle="steps-post", color=look.color, linewidth=1.2, label=policy)
    fleets.view.on_x(axes, ticks=4)
    axes.set_ylim(0, fleets.top)
    axes.set_title(policy, loc="left", fontsize=style.TICK_PT, color=style.INK, pad=3)
    for deadline in fleets.deadlines:
        axes.axvline(deadline, color=style.INK, linewidth=0.9, linestyle=style.LIMIT_DASHES, label="_limit")


def _samples(*, has_deadline: bool) -> list[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    samples = [
        Line2D([], [], color=style.INK, linewidth=1.2, label="GPUs ready (rented)"),
        Patch(facecolor=style.INK, alpha=0.35, label="GPUs held by trials"),
        Line2D([], [], color=style.INK, linewidth=0.9, linestyle=style.LIMIT_DASHES, label="deadline"),
    ]
    return samples if has_deadline else samples[:2]
