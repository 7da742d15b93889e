"""CSV and parquet files of any size as tables; an error names the cell.

Imports the standard library, numpy, sim.model.errors; pandas and pyarrow when a table is read. Small
tables of the project's own format are read by `traces.formats.csv_rows`, which needs neither.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InvalidTraceError, nearest
from elastune.sim.model.numbers import number_of
from elastune.traces.formats.csv_rows import check_separator, same_cell
from elastune.traces.formats.texts import require_file, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

_PARQUET = b"PAR1"
_PLAIN = r"^-?(?:0|[1-9][0-9]{0,20})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,4})?$"
"""Numbers as most programs write them; `sim.model.numbers` reads the others, and says what is wrong."""
_NO_TEXT = {
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"\xfd7zXZ": "compressed with xz: unpack it, or compress it with gzip",
    b"\x1f\x8b": "compressed with gzip: let its name end in .gz",
    b"BZh": "compressed with bzip2: let its name end in .bz2",
    b"PK\x03\x04": "a zip archive or a workbook: unpack it, or export it as CSV",
}
"""What files begin with that are often taken for CSV text, and what to do about them."""
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4", ".br")
_SHOWN = 60
"""Characters of a cell in a message; a quotation mark that is never closed makes one of the rest of the file."""
_NOT_UTF8 = re.compile(r"column #(\d+): .*?(?:Row #(\d+): )?.*invalid UTF8", re.DOTALL)
_EXACT = 2**53
"""Floats beyond it are not all the whole numbers."""


class SourceTable:
    """A table in memory.

    Attributes:
        origin: what errors call it.
        frame: its cells; texts where it was a CSV file.
        names: of its columns.
        unnamed: columns without a name, which are left out; pandas writes its index so.
        rows: (rows,) int; where each row stands in the file, counted from 1 below the header.
    """

    def __init__(
        self, origin: str, frame: pd.DataFrame, rows: np.ndarray | None = None, *, is_text: bool = False
    ) -> None:
        self._is_text = is_text  # whether all cells are, as in a CSV file
        named = [bool(name) for name in frame.columns]
        self.origin, self.frame, self.unnamed = origin, frame.loc[:, named], len(named) - sum(named)
        self.rows = np.arange(1, len(frame) + 1) if rows is None else rows
        self.names = [str(name) for name in self.frame.columns]
        for name in self.names:
            if self.names.count(name) > 1:
                raise InvalidTraceError(origin, "the header names it twice", column=name)
        if frame.empty:
            raise InvalidTraceError(origin, "has no rows")

    @classmethod
    def of(cls, table: str | Path | pd.DataFrame) -> SourceTable:
        """The table in a file, or the data frame under string names.

        Raises:
            InvalidTraceError: the file is neither CSV text nor parquet.
        """
        if not isinstance(table, str | Path):
            return cls("the data frame", table.rename(columns=str))
        file = Path(table)
        if _is_parquet(file):
            return cls(str(file), read_parquet(file))
        return cls(str(file), _read_csv(file), is_text=True)

    def wrong(self, row: int, column: str, problem: str) -> InvalidTraceError:
        """The error for a cell; `row` is a position, counted from 0."""
        return InvalidTraceError(self.origin, problem, row=int(self.rows[row]), column=column)

    def where(self, conditions: Mapping[str, str]) -> SourceTable:
        """The rows whose cells in these columns hold this text, or this number.

        Raises:
            InvalidTraceError: there is no such column or no such row.
        """
        kept = np.ones(len(self.frame), dtype=bool)
        for column, wanted in conditions.items():
            texts = self.texts(self.require(column, "--where"))
            same = {text for text in set(texts) if same_cell(text, wanted)}
            kept &= np.array([text in same for text in texts])
            if not kept.any():
                raise InvalidTraceError(self.origin, f"no row holds {wanted!r}, as --where asks", column=column)
        return SourceTable(self.origin, self.frame[kept].reset_index(drop=True), self.rows[kept], is_text=self._is_text)

    def require(self, column: str, option: str, others: Sequence[str] = ()) -> str:
        """The column's name, if there is one.

        Args:
            column: its name.
            option: that would name another.
            others: options for further columns that are not there, so that all are told at once.

        Raises:
            InvalidTraceError: there is not; names the nearest, and the option that would name another.
        """
        if column in self.names:
            return column
        match = nearest(column, self.names)
        meant = f"did you mean {match!r}? " if match else ""
        problem = f"has no such column; {meant}its columns: {', '.join(self.names)}; name another with {option}"
        if others:
            problem += f" (and with {', '.join(others)})"
        if sum(name[-1:].isdigit() for name in self.names) > 1:
            problem += ", or, if the table has a column for each iteration, make a row of each"
        raise InvalidTraceError(self.origin, problem, column=column)

    def numbers(self, column: str, hint: str = "") -> np.ndarray:
        """(rows,) float: the cells, NaN where one is empty; `hint` follows the problem in messages.

        Raises:
            InvalidTraceError: one is no number.
        """
        cells = self.frame[column]
        if cells.dtype.kind in "iuf":
            return cells.to_numpy(dtype=np.float64, na_value=np.nan)
        texts = self.texts(column)
        numbers = _plain_numbers(texts)
        for row in np.flatnonzero(~np.isfinite(numbers)).tolist():
            cell = texts[row]
            try:
                numbers[row] = number_of(cell, is_score=True) if cell else np.nan
            except ValueError as error:
                shown = cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}..."
                problem = f"is {shown!r}, but {error}{hint}"
                raise self.wrong(row, column, problem) from None
        return numbers

    def texts(self, column: str, rows: np.ndarray | None = None) -> list[str]:
        """The cells (of some rows) as stripped text, empty where one is."""
        cells = self.frame[column] if rows is None else self.frame[column].iloc[rows]
        missing = cells.isna().to_numpy()
        if self._is_text and not missing.any():
            return [cell.strip() for cell in cells.tolist()]
        return ["" if gone else text_of(cell).strip() for cell, gone in zip(cells.tolist(), missing, strict=True)]

    def kinds(self, column: str) -> np.ndarray:
        """(rows,) int: equal where cells are, empty ones included."""
        import pandas as pd

        cells = self.frame[column]
        if cells.dtype.kind in "biuf":
            return pd.factorize(cells)[0]
        return pd.factorize(np.array(self.texts(column), dtype=object))[0]

    def labels(self, column: str) -> list[str]:
        """The cells as names: 3.0 is 3.

        Raises:
            InvalidTraceError: one is empty, or a float too large to tell whole numbers apart.
        """
        cells = self.frame[column]
        for row in np.flatnonzero(cells.isna().to_numpy()):
            raise self.wrong(int(row), column, "is empty")
        if cells.dtype.kind == "f" and (cells % 1 == 0).all():
            # A program that knows no missing integers makes floats of whole numbers.
            for row in np.flatnonzero(cells.abs().to_numpy() >= _EXACT):
                problem = (
                    f"is the float {cells.iloc[row]:g}, which stands for several whole numbers; keep names as text"
                )
                raise self.wrong(int(row), column, problem)
            return [str(int(cell)) for cell in cells.tolist()]
        labels = self.texts(column)
        if "" in labels:
            raise self.wrong(labels.index(""), column, "is empty")
        self._check_alike(column, labels)
        return labels

    def _check_alike(self, column: str, labels: Sequence[str]) -> None:
        """Names that are one number must be one text: 3 and 3.0 are one trial for some programs, and two for others."""
        known: dict[float, str] = {}
        for label in dict.fromkeys(labels):
            try:
                other = known.setdefault(number_of(label), label)
            except ValueError:
                continue
            if other != label:
                raise self.wrong(labels.index(label), column, f"is {label}, but {other} elsewhere: write them alike")


def _plain_numbers(texts: Sequence[str]) -> np.ndarray:
    """(texts,) float: the numbers that are written plainly, a million in a second, and NaN elsewhere."""
    import pyarrow as pa
    from pyarrow import compute

    cells = pa.array(texts, pa.string())
    plain = compute.if_else(compute.match_substring_regex(cells, _PLAIN), cells, None)
    return np.array(compute.cast(plain, pa.float64()).to_numpy(zero_copy_only=False))


def table_columns(file: Path) -> list[str]:
    """Names of the columns of a CSV or parquet file, without reading the rest.

    Raises:
        InvalidTraceError: it is neither.
    """
    if not _is_parquet(file):
        return _csv_header(file)[0]
    from pyarrow import parquet

    with _readable(file, "parquet file"), parquet.ParquetFile(file) as opened:
        return list(opened.schema_arrow.names)


def _is_parquet(file: Path) -> bool:
    require_file(file)
    try:
        with file.open("rb") as opened:
            return opened.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise InvalidTraceError(file, f"cannot be read: {error.strerror}") from error


@contextmanager
def _readable(file: Path, kind: str) -> Iterator[None]:
    """Turn what pyarrow raises into an error that names the file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, csv.Error, pa.ArrowException, UnicodeError) as error:
        if found := _NOT_UTF8.search(str(error)):
            at = f"column {int(found[1]) + 1}" + (f" of row {int(found[2]) - 1}" if found[2] else "")
            raise InvalidTraceError(file, f"is no {kind}: {at} is not UTF-8; save it as UTF-8") from error
        raise InvalidTraceError(file, f"is no {kind}: {error}") from error


