"""The parts of a page, and how it becomes one HTML file that needs no network.

Texts may hold anything: the template escapes them, and `label` escapes those of Plotly, which reads tags.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from elastune.experiments.formats import interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

Cell: TypeAlias = "str | float | int | bool | tuple[float | None, str] | None"
"""A value, or a number to sort by and the text to show for it."""
MOST_ROWS = 5_000
"""So many rows of a table are in a page; a larger one would not open."""


@dataclass(frozen=True)
class Heading:
    """A column of a table.

    Attributes:
        name: above it.
        kind: how its values are shown and sorted; a remark, of the last column, is shown below its row.
    """

    name: str
    kind: Literal["text", "number", "share", "id", "remark"] = "text"


def texts(*names: str) -> list[Heading]:
    """Columns of texts."""
    return [Heading(name) for name in names]


def numbers(*names: str) -> list[Heading]:
    """Columns of numbers."""
    return [Heading(name, "number") for name in names]


def shares(*names: str) -> list[Heading]:
    """Columns of shares, shown as per cent."""
    return [Heading(name, "share") for name in names]


def cells_of(table: pd.DataFrame) -> list[list[Cell]]:
    """The rows of a table; what is empty is None."""
    cells: list[list[Cell]] = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return cells


@dataclass(frozen=True)
class PageTable:
    """Rows that can be sorted and filtered.

    Attributes:
        title: above it.
        headings: of its columns.
        rows: of cells, one per column.
        note: below it.
        shown: so many rows at first.
    """

    title: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    shown: int = 25

    def to_json(self) -> dict[str, Any]:
        """What page.js draws; not finite is null."""
        left_out = max(len(self.rows) - MOST_ROWS, 0)
        told = f"The first {MOST_ROWS:,} of {len(self.rows):,} rows. " if left_out else ""
        return {
            "kind": "table",
            "title": self.title,
            "headings": [asdict(heading) for heading in self.headings],
            "rows": [[_plain(cell) for cell in row] for row in self.rows[:MOST_ROWS]],
            "note": f"{told}{self.note}",
            "shown": self.shown,
        }


@dataclass(frozen=True)
class Chart:
    """A figure that zooms.

    Attributes:
        title: above it.
        traces: of Plotly; a point's `customdata` is its number in `details`.
        layout: of Plotly, beside what all charts of a page share.
        details: what a click on a point shows: names and values.
        note: below it.
        ask: what the panel of details says before the first click.
    """

    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    details: Sequence[Mapping[str, str]] = ()
    note: str = ""
    ask: str = ""

    def to_json(self) -> dict[str, Any]:
        """What page.js draws."""
        drawn: dict[str, Any] = _finite({"kind": "chart", **vars(self)})
        return drawn


@dataclass(frozen=True)
class Explorer:
    """A figure of the rows of the table before it that meet its filters; reader and page choose its axes.

    Attributes:
        title: above it.
        group: heading whose values have a colour each.
        x: headings that can be the horizontal axis, the first at the start.
        y: the same of the vertical axis.
        colors: by value of the group.
        note: below it.
    """

    title: str
    group: str
    x: Sequence[str]
    y: Sequence[str]
    colors: Mapping[str, str]
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """What page.js draws."""
        return {"kind": "explorer", **vars(self)}


@dataclass(frozen=True)
class PageSection:
    """A part of a page.

    Attributes:
        title: above it.
        sentences: what it says in words.
        blocks: tables and figures.
    """

    title: str
    sentences: Sequence[str] = ()
    blocks: Sequence[PageTable | Chart | Explorer] = ()


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: what it is of.
        subtitle: what tells it from others.
        facts: names and values that stand on top.
        sections: its parts.
        notes: what to know before its numbers are used.
    """

    title: str
    subtitle: str
    facts: Mapping[str, str]
    sections: Sequence[PageSection]
    notes: Sequence[str] = ()


def rendered(page: Page) -> str:
    """The page as one HTML file.

    It holds the whole JavaScript of Plotly; nothing else of that package is used.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    plotly_js = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    here = files("elastune.experiments.reports")
    parts = {name: (here / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    blocks = [block.to_json() for section in page.sections for block in section.blocks]
    # Written by us and by Plotly, not by users.
    trusted = {name: Markup(text) for name, text in (parts | {"plotly": plotly_js}).items()}  # noqa: S704
    return template.render(page=page, blocks=_script_safe(blocks), **trusted)


def _script_safe(value: object) -> object:
    """JSON that may stand in a script: nothing in it ends the script."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  escaped above


def label(text: object) -> str:
    """A text of a user as Plotly shows it: tags are not read."""
    return html.escape(str(text), quote=False)


def between(value: float | None, low: float | None, high: float | None) -> Cell:
    """A mean with its interval, as a cell."""
    if value is None or not math.isfinite(value):
        return None
    return value, interval(value, low, high)


def interval_of(row: Mapping[str, Any], name: str) -> Cell:
    """The same of a row of `experiments.sweeps.summary.summarise`."""
    return between(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))


def _plain(cell: object) -> object:
    if isinstance(cell, tuple):
        value, text = cell
        return [_plain(value), text]
    if hasattr(cell, "item"):
        cell = cell.item()
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _finite(value: Any) -> Any:  # noqa: ANN401  anything that JSON has
    """The same for JSON: what is not finite is None, and arrays are lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return _plain(value)
