"""The errors that the project raises on purpose. A message says who asked for what, what was allowed, and when.

Imports only the standard library.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType


class TuningError(Exception):
    """Root of the project's errors."""


class InputError(TuningError):
    """What the user gave is wrong; nothing was started or written."""


class InvalidTraceError(InputError):
    """A file of a bundle or table is malformed.

    Attributes:
        file: the file that was read.
        problem: what is wrong there.
        row: the offending row (counted from 1 below the header), or None.
        column: the offending column, or None.
    """

    def __init__(self, file: object, problem: str, *, row: int | None = None, column: str | None = None) -> None:
        self.file, self.problem, self.row, self.column = str(file), problem, row, column
        where = self.file + (f", row {row}" if row is not None else "") + (f", column {column}" if column else "")
        super().__init__(f"{where}: {problem}")


class InvalidJournalError(InputError):
    """A file is not a journal, or a damaged one.

    Attributes:
        file: the file that was read.
        line: the line that is wrong, from 1.
    """

    def __init__(self, file: object, line: int, problem: str) -> None:
        self.file, self.line = str(file), line
        super().__init__(f"{file}, line {line}: {problem}")


class InfeasibleJobError(InputError):
    """No plan meets the deadline and the budget; the message names the best achievable one.

    Attributes:
        cheapest: (budget in USD, deadline in s) of the cheapest plan there is; None where that is not known.
        reasons: of several policies, each one's own message; empty for one.
    """

    cheapest: tuple[float, float] | None = None
    reasons: Mapping[str, str] = MappingProxyType({})


class InvalidActionError(TuningError):
    """A policy asked for something impossible."""

    def __init__(self, policy: str, action: object, at_s: float, problem: str) -> None:
        super().__init__(f"{policy}: {action} at {at_s:.1f} s: {problem}")


class RefusedCommandError(TuningError):
    """A backend cannot carry out a command. The loop raises it again as an `InvalidActionError` that names the policy.

    Attributes:
        action: the action that the command came from.
        at_s: when it was refused.
        problem: why.
    """

    def __init__(self, action: object, at_s: float, problem: str) -> None:
        self.action, self.at_s, self.problem = action, at_s, problem
        super().__init__(f"{action} at {at_s:.1f} s: {problem}")


class StalledRunError(TuningError):
    """Nothing can happen any more and the policy has not finished the run."""


class ReplayError(TuningError):
    """A journal does not replay: policy or controller decide something else today."""


class WorkerError(TuningError):
    """A real worker failed in a way that is not an event of the run."""


def nearest(word: str, known: Collection[str], *, likeness: float = 0.6) -> str | None:
    """The known word most like this one, or None where none is at least that similar (0 to 1); case does not count."""
    by_folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=likeness)
    return by_folded[found[0]] if found else None


_FEW = 12
"""So many known words are listed where one of them is probably meant [ours]."""


def unknown(kind: str, word: str, known: Collection[str], hint: str = "", *, listed_by: str = "") -> InputError:
    """The error for an unknown word; it names the nearest known one.

    Args:
        kind: what the word should have named, such as "bundle".
        word: the word that was given.
        known: the words that were possible.
        hint: another thing that could have been given, as a clause.
        listed_by: a command that lists the words, named where they are too many to list here.
    """
    match = nearest(word, known)
    meant = f"did you mean {match!r}? " if match else ""
    shown: Collection[str] = known
    if match and len(known) > _FEW:
        shown = difflib.get_close_matches(word, known, n=_FEW, cutoff=0.0)
    more = (
        f" and {len(known) - len(shown)} more{f' ({listed_by})' if listed_by else ''}"
        if len(shown) < len(known)
        else ""
    )
    listed = f"known: {', '.join(sorted(shown))}{more}" if known else "none is known here"
    return InputError(f"there is no {kind} {word!r}; {meant}{listed}{'; ' + hint if hint else ''}")
