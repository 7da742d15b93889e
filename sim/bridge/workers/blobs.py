"""Where checkpoints lie: a folder, or anything fsspec reaches. Imports the standard library; fsspec where a URL asks for it.

All that a checkpoint store needs of a place: names below a root, each written as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCRATCH = ".saving-"
"""Prefix of the folders in which files are prepared; whatever is left of them belongs to a process that died."""


class Blobs(Protocol):
    """Files below a root, by names such as `trial-00007/iteration-000012.json`; what goes wrong is an OSError."""

    def names(self, folder: str) -> list[str]:
        """The files of a folder, by their names within it; none where the folder is absent."""

    def folders(self) -> list[str]:
        """What lies below the root itself; none where that is absent."""

    def scratch(self, folder: str) -> contextlib.AbstractContextManager[Path]:
        """A new local folder to prepare files of `folder` in; gone afterwards."""

    def put(self, prepared: Path, name: str) -> None:
        """Let a prepared file be `name`. Readers see all of it or what was there before, whenever this process dies."""

    def settle(self, folder: str) -> None:
        """What was put into a folder survives the machine, too."""

    def fetch(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local file with this content; only to be read.

        Raises:
            FileNotFoundError: there is none.
        """

    def delete(self, name: str) -> None:
        """Let it be gone, if it is there."""

    def sweep(self, folder: str) -> None:
        """Delete what processes that died have left of their scratch folders."""


def blobs_at(url: str) -> Blobs:
    """The place of this path or URL; nothing is written yet.

    Raises:
        InputError: nothing is installed that reaches it.
    """
    if "://" not in url:
        return _Folder(Path(url))
    if url.startswith("file://"):
        return _Folder(Path(url.removeprefix("file://")))
    try:
        import fsspec

        file_system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"checkpoints at {url}: {error}") from error
    return _Remote(file_system, root)


class _Folder:
    """A folder of this machine, or one that is mounted on all of them."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def _at(self, name: str) -> Path:
        """Where a name lies.

        Raises:
            PermissionError: a link leads out of the root: files elsewhere are not ours to read or delete.
        """
        path = self._root / name
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise PermissionError(f"{path} leads out of {self._root}")
        return path

    def names(self, folder: str) -> list[str]:
        try:
            return [path.name for path in self._at(folder).iterdir() if path.is_file()]
        except FileNotFoundError:
            return []

    def folders(self) -> list[str]:
        return [path.name for path in self._root.iterdir() if path.is_dir()] if self._root.is_dir() else []

    @contextmanager
    def scratch(self, folder: str) -> Iterator[Path]:
        # Beside its destination, so that a rename takes it there.
        path = self._at(folder) / f"{_SCRATCH}{uuid.uuid4().hex}"
        _make(path.parent)
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def put(self, prepared: Path, name: str) -> None:
        _sync(prepared)
        prepared.replace(self._at(name))

    def settle(self, folder: str) -> None:
        _sync(self._at(folder))

    @contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        path = self._at(name)
        if not path.is_file():
            raise FileNotFoundError(path)
        yield path

    def delete(self, name: str) -> None:
        self._at(name).unlink(missing_ok=True)

    def sweep(self, folder: str) -> None:
        for path in self._at(folder).glob(f"{_SCRATCH}*"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _reached() -> Iterator[None]:
    """What goes wrong at the other end is an OSError, whatever the file system there calls it."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Remote:
    """A store behind an fsspec file system. Object stores put a file as a whole; elsewhere its digest tells."""

    def __init__(self, file_system: Any, root: str) -> None:  # noqa: ANN401  # fsspec ships no types
        self._files = file_system
        self._root = PurePosixPath(root)

    @_reached()
    def names(self, folder: str) -> list[str]:
        path = str(self._root / folder)
        self._files.invalidate_cache()  # others write there too
        try:
            return [PurePosixPath(found).name for found in self._files.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def folders(self) -> list[str]:
        return self.names("")

    @contextmanager
    def scratch(self, folder: str) -> Iterator[Path]:  # noqa: ARG002  # prepared here, sent there
        with tempfile.TemporaryDirectory(prefix="elastune-checkpoint-") as path:
            yield Path(path)

    @_reached()
    def put(self, prepared: Path, name: str) -> None:
        path = self._root / name
        self._files.makedirs(str(path.parent), exist_ok=True)
        self._files.put_file(str(prepared), str(path))

    def settle(self, folder: str) -> None:
        pass  # what is put is durable there

    @contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="elastune-checkpoint-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            with _reached():
                self._files.get_file(str(self._root / name), str(path))
            yield path

    @_reached()
    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(str(self._root / name))

    def sweep(self, folder: str) -> None:
        pass  # nothing is prepared there


def _make(folder: Path) -> None:
    """The folder is there, and survives the machine."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """What is written of a file or of a folder's entries survives the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
