"""Figure: what policies really paid, by how soon the job was to end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.experiments.figures import style, tables
from elastune.experiments.figures.series import crosses, draw_series, note, offsets, policy_samples, sign
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Array


FIGURE = "cost_over_deadline"
DEADLINE = "job.deadline_s"
COLUMNS = 4
OF_BUNDLE = "of the bundle"
LABEL_IN = 0.4
"""Inches that the label of a tick takes, with some air."""


@dataclass(frozen=True)
class Axis:
    """The deadlines of the whole figure, in the unit that reads best."""

    deadlines: Array
    unit: str
    is_log: bool

    @classmethod
    def of(cls, results: pd.DataFrame) -> Axis:
        """The axis of all rows with a deadline; logarithmic where they span a factor of 8."""
        deadlines_s = np.unique(tables.numbers(results, FIGURE, DEADLINE))
        deadlines_s = deadlines_s[np.isfinite(deadlines_s)]
        if not len(deadlines_s):
            raise InputError(f"{FIGURE}: no row has a deadline")
        unit = tables.time_unit(float(deadlines_s[-1]))
        return cls(deadlines_s / tables.SECONDS[unit], unit, bool(deadlines_s[-1] > 8 * deadlines_s[0] > 0))

    def show_on(self, axes: Axes) -> None:
        """Scale and ticks: the deadlines themselves on a logarithmic axis, where all their labels fit, and for a single one."""
        from matplotlib.ticker import NullLocator

        if self.is_log:
            axes.set_xscale("log")
        elif len(self.deadlines) == 1:
            axes.set_xlim(self.deadlines[0] - 1, self.deadlines[0] + 1)
        if self.is_log or len(self.deadlines) == 1:
            figure = axes.get_figure(root=True)
            assert figure is not None
            shown = self._labelled(LABEL_IN / (axes.get_position().width * figure.get_figwidth()))
            axes.set_xticks(shown, [f"{at:.3g}" for at in shown])
            axes.xaxis.set_minor_locator(NullLocator())

    def _labelled(self, least: float) -> list[float]:
        """The deadlines if labels so far apart, as a share of the axis, do not touch; else round numbers between them."""
        first, last = self.deadlines[0], self.deadlines[-1]
        if len(self.deadlines) == 1 or np.diff(np.log(self.deadlines)).min() >= least * math.log(last / first):
            return list(self.deadlines.tolist())
        powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)))
        round_numbers = (digit * 10.0**power for power in powers for digit in (1, 2, 5, 10))
        return sorted({number for number in round_numbers if first <= number <= last})

    def places(self, rows: pd.DataFrame, offset: float) -> Array:
        """Where the rows' deadlines are, moved sideways."""
        at = tables.numbers(rows, FIGURE, DEADLINE) / tables.SECONDS[self.unit]
        moved: Array = at * math.exp(offset) if self.is_log else at + offset
        return np.asarray(moved)


