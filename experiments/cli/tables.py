"""The one printer of tables and sentences. Imports rich when it prints; numbers arrive computed.

Text of users (names, configurations, paths, messages) may hold anything. `plain` shows it as it is: nothing in it is markup,
and no control character reaches the terminal.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from elastune.experiments.cli import table_views
from elastune.experiments.formats import NONE, duration, interval, number, percent, seconds, usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from elastune.experiments.cli.table_views import TableView

__all__ = [
    "NONE", "PAIRS", "Column", "Table", "console", "duration", "interval", "key", "number", "numbers", "percent", "plain",
    "print_pairs", "say", "seconds", "spread", "text", "usd",
]  # fmt: skip
_PIPED_WIDTH = 200
_GAP = 2
_LEAST_TEXT = 24
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: object) -> str:
    r"""The text on one line, safe to print: control characters are shown as escapes, such as `\n` and `\x1b`."""
    return "".join(map(_shown, str(text)))


def _shown(character: str) -> str:
    is_hidden = character in _BIDI or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode("ascii") if is_hidden else character


def say(text: str, *, err: bool = False) -> None:
    """Print lines as they are, on standard output or standard error."""
    stream = sys.stderr if err else sys.stdout
    print(*map(plain, text.split("\n")), sep="\n", file=stream, flush=err)


def console() -> Console:
    """Standard output as rich writes to it; wide where it is neither a terminal nor told its width."""
    from rich.console import Console

    found = Console(markup=False, emoji=False, highlight=False)
    if not found.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        found.width = _PIPED_WIDTH
    return found


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: above it.
        kind: a key names the row: it is whole, and in every block. A number is whole too. A text may be wrapped.
        footer: below it, such as a sum.
    """

    heading: str
    kind: Literal["key", "number", "text"] = "number"
    footer: str = ""


def key(*headings: str) -> list[Column]:
    """Columns that name a row."""
    return [Column(heading, "key") for heading in headings]


def numbers(*headings: str) -> list[Column]:
    """Columns that are aligned to the right."""
    return [Column(heading) for heading in headings]


def text(*headings: str) -> list[Column]:
    """Columns that may be wrapped."""
    return [Column(heading, "text") for heading in headings]


@dataclass
class Table:
    """Rows under headings. Where the screen is too narrow, the columns that do not fit follow in further blocks.

    Attributes:
        title: above the first block; may be empty.
        columns: of every row.
        rows: of texts, one per column.
        strong: numbers of the rows that are printed in bold.
    """

    title: str
    columns: Sequence[Column]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    strong: set[int] = field(default_factory=set)

    def add(self, *cells: object, is_strong: bool = False) -> None:
        """Add a row."""
        if is_strong:
            self.strong.add(len(self.rows))
        self.rows.append(tuple(map(plain, cells)))

    def print(self) -> None:
        """Print it as wide as the screen is, or in the form, order and columns that were asked for."""
        headings = [plain(column.heading) for column in self.columns]
        view = table_views.asked_of(headings)
        table = self._as_asked(view, headings)
        if view.form != "text":
            say(_in_form(table, view.form))
        else:
            _print_text(table)

    def _as_asked(self, view: TableView, headings: list[str]) -> Table:
        """The rows and columns that are shown; a table that lacks what is asked for stays as it is."""
        rows = list(range(len(self.rows)))
        index = None if view.sort is None else table_views.column_called(view.sort.removeprefix("-"), headings)
        if view.sort is not None and index is not None:
            rows = table_views.sorted_rows(self.rows, index, largest_first=view.sort.startswith("-"))
        if view.top is not None and (view.sort is None or index is not None):
            rows = rows[: view.top]
        wanted = {table_views.column_called(name, headings) for name in view.columns} - {None}
        shown = [n for n, column in enumerate(self.columns) if not wanted or n in wanted or column.kind == "key"]
        return Table(
            self.title,
            [self.columns[column] for column in shown],
            [tuple(self.rows[row][column] for column in shown) for row in rows],
            {place for place, row in enumerate(rows) if row in self.strong},
        )


def _in_form(table: Table, form: table_views.Form) -> str:
    headings = [plain(column.heading) for column in table.columns]
    footer = [tuple(column.footer for column in table.columns)] if any(c.footer for c in table.columns) else []
    rows, is_right = [*table.rows, *footer], [column.kind == "number" for column in table.columns]
    match form:
        case "csv":
            return table_views.as_csv(headings, rows)
        case "markdown":
            title = f"{plain(table.title)}\n\n" if table.title else ""
            return title + table_views.as_markdown(headings, rows, is_right)
    title = f"% {plain(table.title)}\n" if table.title else ""
    return title + table_views.as_latex(headings, rows, is_right)


def _print_text(table: Table) -> None:
    out = console()
    title = plain(table.title)
    for block in _blocks(table.columns, [_width(table, index) for index in range(len(table.columns))], out.width):
        _print_block(table, out, block, title)
        title = ""


def _width(table: Table, index: int) -> int:
    """Cells that the longest text of a column takes."""
    from rich.cells import cell_len

    column = table.columns[index]
    return max(map(cell_len, (plain(column.heading), column.footer, *(row[index] for row in table.rows))))


def _print_block(table: Table, out: Console, block: Sequence[int], title: str) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if title:
        out.print(Text(title, style="italic"))
    has_footer = any(column.footer for column in table.columns)
    drawn = RichTable(
        box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False, show_footer=has_footer
    )
    for index in block:
        column = table.columns[index]
        drawn.add_column(
            Text(plain(column.heading)),
            footer=Text(column.footer),
            justify="right" if column.kind == "number" else "left",
            overflow="fold",
            min_width=None if column.kind == "text" else min(_width(table, index), out.width - 1),
        )
    for place, row in enumerate(table.rows):
        drawn.add_row(*(Text(row[index]) for index in block), style="bold" if place in table.strong else None)
    out.print(drawn)
    out.print()


def _blocks(columns: Sequence[Column], widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Which columns stand side by side: those that name the row in every block, the others as many as fit, in order."""
    least = [
        min(wide, _LEAST_TEXT) if column.kind == "text" else wide for column, wide in zip(columns, widths, strict=True)
    ]
    keys = [index for index, column in enumerate(columns) if column.kind == "key"]
    taken = len(keys)
    block, used = list(keys), sum(least[index] + _GAP for index in keys)
    start = used
    for index in range(len(columns)):
        if index in keys:
            continue
        if len(block) > taken and used + least[index] > width:
            yield sorted(block)
            block, used = list(keys), start
        block.append(index)
        used += least[index] + _GAP
    yield sorted(block)


PAIRS = [*key("what"), *text("value")]
"""Columns of what is known of one thing."""


def spread(count: int, most: int) -> list[int]:
    """Ranks of so many at most out of `count`, evenly, the first and the last among them."""
    steps = min(count, most) - 1
    return [round(index * (count - 1) / steps) for index in range(steps + 1)] if steps > 0 else list(range(count))


def print_pairs(title: str, rows: Mapping[str, object]) -> None:
    """What is known of one thing: a name and a text per line."""
    table = Table(title, PAIRS)
    for what, value in rows.items():
        table.add(what, value)
    table.print()