def read_parquet(file: Path) -> pd.DataFrame:
    """The columns of a parquet file, without an index.

    Raises:
        InvalidTraceError: it is none.
    """
    from pyarrow import parquet

    with _readable(file, "parquet file"), parquet.ParquetFile(file) as opened:
        frame: pd.DataFrame = opened.read().to_pandas(ignore_metadata=True)
    return frame


def _csv_header(file: Path) -> tuple[list[str], int]:
    """The names of the columns, and the lines down to them, theirs included.

    Arrow's own reader of headers reads on in a thread of its own, and has the process aborted where the header is no text.
    """
    import pyarrow as pa

    _check_text(file)
    with _readable(file, "CSV text"), pa.input_stream(str(file)) as stream:
        # Bytes that are no UTF-8 are kept as they are: they may stand in a cell further down.
        rows = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline=""))
        names = next(([name.strip() for name in row] for row in rows if row), [])
    for name in names:
        if not_utf8 := [letter for letter in name if "\udc80" <= letter <= "\udcff"]:
            problem = f"its header is not UTF-8 (byte {ord(not_utf8[0]) - 0xDC00:#04x}); save it as UTF-8"
            raise InvalidTraceError(file, f"is no CSV text: {problem}")
    if not names:
        raise InvalidTraceError(file, "is no CSV text: Empty CSV file")
    check_separator(file, names)
    return names, rows.line_num


