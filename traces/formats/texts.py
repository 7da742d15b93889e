"""Text files, JSON texts, and values of other libraries as text. Imports the standard library and sim.model.errors.

Numpy's scalars and arrays come from tables, search spaces and keyword arguments. YAML and JSON know neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elastune.sim.model.errors import InvalidTraceError


def require_file(path: Path) -> None:
    """Check that a file can be read to its end, which a pipe or a device may never have.

    Raises:
        InvalidTraceError: it is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise InvalidTraceError(path, f"is {'a folder' if path.is_dir() else 'a pipe or a device'}, but must be a file")


def read_text(path: Path, hint: str = "") -> str:
    """The text in a file.

    Raises:
        InvalidTraceError: it cannot be read, or is no UTF-8; `hint` follows the first.
    """
    require_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidTraceError(path, f"cannot be read: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        raise InvalidTraceError(path, f"is no UTF-8 text: {error.reason}; save it as UTF-8") from error


def plain(value: Any) -> Any:  # noqa: ANN401  any value of a table or a study
    """The value, with numpy's scalars and arrays replaced by Python's, at every depth."""
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    # Numpy's scalars and arrays, and pandas' of the same kind, have this method.
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def text_of(value: object) -> str:
    """A hyperparameter as text: empty for None, JSON for lists and mappings."""
    value = plain(value)
    if value is None:
        return ""
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def parse_json(file: object, text: str) -> object:
    """The value of a JSON text.

    Raises:
        InvalidTraceError: it is malformed, or gives a key twice.
    """

    def unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in pairs:
            if name in found:
                raise InvalidTraceError(file, "is given twice", column=name)
            found[name] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidTraceError(file, f"is malformed JSON: {' '.join(str(error).split())}") from error
