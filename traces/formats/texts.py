"""Values of other libraries as plain values and as text. Imports the standard library.

Numpy's scalars and arrays come from tables, search spaces and keyword arguments. YAML and JSON know neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


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
