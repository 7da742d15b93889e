"""The noise of training: how far another training of the same configurations ends from the recorded one.

Where the bundle has replicates, each draw takes others of them. Else the differences are those that earlier runs of the sitting
showed; the first run of a sitting knows of none.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from elastune.experiments.fidelity.sitting import Unit, profile_in
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.journals import entries_of
from elastune.experiments.runs.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.sim.model.profile import GroundTruth
    from elastune.traces import Bundle


def differences(unit: Unit) -> list[float]:
    """By trial of a real run that has ended, its last score less the recorded one; in the unit of the score.

    Trials that diverged in either training are left out.

    Raises:
        InputError: the journal or the profile cannot be read.
    """
    world = World.of(unit.spec, profile_in(unit.bundle)[0])
    last: dict[int, tuple[int, float]] = {}
    for segment in Tables.of(entries_of(unit.journal, is_whole=True), world.price_book).ended():
        ended = segment.ended
        if ended is not None and ended.score is not None:
            last[segment.trial] = max(last.get(segment.trial, (0, 0.0)), (ended.iteration, ended.score))
    found = [score - float(world.recorded_scores[trial, iteration - 1]) for trial, (iteration, score) in last.items()]
    return [difference for difference in found if math.isfinite(difference)]


def trained_again(world: World, known: Sequence[float], rng: np.random.Generator) -> GroundTruth:
    """The truth of a world whose configurations are trained once more.

    Args:
        world: of the run.
        known: differences of earlier runs, of which each trial draws one; only used where the bundle has no replicates.
        rng: of this draw.
    """
    truth, replicates = world.truth, world.bundle.replicates
    if replicates is not None and not world.spec.draws_anew:
        rows = world.bundle.draw(world.job.trials, world.spec.seed)
        other = replicates.scores[replicates.drawn(rows, int(rng.integers(2**62)))]
        return replace(truth, scores=truth.scores + (other - world.recorded_scores))
    if len(known):
        return replace(truth, scores=truth.scores + rng.choice(known, (len(truth.scores), 1)))
    return truth


def noise_phrase(bundle: Bundle, trials: int) -> str:
    """Where the noise of training is from, given how many trials of earlier runs there are."""
    if bundle.replicates is not None:
        return "replicates of the bundle"
    return f"{trials} trials of earlier runs" if trials else "none is known"
