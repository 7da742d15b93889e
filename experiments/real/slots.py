"""What this machine has for real runs: packages, and slots. Imports the standard library; torch, by the bridge, for GPUs."""

from __future__ import annotations

import os
from importlib.util import find_spec

from elastune.sim.model.errors import InputError

SLOTS = {"cpu": "CPU cores", "cuda": "CUDA devices"}
"""What slots are, by device."""


def require_installed(what: str, *packages: str, extra: str = "bridge") -> None:
    """Accept what needs these packages.

    Args:
        what: needs them, for the error.
        packages: as they are imported.
        extra: installs them.

    Raises:
        InputError: some are missing; names them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'elastune[{extra}]'")


def slots_here(device: str) -> int:
    """CPU cores that this process may use, or CUDA devices; 0 if there are none."""
    if device == "cpu":
        return len(os.sched_getaffinity(0))
    from elastune.sim.bridge.machines.embedded import visible_gpus

    try:
        return len(visible_gpus())
    except InputError:
        return 0
