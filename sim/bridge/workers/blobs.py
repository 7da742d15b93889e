"""Files of checkpoints in a folder or behind an fsspec URL. Each file is written as a whole or not at all.

Imports the standard library; fsspec only for a URL.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from elastune.sim.model.errors import InputError

_SCRATCH = ".saving-"
"""Prefix of the folders in which files are prepared. One that is left belongs to a dead process."""


class Blobs(Protocol):
    """Files below a root, by names such as `trial-00007/iteration-000012.json`; all failures are OSErrors."""

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder; none if the folder is absent."""

    def folders(self) -> list[str]:
        """Names of the folders below the root; none if the root is absent."""

    def scratch(self, folder: str) -> contextlib.AbstractContextManager[Path]:
        """A temporary local folder in which files of `folder` are prepared."""

    def put(self, prepared: Path, name: str) -> None:
        """Move a prepared file to `name`. Readers see all of it or what was there before, even if this process dies."""

    def settle(self, folder: str) -> None:
        """Make what was put into a folder survive a crash of the machine."""

    def fetch(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local file with this content; only to be read.

        Raises:
            FileNotFoundError: there is none.
        """

    def delete(self, name: str) -> None:
        """Delete it if it is there."""

    def sweep(self, folder: str) -> None:
        """Delete the scratch folders of dead processes."""


def blobs_at(url: str) -> Blobs:
    """The files at a path or URL; writes nothing yet.

    Raises:
        InputError: no installed package can reach it.
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
    """A local or mounted folder."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def _at(self, name: str) -> Path:
        """The path of a name.

        Raises:
            PermissionError: a link leads out of the root; files elsewhere are neither read nor deleted.
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
    """Turn every error of a remote file system into an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Remote:
    """Files behind fsspec. Object stores write a file as a whole; elsewhere its digest shows whether it is whole."""

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
    """Make a folder that survives a crash of the machine."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """Write a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
