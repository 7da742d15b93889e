"""Reading journals, plain or compressed as sweeps keep them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from elastune.experiments.spec.policy import PolicySpec
from elastune.experiments.spec.run import RunSpec
from elastune.sim.control.journal import Entry, Header, read_entries, read_header
from elastune.sim.control.sequence import JournalCheck
from elastune.sim.model.errors import InputError, InvalidJournalError

_ZSTANDARD = bytes.fromhex("28b52ffd")
"""How every such file begins, whatever its name (RFC 8878, section 3.1.1)."""


def journal_of(folder: Path, digest: str) -> Path:
    """Where a sweep keeps the journal of the run with this digest, in its folder of journals."""
    return folder / f"{digest}.jsonl.zst"


def open_journal(path: Path) -> BinaryIO:
    """A stream of the journal's lines.

    Raises:
        InputError: it is a pipe, which can be read once, or a device, which has no end.
    """
    if path.is_fifo() or path.is_char_device() or path.is_block_device():
        raise InputError(f"{path}: is a pipe or a device, but a journal is read more than once: save it to a file")
    with path.open("rb") as stream:
        is_compressed = stream.read(len(_ZSTANDARD)) == _ZSTANDARD
    if not is_compressed:
        return path.open("rb")
    import pyarrow as pa

    # Arrow's streams read, but have no lines.
    return cast("BinaryIO", io.BufferedReader(pa.input_stream(str(path), compression="zstd")))


def header_of(path: Path) -> Header:
    """The header of a journal.

    Raises:
        InputError: the file cannot be read, or is no journal.
    """
    try:
        return read_header(path, open_journal)
    except OSError as error:
        raise _unreadable(path, error) from error


def spec_of(path: Path) -> RunSpec:
    """The spec in a journal's header.

    Raises:
        InputError: the file cannot be read or is no journal, or its spec is not the one of its digest.
    """
    header = header_of(path)
    try:
        spec = RunSpec.recorded(header.spec)
    except InputError as error:
        raise InvalidJournalError(path, 1, f"its spec is none: {error}") from error
    if header.digest != spec.digest():
        problem = f"its header was changed: the spec in it does not have the digest {header.digest}"
        raise InvalidJournalError(path, 1, problem)
    return spec


def with_named_policy(spec: RunSpec, named: str | None, record: Path) -> RunSpec:
    """A spec out of a record that may be run: code of somebody's own in it is that which the user has named.

    Args:
        spec: as recorded.
        named: `file.py:Name` or `module:Name`, by the user; parameters are the record's.
        record: journal or folder, for messages.

    Raises:
        InputError: the policy is code and is not named, or another one is named.
    """
    policy = spec.policy
    if not policy.needs_naming:
        if named is not None and named != policy.name:
            raise InputError(
                f"--policy {named}: {record} is of policy {policy.label}, which needs no naming: leave it out"
            )
        return spec
    if named is None:
        raise InputError(
            f"{record} is of policy {policy.label}, which is code of somebody's own and is run only where you name it: add"
            f" --policy {policy.name} if you trust that file or module"
        )
    given = PolicySpec.model_validate(named)
    if given.short_name != policy.short_name:
        raise InputError(f"--policy {named}: {record} is of {policy.name}, not of {given.name}: name that")
    return spec.model_copy(update={"policy": policy.with_code_of(given)})


def with_named_training(spec: RunSpec, named: str | None, record: Path) -> RunSpec:
    """A spec out of a record whose training may go on: by the code that the user has named.

    Raises:
        InputError: it trains code of somebody's own that is not named, or another is named.
    """
    recorded = spec.workload.trainable
    if recorded is None:
        if named is not None:
            raise InputError(f"--trainable {named}: {record} trains a workload that ships: leave it out")
        return spec
    if named is None:
        raise InputError(
            f"{record} trains code of somebody's own, which is run only where you name it: add --trainable {recorded} if you"
            " trust that file or module"
        )
    if named.rpartition(":")[2] != recorded.rpartition(":")[2]:
        raise InputError(f"--trainable {named}: {record} trains {recorded}: name that")
    return spec.model_copy(update={"workload": spec.workload.with_code_of(named)})


def entries_of(path: Path, *, is_whole: bool = False) -> Iterator[Entry]:
    """The entries of a journal, one at a time, each checked to follow from those before it.

    Args:
        path: the journal.
        is_whole: whether the run must have ended.

    Raises:
        InputError: the file cannot be read, or it is damaged; names file and line.
    """
    spec = spec_of(path)
    check = JournalCheck(path, spec.job.tuning_job("minimize").trials, spec.cloud.price_book(0.0))
    try:
        for entry in read_entries(path, open_journal):
            check.take(entry)
            yield entry
        if is_whole:
            check.end()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    # An error of decompression has no words of the operating system.
    return InputError(f"{path}: cannot be read: {error.strerror or error}")
