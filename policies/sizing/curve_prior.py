"""The expected score of a schedule of successive halving before anything was trained, under a model of curves [ours].

Imports numpy and `policies.rules.halving`. The parameters are read from `curve_priors.json`, which
`experiments.profiling.fit_curve_prior` writes from recorded workloads.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.rules.halving import Stage

FAILED_REGRET = 2.0
"""Normalised regret of a failed run, and the most that any has: as far above the median as the median is above the best."""

DECAYED_GAP, DECAYED_GAP_POWER = 0.0714, 0.878
"""`CurveModel.gap` and `gap_power` where the learning rate decays, and a run that stops early misses its last steps.

As fitted on TaskSet, the only fitted family in which it decays; for TaskSet itself the two are in sample. The gaps of families
whose learning rates are constant are lower.
"""

PRIORS_FILE = Path(__file__).with_name("curve_priors.json")

_STEP = 1 / 16
_RANKS = np.arange(-4.5 + _STEP / 2, 4.5, _STEP)
_MASS = np.exp(-(_RANKS**2) / 2) / np.exp(-(_RANKS**2) / 2).sum()
_COUNTED = 512
"""Above so many survivors the binomial distribution of their number is taken for a normal one."""


@dataclass(frozen=True)
class CurveModel:
    """How ranks change while configurations train, and what a final rank is worth.

    The rank of a configuration among all, as a standard normal number (higher is better), is a stationary Gaussian Markov
    process in the logarithm of its iterations: ranks at k1 < k2 iterations correlate by (k1 / k2)**churn. Only ratios of
    iterations count, so that one model serves every R.

    Regret is (loss - best) / (median - best) of a workload's final losses. It is (2 u)**rarity for the better half, where u is
    the share of configurations that are better; 1 for the others; `FAILED_REGRET` for the worst `failed`.

    Attributes:
        churn: how fast ranks change; > 0.
        rarity: low where good configurations are rare; > 0.
        failed: share of the configurations that fail, 0 to 0.5.
        gap: regret that a winner has left to lose at R / e.
        gap_power: of ln(R / iterations), by which that grows.
    """

    churn: float
    rarity: float
    failed: float
    gap: float
    gap_power: float

    def expected_regret(self, stages: Sequence[Stage], max_iterations: int) -> float:
        """Expected regret of the winner for this kind of workload; see `CurvePrior.expected_regret`."""
        survivors = [*(stage.trials for stage in stages[1:]), 1]
        levels = [*(stage.until_iteration for stage in stages), max_iterations]
        mass = _best_at_first(stages[0].trials, survivors[0])
        for index, stage in enumerate(stages):
            if index > 0:
                mass = _selected(mass, stage.trials, survivors[index])
            mass = self._trained(mass, levels[index + 1] / levels[index])
        regret = float(mass @ self._regret_by_rank()) + self.truncation(levels[-2] / max_iterations)
        return min(regret, FAILED_REGRET)

    def mean_rank_of_best(self, trials: int, fraction: float) -> float:
        """Mean final rank, as a standard normal number, of the best of so many at this fraction of R."""
        return float(self._trained(_best_at_first(trials, 1), 1 / fraction) @ _RANKS)

    def decaying(self) -> CurveModel:
        """The same kind of workload with a learning rate that decays as R nears."""
        return replace(self, gap=DECAYED_GAP, gap_power=DECAYED_GAP_POWER)

    def truncation(self, fraction: float) -> float:
        """Further regret of a winner for being trained to this fraction of R only; 0 from R on."""
        return self.gap * math.log(1 / fraction) ** self.gap_power if fraction < 1 else 0.0

    def _trained(self, mass: np.ndarray, ratio: float) -> np.ndarray:
        """(ranks,) float; how those that were distributed like `mass` are after `ratio` times the iterations."""
        if ratio <= 1:
            return mass
        rates, modes, root = _unit_diffusion()
        later = root * (modes @ (np.exp(-rates * self.churn * math.log(ratio)) * ((mass / root) @ modes)))
        return _normalised(np.maximum(later, 0.0))

    def _regret_by_rank(self) -> np.ndarray:
        """(ranks,) float; regret of a configuration of each rank when it is trained to R."""
        better = 1 - np.cumsum(_MASS) + _MASS / 2
        regret = np.minimum(2 * better, 1.0) ** self.rarity
        return np.where(better > 1 - self.failed, FAILED_REGRET, regret)


@dataclass(frozen=True)
class CurvePrior:
    """A workload that is like one of several known kinds, each equally likely.

    Predictions are averaged, not parameters. So both extremes count: where good configurations are rare, many have to be tried;
    where they are common, long training pays.

    Attributes:
        models: one for each family that it was fitted on.
    """

    models: tuple[CurveModel, ...]

    def expected_regret(self, stages: Sequence[Stage], max_iterations: int) -> float:
        """Expected regret of the winner of successive halving over these stages, as it was trained; lower is better.

        Against the best of infinitely many configurations trained to R, as a share of (median - best) of all final losses; at
        most `FAILED_REGRET`. Deterministic and without sampling: smooth in the numbers of trials and iterations.

        Args:
            stages: of successive halving, in order; the best of the last is the winner. They may end before R, and then the
                winner lacks what `CurveModel.truncation` says.
            max_iterations: R.
        """
        return math.fsum(model.expected_regret(stages, max_iterations) for model in self.models) / len(self.models)


def prior_for(family: str, *, decays: bool = False) -> CurvePrior:
    """The prior for a workload of this family: of the other families only, or of all of them if it is none of those.

    Args:
        family: as in `Profile.family`; empty for none.
        decays: whether its learning rate decays, or may do so, as R nears.
    """
    left_out = family_key(family)
    models = (model for name, model in _fitted().items() if name != left_out)
    return CurvePrior(tuple(model.decaying() if decays else model for model in models))


def family_key(family: str) -> str:
    """Its first word, which names it; what follows in a bundle is a remark."""
    return family.split(maxsplit=1)[0] if family.strip() else ""


@lru_cache(maxsize=1)
def _fitted() -> dict[str, CurveModel]:
    document = json.loads(PRIORS_FILE.read_text(encoding="utf-8"))
    return {name: CurveModel(**entry["model"]) for name, entry in document["families"].items()}


@lru_cache(maxsize=1)
def _unit_diffusion() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates (modes,), modes (ranks, modes) and weights (ranks,) of the process of churn 1, on the grid of ranks.

    A birth-and-death process in detailed balance with the normal distribution: its transition probabilities are never
    negative, its marginals exact, and better ranks stay stochastically better, which discretised Gaussian kernels miss.
    """
    root = np.sqrt(_MASS)
    flow = root[1:] * root[:-1] / _STEP**2
    leaving = (np.append(flow, 0.0) + np.append(0.0, flow)) / _MASS
    between = np.full(len(flow), 1 / _STEP**2)
    rates, modes = np.linalg.eigh(np.diag(leaving) - np.diag(between, 1) - np.diag(between, -1))
    return rates, modes, root


