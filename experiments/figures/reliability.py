"""Figure: what was predicted of schedules over what came out, by family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import numbers, require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FIGURE = "reliability"
COLUMNS = 2


def reliability(table: pd.DataFrame, *, measure: str = "regret") -> Figure:
    """Measured over predicted values, a panel for each family; on the line both are equal, below it the prediction is too high.

    Args:
        table: one row per prediction: family, bundle, predicted, measured.
        measure: what is predicted.

    Raises an InputError for a missing column.
    """
    require_columns(table, FIGURE, ("family", "bundle", "predicted", "measured"))
    families = {str(name): rows for name, rows in table.groupby("family", sort=True)}
    looks = style.looks_of(table["bundle"])
    rows_of_panels = -(-len(families) // COLUMNS)
    figure = style.new_figure(style.DOUBLE_IN, 0.9 + 2.4 * rows_of_panels)
    end = 1.05 * max(table["predicted"].max(), table["measured"].max())
    for panel, (family, rows) in zip(
        style.panels_on(figure, len(families), COLUMNS, sharex=True, sharey=True), families.items(), strict=True
    ):
        axes = panel.axes
        axes.set(xlim=(0, end), ylim=(0, end))
        axes.plot([0, end], [0, end], color=style.INK, linewidth=0.7, linestyle=style.DASHED, label="_equal")
        for bundle, mine in rows.groupby("bundle"):
            look = looks[str(bundle)]
            predicted, measured = (numbers(mine, FIGURE, column) for column in ("predicted", "measured"))
            axes.scatter(predicted, measured, s=9, color=look.color, marker=look.marker, linewidths=0.5, label=bundle)
        style.dress(
            axes, f"{measure}, predicted" if panel.is_lowest else "", f"{measure}, measured" if panel.is_left else ""
        )
        style.panel_name(axes, family, 0.95 * (style.DOUBLE_IN - 0.5) / COLUMNS)
    handles = [style.handle(look, bundle) for bundle, look in looks.items()]
    for handle in handles:
        handle.set_linestyle("none")
    style.legend_below(figure, handles, "each mark is a schedule; on the dashed line the prediction is right")
    return style.finished(figure)
