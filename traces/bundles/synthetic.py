"""Bundles made from a formula or a literal, for tests, benchmarks and sensitivity studies.

Imports sim.model, sim.model.streams, numpy and traces.bundles.bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import Timings
from elastune.sim.model.scaling import LinearScaling, Scaling
from elastune.sim.model.streams import Streams
from elastune.traces.bundles.bundle import Bundle
from elastune.traces.formats.limits import are_too_large, too_large

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from elastune.sim.model.job import Direction
    from elastune.sim.model.protocols import Configuration

_BLOCK_TRIALS = 65_536
"""Curves computed at a time, so that a million trials need no second array of their size."""
_ASSUMED = dict.fromkeys(("iteration_s", "scaling", "timings"), "assumed: made up")


class _Columns(Sequence["Configuration"]):
    """Configurations kept as columns: a million dictionaries would take longer than their curves."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @overload
    def __getitem__(self, at: int) -> Configuration: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Configuration]: ...
    def __getitem__(self, at: int | slice) -> Configuration | Sequence[Configuration]:
        if isinstance(at, slice):
            return _Columns({name: column[at] for name, column in self._columns.items()})
        return {name: float(column[at]) for name, column in self._columns.items()}


def synthetic_bundle(
    trials: int,
    iterations: int,
    seed: int = 0,
    *,
    noise: float = 0.01,
    diverged_share: float = 0.0,
    direction: Direction = "minimize",
    iteration_s: float = 60.0,
    scaling: Scaling | None = None,
) -> Bundle:
    """Power-law curves, floor + gain * k ** -decay + noise, that cross each other.

    Args:
        trials: configurations.
        iterations: length of the curves.
        seed: of everything that is drawn.
        noise: standard deviation of each score.
        diverged_share: this share of the trials, rounded, turns NaN at a random iteration.
        direction: `maximize` gives 1 - the loss.
        iteration_s: seconds per iteration on one GPU.
        scaling: speed-up by gang; None for linear.

    Raises:
        InputError: a number is out of range.
    """
    if trials < 1 or iterations < 1:
        raise InputError(f"a synthetic bundle of {trials} trials x {iterations} iterations: both must be at least 1")
    if not (noise >= 0 and 0 <= diverged_share <= 1):
        raise InputError(
            f"synthetic bundle: noise is {noise}, diverged_share {diverged_share}; >= 0 and 0 to 1 are known"
        )
    drawn = _parameters(trials, seed)
    scores = _power_laws(drawn, iterations, noise, seed)
    if direction == "maximize":
        np.subtract(1.0, scores, out=scores)
    _diverge(scores, round(diverged_share * trials), seed)
    recipe = f"{trials} {iterations} {seed} {noise!r} {diverged_share!r} {direction} {iteration_s!r} {scaling!r}"
    return Bundle(
        name=f"synthetic-{trials}x{iterations}",
        direction=direction,
        score="floor + gain * k ** -decay + noise" if direction == "minimize" else "1 - the power-law loss",
        iteration="one step k",
        max_iterations=iterations,
        scores=scores,
        configurations=_Columns(drawn),
        relative_cost=np.ones(trials),
        sha256=hashlib.sha256(recipe.encode()).hexdigest(),
        iteration_s=iteration_s,
        scaling=scaling or LinearScaling(),
        timings=Timings(),
        provenance=_ASSUMED,
        source="synthetic",
        licence="CC0-1.0",
    )


