"""The private folder of an embedded Ray cluster, and the proof that a folder is one.

A run folder names its cluster's folder, so that a new driver can end what a dead one left. But somebody else may have made the
run folder. So nothing is ended or removed unless the named folder proves to be this user's cluster of this run.

Imports `sim.model.errors`; psutil inside functions.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from elastune.sim.model.errors import InputError

FOLDER_PREFIX = "elastune-"
"""The names of all embedded clusters' folders begin so; they lie in the folder for temporary files."""
_MARKER = "cluster.json"
_CLOCKS_APART_S = 2.0
"""The kernel counts a process's start in ticks since the boot, which drifts from the wall clock."""


@dataclass(frozen=True)
class _Marker:
    """What the marker file inside the folder says.

    Attributes:
        secret: a random number that only this user can read.
        driver_pid: the process that started the cluster.
        started_s: when that process started, in seconds since 1970.
    """

    secret: str
    driver_pid: int
    started_s: float


@dataclass(frozen=True)
class ClusterFolder:
    """Where an embedded cluster keeps its files.

    Attributes:
        path: the folder; only this user can enter it.
        secret: as in its marker file.
    """

    path: Path
    secret: str

    @classmethod
    def create(cls) -> ClusterFolder:
        """Make a new folder with its marker."""
        import psutil

        # Ray keeps sockets below it, and their paths must be short.
        path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        marker = _Marker(secrets.token_hex(16), os.getpid(), psutil.Process().create_time())
        descriptor = os.open(path / _MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(asdict(marker), stream)
        return cls(path, marker.secret)

    @classmethod
    def at(cls, path: Path) -> ClusterFolder:
        """The folder that `create` has made in another process.

        Raises:
            OSError: there is none.
        """
        return cls(path, _read(path / _MARKER).secret)

    @classmethod
    def of_note(cls, text: str) -> ClusterFolder:
        """Read what `note` has written.

        Raises:
            InputError: the text is something else.
        """
        try:
            noted = json.loads(text)
            return cls(Path(noted["folder"]), str(noted["secret"]))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{text[:200]!r} does not name the folder of an embedded Ray cluster") from error

    def note(self) -> str:
        """The folder and its secret as text, for the run that uses the cluster."""
        return json.dumps({"folder": str(self.path), "secret": self.secret})

    def end_leftovers(self) -> None:
        """Kill every process that works below this folder, then remove the folder; do nothing if it is gone.

        Ray's agents outlive their node for a while.

        Raises:
            InputError: it is not the folder of an embedded cluster of this user, or the secret is another one.
        """
        marker = self._proven()
        if marker is not None:
            self._kill(marker)
            shutil.rmtree(self.path, ignore_errors=True)

    def require_no_driver(self) -> None:
        """Check that the driver of this cluster is dead.

        Raises:
            InputError: it lives, or the folder is not one of this user's clusters.
        """
        import psutil

        marker = self._proven()
        if marker is None or marker.driver_pid == os.getpid():
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            driver = psutil.Process(marker.driver_pid)
            is_same = abs(driver.create_time() - marker.started_s) < _CLOCKS_APART_S
            if is_same and driver.status() != psutil.STATUS_ZOMBIE:
                raise InputError(
                    f"process {marker.driver_pid} still uses the Ray cluster in {self.path}: end that run first"
                )

    def _proven(self) -> _Marker | None:
        """The folder's marker, if it proves whose folder this is; None where the folder is gone.

        Raises:
            InputError: it does not prove it.
        """
        if not self.path.is_absolute() or not self.path.name.startswith(FOLDER_PREFIX):
            raise self._refusal(f"its name is not an absolute path to {FOLDER_PREFIX}...")
        try:
            _require_private(self.path, stat.S_ISDIR)
            file = self.path / _MARKER
            _require_private(file, stat.S_ISREG)
            marker = _read(file)
        except FileNotFoundError as error:
            if not os.path.lexists(self.path):
                return None
            raise self._refusal(f"it has no {_MARKER}") from error
        except (OSError, ValueError, TypeError) as error:
            raise self._refusal(str(error)) from error
        if not secrets.compare_digest(marker.secret.encode(), self.secret.encode()):
            raise self._refusal(f"its {_MARKER} belongs to another run")
        return marker

    def _refusal(self, reason: str) -> InputError:
        return InputError(
            f"{str(self.path)!r} is no embedded Ray cluster of this run and this user: {reason}."
            " Nothing there was ended or removed"
        )

    def _kill(self, marker: _Marker) -> None:
        import psutil

        for process in psutil.process_iter(["cmdline", "uids", "create_time"]):
            told = process.info
            is_ours = told["uids"] is not None and told["uids"].real == os.getuid()
            is_younger = (told["create_time"] or 0.0) >= marker.started_s - _CLOCKS_APART_S
            names_it = any(self._is_named_in(part) for part in told["cmdline"] or ())
            if is_ours and is_younger and names_it and process.pid not in (os.getpid(), os.getppid()):
                with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                    process.kill()

    def _is_named_in(self, argument: str) -> bool:
        """Whether a process's argument names this folder, rather than one whose name only begins the same."""
        _, found, rest = argument.partition(str(self.path))
        return bool(found) and not (rest[:1].isalnum() or rest[:1] in ("_", "-", "."))


def _read(file: Path) -> _Marker:
    return _Marker(**json.loads(file.read_text(encoding="utf-8")))


def _require_private(path: Path, is_kind: Callable[[int], bool]) -> None:
    """Check that the path itself, no link, is this user's and nobody else can write to it.

    Raises:
        OSError: it is not.
    """
    found = path.lstat()
    if not is_kind(found.st_mode):
        raise OSError(f"{path.name} is of another kind of file")
    if found.st_uid != os.getuid():
        raise OSError(f"{path.name} belongs to user {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise OSError(f"{path.name} is open to other users")
