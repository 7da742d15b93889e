"""How far the answer of a run is from the best that there was, in three parts that add up.

Imports sim.model.job and numpy. Apart from `experiments.statistics.differences`, because it is a part of every result:
statistics may change without making results old.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elastune.sim.model.job import Direction, loss_of


@dataclass(frozen=True)
class Regret:
    """How far a run's answer is from the best of its seed's draw, as a share of (median - best) of the bundle's final scores.

    Attributes:
        sampling: best of the draw - best that was started, both at R.
        selection: best that was started - the one that was chosen, both at R.
        truncation: the chosen one at R - as it was trained; negative where its curve was better before R.
    """

    sampling: float
    selection: float
    truncation: float

    @property
    def total(self) -> float:
        """The three together."""
        return math.fsum((self.sampling, self.selection, self.truncation))


def regret_of(
    finals: np.ndarray,
    started: Sequence[int],
    chosen: int,
    trained: float | None,
    *,
    direction: Direction,
    bundle_finals: np.ndarray,
) -> Regret | None:
    """The regret of one run; None where the bundle's final scores have no scale.

    A diverged score counts as the worst finite one among the bundle's final scores.

    Args:
        finals: (trials,) float; the seed's draw at R.
        started: trials that were started.
        chosen: the trial that was named.
        trained: its score as it was trained; None where it diverged.
        direction: whether scores are minimised or maximised.
        bundle_finals: (configurations,) float; the bundle's scores at the end of its curves.
    """
    pool = _losses(bundle_finals, direction)
    scale = _scale(pool)
    if scale is None:
        return None
    worst = _worst(pool)

    def loss(score: float | None) -> float:
        known = loss_of(score, direction)
        return known if math.isfinite(known) else worst

    drawn = [loss(score) for score in finals.tolist()]
    best, best_started = min(drawn), min(drawn[trial] for trial in started)
    return Regret(
        sampling=(best_started - best) / scale,
        selection=(drawn[chosen] - best_started) / scale,
        truncation=(loss(trained) - drawn[chosen]) / scale,
    )


def scale_of(bundle_finals: np.ndarray, direction: Direction) -> float | None:
    """(median - best) of a bundle's final scores, the unit of regret; None where they are all alike or all diverged."""
    return _scale(_losses(bundle_finals, direction))


def _scale(losses: np.ndarray) -> float | None:
    if not np.isfinite(losses).any():
        return None
    losses = np.where(np.isfinite(losses), losses, _worst(losses))
    scale = float(np.median(losses) - losses.min())
    return scale if scale > 0 else None


def _losses(scores: np.ndarray, direction: Direction) -> np.ndarray:
    """`loss_of` each score."""
    return np.where(np.isfinite(scores), scores if direction == "minimize" else -scores, np.inf)


def _worst(losses: np.ndarray) -> float:
    return float(losses[np.isfinite(losses)].max())
