"""Keeps child processes from importing code from the working folder. Imports the standard library.

`python -m`, `python -c` and scripts search that folder, or their own, first. A `logging.py` or a `sim/` there would run in
every child.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[4])
"""Where `elastune` is imported from. Not resolved, as in a checkout it is a tree of links."""


def child_environment() -> dict[str, str]:
    """Environment variables for a safe Python child; it finds what this process finds, except in the working folder."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(_search_path())}


def isolate_children() -> None:
    """Make all later Python children safe, including those of joblib and multiprocessing."""
    os.environ["PYTHONSAFEPATH"] = "1"
    if named := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in named.split(os.pathsep) if _is_safe(entry))


def _search_path() -> list[str]:
    safe = [entry for entry in sys.path if _is_safe(entry)]
    return safe if _ROOT in safe else [*safe, _ROOT]


def _is_safe(entry: str) -> bool:
    """Whether it is no relative path, and not the working folder."""
    return Path(entry).is_absolute() and os.path.realpath(entry) != os.path.realpath(Path.cwd())
