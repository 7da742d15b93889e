"""A score under bounds on what else was measured: the one score that policies see of a job with a constraint.

Where a configuration keeps every bound, its score stays. Where it does not, its score is worse than any that was recorded, by
the share of what it needs that is above the bound: feasible ones rank by score and before all others, which rank by excess.
The rule is that of K. Deb ("An efficient constraint handling method for genetic algorithms", 2000).

Imports sim.model, numpy and traces.bundles.bundle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.sim.model.job import Direction
    from elastune.traces.bundles.bundle import Bundle

UNBOUNDED = "score"
"""Under this name, a bundle under a constraint keeps its scores as they were recorded."""


@dataclass(frozen=True)
class Constraint:
    """Bounds, and what breaking them costs.

    Attributes:
        bounds: the most that is allowed, by measure; above 0.
        direction: of the score.
        worst: the worst finite score that the bundle recorded.
    """

    bounds: Mapping[str, float]
    direction: Direction
    worst: float

    def score(self, score: np.ndarray | float, measured: Mapping[str, np.ndarray | float]) -> np.ndarray:
        """The one score; NaN where training diverged. What was not measured counts as above its bound.

        Args:
            score: of any shape.
            measured: by name, of the same shape.
        """
        excess = np.zeros(np.shape(score))
        for name, bound in self.bounds.items():
            needed = np.nan_to_num(np.asarray(measured[name], dtype=np.float64), nan=np.inf)
            excess = np.maximum(excess, 1.0 - bound / np.maximum(needed, bound))
        sign = -1.0 if self.direction == "maximize" else 1.0
        bounded = np.where(excess > 0, self.worst + sign * excess, score)
        return np.where(np.isnan(score), np.nan, bounded)


def is_kept(bounds: Mapping[str, float], measured: Mapping[str, float]) -> bool | None:
    """Whether all bounds are kept; None where there are none."""
    return all(measured.get(name, np.inf) <= bound for name, bound in bounds.items()) if bounds else None


def constraint_on(bundle: Bundle, bounds: Mapping[str, float]) -> Constraint:
    """The constraint of a job on this bundle.

    Raises:
        InputError: the bundle has no such measure.
    """
    for name in bounds:
        if name not in bundle.measures:
            raise _no_measure(bundle, name)
    finite = _recorded(bundle)[np.isfinite(_recorded(bundle))]
    worst = (finite.min() if bundle.direction == "maximize" else finite.max()) if finite.size else 0.0
    return Constraint(bounds, bundle.direction, float(worst))


def _recorded(bundle: Bundle) -> np.ndarray:
    """Its scores without a constraint."""
    return bundle.measured.get(UNBOUNDED, bundle.scores)


def _no_measure(bundle: Bundle, name: str) -> InputError:
    if not bundle.measures:
        problem = "records nothing beside the score: leave job.constraint out, or take a bundle such as deepmoe-mnist5k"
    else:
        match = nearest(name, bundle.measures)
        problem = f"records {', '.join(bundle.measures)}" + (f"; did you mean {match}?" if match else "")
    return InputError(f"job.constraint.{name} bounds what bundle {bundle.name} does not record: it {problem}")


def constrained(bundle: Bundle, bounds: Mapping[str, float]) -> Bundle:
    """The bundle as a job with these bounds sees it: every score is that of `Constraint`.

    Raises:
        InputError: the bundle has no such measure.
    """
    if not bounds or bundle.bounds == bounds:
        return bundle
    assert not bundle.bounds, "a bundle is bounded once"
    rule, replicates = constraint_on(bundle, bounds), bundle.replicates
    bounded = replace(
        bundle,
        scores=rule.score(bundle.scores, bundle.measured),
        test_scores=None if bundle.test_scores is None else rule.score(bundle.test_scores, bundle.measured),
        measured={**bundle.measured, UNBOUNDED: bundle.scores},
        bounds=dict(bounds),
    )
    if replicates is None:
        return bounded
    tests = replicates.test_scores
    return replace(
        bounded,
        replicates=replace(
            replicates,
            scores=rule.score(replicates.scores, replicates.measured),
            test_scores=None if tests is None else rule.score(tests, replicates.measured),
            measured={**replicates.measured, UNBOUNDED: replicates.scores},
        ),
    )
