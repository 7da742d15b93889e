"""Offline runs of Weights & Biases, each a trial, as bundles. Imports its neighbours; wandb when a file is read.

A file `run-ID.wandb` is a log of records in the framing of LevelDB, after a header of 7 bytes. A record is a protocol buffer
whose description wandb ships. wandb has no reader of its own in Python.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.formats.texts import require_file, text_of
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.logged_runs import LoggedRun, recording_of_runs
from elastune.traces.importers.recording import CurveRules, Description

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elastune.traces.bundles.bundle import Bundle

INSTALL = "pip install 'elastune[wandb]'"
FILES = "run-*.wandb"
_MAGIC = b":W&B"
_HEADER, _FRAME, _BLOCK = 7, 7, 32768
_WHOLE, _LAST = 1, 4
_HEAD = struct.Struct("<IHB")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
CLOCK = "_runtime"
"""What wandb calls the seconds since the run began."""


def from_wandb(
    folder: str | Path,
    out: str | Path,
    description: Description,
    *,
    metric: str,
    clock: str = CLOCK,
    rules: CurveRules | None = None,
    untimed: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Write the offline runs below a folder that logged a metric as a bundle; the step is the iteration.

    Args:
        folder: above the runs, such as `wandb`; it is only read.
        out: folder of the bundle.
        description: what the runs do not say.
        metric: the score.
        clock: the metric that is the seconds since the run began.
        rules: how irregular curves become regular.
        untimed: leave the seconds out.
        overwrite: whether a bundle that is already there makes way.

    Raises:
        InvalidTraceError: a file is damaged, no run logged the metric, or the runs are not what a bundle needs.
        InputError: wandb is not installed, or there is no run.
    """
    files = sorted(Path(folder).rglob(FILES))
    files = list({file.resolve(): file for file in files}.values())  # latest-run links to one of them
    if not files:
        raise InputError(f"{folder}: holds no offline run ({FILES}), nor do the folders below it")
    runs = [_run(file, metric, None if untimed else clock) for file in files]
    places = {run.key: file for run, file in zip(runs, files, strict=True)}
    for run, file in zip(runs, files, strict=True):
        if places[run.key] is not file:
            raise InvalidTraceError(file, f"is a part of the same run as {places[run.key]}: keep one of them here")
    recording = recording_of_runs(runs, metric, str(folder), "W&B", untimed=untimed)
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


def _run(file: Path, metric: str, clock: str | None) -> LoggedRun:
    name, began_s, log = "", 0.0, _Log(file)
    parameters: dict[str, Any] = {}
    metrics: dict[str, list[tuple[float, float, float]]] = {}
    for number, record in enumerate(log.records(), start=1):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            name, began = record.run.display_name, record.run.start_time
            began_s = began.seconds + began.nanos / 1e9
            parameters |= log.values(number, record.run.config.update)
        elif kind == "config":
            parameters |= log.values(number, record.config.update)
        elif kind == "history":
            row = log.values(number, record.history.item)
            step = log.number(number, "_step", row.get("_step", record.history.step.num))
            at_s = math.nan if clock is None else log.number(number, clock, row.get(clock))
            if step is None:
                raise InvalidTraceError(file, f"is {row['_step']!r}, but must be a number", row=number, column="_step")
            for key, value in row.items():
                amount = None if key.startswith("_") else log.number(number, key, value)
                if amount is not None:
                    metrics.setdefault(key, []).append((step, amount, math.nan if at_s is None else at_s))
    if clock is not None and any(math.isnan(at_s) for *_, at_s in metrics.get(metric, ())):
        raise InvalidTraceError(file, f"is not logged with every {metric}: name another clock", column=clock)
    told = {key: text_of(value) for key, value in parameters.items() if key != "_wandb"}
    key = file.stem.removeprefix("run-")
    return LoggedRun(
        name=name, key=key, began_s=began_s, parameters=told, metrics=metrics, is_cut_short=log.is_cut_short
    )


class _Log:
    """One file; `is_cut_short` says after reading whether its last record is incomplete, as of a run that was killed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.is_cut_short = False

    def values(self, number: int, items: Iterable[Any]) -> dict[str, Any]:
        """The keys and values of a record; nested ones as `a.b`."""
        found = {}
        for one in items:
            key = one.key or ".".join(one.nested_key)
            try:
                found[key] = json.loads(one.value_json)
            except (ValueError, RecursionError) as error:
                problem = f"is malformed JSON: {error}"
                raise InvalidTraceError(self._file, problem, row=number, column=key) from error
        return found

    def number(self, row: int, key: str, value: object) -> float | None:
        """A value as a number, None where it is none; wandb writes those that are not finite as texts."""
        if isinstance(value, str) and value in _NOT_FINITE:
            return float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return float(value)
        except OverflowError:
            raise InvalidTraceError(self._file, "is larger than 1.8e308", row=row, column=key) from None

    def records(self) -> Iterator[Any]:
        """What the file holds, as wandb describes it."""
        try:
            from wandb.proto.wandb_internal_pb2 import Record
        except ImportError as error:
            raise InputError(f"runs of W&B take wandb: {INSTALL} ({error})") from error
        from google.protobuf.message import DecodeError

        for content in self._framed():
            record = Record()
            try:
                record.ParseFromString(content)
            except DecodeError as error:
                problem = f"holds something else than records of W&B ({error})"
                raise InvalidTraceError(self._file, problem) from error
            yield record

    def _framed(self) -> Iterator[bytes]:
        """The whole records; one that was cut off at the end is left out."""
        require_file(self._file)
        content = self._file.read_bytes()
        if not content.startswith(_MAGIC):
            raise InvalidTraceError(self._file, "is no log of W&B")
        at, whole, number = _HEADER, b"", 1
        while at + _FRAME <= len(content):
            if _BLOCK - at % _BLOCK < _FRAME:  # the rest of a block is padding
                at += _BLOCK - at % _BLOCK
                continue
            checksum, size, kind = _HEAD.unpack_from(content, at)
            data = content[at + _FRAME : at + _FRAME + size]
            at += _FRAME + size
            if at > len(content):
                break
            if not kind:  # nothing but zeros, which a file system leaves where a machine stopped
                at = len(content) - at % 2 - 1 if any(content[at:]) else len(content)
                break
            if zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
                raise InvalidTraceError(self._file, "is damaged: a checksum does not fit", row=number)
            whole += data
            if kind in (_WHOLE, _LAST):
                yield whole
                whole, number = b"", number + 1
        self.is_cut_short = bool(whole) or at != len(content)
