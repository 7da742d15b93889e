"""The journal: events, actions and commands as append-only JSON lines. Imports only `sim.model`.

The first line is the header, from which a fresh controller can be built; every other line is an entry. Replaying the events
through that controller must reproduce every action and command, wherever the journal was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import msgspec

from elastune.sim.model.actions import Action
from elastune.sim.model.commands import Command
from elastune.sim.model.errors import InvalidJournalError, ReplayError
from elastune.sim.model.events import Event

JOURNAL_FORMAT = 1


class Header(msgspec.Struct, frozen=True, tag=True):
    """What is needed to rebuild the controller of the run. It holds no wall-clock time, so equal runs give equal bytes."""

    spec: dict[str, Any]  # the run spec as validated, whose schema belongs to `experiments`
    digest: str
    versions: dict[str, str]
    data_sha256: dict[str, str]
    format: int = JOURNAL_FORMAT


class Entry(msgspec.Struct, frozen=True, tag=True, gc=False, omit_defaults=True):
    """One event, and what was decided on it.

    Attributes:
        status: "stale" for an event of a superseded segment, "drained" for an event after the end of the run. The policy is
            asked about neither.
    """

    event: Event
    actions: list[Action] = []
    commands: list[Command] = []
    status: Literal["handled", "stale", "drained"] = "handled"


class Sink(Protocol):
    """Where entries go."""

    def write(self, entry: Entry) -> None:
        """Take one entry, in the order of the run."""


def _plain(value: object) -> object:
    """A scalar of numpy as one of Python, for policies that compute with arrays."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    raise TypeError(f"a {type(value).__name__} cannot be written to a journal: {value!r}")


class JournalWriter:
    """Writes a journal to a binary file entry by entry; memory does not grow with it.

    Attributes:
        flush_each: whether each entry reaches the operating system before its commands are performed, as a real run needs.
    """

    def __init__(self, stream: BinaryIO, header: Header | None = None, *, flush_each: bool = False) -> None:
        self.flush_each = flush_each
        self._stream = stream
        self._encode = msgspec.json.Encoder(enc_hook=_plain).encode
        if header is not None:
            stream.write(self._encode(header) + b"\n")

    def write(self, entry: Entry) -> None:
        """Append one line."""
        self._stream.write(self._encode(entry) + b"\n")
        if self.flush_each:
            self._stream.flush()


class MemorySink:
    """Keeps the entries, for tests and for what is computed after a run."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        self.entries.append(entry)


class Sinks:
    """Several sinks as one.

    Attributes:
        sinks: each gets every entry, in this order; more can be added while the run goes on.
    """

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = list(sinks)

    def write(self, entry: Entry) -> None:
        """Hand the entry to each sink."""
        for sink in self.sinks:
            sink.write(entry)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def read_header(path: Path, open_journal: Callable[[Path], BinaryIO] = _open) -> Header:
    """The header of a journal.

    Args:
        path: the journal.
        open_journal: opens it, where it is not plain lines of JSON.

    Raises:
        InvalidJournalError: the file does not start with a header of this format.
    """
    with open_journal(path) as stream:
        return _decode_header(stream.readline(), path)


def read_entries(path: Path, open_journal: Callable[[Path], BinaryIO] = _open) -> Iterator[Entry]:
    """The entries of a journal, one at a time.

    Args:
        path: the journal.
        open_journal: see `read_header`.

    Raises:
        InvalidJournalError: the header or an entry is malformed; names file and line.
    """
    decode = msgspec.json.Decoder(Entry).decode
    with open_journal(path) as stream:
        _decode_header(stream.readline(), path)
        for number, line in enumerate(stream, start=2):
            try:
                yield decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InvalidJournalError(path, number, f"not an entry of a journal: {error}") from error


def _decode_header(line: bytes, path: Path) -> Header:
    if not line.strip():
        raise InvalidJournalError(path, 1, "is empty, but must hold the header of a journal")
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJournalError(path, 1, f"not the header of a journal: {error}") from error
    if header.format != JOURNAL_FORMAT:
        problem = f"journal format {header.format}; this version reads format {JOURNAL_FORMAT}"
        raise InvalidJournalError(path, 1, problem)
    return header


class Handler(Protocol):
    """A fresh controller, as replay drives it."""

    def handle(self, event: Event) -> list[Command]:
        """Handle an event; return commands in execution order."""


def replay(entries: Iterable[Entry], build_controller: Callable[[Sink], Handler]) -> int:
    """Feed the recorded events to a fresh controller; returns how many entries were reproduced.

    Args:
        entries: the recorded journal.
        build_controller: builds the controller of the run, writing to the sink it is given.

    Raises:
        ReplayError: the policy or the controller decided something else; names the entry, both versions and the time.
    """
    sink = MemorySink()
    controller = build_controller(sink)
    number = 0
    for number, recorded in enumerate(entries, start=1):
        controller.handle(recorded.event)
        replayed = sink.entries.pop()
        if replayed != recorded:
            raise ReplayError(
                f"entry {number} at {recorded.event.at_s:.3f} s does not replay:\n"
                f"  recorded {recorded}\n  replayed {replayed}"
            )
    return number
