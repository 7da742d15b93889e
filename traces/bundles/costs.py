"""What `iteration_s`, `seconds` and `relative_cost` mean together. Imports numpy.

An iteration of a trial takes `iteration_s * relative_cost` seconds on one GPU. Importers and bundles follow the same rules:

- Recorded relative costs say how trials differ. Recorded seconds then give `iteration_s`, the seconds at relative cost 1, so
  that all recorded iterations together take as long in a simulation, one by one on one GPU, as they took when recorded. Where
  both are recorded, they must agree.
- Without recorded relative costs, those follow from the seconds: each trial alone takes as long as it was recorded to take, and
  the mean over the trials is at cost 1. A trial without seconds costs 1.
- An `iteration_s` in `bundle.yaml` or in a run outranks the seconds, and `relative_cost` stands as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DIFFERING = 1.1
"""Seconds vary from run to run. Beyond this factor off what its relative cost says, a trial is counted."""
_OFTEN_OFF, _OFTEN = 1.25, 0.25
_EVER_OFF = 3.0
"""Costs contradict seconds where more than a quarter of the trials are off by a quarter, or any by a factor of three."""


@dataclass(frozen=True, eq=False)
class IterationCosts:
    """What an iteration costs.

    Attributes:
        iteration_s: seconds of an iteration at relative cost 1 on one GPU; None where nothing was timed.
        relative: (trials,) float > 0; None where neither seconds nor costs were recorded.
        untimed: trials without seconds whose relative cost is assumed to be 1.
        differing: trials whose recorded relative cost is more than 10 % off what their seconds say.
        contradiction: where recorded costs contradict the seconds, the trial that does so most, and how, in words.
    """

    iteration_s: float | None
    relative: np.ndarray | None
    untimed: int = 0
    differing: int = 0
    contradiction: tuple[int, str] | None = None


def mean_seconds(seconds: np.ndarray, curve: np.ndarray, trial_of: np.ndarray, trials: int) -> np.ndarray:
    """(trials,) float: mean seconds of an iteration of each trial, NaN where it has none.

    Every training of a trial counts alike, however many iterations of it were recorded: a seed draws one of them.

    Args:
        seconds: (points,) float; NaN where a point was not timed.
        curve: (points,) int; the training that each point belongs to.
        trial_of: (curves,) int; the trial of each training.
        trials: how many there are.
    """
    return _means(_means(seconds, curve, len(trial_of)), trial_of, trials)


def _means(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """(groups,) float: the mean of the values of each group that are numbers, NaN where there are none."""
    known = np.isfinite(values)
    counted = np.bincount(group[known], minlength=groups)
    total = np.bincount(group[known], weights=values[known], minlength=groups)
    means: np.ndarray = np.divide(total, counted, out=np.full(groups, np.nan), where=counted > 0)
    return means


def iteration_costs(mean_s: np.ndarray | None, lengths: np.ndarray, recorded: np.ndarray | None) -> IterationCosts:
    """The costs that follow from a recording; see above.

    Args:
        mean_s: (trials,) float > 0, mean seconds of an iteration, NaN for a trial without seconds; None where no trial has any.
        lengths: (trials,) int, recorded iterations.
        recorded: (trials,) float > 0, recorded relative costs, or None.
    """
    if mean_s is None or not np.isfinite(mean_s).any():
        return IterationCosts(None, recorded)
    timed = np.isfinite(mean_s)
    if recorded is None:
        iteration_s = float(mean_s[timed].mean())
        relative = np.where(timed, mean_s / iteration_s, 1.0)
        return IterationCosts(iteration_s, relative, untimed=int((~timed).sum()))
    weights = np.maximum(lengths, 1)[timed]
    iteration_s = float((mean_s[timed] * weights).sum() / (recorded[timed] * weights).sum())
    ratio = mean_s[timed] / (iteration_s * recorded[timed])
    off = np.maximum(ratio, 1.0 / ratio)
    contradiction = None
    if (off > _OFTEN_OFF).mean() > _OFTEN or off.max() > _EVER_OFF:
        trial = int(np.flatnonzero(timed)[off.argmax()])
        cost, said_s = recorded[trial], iteration_s * recorded[trial]
        told = f"is {cost:g}, so that an iteration takes {said_s:.4g} s, but the seconds say {mean_s[trial]:.4g} s"
        contradiction = (trial, told)
    return IterationCosts(iteration_s, recorded, differing=int((off > _DIFFERING).sum()), contradiction=contradiction)
