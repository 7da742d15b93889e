"""The work folder of a profile, which becomes a bundle at the end.

`.partial/` in the bundle's folder holds the request (`job.json`) and JSON lines for each trial or series. SIGKILL loses only
the record that is being written.
Imports `experiments.runs.run_folder` and `traces.bundles.writer`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from elastune.experiments.files import write_atomically
from elastune.experiments.runs.run_folder import require_inside, require_kind
from elastune.sim.model.errors import InputError
from elastune.traces.bundles.writer import FILES

PARTIAL = ".partial"
Record = TypeVar("Record", bound=msgspec.Struct)


class Part(Generic[Record]):
    """The records of one trial or series so far.

    Args:
        path: of the file.
        kind: record type of a line, or a union of tagged types.
        follows: whether a record may follow the ones before it.
    """

    def __init__(
        self,
        path: Path,
        kind: Any,  # noqa: ANN401  a union of types has no type of its own
        follows: Callable[[Sequence[Record], Record], bool] = lambda _before, _record: True,
    ) -> None:
        self._path, self._kind, self._follows = path, kind, follows

    def read(self) -> list[Record]:
        """All complete records. The first damaged or misplaced line is removed with all lines after it."""
        content = self._path.read_bytes() if self._path.exists() else b""
        records: list[Record] = []
        good_bytes = 0
        for line in content.splitlines(keepends=True):
            record = self._parsed(line)
            if record is None or not self._follows(records, record):
                break
            records.append(record)
            good_bytes += len(line)
        if good_bytes < len(content):
            with self._path.open("r+b") as file:
                file.truncate(good_bytes)
        return records

    def _parsed(self, line: bytes) -> Record | None:
        try:
            return msgspec.json.decode(line, type=self._kind) if line.endswith(b"\n") else None
        except msgspec.MsgspecError:
            return None

    def append(self, *records: Record) -> None:
        """Add a line for each in a single write."""
        with self._path.open("ab", buffering=0) as file:
            file.write(b"".join(msgspec.json.encode(record) + b"\n" for record in records))

    def clear(self) -> None:
        """Delete all records."""
        self._path.unlink(missing_ok=True)

    def lines(self) -> int:
        """The number of complete lines."""
        return self._path.read_bytes().count(b"\n") if self._path.exists() else 0


class WorkFolder:
    """The work folder of a profile."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir, self.path = out_dir, out_dir / PARTIAL
        self.base, self._job = self.path / "base", self.path / "job.json"

    def asked(self) -> dict[str, Any] | None:
        """The request of an earlier call; None if there was none.

        Raises:
            InputError: its file is damaged.
        """
        if not self._job.is_file():
            return None
        try:
            return msgspec.json.decode(self._job.read_bytes(), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{self._job} is damaged: {error}; delete {self.path} to start anew") from error

    def open(self, asked: Mapping[str, object], base: Path | None = None) -> None:
        """Make the folder, or check that it belongs to the same profile.

        Args:
            asked: what decides the measurements.
            base: folder of the bundle to begin with; it is copied.

        Raises:
            InputError: it holds another profile, or something else; the message names what differs.
        """
        require_kind(self.out_dir, "bundle")
        require_inside(self.out_dir)
        found = self.asked()
        if found is not None:
            require_same(self.out_dir, found, asked)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if base is not None:
            copy_bundle(base, self.base)
        write_atomically(self._job, json.dumps(asked).encode())

    def file(self, number: int, ending: str) -> Path:
        """A file of a trial or series."""
        return self.path / f"part-{number:05d}{ending}"

    def checkpoints(self, number: int) -> list[tuple[int, Path]]:
        """(iteration, file) of the checkpoints of a trial, latest first."""
        files = self.path.glob(f"part-{number:05d}-{'[0-9]' * 6}.ckpt")
        return sorted(((int(file.stem.rsplit("-", 1)[1]), file) for file in files), reverse=True)

    def publish(self, write: Callable[[Path], object]) -> None:
        """Move the files that `write` makes into the bundle, `bundle.yaml` last, and remove the work folder."""
        staging = self.path / "bundle"
        staging.mkdir(exist_ok=True)
        write(staging)
        for file in sorted(staging.iterdir(), key=lambda file: file.name == "bundle.yaml"):
            file.replace(self.out_dir / file.name)
        self.remove()

    def remove(self) -> None:
        """Delete the work folder, and the bundle's folder if it is empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.out_dir.is_dir() and not any(self.out_dir.iterdir()):
            self.out_dir.rmdir()


def copy_bundle(source: Path, target: Path) -> None:
    """Copy the files of a bundle into a new folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def require_same(out_dir: Path, found: Mapping[str, Any], asked: Mapping[str, object]) -> None:
    """Check that a folder holds the same request.

    Raises:
        InputError: it holds another; the message names what differs.
    """
    differing = [key for key in asked if found.get(key) != asked[key]]
    if differing:
        what = "; ".join(f"{key} is {found.get(key)} there, asked was {asked[key]}" for key in differing)
        raise InputError(f"{out_dir} holds another profile: {what}. Choose another folder (-o), or delete this one")


def rounded(value: float) -> float:
    """Round to six significant digits, which is more than a measurement has."""
    return float(f"{value:.6g}")
