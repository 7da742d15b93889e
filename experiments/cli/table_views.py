"""What users ask of tables: which rows and columns, in which order, and in which form. Imports the standard library and typer.

A command that prints tables is wrapped by `with_view`, which gives it the options. `Table.print` follows what was given.
"""

from __future__ import annotations

import csv
import functools
import inspect
import io
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from elastune.experiments.cli.numbers import count_option
from elastune.sim.model.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from elastune.experiments.cli.tables import Column

_PANEL = "Tables"
_NUMBER = re.compile(r"[-+]?[0-9][0-9,]*\.?[0-9]*(?:e[-+]?[0-9]+)?")
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


Form: TypeAlias = Literal["text", "csv", "markdown", "latex"]
"""How tables are printed."""


@dataclass(frozen=True)
class TableView:
    """What was asked for.

    Attributes:
        sort: a heading, or `-` and a heading for the largest first; None for the order of the command.
        top: so many rows of the tables that are sorted, or of all tables in their own order; None for all.
        columns: headings; empty for all. Columns that name a row are always there.
        form: of the print.
    """

    sort: str | None = None
    top: int | None = None
    columns: tuple[str, ...] = ()
    form: Form = "text"


_ASKED: ContextVar[TableView] = ContextVar("view", default=TableView())  # noqa: B039  it is frozen
_HEADINGS: ContextVar[list[str]] = ContextVar("headings")
"""Of all tables that the command has printed."""


def asked_of(headings: Sequence[str]) -> TableView:
    """What the command that runs was asked for; of a table with these headings."""
    view = _ASKED.get()
    if view != TableView():
        _HEADINGS.get().extend(headings)
    return view


def require_asked(*columns: Sequence[Column]) -> None:
    """Check `--sort` and `--columns` before any work is done; what a command prints in the end is checked again.

    Args:
        columns: of each table that the command may print.

    Raises:
        InputError: none of these tables has a column that was asked for.
    """
    _require_all(_ASKED.get(), [column.heading for table in columns for column in table])


def _require_all(view: TableView, headings: Sequence[str]) -> None:
    if view.sort is not None:
        require_column(view.sort.removeprefix("-"), "--sort", headings)
    for name in view.columns:
        require_column(name, "--columns", headings)


def _option(name: str, told: str, metavar: str) -> Any:  # noqa: ANN401  as typer's own
    return typer.Option(name, metavar=metavar, help=told, show_default=False, rich_help_panel=_PANEL)


_OPTIONS = {
    "sort": Annotated[str | None, _option("--sort", "By this column; -COLUMN for the largest first.", "COLUMN")],
    "top": Annotated[
        int | None, count_option("--top", help="So many rows.", show_default=False, rich_help_panel=_PANEL)
    ],
    "columns": Annotated[str | None, _option("--columns", "Only these, and those that name a row.", "A,B,...")],
    "form": Annotated[Form, typer.Option("--format", help="Of tables.", rich_help_panel=_PANEL)],
}


def with_view(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--sort`, `--top`, `--columns` and `--format`, which its tables follow."""

    @functools.wraps(command)
    def viewed(*args: Any, sort: str | None, top: int | None, columns: str | None, form: Form, **kwargs: Any) -> None:  # noqa: ANN401
        from elastune.experiments.spec.yaml_file import names_in

        view = TableView(sort, top, tuple(names_in(columns, "--columns")), form)
        if kwargs.get("as_json") and view != TableView():
            raise InputError(
                "--sort, --top, --columns and --format are about tables, and --json prints none: leave one out"
            )
        with _followed(view) as headings:
            command(*args, **kwargs)
        _require_all(view, headings)

    own = inspect.signature(command, eval_str=True).parameters
    added = {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default="text" if name == "form" else None
        )
        for name, annotation in _OPTIONS.items()
    }
    viewed.__signature__ = inspect.Signature([*own.values(), *added.values()])  # type: ignore[attr-defined]  # typer reads it
    viewed.__annotations__ = {name: one.annotation for name, one in {**own, **added}.items()}
    return viewed


@contextmanager
def _followed(view: TableView) -> Iterator[list[str]]:
    """Tables that are printed in the block follow this view; yields the headings that they had."""
    headings: list[str] = []
    asked, seen = _ASKED.set(view), _HEADINGS.set(headings)
    try:
        yield headings
    finally:
        _ASKED.reset(asked)
        _HEADINGS.reset(seen)


def column_called(name: str, headings: Sequence[str]) -> int | None:
    """The number of the column with this heading, or whose heading begins so; None where there is none."""
    folded = [heading.casefold() for heading in headings]
    wanted = name.strip().casefold()
    if wanted in folded:
        return folded.index(wanted)
    beginning = [number for number, heading in enumerate(folded) if wanted and heading.startswith(wanted)]
    return beginning[0] if len(beginning) == 1 else None


def require_column(name: str, option: str, headings: Sequence[str]) -> None:
    """Check that a table of the command has the column.

    Raises:
        InputError: none has; names the nearest, and all.
    """
    headings = list(dict.fromkeys(headings))  # several tables have the same ones
    if column_called(name, headings) is not None:
        return
    near = nearest(name, headings)
    hint = f"; did you mean {near!r}?" if near else ""
    raise InputError(f"{option}: there is no column {name!r}{hint}; known: {', '.join(headings)}")


def sorted_rows(rows: Sequence[Sequence[str]], index: int, *, largest_first: bool) -> list[int]:
    """Numbers of the rows in the order of the values in one column; those without one are last, equal ones stay in order."""

    def place(row: int) -> tuple[int, float, str]:
        cell = rows[row][index].strip()
        found = _NUMBER.match(cell)
        if found is None:
            return (2, 0.0, "") if cell in ("", "-") else (1, 0.0, cell.casefold())
        value = float(found.group().replace(",", ""))
        return 0, -value if largest_first else value, ""

    order = sorted(range(len(rows)), key=place)
    texts = [row for row in order if place(row)[0] == 1]
    if not largest_first or not texts:
        return order
    return [row for row in order if place(row)[0] == 0] + texts[::-1] + [row for row in order if place(row)[0] == 2]


def as_csv(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The cells as they are shown, with commas between."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([headings, *rows])
    return text.getvalue()


def as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], is_right: Sequence[bool]) -> str:
    """A table of Markdown."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"

    rule = ["---:" if right else "---" for right in is_right]
    return "".join(line(cells) for cells in (headings, rule, *rows))


def as_latex(headings: Sequence[str], rows: Sequence[Sequence[str]], is_right: Sequence[bool]) -> str:
    """A tabular of the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return (
            " & ".join("".join(_LATEX.get(character, character) for character in cell) for cell in cells)
            + r" \\"
            + "\n"
        )

    layout = "".join("r" if right else "l" for right in is_right)
    body = "".join(map(line, rows))
    return (
        f"\\begin{{tabular}}{{{layout}}}\n\\toprule\n{line(headings)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )
