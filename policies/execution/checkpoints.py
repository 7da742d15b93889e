"""How often a gang writes a checkpoint within a segment if the loss rate decides. Pure; imports `sim.model`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elastune.sim.model.profile import Profile


def young_daly_s(checkpoint_s: float, mtbf_s: float) -> float:
    """Seconds of work between checkpoints that lose the least: sqrt(2 C M).

    J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974; J. T. Daly, "A higher order
    estimate of the optimum checkpoint interval for restart dumps", FGCS 22(3), 2006, whose first order it is: exact where a
    checkpoint is short against the time between losses. Infinite where nothing is lost.
    """
    return math.sqrt(2.0 * checkpoint_s * mtbf_s) if checkpoint_s else 0.0


def iterations_between(profile: Profile, gpus: int, nodes: int) -> int:
    """Iterations of a gang between checkpoints by the Young-Daly interval, at least 1; 0 for none within a segment.

    Args:
        profile: believed seconds and loss rate.
        gpus: size of the gang.
        nodes: machines it is on; it is lost when one of them is.
    """
    if math.isinf(profile.mtbf_s):
        return 0
    interval_s = young_daly_s(profile.timings.checkpoint_s, profile.mtbf_s / nodes)
    iteration_s = profile.iteration_s / profile.scaling.speedup(gpus, nodes)
    return max(round(interval_s / iteration_s), 1)
