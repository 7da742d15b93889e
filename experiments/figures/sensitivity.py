"""Figure: how a measure moves with one parameter at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.experiments.figures import style, tables
from elastune.experiments.figures.series import crosses, draw_series, note, offsets, policy_samples
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Array, Look


FIGURE = "sensitivity"
COLUMNS = 3
COUNTED = ("iterations_trained", "trials_started")
LEAST_GAP = 0.06
"""Numbers nearer to one another than this share of their range stand side by side instead."""


def sensitivity(
    results: pd.DataFrame,
    parameters: str | Sequence[str],
    *,
    value: str = "regret",
    label: str | None = None,
    told: str = "means over runs with 95 % bootstrap intervals, side by side",
) -> Figure:
    """Per parameter one panel: each policy's mean over the parameter's settings with 95 % bootstrap intervals.

    Settings lie where their numbers are, or side by side where they are texts or some would be too close together: in
    ascending order, or in that of a categorical column. A cross on the axis says that the policy found no plan on some seed.

    Args:
        results: rows of sweeps: policy, seed, the parameters' columns, the value's, and `parameter` where there are several
            parameters: which of them the row's sweep varied (`pandas.concat` of one sweep each); status, workload.bundle where
            there are such.
        parameters: columns such as cloud.rescale_s, in the order of the panels.
        value: the measure, such as regret, score, cost_usd or makespan_s.
        label: what the value's axis says; None: the measure's name and unit.
        told: what the marks are.

    Raises an InputError for a missing column, a parameter without rows, or two runs of one policy, setting and seed.
    """
    from matplotlib.ticker import MaxNLocator

    parameters = [parameters] if isinstance(parameters, str) else list(parameters)
    tables.require_columns(results, FIGURE, ("policy", "seed", value, *parameters))
    panels = {parameter: _rows_of(results, parameter, len(parameters)) for parameter in parameters}
    looks = style.looks_of(results["policy"])
    columns = style.balanced(len(panels), COLUMNS)
    figure = style.new_figure(style.width_of(columns, len(looks)), 0.8 + 1.9 * math.ceil(len(panels) / columns))
    grid = style.panels_on(figure, len(panels), columns, sharey=True)
    for panel, (parameter, mine) in zip(grid, panels.items(), strict=True):
        axes = panel.axes
        _draw_panel(axes, mine, parameter, value, looks)
        if value in COUNTED:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _tick_settings(axes, Settings.of(mine[parameter]), figure.get_figwidth() / columns - 0.5)
        style.dress(
            axes, tables.label_of(parameter), (label or tables.value_label(results, value)) if panel.is_left else ""
        )
    style.legend_below(figure, policy_samples(looks, has_crosses=len(tables.infeasible_runs(results)) > 0), told)
    return style.finished(figure)


@dataclass(frozen=True)
class Settings:
    """The settings of one parameter and where they are on its axis."""

    values: Sequence[Any]  # numbers or texts, as the table holds them
    at: Array
    is_even: bool

    @classmethod
    def of(cls, column: pd.Series[Any]) -> Settings:
        """The settings in a column; an empty value is none."""
        import pandas as pd

        if isinstance(column.dtype, pd.CategoricalDtype):
            values = [value for value in column.cat.categories if (column == value).any()]
        else:
            values = sorted(column.dropna().unique().tolist())
        if all(isinstance(value, int | float) for value in values):
            at = np.array(values, dtype=float)
            if len(at) > 1 and np.diff(at).min() >= LEAST_GAP * (at[-1] - at[0]):
                return cls(values, at, is_even=False)
        return cls(values, np.arange(len(values), dtype=float), is_even=True)

    def texts(self) -> list[str]:
        """The settings as tick labels."""
        return [f"{value:g}" if isinstance(value, int | float) else str(value) for value in self.values]


def _rows_of(results: pd.DataFrame, parameter: str, parameters: int) -> pd.DataFrame:
    """The rows that vary the parameter."""
    if parameters > 1 and "parameter" not in results:
        raise InputError(
            f"{FIGURE}: no column parameter in the table, which must say of each row which of {parameters} parameters its sweep"
            " varied"
        )
    mine = results[results["parameter"] == parameter] if "parameter" in results else results
    mine = mine[mine[parameter].notna()]
    if mine.empty:
        raise InputError(f"{FIGURE}: no row varies {parameter}")
    tables.require_one_run_each(mine, FIGURE, [parameter])
    return mine


def _draw_panel(axes: Axes, rows: pd.DataFrame, parameter: str, value: str, looks: Mapping[str, Look]) -> None:
    settings = Settings.of(rows[parameter])
    for (policy, look), offset in zip(looks.items(), offsets(settings.at, len(looks)), strict=True):
        mine = rows[rows["policy"] == policy]
        done, without = tables.done_runs(mine), tables.infeasible_runs(mine)
        groups = []
        for setting, at in zip(settings.values, settings.at, strict=True):
            part = done[done[parameter] == setting]
            if len(part):
                groups.append((at + offset, tables.numbers(part, FIGURE, value), part["seed"].to_numpy()))
        draw_series(axes, tables.Series.of(groups), look, policy)
        planless = [
            at + offset
            for setting, at in zip(settings.values, settings.at, strict=True)
            if (without[parameter] == setting).any()
        ]
        crosses(axes, np.array(planless), look)
    if not np.isfinite(tables.numbers(tables.done_runs(rows), FIGURE, value)).any():
        note(axes, "no run has a value")


def _tick_settings(axes: Axes, settings: Settings, width_in: float) -> None:
    """Name settings that stand side by side, slanted where they have no room."""
    if not settings.is_even:
        return
    is_crowded = sum(0.055 * len(text) + 0.12 for text in settings.texts()) > width_in
    slanted: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if is_crowded else {}
    if is_crowded:  # long names would take the height from the axes
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.set_figheight(figure.get_figheight() + 0.025 * max(len(text) for text in settings.texts()))
    axes.set_xticks(settings.at, settings.texts(), fontsize=style.TICK_PT, **slanted)
    axes.set_xlim(-0.5, len(settings.at) - 0.5)
