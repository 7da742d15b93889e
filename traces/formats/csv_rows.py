"""Rows of small CSV files, with errors that name file, row and column.

Imports the standard library, sim.model and traces.formats.limits.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.numbers import number_of
from elastune.traces.formats.limits import DEAREST, LONGEST_S, too_long
from elastune.traces.formats.texts import require_file

MOST = 1_000_000_000
"""No whole number in a table may be larger."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        file: the file it was read from.
        number: its position, counted from 1 below the header.
        cells: stripped text by column.
    """

    file: Path
    number: int
    cells: Mapping[str, str]

    def wrong(self, column: str, problem: str) -> InvalidTraceError:
        """The error for one of its cells."""
        return InvalidTraceError(self.file, problem, row=self.number, column=column)

    def text(self, column: str) -> str:
        """The cell's text.

        Raises:
            InvalidTraceError: it is empty.
        """
        if not self.cells[column]:
            raise self.wrong(column, "is empty")
        return self.cells[column]

    def number_at_least(self, column: str, least: float = 0.0) -> float:
        """The cell as a finite number, `least` or more.

        Raises:
            InvalidTraceError: it is anything else.
        """
        number = float(self._number(column))
        if number < least:
            raise self.wrong(column, f"is {number:g}, but must be at least {least:g}")
        return number

    def positive_number(self, column: str) -> float:
        """The cell as a finite number above 0.

        Raises:
            InvalidTraceError: it is anything else.
        """
        number = float(self._number(column))
        if number <= 0:
            raise self.wrong(column, f"is {number:g}, but must be positive")
        return number

    def seconds(self, column: str) -> float:
        """The cell as a duration: 0 or more, and no time of day.

        Raises:
            InvalidTraceError: it is anything else.
        """
        number = self.number_at_least(column)
        if number > LONGEST_S:
            raise self.wrong(column, f"is {number:.15g}, {too_long(number)}")
        return number

    def price(self, column: str) -> float:
        """The cell as dollars per hour: 0 or more.

        Raises:
            InvalidTraceError: it is anything else, or no machine costs so much.
        """
        number = self.number_at_least(column)
        if number > DEAREST:
            raise self.wrong(column, f"is {number:g}, but must be at most {DEAREST:,.0f} USD per hour")
        return number

    def whole_number(self, column: str, least: int = 0, most: int = MOST) -> int:
        """The cell as a whole number from `least` to `most`.

        Raises:
            InvalidTraceError: it is anything else.
        """
        number = self._number(column)
        if number != int(number):
            raise self.wrong(column, f"is {number:g}, but must be a whole number")
        if number < least:
            raise self.wrong(column, f"is {self.cells[column]}, but must be at least {least}")
        if number > most:
            raise self.wrong(column, f"is {self.cells[column]}, but must be at most {most}")
        return int(number)

    def _number(self, column: str) -> int | float:
        text = self.text(column)
        try:
            return number_of(text)
        except ValueError as error:
            raise self.wrong(column, f"is {text!r}, but {error}") from None


def same_cell(one: str, other: str) -> bool:
    """Whether two cells hold the same text or the same number."""
    try:
        return one == other or number_of(one) == number_of(other)
    except ValueError:
        return False


def matching(path: Path, rows: Sequence[Row], where: Mapping[str, str]) -> list[Row]:
    """The rows whose columns have these texts.

    Raises:
        InvalidTraceError: there is no such column, or no such row.
    """
    for column in where:
        _require(path, rows[0].cells, column)
    found = [row for row in rows if all(row.cells[column] == wanted for column, wanted in where.items())]
    if not found:
        raise InvalidTraceError(path, f"has no row with {', '.join(f'{key}={text}' for key, text in where.items())}")
    return found


def _require(path: Path, known: Collection[str], column: str) -> None:
    if column not in known:
        raise InvalidTraceError(path, f"has no such column; its columns: {', '.join(known)}", column=column)


def read_rows(path: Path, required: Sequence[str] = ()) -> list[Row]:
    """All rows of a CSV file with a header; empty lines are skipped.

    Args:
        path: the file, UTF-8; compressed where its name ends in .gz.
        required: columns it must have; it may have more.

    Raises:
        InvalidTraceError: the file is missing, is no text, lacks a column, or has no rows or a ragged one.
    """
    lines = _lines(path)
    header = [name.strip() for name in next(lines, [])]
    _check_header(path, header, required)
    rows = [_row(path, number, header, line) for number, line in enumerate(lines, start=1)]
    if not rows:
        raise InvalidTraceError(path, "has no rows")
    return rows


def check_separator(path: Path, header: Sequence[str]) -> None:
    """Check that a header is separated by commas.

    Raises:
        InvalidTraceError: it is one column with another separator in its name.
    """
    if len(header) != 1:
        return
    (line,) = header
    for separator, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if separator in line:
            problem = f"is separated by {called}: save it with commas between columns, and points in decimal numbers"
            raise InvalidTraceError(path, problem)
    if line.startswith("#"):
        raise InvalidTraceError(path, "begins with a comment, but must begin with the names of its columns")


def _lines(path: Path) -> Iterator[list[str]]:
    require_file(path)
    try:
        with _opened(path) as file:
            return iter([line for line in csv.reader(file, strict=True) if line])
    except OSError as error:
        raise InvalidTraceError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidTraceError(path, f"is no CSV text: {error}; save it as UTF-8") from error
    except (csv.Error, EOFError, zlib.error) as error:
        raise InvalidTraceError(path, f"is no CSV text: {error}") from error


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "rt", newline="", encoding="utf-8-sig"))
    return path.open(newline="", encoding="utf-8-sig")


def _check_header(path: Path, header: Sequence[str], required: Sequence[str]) -> None:
    check_separator(path, header)
    for column in required:
        _require(path, header, column)
    for column in header:
        if header.count(column) > 1:
            raise InvalidTraceError(path, "the header names it twice", column=column)


def _row(path: Path, number: int, header: Sequence[str], line: Sequence[str]) -> Row:
    if len(line) != len(header):
        raise InvalidTraceError(path, f"has {len(line)} cells, but the header names {len(header)}", row=number)
    return Row(path, number, {name: cell.strip() for name, cell in zip(header, line, strict=True)})