def _normalised(mass: np.ndarray) -> np.ndarray:
    return np.asarray(mass / mass.sum())


@lru_cache(maxsize=1024)
def _best_at_first(trials: int, survivors: int) -> np.ndarray:
    """(ranks,) float; `_selected` of the configurations as they are sampled, which is the same for every model."""
    selected = _selected(_MASS, trials, survivors)
    selected.setflags(write=False)
    return selected


def _selected(mass: np.ndarray, trials: int, survivors: int) -> np.ndarray:
    """(ranks,) float; how each of the best `survivors` of `trials` is distributed, which were all like `mass`.

    Exact for one. In what follows they count as independent, although they have passed the same threshold: expected regret
    comes out up to 0.016 lower than by sampling (3 to 256 trials, first rung R / 81 or R / 9, rarity 0.3 to 1.9).
    """
    if survivors >= trials:
        return mass
    worse = np.cumsum(mass)
    if survivors == 1:
        return np.asarray(np.diff(worse**trials, prepend=0.0))
    better = np.clip(1 - worse + mass / 2, 1e-300, 1 - 1e-12)
    return _normalised(mass * _at_most(survivors - 1, trials - 1, better))


def _at_most(successes: int, tries: int, chance: np.ndarray) -> np.ndarray:
    """(ranks,) float; probability of at most so many successes, by the chance (ranks,) of one."""
    if successes > _COUNTED:
        deviation = (successes + 0.5 - tries * chance) / np.sqrt(tries * chance * (1 - chance))
        return np.asarray(np.interp(deviation, _RANKS, np.cumsum(_MASS) - _MASS / 2))
    counts = np.arange(successes + 1)[:, None]
    log_odds = np.log(chance) - np.log1p(-chance)
    logs = _log_ways(tries, successes)[:, None] + counts * log_odds + tries * np.log1p(-chance)
    return np.asarray(np.exp(logs).sum(axis=0))


def _log_ways(tries: int, most: int) -> np.ndarray:
    """(most + 1,) float; logarithms of the binomial coefficients of `tries` over 0 to `most`."""
    counts = np.arange(1, most + 1)
    return np.append(0.0, np.cumsum(np.log((tries - counts + 1) / counts)))
