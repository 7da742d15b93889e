"""Running, comparing and showing: the composition root, and the only package that imports all others.

From Python: build a `RunSpec`, hand it to `execute` or `compare`. The names are imported when they are first used, so that the
command line starts at once; modules are called otherwise than the functions, because importing a module binds its name here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.comparing import Comparison, compare
    from experiments.run_result import RunResult
    from experiments.running import execute, replay_journal
    from experiments.spec import RunSpec

__all__ = ["Comparison", "RunResult", "RunSpec", "compare", "execute", "replay_journal"]

_HOMES = {
    "Comparison": "experiments.comparing",
    "RunResult": "experiments.run_result",
    "RunSpec": "experiments.spec",
    "compare": "experiments.comparing",
    "execute": "experiments.running",
    "replay_journal": "experiments.running",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
