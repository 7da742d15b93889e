"""Event files of TensorBoard: the scalars of some tags, and the hyperparameters of the hparams plugin.

Imports the standard library, numpy and sim.model.errors; tensorboard when a file is read.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.formats.csv_rows import same_cell

INSTALL = "pip install -e '.[tensorboard]'"
_SESSION = "_hparams_/session_start_info"
_HEADER = struct.Struct("<QI")
"""What a record begins with: the length of its data, and the checksum of that number."""
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_CHECKSUM = struct.Struct("<I")
_TIME_IN_NAME = re.compile(r"tfevents\.(\d+)")


@dataclass(eq=False)
class EventFile:
    """The wanted contents of one file.

    Attributes:
        path: of the file.
        began: wall time of its first event, infinite where there is none.
        scalars: by tag, (step, value, wall time) in the order of writing.
        tags: every tag in it.
        hyperparameters: text of those that the hparams plugin recorded.
        is_cut_short: whether its last record is incomplete, as when the program was killed.
    """

    path: Path
    began: float = np.inf
    scalars: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    hyperparameters: dict[str, str] = field(default_factory=dict)
    is_cut_short: bool = False

    @property
    def order(self) -> tuple[float, float, str]:
        """Sorts the files of a run as TensorBoard does: by the second in the name, and by the first event within it."""
        named = _TIME_IN_NAME.search(self.path.name)
        return (float(named[1]) if named else np.inf, self.began, self.path.name)


def read_event_file(path: Path, wanted: Collection[str]) -> EventFile:
    """The scalars of the wanted tags, whoever wrote them (`simple_value` or a tensor).

    Raises:
        InputError: tensorboard is not installed.
        InvalidTraceError: the file is damaged, or a wanted tag holds no scalar.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError as error:
        raise InputError(f"reading event files takes tensorboard: {INSTALL} ({error})") from error
    from google.protobuf.message import DecodeError

    read = EventFile(path)
    for record, content in enumerate(_records(read), start=1):
        try:
            event = Event.FromString(content)
        except DecodeError as error:
            raise InvalidTraceError(path, f"is no event file: {error}", row=record) from error
        if record == 1:
            read.began = event.wall_time
        for value in event.summary.value:
            read.tags.add(value.tag)
            if value.tag == _SESSION:
                found = _hyperparameters(path, record, value.metadata.plugin_data.content)
                merge_hyperparameters(path, read.hyperparameters, found)
            elif value.tag in wanted:
                scalar = _scalar(path, record, value)
                read.scalars.setdefault(value.tag, []).append((event.step, scalar, event.wall_time))
    return read


def merge_hyperparameters(path: Path, known: dict[str, str], more: Mapping[str, str]) -> None:
    """Add those of a file to the known ones.

    Raises:
        InvalidTraceError: one has two values.
    """
    for name, text in more.items():
        if not same_cell(known.setdefault(name, text), text):
            raise InvalidTraceError(path, f"is both {known[name]!r} and {text!r}; keep one", column=name)


def _records(read: EventFile) -> Iterator[bytes]:
    """What each whole record of a file holds; says in the end whether another one was begun.

    Not by tensorboard's own loader, which stops at the first record that it cannot read, for whichever reason, and does not
    tell.

    Raises:
        InvalidTraceError: a record is damaged.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    path, left = read.path, read.path.stat().st_size
    with path.open("rb") as file:
        for record in itertools.count(1):
            head = file.read(_HEADER.size)
            length, checksum = _HEADER.unpack(head) if len(head) == _HEADER.size else (left, None)
            if checksum is not None and masked_crc32c(head[:_LENGTH_BYTES]) != checksum:
                raise _damaged(path, record)
            if _HEADER.size + length + _CHECKSUM_BYTES > left:
                read.is_cut_short = left > 0
                return
            content = file.read(length)
            (checksum,) = _CHECKSUM.unpack(file.read(_CHECKSUM_BYTES))
            if masked_crc32c(content) != checksum:
                raise _damaged(path, record)
            left -= _HEADER.size + length + _CHECKSUM_BYTES
            yield content


def _damaged(path: Path, record: int) -> InvalidTraceError:
    return InvalidTraceError(path, "is damaged: a checksum does not fit", row=record)


def _scalar(path: Path, record: int, value: Any) -> float:  # noqa: ANN401  tensorboard ships no types
    from tensorboard.util import tensor_util

    if value.HasField("simple_value"):
        return float(value.simple_value)
    array = np.empty(0)
    if value.HasField("tensor") and all(axis.size == 1 for axis in value.tensor.tensor_shape.dim):
        with suppress(TypeError, ValueError):  # of a type that numpy does not have, or of too few bytes
            array = tensor_util.make_ndarray(value.tensor)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise InvalidTraceError(path, "is no scalar; name the tag of one", row=record, column=value.tag)
    return float(array.item())


def _hyperparameters(path: Path, record: int, content: bytes) -> dict[str, str]:
    """Text of each; the plugin knows numbers, texts and truth values, and no whole numbers."""
    from google.protobuf.message import DecodeError
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    try:
        recorded = HParamsPluginData.FromString(content).session_start_info.hparams
    except DecodeError as error:
        raise InvalidTraceError(path, f"holds no hyperparameters: {error}", row=record, column=_SESSION) from error
    texts = {}
    for name, value in sorted(recorded.items()):
        kind = value.WhichOneof("kind")
        plain = None if kind is None else getattr(value, kind)
        is_whole = isinstance(plain, float) and plain.is_integer()
        texts[name] = "" if plain is None else str(int(plain) if is_whole else plain)
    return texts
