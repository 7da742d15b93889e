"""What `elastune sweep` and `elastune results` print for people. Imports rich; numbers arrive computed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

_PIPED_WIDTH = 200
_ERRORS_SHOWN = 5


def _console() -> Console:
    """Standard output; wide where it is not a terminal, whose width rich would guess too small."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED_WIDTH)


def print_plan(cells: Sequence[Mapping[str, Any]], seeds: int) -> None:
    """One line per cell: its settings, and what is there of its seeds."""
    counts = ("done", "infeasible", "failed", "to_run")
    total = {name: sum(cell[name] for cell in cells) for name in counts}
    keys = list(cells[0]["settings"])
    table = Table(title=f"{len(cells)} cells on {seeds} seeds each", title_justify="left", show_footer=True)
    for position, key in enumerate(keys or ["cell"]):
        table.add_column(key, footer="sum" if position == 0 else "")
    for name in counts:
        table.add_column(name.replace("_", " "), justify="right", footer=str(total[name]))
    for cell in cells:
        settings = [_cell(cell["settings"][key]) for key in keys] or ["base"]
        table.add_row(*settings, *(str(cell[name]) for name in counts))
    _console().print(table)


def print_results(summary: pd.DataFrame, counts: Mapping[str, int], errors: Sequence[Mapping[Any, Any]]) -> None:
    """One line per group: its columns, runs, and each measure with its interval."""
    console = _console()
    names = list(summary.columns)
    group, measured = names[: names.index("runs")], names[names.index("failed") + 1 :: 3]
    table = Table(title="Means over the runs that are done, with 95 % intervals", title_justify="left")
    for name in group:
        table.add_column(name, overflow="fold")
    for name in ("runs", *measured):
        table.add_column(name, justify="right", no_wrap=True)
    for row in cast("list[dict[str, Any]]", summary.to_dict("records")):
        notes = [f"{row[kind]} {kind}" for kind in ("infeasible", "failed") if row[kind]]
        intervals = [_interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high"))) for name in measured]
        table.add_row(*(_cell(row[name]) for name in group), ", ".join([str(row["runs"]), *notes]), *intervals)
    console.print(table)
    console.print(", ".join(f"{number} {status}" for status, number in counts.items()), highlight=False)
    for error in errors[:_ERRORS_SHOWN]:
        text = f"{error['status']}, {error['count']} times: {error['error']}"
        console.print(text, markup=False, highlight=False)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _interval(value: float, low: float, high: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g} [{low:.3g}, {high:.3g}]"
