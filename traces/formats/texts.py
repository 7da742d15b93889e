"""Values of other libraries as plain values and as text, and JSON texts. Imports the standard library and sim.model.errors.

Numpy's scalars and arrays come from tables, search spaces and keyword arguments. YAML and JSON know neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from elastune.sim.model.errors import InvalidTraceError


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
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise InvalidTraceError(file, "is given twice", column=name)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidTraceError(file, f"is malformed JSON: {' '.join(str(error).split())}") from error
