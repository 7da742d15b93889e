"""What `elastune sweep` prints for people. Imports rich; numbers arrive computed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from elastune.experiments.cli.options import console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
        settings = [cell_text(cell["settings"][key]) for key in keys] or ["base"]
        table.add_row(*settings, *(str(cell[name]) for name in counts))
    console().print(table)


def cell_text(value: object) -> str:
    """A cell as people read it; empty ones are a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
