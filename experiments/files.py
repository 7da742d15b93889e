"""Files that are there whole or not at all, and folders that one process writes to. Imports sim.model.errors, pandas inside."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from elastune.sim.model.errors import InputError, TuningError

if TYPE_CHECKING:
    import pandas as pd

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
    # No link is followed: in a folder that somebody handed over, it might lead to a file of ours.
    with os.fdopen(
        os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666), "w"
    ) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: {taken}") from error
        yield


def folder_name(name: str, what: str = "name") -> str:
    """The name, which is one level of a folder: nothing that is named lies outside the folder of its kind.

    Args:
        name: of a bundle, a run, a sweep or a figure.
        what: is named so, for the error, such as `--name`.

    Raises:
        InputError: it is empty, a path, hidden, longer than 200 bytes, or has characters that do not print.
    """
    if not name or name.startswith(".") or set(name) & set("/\\") or not name.isprintable() or len(name.encode()) > 200:
        raise InputError(
            f"{what} is {name!r}, but must be one name: up to 200 characters that print, without / and \\, and without a"
            " dot in front"
        )
    return name


def next_part(folder: Path, prefix: str) -> Path:
    """Where the next rows go."""
    numbers = [int(part.stem.rpartition("-")[2]) for part in folder.glob(f"{prefix}-*.parquet")]
    return folder / f"{prefix}-{max(numbers, default=-1) + 1:06d}.parquet"


@contextmanager
def kept_file(path: Path) -> Iterator[BinaryIO]:
    """A stream for a file that gets its name when the block ends; what was written is kept even if the block fails.

    Nothing is kept where the block raises an InputError: then it has not begun. A pipe or a device is written in place.

    Raises:
        InputError: see `is_stream`; or nobody reads the pipe.
    """
    if is_stream(path):
        with _stream_to(path) as stream:
            yield stream
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_of(path)
    try:
        with partial.open("xb") as stream:
            yield stream
    except InputError:
        partial.unlink()
        raise
    except BaseException:
        partial.replace(path)
        raise
    partial.replace(path)


def read_table(path: Path) -> pd.DataFrame:
    """A table that was written here: parquet or CSV, as its name says.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is damaged.
    """
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    if path.suffix != ".parquet":
        return pd.read_csv(path)
    try:
        # By its path: an Arrow thread that drops bytes of a Python file while the process ends would abort it.
        with parquet.ParquetFile(path) as opened:
            table: pd.DataFrame = opened.read().to_pandas()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return table


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """The file is there whole, or as it was before. A pipe or a device gets what would be in the file.

    Args:
        path: of the file; its folder is made.
        write: writes a file at the path that it is given.

    Raises:
        InputError: see `is_stream`; or nobody reads the pipe.
        StoreError: the disk is full or cannot be written to.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder, _stream_to(path) as stream:
            write(Path(folder) / path.name)
            stream.write((Path(folder) / path.name).read_bytes())
        return
    path = path.resolve() if path.is_symlink() else path
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(_partial_of(path))
        _force(partial)
        partial.replace(path)
        _force(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; {RETRY}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """The file holds these bytes, or is as it was before; see `write_whole`."""
    write_whole(path, lambda partial: partial.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """The same for text, in UTF-8."""
    write_atomically(path, text.encode())


def check_outputs(*paths: Path, reads: Iterable[Path] = ()) -> None:
    """Refuse outputs that cannot be written, or would replace each other or what is read, before any work is done.

    Args:
        paths: what is to be written.
        reads: files that the command reads.

    Raises:
        InputError: see `is_stream`; or a folder above is a file, or cannot be written to; or one file is named twice.
    """
    taken = {os.path.realpath(path): "is read" for path in reads}
    for path in paths:
        if is_stream(path):
            continue
        told = taken.setdefault(os.path.realpath(path), "is written")
        if told == "is read" or sum(os.path.realpath(other) == os.path.realpath(path) for other in paths) > 1:
            raise InputError(f"{path}: {told} by the same command, which would replace it: name another file")
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise InputError(f"{path}: cannot be written, as {above} is not a folder: name another file or folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written, as {above} allows no new files: name another file or folder")


def is_stream(path: Path) -> bool:
    """Whether an output is a pipe or a device, which is written in place; any other output is replaced as a whole.

    Raises:
        InputError: it is a folder, a disk or a socket, or a symbolic link that leads out of its folder, or nowhere.
    """
    if _DESCRIPTOR.fullmatch(str(path.absolute())):
        return True
    if path.is_symlink():
        target = Path(os.path.realpath(path))  # which ends, unlike `resolve`, also where links form a circle
        if target.is_symlink() or target.parent != path.parent.resolve():
            what = "itself" if target.is_symlink() else f"{target}, which is not in its folder"
            raise InputError(f"{path}: a symbolic link to {what}: remove the link, or name another file")
    mode = path.stat().st_mode if path.exists() else stat.S_IFREG
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return True
    if not stat.S_ISREG(mode):
        what = "folder" if stat.S_ISDIR(mode) else "disk" if stat.S_ISBLK(mode) else "socket"
        raise InputError(f"{path}: must be a file, a pipe or a character device, but is a {what}: name another file")
    return False


_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")


@contextmanager
def _stream_to(path: Path) -> Iterator[BinaryIO]:
    try:
        # Not blocking: a pipe that nobody reads is an error, and not a wait without end.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    except OSError as error:
        why = "nobody reads this pipe; start its reader first" if error.errno == errno.ENXIO else error.strerror
        raise InputError(f"{path}: cannot be written: {why}") from error
    os.set_blocking(descriptor, True)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
    except OSError as error:
        if error.filename is None and not isinstance(error, BrokenPipeError):
            error.filename = str(path)  # which the system does not name where writing fails
        raise


def _partial_of(path: Path) -> Path:
    """Where a file is written until it is whole; nothing is there, neither a link that leads elsewhere."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    return partial


def _force(path: Path) -> None:
    """What was written to a file, or renamed in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
