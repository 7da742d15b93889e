"""Checkpoints of trials in a folder or at an fsspec URL. Imports the pure core and `sim.bridge.workers.blobs`.

A checkpoint is a data file and a record with its size and SHA-256. The record is written last, so an interrupted save does not
count. If the data was damaged later, the checkpoint before it is used. The data is never executed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from elastune.sim.bridge.workers.blobs import Blobs, blobs_at
from elastune.sim.model.errors import InputError, WorkerError
from elastune.sim.model.ids import SegmentId, TrialId

_log = logging.getLogger(__name__)

_TRIAL = "trial-"
_DATA_SUFFIX = ".ckpt"
_RECORD_SUFFIX = ".json"

NO_SEGMENT = SegmentId(-1)
"""For a checkpoint that was not saved in a segment."""


class LostCheckpointError(WorkerError):
    """A checkpoint is damaged or deleted; use the one before it."""


class SavedCheckpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the record of a checkpoint says.

    Attributes:
        trial: whose it is.
        iteration: iterations of the trial that are in it, at least 1.
        score: after them; None if it was not finite.
        data: the file beside the record that holds it.
        size_bytes: of that file.
        sha256: of that file.
        segment: in which it was saved.
        test_score: at the same iteration, on data that no decision uses; None if there is none.
        measures: by name, what else the trial measures at the same iteration.
    """

    trial: TrialId
    iteration: int
    score: float | None
    data: str
    size_bytes: int
    sha256: str
    segment: SegmentId
    test_score: float | None = None
    measures: dict[str, float] = {}


class _Fingerprint(NamedTuple):
    size_bytes: int
    sha256: str


