"""How many slots this machine has. Imports the standard library; torch, by the bridge, where GPUs are counted."""

from __future__ import annotations

import os

from sim.model.errors import InputError

SLOTS = {"cpu": "CPU cores", "cuda": "CUDA devices"}
"""What slots are, by device."""


def slots_here(device: str) -> int:
    """CPU cores that this process may use, or CUDA devices; 0 where there are none."""
    if device == "cpu":
        return len(os.sched_getaffinity(0))
    from sim.bridge.embedded import visible_gpus

    try:
        return len(visible_gpus())
    except InputError:
        return 0