def _check_text(file: Path) -> None:
    with file.open("rb") as opened:
        begins = opened.read(8)
    for mark, problem in _NO_TEXT.items():
        if begins.startswith(mark) and not problem.endswith(file.suffix or "none"):
            raise InvalidTraceError(file, f"is no CSV text but {problem}")
    if b"\0" in begins and file.suffix not in _COMPRESSED:
        raise InvalidTraceError(file, "is no CSV text: it holds bytes that no text has")


def _read_csv(file: Path) -> pd.DataFrame:
    """All cells as text: the column that a cell belongs to decides what it must be."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    ragged: dict[int, tuple[int, int]] = {}

    def note(row: arrow_csv.InvalidRow) -> str:
        ragged.setdefault(row.number or 0, (row.actual_columns, row.expected_columns))
        return "skip"

    names, lines = _csv_header(file)
    types: Mapping[str, pa.DataType] = {name: pa.string() for name in names}
    options = arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False, quoted_strings_can_be_null=False)
    with _readable(file, "CSV text"):
        table = arrow_csv.read_csv(
            file,
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=lines),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=options,
        )
    if ragged:
        number, (cells, expected) = min(ragged.items())
        raise InvalidTraceError(file, f"has {cells} cells, but the header names {expected}", row=number - lines)
    frame: pd.DataFrame = table.to_pandas()
    return frame
