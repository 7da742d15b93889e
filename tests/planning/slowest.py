"""The slowest of several trials by order statistics: the quantile at U ** (1 / n) of one uniform draw, instead of n draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]


def slowest_normals(
    trials: Sequence[int],
    shares: Sequence[float],
    samples: int,
    rng: np.random.Generator,
    slowest_kept: Floats | None = None,
) -> Floats:
    """(samples, stages) float; the standard normal value at which the slowest trial of each stage is.

    The survivors of a stage are some of its trials, whatever their speed: the maximum of what stays with them is drawn from
    the last stage backwards, over those who drop out at a time. It is joined to the part drawn anew as normals with that
    share of the variance, which is exact where one of both parts is absent.

    Args:
        trials: by stage, never rising.
        shares: by stage, the share of variance that stays with a trial.
        samples: how many.
        rng: the source of randomness.
        slowest_kept: (samples, stages) standard normal values at which the maxima of what stays are, where they are drawn.
    """
    from scipy.special import ndtr, ndtri

    counts = np.array(trials, float)
    fresh = rng.standard_normal((samples, len(trials)))
    share = np.array(shares)
    if share.any():
        nested = _nested_quantiles(counts, samples, rng) if slowest_kept is None else ndtr(slowest_kept)
        kept = ndtri(np.clip(nested**counts, 1e-15, 1 - 1e-15))
        fresh = np.sqrt(share) * kept + np.sqrt(1 - share) * fresh
    normals: Floats = ndtri(ndtr(fresh) ** (1.0 / counts))
    return normals


def _nested_quantiles(counts: NDArray[np.float64], samples: int, rng: np.random.Generator) -> Floats:
    """(samples, stages) the quantile at which the greatest of so many is, each the first ones of those before."""
    dropping = np.append(counts[:-1] - counts[1:], counts[-1])
    uniform = rng.random((samples, len(counts)))
    # Those who drop out after a stage, and at last the survivors; the maximum over none of them is 0.
    with np.errstate(divide="ignore"):
        best = np.where(dropping > 0, uniform ** (1.0 / np.maximum(dropping, 1.0)), 0.0)
    return np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]


def slowest_of_first(normals: Floats, counts: Sequence[int]) -> Floats:
    """(samples, stages) the greatest of the first so many of these (trials, samples) normal values, as doubles."""
    rows = [normals[:count].max(axis=0) for count in counts]
    return np.stack(rows, axis=1).astype(float)


def slowest_of_groups(slowest: Floats, counts: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """(samples, groups) float; the standard normal value at which the slowest of each group of so many trials is.

    The slowest of all is one of a random group's, by size; all others are as likely anywhere below it.

    Args:
        slowest: (samples,) the standard normal value at which the slowest of all is.
        counts: (groups,) trials of each.
        rng: the source of randomness.
    """
    from scipy.special import ndtr, ndtri

    samples = len(slowest)
    at = rng.random((samples, len(counts)))
    # Roots of equal groups are square roots, which are ten times as fast as powers.
    quantiles = np.sqrt(np.sqrt(at)) if (counts == 4).all() else at ** (1.0 / counts)
    quantiles *= ndtr(slowest)[:, None]
    normals: Floats = ndtri(quantiles)
    owner = np.searchsorted(np.cumsum(counts), rng.random(samples) * counts.sum(), side="right")
    normals[np.arange(samples), owner] = slowest
    return normals