def hypersched_toy(trials: int, iterations: int, seed: int = 0) -> Bundle:
    """HyperSched's toy workload: 1 / (b0 k / 100 + b1 / 10 + 0.5) + b2 / 100 + |noise| as loss, (2 - loss) / 2 as accuracy.

    b0 is exponential with mean 0.1, b1 and b2 are uniform on 0 to 1, the noise of each step is normal with standard deviation
    0.005. A step takes 0.1 s on one GPU; how it scales is left to the run. Source: the toy trainable of HyperSched's code.

    Args:
        trials: configurations.
        iterations: steps of each.
        seed: of everything that is drawn.

    Raises:
        InputError: a number is below 1.
    """
    if trials < 1 or iterations < 1:
        raise InputError(f"a toy workload of {trials} trials x {iterations} steps: both must be at least 1")
    rng = Streams(seed).rng("hypersched toy")
    drawn = {"b0": rng.exponential(0.1, trials), "b1": rng.uniform(size=trials), "b2": rng.uniform(size=trials)}
    rate, start, floor = (drawn[name][:, None] for name in ("b0", "b1", "b2"))
    steps = np.arange(1, iterations + 1)
    noise = np.abs(Streams(seed).rng("hypersched toy noise").normal(0.0, 0.005, (trials, iterations)))
    losses = 1.0 / (rate * steps / 100 + 0.1 * start + 0.5) + 0.01 * floor + noise
    return Bundle(
        name="hypersched-toy",
        direction="maximize",
        score="accuracy, (2 - loss) / 2",
        iteration="one step",
        max_iterations=iterations,
        scores=(2.0 - losses) / 2.0,
        configurations=_Columns(drawn),
        relative_cost=np.ones(trials),
        sha256=hashlib.sha256(f"hypersched-toy {trials} {iterations} {seed}".encode()).hexdigest(),
        iteration_s=0.1,
        schedule="constant",
        provenance={"iteration_s": "published: HyperSched's toy trainable"},
        source="synthetic, by the formula of HyperSched's toy trainable (Liaw et al., SoCC 2019)",
        licence="CC0-1.0",
    )


def tiny_bundle(
    scores: ArrayLike,
    *,
    direction: Direction = "minimize",
    iteration_s: float = 1.0,
    relative_cost: Sequence[float] | None = None,
    scaling: Scaling | None = None,
    timings: Timings | None = None,
) -> Bundle:
    """A bundle with just these curves, for results worked out by hand.

    Args:
        scores: (trials, iterations) numbers, NaN where diverged.
        direction: whether they are minimised or maximised.
        iteration_s: seconds per iteration on one GPU.
        relative_cost: by trial; None for 1 everywhere.
        scaling: speed-up by gang; None for linear.
        timings: None for none at all.

    Raises:
        InputError: the shapes do not fit.
    """
    curves = np.array(scores, dtype=np.float64)
    if curves.ndim != 2 or curves.size == 0:
        raise InputError(f"scores have the shape {curves.shape}, but must be (trials, iterations), each at least 1")
    for score in curves[are_too_large(curves)]:
        raise InputError(f"a score {too_large(score)}")
    costs = np.ones(len(curves)) if relative_cost is None else np.array(relative_cost, dtype=np.float64)
    if costs.shape != (len(curves),) or not (costs > 0).all():
        raise InputError(f"relative_cost is {relative_cost}, but must be {len(curves)} positive numbers")
    recipe = f"{direction} {iteration_s!r} {costs.tolist()} {scaling!r} {timings!r} {curves.tolist()}"
    return Bundle(
        name="tiny",
        direction=direction,
        score="as given",
        iteration="as given",
        max_iterations=curves.shape[1],
        scores=curves,
        configurations=[{"row": row} for row in range(len(curves))],
        relative_cost=costs,
        sha256=hashlib.sha256(recipe.encode()).hexdigest(),
        iteration_s=iteration_s,
        scaling=scaling or LinearScaling(),
        timings=timings or Timings(),
        provenance=_ASSUMED,
        source="given in memory",
        licence="CC0-1.0",
    )


def _parameters(trials: int, seed: int) -> dict[str, np.ndarray]:
    rng = Streams(seed).rng("synthetic curves")
    return {
        "floor": rng.uniform(0.05, 0.4, trials),
        "gain": rng.uniform(0.3, 0.6, trials),
        "decay": rng.uniform(0.1, 1.5, trials),
    }


def _power_laws(drawn: Mapping[str, np.ndarray], iterations: int, noise: float, seed: int) -> np.ndarray:
    """(trials, iterations) float."""
    shape = (len(drawn["floor"]), iterations)
    scores = np.zeros(shape)
    if noise:
        Streams(seed).rng("synthetic noise").standard_normal(out=scores)
        scores *= noise
    log_iteration = np.log(np.arange(1, iterations + 1))
    for start in range(0, shape[0], _BLOCK_TRIALS):
        floor, gain, decay = (drawn[name][start : start + _BLOCK_TRIALS, None] for name in ("floor", "gain", "decay"))
        scores[start : start + _BLOCK_TRIALS] += floor + gain * np.exp(-decay * log_iteration)
    return scores


def _diverge(scores: np.ndarray, trials: int, seed: int) -> None:
    rng = Streams(seed).rng("synthetic divergence")
    for trial in rng.permutation(len(scores))[:trials]:
        scores[trial, rng.integers(scores.shape[1]) :] = np.nan