def cost_over_deadline(
    results: pd.DataFrame, *, reference: str = "sha-fixed", panel: str = "workload.scaling"
) -> Figure:
    """Per policy the mean realised cost at each deadline, and below how many times cheaper than the reference it was.

    One column of axes per value of `panel`. Costs are means over the runs that completed their job, with 95 % bootstrap
    intervals. The ratio is that of the reference's cost to the policy's where both completed it on the same seed, as a
    geometric mean with its interval. A hollow mark says that some run did not complete its job by the deadline, a cross on the
    axis that the policy found no plan on some seed.

    Args:
        results: rows of sweeps: policy, seed, job.deadline_s, cost_usd, completed, deadline_met; status and the panel's column
            where there are such; the bundle's (workload.bundle) where there are several.
        reference: the policy that the others are compared with, as `policy` names it: the static plan.
        panel: the column that differs between panels; one panel where the table has none.

    Raises an InputError for a missing column, an unknown reference, or two runs of one policy, deadline, panel and seed.
    """
    tables.require_columns(results, FIGURE, ("policy", "seed", DEADLINE, "cost_usd", "completed", "deadline_met"))
    tables.policy_named(results, FIGURE, reference)
    keys = [DEADLINE, *([panel] if panel in results else [])]
    tables.require_one_run_each(results, FIGURE, keys)
    panels = _panels(results, panel)
    axis, looks = Axis.of(results), style.looks_of(results["policy"])
    columns = style.balanced(len(panels), COLUMNS)
    blocks = math.ceil(len(panels) / columns)
    figure = style.new_figure(style.width_of(columns, len(looks)), 0.9 + 2.9 * blocks)
    grid = figure.subplots(
        2 * blocks, columns, sharex=True, sharey="row", squeeze=False, height_ratios=[1.6, 1.0] * blocks
    )
    for place, (name, rows) in enumerate(panels.items()):
        row, column = 2 * (place // columns), place % columns
        costs, ratios = grid[row, column], grid[row + 1, column]
        _draw_costs(costs, rows, axis, looks)
        _draw_ratios(ratios, rows, axis, looks, reference)
        style.dress(costs, "", "cost (USD)" if column == 0 else "")
        style.dress(ratios, f"deadline ({axis.unit})", f"{reference}'s\ncost / policy's" if column == 0 else "")
        costs.set_title(name, loc="left", fontsize=style.TICK_PT, color=style.INK, pad=4)
        # Also above what is left empty in the last row.
        ratios.tick_params(labelbottom=True)
    for axes in grid[::2, 0]:
        # After all panels of the row are drawn: a fixed end would stop the others' costs from stretching the axis.
        low, high = axes.get_ylim()
        if low < high / 3:
            axes.set_ylim(bottom=0)
    for axes in [*grid[-2, columns - (-len(panels) % columns) :], *grid[-1, columns - (-len(panels) % columns) :]]:
        axes.set_visible(False)
    style.legend_below(
        figure,
        _legend(results, looks),
        "means over runs that completed their job, with 95 % bootstrap intervals, marks of one deadline"
        " side by side; below: ratios on the same seeds",
    )
    return style.finished(figure)


def _panels(results: pd.DataFrame, panel: str) -> Mapping[str, pd.DataFrame]:
    import pandas as pd

    if panel not in results:
        return {"": results}
    # Empty where nothing else is said than what the bundle brings.
    groups: Iterable[tuple[Any, pd.DataFrame]] = results.groupby(panel, observed=True, sort=True, dropna=False)
    return {OF_BUNDLE if pd.isna(value) else str(value): rows for value, rows in groups}


def _draw_costs(axes: Axes, rows: pd.DataFrame, axis: Axis, looks: Mapping[str, style.Look]) -> None:
    moved = offsets(axis.deadlines, len(looks), is_log=axis.is_log)
    for (policy, look), offset in zip(looks.items(), moved, strict=True):
        mine = rows[rows["policy"] == policy]
        done = tables.done_runs(mine).sort_values(DEADLINE)
        groups = [part for _, part in done.groupby(DEADLINE)]
        series = tables.Series.of(
            (float(axis.places(part, offset)[0]), completed_usd(part), part["seed"].to_numpy()) for part in groups
        )
        missed = np.array([not in_time(part).all() for part in groups], dtype=bool)
        draw_series(axes, series, look, policy, missed)
        crosses(axes, np.unique(axis.places(tables.infeasible_runs(mine), offset)), look)
    axis.show_on(axes)
    if not np.isfinite(completed_usd(tables.done_runs(rows))).any():
        note(axes, "no run completed its job")


def completed_usd(done: pd.DataFrame) -> Array:
    """The costs of runs that are done; NaN where the job was cut, which makes a run cheaper and not better."""
    return np.where(done["completed"].astype(bool), tables.numbers(done, FIGURE, "cost_usd"), np.nan)


def in_time(done: pd.DataFrame) -> Array:
    """Which of the runs that are done completed their job by the deadline."""
    return np.asarray(done["completed"].astype(bool) & done["deadline_met"].astype(bool))


def _draw_ratios(axes: Axes, rows: pd.DataFrame, axis: Axis, looks: Mapping[str, style.Look], reference: str) -> None:
    axes.axhline(1.0, color=style.RULE, linewidth=0.9, zorder=2, label="_equal")
    done = tables.done_runs(rows)
    done = done.assign(cost_usd=completed_usd(done))
    moved = offsets(axis.deadlines, len(looks), is_log=axis.is_log)
    for (policy, look), offset in zip(looks.items(), moved, strict=True):
        if policy == reference:
            continue
        groups = []
        for _, part in done.groupby(DEADLINE):
            mine, theirs = part[part["policy"] == policy], part[part["policy"] == reference]
            costs, others, seeds = tables.paired(mine, theirs, FIGURE, "cost_usd", ())
            if len(costs):
                groups.append((float(axis.places(part, offset)[0]), np.log(others / costs), seeds))
        logs = tables.Series.of(groups)
        draw_series(axes, tables.Series(logs.at, np.exp(logs.value), np.exp(logs.low), np.exp(logs.high)), look, policy)


def _legend(results: pd.DataFrame, looks: Mapping[str, style.Look]) -> list[Artist]:
    legend = policy_samples(looks, has_crosses=len(tables.infeasible_runs(results)) > 0)
    if not in_time(tables.done_runs(results)).all():
        legend.insert(len(looks), sign("o", "some run was cut or late"))
    return legend
