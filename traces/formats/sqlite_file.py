"""SQLite files that are read and never written to, whatever their names. Imports the standard library."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MAGIC = b"SQLite format 3\0"
_READ_VERSION = 19  # the byte of the header that is 2 where the file has a write-ahead log


def is_sqlite(file: Path) -> bool:
    """Whether this is a file of SQLite's."""
    return _header(file).startswith(_MAGIC)


@contextmanager
def reading(file: Path) -> Iterator[Callable[[], sqlite3.Connection]]:
    """A function that connects to the file read-only, while the block runs.

    SQLite makes files beside a database with a write-ahead log even to read it, and needs to write where a program was killed
    while it wrote. Such a database is copied first, together with its log.
    """
    unfinished = [Path(f"{file}{ending}") for ending in ("-wal", "-journal")]
    if _header(file)[_READ_VERSION : _READ_VERSION + 1] != b"\2" and not any(log.is_file() for log in unfinished):
        yield lambda: _connect(file)
        return
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "copy.db"
        for log, ending in zip(unfinished, ("-wal", "-journal"), strict=True):
            if log.is_file():
                shutil.copyfile(log, f"{copy}{ending}")
        shutil.copyfile(file, copy)
        yield lambda: _connect(copy, "rw")


def _connect(file: Path, mode: str = "ro") -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, check_same_thread=False)


def _header(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(100)
