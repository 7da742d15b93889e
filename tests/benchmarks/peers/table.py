"""The learning curves that every peer gets: error after k epochs, floor + gain * k ** -decay + noise. Imports numpy only."""

from __future__ import annotations

import json
import time

import numpy as np

EPOCH_S = 60.0


def curves(configurations: int, epochs: int) -> np.ndarray:
    """(configurations, epochs) float."""
    rng = np.random.default_rng(7)
    floor, gain, decay = (
        rng.uniform(low, high, (configurations, 1)) for low, high in ((0.05, 0.4), (0.2, 0.5), (0.3, 1.3))
    )
    return floor + gain * np.arange(1, epochs + 1) ** -decay + rng.normal(0.0, 0.005, (configurations, epochs))


def rungs(epochs: int, reduction: int = 3) -> list[int]:
    """1, 3, 9, ... and all epochs."""
    levels = [1]
    while levels[-1] * reduction < epochs:
        levels.append(levels[-1] * reduction)
    return [*levels, epochs]


def timed(work, **known: object) -> None:
    """Run it, and print one line of JSON with the processor time it took."""
    began_s = time.process_time()
    work()
    print(json.dumps({"seconds": time.process_time() - began_s, **known}))  # noqa: T201  what the caller reads
