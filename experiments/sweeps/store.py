"""The results folder of a sweep: parquet files that are added whole, and never changed in place.

Imports the row schema and sim.model.errors; pyarrow inside the functions that need it.

    DIR/sweep.yaml                    the sweep, base and ranges written out
    DIR/runs/part-000000.parquet ...  the rows; pandas, polars and DuckDB read the folder directly
    DIR/parts.sha256                  the digest of each of these files, as `sha256sum -c` takes it
    DIR/journals/<digest>.jsonl.zst   where journals were asked for

A part is written beside its name, forced to the disk and renamed, so that it is there whole or not at all; what a killed
process left half-written begins with a dot, is read by nobody and removed by the next sweep. A file whose digest is another
than was written down is refused by name; one without a digest, as in folders from before there were any, is read.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.experiments.files import locked, next_part, write_whole
from elastune.experiments.results_version import before_versions
from elastune.experiments.runs.journals import journal_of
from elastune.experiments.runs.run_folder import require_inside, require_kind
from elastune.experiments.sweeps.rows import LEFT_OUT, SEARCH_GAP, STATUSES, UNSPENT, schema, table_of
from elastune.sim.model.errors import InputError
from elastune.traces.formats.yaml_text import dump_yaml

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc


@dataclass(frozen=True)
class Known:
    """Status of one run in a folder."""

    status: str
    results_version: str


class Store:
    """The results folder of a sweep.

    Attributes:
        folder: need not exist before something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.journals = folder / "journals"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the folder for writing while the block runs, and remove leftovers of a killed process.

        Raises:
            InputError: another process writes, the folder cannot be made, holds a run or a bundle, or a link in it leads out.
        """
        require_kind(self.folder, "sweep")
        require_inside(self.folder)
        for folder in (self.folder, self.runs):
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder}: the results go to a folder, but this is a file")
        with locked(self.folder):
            self.runs.mkdir(exist_ok=True)
            for folder in (self.folder, self.runs, self.journals):
                for torn in folder.glob(".*.partial"):
                    torn.unlink()
            yield

    def parts(self) -> list[Path]:
        """The files of rows, oldest first."""
        return sorted(self.runs.glob("*.parquet"))

    def known(self) -> dict[str, Known]:
        """Status of every run in the folder, by key.

        Raises:
            InputError: a file is damaged or of another version, or a run is there twice.
        """
        found = self.columns("key", "status", "results_version")
        self._check(found)
        keys, *others = (column.to_pylist() for column in found.columns)
        return {key: Known(*of_key) for key, of_key in zip(keys, zip(*others, strict=True), strict=True)}

    def _check(self, rows: pa.Table) -> None:
        """Refuse rows that no sweep wrote: of one run twice, or of an unknown status."""
        keys, statuses = rows["key"].to_pylist(), rows["status"].to_pylist()
        if len(set(keys)) < len(keys):
            double = next(key for key, count in Counter(keys).items() if count > 1)
            raise InputError(
                f"{self.folder}: run {str(double)[:12]} is there twice; `elastune results merge {self.folder} -o NEW`"
                " leaves out doubles"
            )
        if unknown := set(statuses) - set(STATUSES):
            told = ", ".join(sorted(map(repr, unknown)))
            raise InputError(f"{self.folder}: a row has the status {told}, but must have one of {', '.join(STATUSES)}")

    def columns(self, *names: str) -> pa.Table:
        """These columns of all rows, in the order of the parts.

        Raises:
            InputError: a file is damaged or of another version.
        """
        import pyarrow as pa

        empty = schema().empty_table().select(list(names))
        return pa.concat_tables([empty, *(_read(part, list(names)) for part in self._whole_parts(may_lack=True))])

    def _digests(self) -> dict[str, str]:
        """Recorded digest of each part, by its name."""
        file = self.folder / _DIGESTS
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        lines = [_DIGEST_LINE.fullmatch(line) for line in text.splitlines()]
        if None in lines:
            problem = f"line {lines.index(None) + 1} is damaged; remove the file to trust the parts as they are"
            raise InputError(f"{file}: {problem}")
        return {line[2]: line[1] for line in lines if line}

    def _note_digests(self, changed: Mapping[str, str | None]) -> None:
        """Record digests of parts; None removes the entry of a deleted part."""
        parts = {part.name for part in self.parts()}
        known = {name: told for name, told in {**self._digests(), **changed}.items() if told and name in parts}
        text = "".join(f"{digest}  runs/{name}\n" for name, digest in sorted(known.items()))
        write_whole(self.folder / _DIGESTS, lambda path: path.write_text(text, encoding="utf-8"))

    def _write(self, part: Path, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        written: dict[str, str | None] = {}

        def write(path: Path) -> None:
            pq.write_table(table, path, compression="zstd")
            written[part.name] = _sha256(path)

        write_whole(part, write)
        self._note_digests(written)

    def _whole_parts(self, *, may_lack: bool) -> list[Path]:
        """The files of rows, each as it was written.

        Args:
            may_lack: whether one that was written may be gone, as for a sweep that runs again what is missing.

        Raises:
            InputError: one is missing, truncated or was edited.
        """
        parts, again = self.parts(), "sweep again into this folder for its runs"
        digests = self._digests()
        for part in parts:
            if part.name in digests and digests[part.name] != _sha256(part):
                raise InputError(f"{part}: is damaged, as it is not what was written; remove it, and {again}")
        lacking = sorted(digests.keys() - {part.name for part in parts})
        if lacking and not may_lack:
            raise InputError(f"{self.runs / lacking[0]}: was written, but is not there; {again}")
        return parts

    def next_part(self) -> Path:
        """Where the next rows go."""
        return next_part(self.runs, "part")

    def write_part(self, part: Path, rows: Sequence[Mapping[str, object]]) -> None:
        """Write rows as one part. Writing the same part again replaces it.

        Raises:
            StoreError: the disk is full or cannot be written to; nothing of the rows is there then.
        """
        self._write(part, table_of(rows))

    def append_table(self, table: pa.Table) -> None:
        """Add a table of rows as the first part of an empty folder; see `write_part`."""
        self._write(self.runs / "part-000000.parquet", table)

    def forget(self, keys: Collection[str]) -> None:
        """Remove the rows of these runs, so that they are run again.

        Raises:
            StoreError: the disk is full; some of them may still be there.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        for part in self.parts():
            table = _read(part)
            kept = table.filter(pc.invert(pc.is_in(table["key"], pa.array(sorted(keys), pa.string()))))
            if not kept.num_rows:
                part.unlink()
                self._note_digests({part.name: None})
            elif kept.num_rows < table.num_rows:
                self._write(part, kept)

    def write_journal(self, digest: str, compressed: bytes) -> None:
        """Keep the journal of a run.

        Raises:
            StoreError: see `write_part`.
        """
        write_whole(journal_of(self.journals, digest), lambda path: path.write_bytes(compressed))

    def write_sweep(self, document: Mapping[str, Any]) -> None:
        """Write the sweep's specification into the folder.

        Raises:
            StoreError: see `write_part`.
        """
        text = dump_yaml(document)
        write_whole(self.folder / "sweep.yaml", lambda path: path.write_text(text, encoding="utf-8"))

    def read(self, where: pc.Expression | None = None) -> pa.Table:
        """The rows that meet a condition, sorted by key.

        Raises:
            InputError: there are none in the folder, a file is missing, damaged or of another version, or a run is there twice.
        """
        rows = self.read_all()
        self._check(rows)
        return rows if where is None else rows.filter(where)

    def read_all(self) -> pa.Table:
        """The rows sorted by key, those that are there twice included.

        Raises:
            InputError: there are none in the folder, or a file is missing, damaged or of another version.
        """
        import pyarrow as pa

        parts = self._whole_parts(may_lack=False)
        if not parts:
            raise InputError(f"{self.folder}: holds no results; `elastune sweep FILE -o {self.folder}` makes some")
        return pa.concat_tables([_read(part) for part in parts]).sort_by("key")


