"""What validation adds to the scores that are heard: luck beyond what the recorded curves hold.

Imports experiments.runs.regret for its unit, sim.model.streams and numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.runs.regret import scale_of
from elastune.sim.model.errors import InputError
from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from elastune.traces import Bundle


def heard_scores(scores: np.ndarray, noise: float, bundle: Bundle, seed: int) -> np.ndarray:
    """The scores as validation reports them: recorded ones with normal noise, each drawn anew; diverged ones stay so.

    The noise of a trial's iteration depends on the seed alone, not on the policy or the size of the job.

    Args:
        scores: (trials, iterations) float; the curves of the seed's draw.
        noise: standard deviation in the unit of regret.
        bundle: where the curves are from.
        seed: of the run.

    Raises:
        InputError: the bundle's final scores are all alike or all diverged, so that there is no unit.
    """
    unit = scale_of(bundle.scores[:, -1], bundle.direction)
    if unit is None:
        raise InputError(
            f"workload.score_noise is {noise:g} times (median - best) of the final scores, but those of bundle {bundle.name}"
            " are all alike or all diverged: leave it out"
        )
    streams, (trials, iterations) = Streams(seed), scores.shape
    drawn = [streams.rng("score-noise", trial).standard_normal(iterations) for trial in range(trials)]
    return scores + noise * unit * np.stack(drawn)
