"""Errors about unknown words that name the nearest known one. Imports the standard library and sim.model.errors."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection


def nearest(word: str, known: Collection[str], *, likeness: float = 0.6) -> str | None:
    """The known word most like this one, or None where none is at least so alike (0 to 1)."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=likeness)
    return found[0] if found else None


def unknown(kind: str, word: str, known: Collection[str], hint: str = "") -> InputError:
    """The error for a word that is none of the known ones.

    Args:
        kind: what the word should have named, such as "bundle".
        word: what was given.
        known: the words that were possible.
        hint: what else could have been given, as a clause.
    """
    match = nearest(word, known)
    meant = f"did you mean {match!r}? " if match else ""
    listed = f"known: {', '.join(sorted(known))}" if known else "none is known here"
    return InputError(f"there is no {kind} {word!r}; {meant}{listed}{'; ' + hint if hint else ''}")
