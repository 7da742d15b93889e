"""Files that are there whole or not at all, and folders that one process writes to. Imports sim.model.errors."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError, TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RETRY = "what was finished is kept; make room and run the same command again"


class StoreError(TuningError):
    """Results could not be written; those that were are whole."""


@contextmanager
def locked(folder: Path, taken: str = "another sweep is writing to this folder") -> Iterator[None]:
    """The folder is there, and nobody else has it while the block runs; the lock ends with the process.

    Args:
        folder: made where it is not there.
        taken: what is said where another process has it.

    Raises:
        InputError: another process has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror or error}") from error
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: {taken}") from error
        yield


def next_part(folder: Path, prefix: str) -> Path:
    """Where the next rows go."""
    numbers = [int(part.stem.rpartition("-")[2]) for part in folder.glob(f"{prefix}-*.parquet")]
    return folder / f"{prefix}-{max(numbers, default=-1) + 1:06d}.parquet"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """The file is there whole, or as it was before.

    Raises:
        StoreError: the disk is full or cannot be written to.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        write(partial)
        _force(partial)
        partial.replace(path)
        _force(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; {RETRY}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there either as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _force(path: Path) -> None:
    """What was written to a file, or renamed in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
