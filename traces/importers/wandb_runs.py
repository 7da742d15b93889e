"""Offline runs of Weights & Biases, each a trial, as bundles. Imports its neighbours; wandb when a file is read.

A file `run-ID.wandb` is a log of records in the framing of LevelDB, after a header of 7 bytes. A record is a protocol buffer
whose description wandb ships. wandb has no reader of its own in Python.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.logged_runs import LoggedRun, recording_of_runs
from elastune.traces.importers.recording import CurveRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.importers.recording import Description

INSTALL = "pip install 'elastune[wandb]'"
FILES = "run-*.wandb"
_MAGIC = b":W&B"
_HEADER, _FRAME, _BLOCK = 7, 7, 32768
_WHOLE, _LAST = 1, 4
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
    runs = [_run(file, metric, clock) for file in files]
    recording = recording_of_runs(runs, metric, str(folder), "W&B", untimed=untimed)
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


def _run(file: Path, metric: str, clock: str) -> LoggedRun:
    name, began_s = "", 0.0
    parameters: dict[str, Any] = {}
    metrics: dict[str, list[tuple[float, float, float]]] = {}
    for record in _records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            name, began = record.run.display_name, record.run.start_time
            began_s = began.seconds + began.nanos / 1e9
            parameters |= _values(record.run.config.update)
        elif kind == "config":
            parameters |= _values(record.config.update)
        elif kind == "history":
            row = _values(record.history.item)
            step, at_s = row.get("_step", record.history.step.num), row.get(clock, math.nan)
            for key, value in row.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and not key.startswith("_"):
                    metrics.setdefault(key, []).append((float(step), float(value), float(at_s)))
    if any(math.isnan(at_s) for *_, at_s in metrics.get(metric, ())):
        raise InvalidTraceError(file, f"is not logged with every {metric}: name another clock", column=clock)
    told = {key: str(value) for key, value in parameters.items() if key != "_wandb"}
    key = file.stem.removeprefix("run-")
    return LoggedRun(name=name, key=key, began_s=began_s, parameters=told, metrics=metrics)


def _values(items: Iterable[Any]) -> dict[str, Any]:
    """The keys and values of a record; nested ones as `a.b`."""
    return {one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in items}


def _records(file: Path) -> Iterator[Any]:
    try:
        from wandb.proto.wandb_internal_pb2 import Record
    except ImportError as error:
        raise InputError(f"runs of W&B take wandb: {INSTALL} ({error})") from error
    from google.protobuf.message import DecodeError

    for content in _framed(file):
        record = Record()
        try:
            record.ParseFromString(content)
        except DecodeError as error:
            raise InvalidTraceError(file, f"holds something else than records of W&B ({error})") from error
        yield record


def _framed(file: Path) -> Iterator[bytes]:
    """The records of a log; one that was cut off at the end, as of a run that was killed, is left out."""
    content = file.read_bytes()
    if not content.startswith(_MAGIC):
        raise InvalidTraceError(file, "is no log of W&B")
    at, whole = _HEADER, b""
    while at + _FRAME <= len(content):
        if _BLOCK - at % _BLOCK < _FRAME:  # the rest of a block is padding
            at += _BLOCK - at % _BLOCK
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        at += _FRAME + size
        if at > len(content):
            return
        whole += content[at - size : at]
        if kind in (_WHOLE, _LAST):
            yield whole
            whole = b""