class CheckpointStore:
    """All checkpoints of a run. One process at a time saves for a trial; any number may read.

    Attributes:
        url: a folder (of this machine, or a shared one), or a URL that fsspec can open.
        keep: how many checkpoints of each trial are kept.
    """

    def __init__(self, url: str, keep: int = 2, blobs: Blobs | None = None) -> None:
        """Open the checkpoints at `url`; `blobs` are its files where something else than `blobs_at` opens them."""
        if keep < 1:
            raise InputError(f"checkpoints: keep is {keep}, but must be at least 1")
        self.url, self.keep = url, keep
        self._blobs = blobs_at(url) if blobs is None else blobs

    def save(
        self,
        trial: TrialId,
        iteration: int,
        score: float | None,
        write: Callable[[Path], None],
        *,
        segment: SegmentId = NO_SEGMENT,
        test_score: float | None = None,
        measures: Mapping[str, float] = MappingProxyType({}),
        spare: Collection[int] = (),
    ) -> SavedCheckpoint:
        """Save a checkpoint durably, or change nothing; keeps the newest `keep` ones.

        Args:
            trial: whose it is.
            iteration: iterations that are in it.
            score: after them; NaN counts as none.
            write: writes the data to the given path.
            segment: in which it is saved.
            test_score: after the same iterations; NaN counts as none.
            measures: after the same iterations; those that are not finite are left out.
            spare: iterations whose checkpoints are kept beside the newest ones.

        Raises:
            WorkerError: it cannot be written.
        """
        folder = _folder_of(trial)
        try:
            with self._blobs.scratch(folder) as scratch:
                prepared = scratch / "data"
                write(prepared)
                size_bytes, sha256 = _fingerprint(prepared)
                # The digest is part of the name, so that saving an iteration again does not replace data of the old record.
                data = _data_of(iteration, sha256)
                known, tested = _finite(score), _finite(test_score)
                measured = {name: value for name, value in measures.items() if math.isfinite(value)}
                saved = SavedCheckpoint(trial, iteration, known, data, size_bytes, sha256, segment, tested, measured)
                record = scratch / "record"
                record.write_bytes(msgspec.json.encode(saved))
                self._blobs.put(prepared, f"{folder}/{data}")
                self._blobs.put(record, f"{folder}/{_record_of(iteration)}")
                self._blobs.settle(folder)
        except OSError as error:
            raise WorkerError(
                f"trial {trial}: checkpoint {iteration} cannot be saved at {self.url}: {error}"
            ) from error
        try:
            self._prune(trial, spare)
        except OSError as error:  # the new checkpoint is safe, and the next save tries again
            _log.warning("%s: older checkpoints of trial %d cannot be deleted: %s", self.url, trial, error)
        return saved

    def latest(self, trial: TrialId, at_most: int | None = None) -> SavedCheckpoint | None:
        """The newest whole checkpoint of a trial, checked by reading it; None if there is none.

        Args:
            trial: whose.
            at_most: largest iteration to consider.
        """
        for saved in self.recorded(trial, at_most):
            with contextlib.suppress(LostCheckpointError), self.restore(saved):
                return saved
        return None

    def recorded(self, trial: TrialId, at_most: int | None = None) -> list[SavedCheckpoint]:
        """The records of a trial, newest first; only `restore` checks the data."""
        names = self._blobs.names(_folder_of(trial))
        read = (self._read(trial, name) for name in names if name.endswith(_RECORD_SUFFIX))
        found = [saved for saved in read if saved is not None and (at_most is None or saved.iteration <= at_most)]
        return sorted(found, key=lambda saved: -saved.iteration)

    @contextmanager
    def restore(self, saved: SavedCheckpoint) -> Iterator[Path]:
        """A local file with a checkpoint, checked against its record; read it within the context only.

        Raises:
            LostCheckpointError: it is damaged or deleted.
        """
        name = f"{_folder_of(saved.trial)}/{saved.data}"
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(self._blobs.fetch(name))
                found = _fingerprint(path)
            except OSError as error:
                raise LostCheckpointError(f"{self.url}: {name} cannot be read: {error}") from error
            if found != _Fingerprint(saved.size_bytes, saved.sha256):
                what = f"has {found.size_bytes} bytes instead of {saved.size_bytes}"
                if found.size_bytes == saved.size_bytes:
                    what = f"has the SHA-256 {found.sha256} instead of {saved.sha256}"
                raise LostCheckpointError(f"{self.url}: {name} {what}")
            yield path

    def place_of(self, saved: SavedCheckpoint) -> str:
        """The path or URL of a checkpoint's data."""
        return f"{self.url.rstrip('/')}/{_folder_of(saved.trial)}/{saved.data}"

    def is_empty(self) -> bool:
        """Whether there is no checkpoint of any trial.

        Raises:
            InputError: the place cannot be read.
        """
        try:
            return not any(name.startswith(_TRIAL) for name in self._blobs.folders())
        except OSError as error:
            raise InputError(f"checkpoints at {self.url} cannot be read: {error}") from error

    def forget(self, trial: TrialId, above: int = 0) -> None:
        """Delete checkpoints of more than `above` iterations, because the trial is trained anew from there."""
        self._retain(trial, [saved for saved in self.recorded(trial) if saved.iteration <= above])

    def _prune(self, trial: TrialId, spare: Collection[int]) -> None:
        recorded = self.recorded(trial)
        self._retain(
            trial, recorded[: self.keep] + [saved for saved in recorded[self.keep :] if saved.iteration in spare]
        )

    def _retain(self, trial: TrialId, kept: Sequence[SavedCheckpoint]) -> None:
        """Delete all other checkpoints of a trial: records first, so that no record is left without its data."""
        folder = _folder_of(trial)
        wanted = {name for saved in kept for name in (saved.data, _record_of(saved.iteration))}
        found = self._blobs.names(folder)
        for suffix in (_RECORD_SUFFIX, _DATA_SUFFIX):
            for name in found:
                if name.endswith(suffix) and name not in wanted:
                    self._blobs.delete(f"{folder}/{name}")
        self._blobs.sweep(folder)

    def _read(self, trial: TrialId, name: str) -> SavedCheckpoint | None:
        """Read a record; None if it is damaged or gone."""
        try:
            with self._blobs.fetch(f"{_folder_of(trial)}/{name}") as path:
                saved = msgspec.json.decode(path.read_bytes(), type=SavedCheckpoint)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("%s: the record %s of trial %d is damaged: %s", self.url, name, trial, error)
            return None
        named = saved.trial, _record_of(saved.iteration), saved.data
        return saved if named == (trial, name, _data_of(saved.iteration, saved.sha256)) else None


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def _folder_of(trial: TrialId) -> str:
    return f"{_TRIAL}{trial:05d}"


def _record_of(iteration: int) -> str:
    return f"iteration-{iteration:06d}{_RECORD_SUFFIX}"


def _data_of(iteration: int, sha256: str) -> str:
    return f"iteration-{iteration:06d}-{sha256[:16]}{_DATA_SUFFIX}"


def _fingerprint(path: Path) -> _Fingerprint:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return _Fingerprint(file.tell(), digest.hexdigest())
