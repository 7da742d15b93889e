"""Reading journals, plain or compressed as sweeps keep them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, cast

from elastune.sim.control.journal import read_entries, read_header
from elastune.sim.model.errors import InputError, ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elastune.sim.control.journal import Entry, Header

_ZSTANDARD = bytes.fromhex("28b52ffd")
"""How every such file begins, whatever its name (RFC 8878, section 3.1.1)."""


def journal_of(folder: Path, digest: str) -> Path:
    """Where a sweep keeps the journal of the run with this digest, in its folder of journals."""
    return folder / f"{digest}.jsonl.zst"


def open_journal(path: Path) -> BinaryIO:
    """A stream of the journal's lines."""
    with path.open("rb") as stream:
        is_compressed = stream.read(len(_ZSTANDARD)) == _ZSTANDARD
    if not is_compressed:
        return path.open("rb")
    import pyarrow as pa

    # Arrow's streams read, but have no lines.
    return cast("BinaryIO", io.BufferedReader(pa.input_stream(str(path), compression="zstd")))


def header_of(path: Path) -> Header:
    """The header of a journal.

    Raises:
        InputError: the file cannot be read, or is no journal.
    """
    try:
        return read_header(path, open_journal)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ReplayError as error:
        raise InputError(str(error)) from error


def entries_of(path: Path) -> Iterator[Entry]:
    """The entries of a journal, one at a time.

    Raises:
        InputError: the file cannot be read, or not to its end.
        ReplayError: an entry is malformed; names file and line.
    """
    try:
        yield from read_entries(path, open_journal)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    # An error of decompression has no words of the operating system.
    return InputError(f"{path}: cannot be read: {error.strerror or error}")