def read_results(folder: str | Path) -> pd.DataFrame:
    """The rows of a results folder as a pandas table, sorted by key.

    Raises:
        InputError: see `Store.read`.
    """
    results: pd.DataFrame = Store(Path(folder)).read().to_pandas()
    return results


def _read(part: Path, names: list[str] | None = None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Open the file once; that dominates the time for small parts.
        with pq.ParquetFile(part) as file:
            found = file.schema_arrow
            if not any(found.equals(known) for known in _known_schemas()):
                raise InputError(
                    f"{part}: holds rows of another version of elastune: {_difference(found)}; use another folder"
                )
            wanted = schema().names if names is None else names
            there = [_CODE if name == _VERSION and _CODE in found.names else name for name in wanted]
            return _with_all(file.read([name for name in there if name in found.names]), wanted)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{part}: cannot be read as parquet: {error}; move it away and sweep again") from error


_DIGESTS = "parts.sha256"
_DIGEST_LINE = re.compile(r"([0-9a-f]{64})  runs/([^/]+)")
_VERSION, _CODE = "results_version", "code_sha256"


def _known_schemas() -> Iterator[pa.Schema]:
    """That of now, those before rows said why money was left or what a search left out, and that with a digest of the code."""
    before = schema()
    yield before
    for newest in (UNSPENT, LEFT_OUT, SEARCH_GAP):
        before = before.remove(before.get_field_index(newest))
        yield before
    at = before.get_field_index(_VERSION)
    yield before.set(at, before.field(at).with_name(_CODE))


def _with_all(table: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """The wanted columns: of old rows the version says what they are, and what they lack is empty."""
    import pyarrow as pa

    at = table.schema.get_field_index(_CODE)
    if at >= 0:
        told = [before_versions(code) for code in table[_CODE].to_pylist()]
        table = table.set_column(at, pa.field(_VERSION, pa.string()), [told])
    for name in wanted:
        if name not in table.schema.names:
            field = schema().field(name)
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(wanted)


def _difference(found: pa.Schema) -> str:
    known = schema()
    missing = [name for name in known.names if name not in found.names]
    unknown = [name for name in found.names if name not in known.names]
    told = {"without": missing, "with": unknown}
    return (
        "; ".join(f"{word} {', '.join(names[:5])}" for word, names in told.items() if names) or "columns of other types"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
