"""Confidence intervals of pooled runs: the bootstrap resamples the independent units.

Imports numpy; scipy inside the functions that need it.

Runs come in families of bundles, bundles, and seeds. A seed gives every cell of a sweep, and every bundle, the same luck: it is
resampled as a whole. Of several families each resample draws families, of each drawn one bundles, and the seeds once for all
(the pigeonhole bootstrap: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007). Of one family nothing is
known about others: its bundles stay as they are, and the interval covers seeds alone.

Statistics weigh families equally, in each its bundles, and in a bundle its runs. With every level resampled, noise of a lower
one is counted in the upper ones as well: intervals err on the wide side. Over few families percentiles are too narrow, so their
levels are moved outwards (Hesterberg, What teachers should know about the bootstrap, The American Statistician 69(4), 2015,
section 4: the expanded percentile interval); of two or three that is the whole range of the resamples.

Everything is deterministic: equal shapes are resampled alike.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

RESAMPLES = 10_000
LEVEL = 0.95
ROUNDING = 1e-12
"""Share of the numbers that are added up below which a difference is 0."""
BLOCK = 4_000_000
"""Numbers that are computed at once, at most; results do not depend on it."""
KEPT_UNITS = 1_000
"""Seeds of which all draws are kept, at most; results do not depend on it."""
_SEED = 20210419
_KEPT_AS_FLOATS = 128

Over = Literal["families", "seeds"]
"""What an interval speaks of: workloads like these, or these very ones with other seeds."""


@dataclass(frozen=True, eq=False)
class Units:
    """The family, bundle and seed of each run.

    Attributes:
        families: (runs,) int, equal for runs of one family.
        bundles: (runs,) int; a bundle is of one family.
        seeds: (runs,) int.
    """

    families: np.ndarray
    bundles: np.ndarray
    seeds: np.ndarray

    @classmethod
    def of(cls, families: Sequence[object], bundles: Sequence[object], seeds: Sequence[object]) -> Units:
        """From any names that can be sorted, one of each per run."""
        codes = (np.unique(np.asarray(names), return_inverse=True)[1] for names in (families, bundles, seeds))
        return cls(*codes)

    @classmethod
    def of_table(cls, results: pd.DataFrame) -> Units:
        """Of rows of a results folder."""
        names = (results[column] for column in ("bundle_family", "bundle_sha256", "seed"))
        return cls(*(column.factorize(sort=True)[0] for column in names))

    @classmethod
    def of_seeds(cls, count: int) -> Units:
        """`count` runs of one bundle, each with its own seed."""
        alike = np.zeros(count, dtype=np.int64)
        return cls(alike, alike, np.arange(count))

    def where(self, chosen: np.ndarray) -> Units:
        """The units of the chosen runs, by mask or position."""
        return Units(self.families[chosen], self.bundles[chosen], self.seeds[chosen])


@dataclass(frozen=True)
class Interval:
    """A statistic with its bootstrap interval of level `LEVEL`; NaN where there are no values."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Pooled:
    """Statistics of pooled runs, with intervals.

    Attributes:
        value: (statistics,) float.
        low: (statistics,) float.
        high: (statistics,) float.
        families: how many there are.
        bundles: how many, in all families.
        seeds: how many.
        over: what was resampled: families with bundles and seeds, or the seeds of these bundles.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    families: int
    bundles: int
    seeds: int
    over: Over

    def interval(self, statistic: int = 0) -> Interval:
        """One statistic with its interval; values that are only rounding errors are set to 0."""
        three = np.array([self.value[statistic], self.low[statistic], self.high[statistic]], dtype=float)
        three[np.abs(three) <= ROUNDING * np.abs(three).max()] = 0.0
        return Interval(*three.tolist())


def pooled_means(values: np.ndarray, units: Units, over: Over = "families") -> Pooled:
    """The mean of each column, with its interval.

    Args:
        values: (runs, statistics) finite floats.
        units: of the runs.
        over: "seeds" keeps the bundles as they are even where there are several families.
    """
    if not len(values):
        return _nothing(values.shape[1])
    tree = _Tree.of(units)
    sums, counts = tree.sums(values), tree.counts()
    value = _weighted(_ratio(sums.sum(axis=0), counts.sum(axis=0))[None], tree.weights()[None])[0]
    resampled = [
        _weighted(_drawn_means(drawn, sums, counts), weights)
        for drawn, weights in _draws(tree, over, width=tree.bundles * values.shape[1])
    ]
    return _pooled(value, np.concatenate(resampled), tree, over)


def pooled_means_each(groups: Sequence[tuple[np.ndarray, Units]], over: Over = "families") -> list[Pooled]:
    """`pooled_means` of each group; all have the same number of statistics. Fast for thousands of groups of one bundle each."""
    trees = [_Tree.of(units) if len(values) else None for values, units in groups]
    alone: dict[int, list[int]] = {}
    found: dict[int, Pooled] = {}
    for index, tree in enumerate(trees):
        if tree is not None and tree.bundles == 1:
            alone.setdefault(tree.seeds, []).append(index)
        else:
            found[index] = pooled_means(*groups[index], over)
    for members in alone.values():
        size = max(1, BLOCK // (RESAMPLES * groups[members[0]][0].shape[1]))
        for start in range(0, len(members), size):
            part = members[start : start + size]
            runs = [(tree, groups[index][0]) for index in part if (tree := trees[index]) is not None]
            found |= zip(part, _means_of_single_bundles(runs), strict=True)
    return [found[index] for index in range(len(groups))]


def _means_of_single_bundles(groups: Sequence[tuple[_Tree, np.ndarray]]) -> Iterator[Pooled]:
    """The means of groups with one bundle and the same number of seeds: they share their resamples."""
    sums = np.concatenate([tree.sums(values) for tree, values in groups], axis=1)
    counts = np.concatenate([tree.counts() for tree, _ in groups], axis=1)
    blocks = _seed_blocks(len(sums), max(1, BLOCK // sums[0].size))
    resampled = np.concatenate([_drawn_means(block.astype(float, copy=False), sums, counts) for block in blocks])
    value = sums.sum(axis=0) / counts.sum(axis=0)
    low, high = _ends(value.ravel(), resampled.reshape(len(resampled), -1), None).reshape(2, *sums.shape[1:])
    for at in range(len(groups)):
        yield Pooled(value[at], low[at], high[at], 1, 1, len(sums), "seeds")


def pooled_interquartile_mean(values: np.ndarray, units: Units, over: Over = "families") -> Pooled:
    """The mean of the middle half of the runs by weight, with its interval; a run at its edge counts in part.

    Args:
        values: (runs,) finite floats.
        units: of the runs.
        over: see `pooled_means`.
    """
    if not len(values):
        return _nothing(1)
    order = np.argsort(values, kind="stable")
    ascending, tree = values[order], _Tree.of(units.where(order))
    value = _middle_means(ascending, tree, np.ones((1, tree.seeds)), tree.weights()[None])
    resampled = [_middle_means(ascending, tree, *drawn) for drawn in _draws(tree, over, width=len(values))]
    return _pooled(value, np.concatenate(resampled)[:, None], tree, over)


def _middle_means(values: np.ndarray, tree: _Tree, drawn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resamples,) float: middle means of ascending values, given how often each seed is drawn and the weights of bundles."""
    share = np.nan_to_num(_ratio(weights, drawn @ tree.counts()[..., 0]), posinf=0.0)
    each = share[:, tree.bundle_of_run]
    each *= drawn[:, tree.seed_of_run]
    upto = np.cumsum(each, axis=1)
    total = upto[:, -1:].copy()
    before = np.subtract(upto, each, out=each)
    for part in (upto, before):
        np.clip(part, 0.25 * total, 0.75 * total, out=part)
    return _ratio(np.subtract(upto, before, out=upto) @ values, 0.5 * total[:, 0])


def seed_parts(values: np.ndarray, units: Units) -> np.ndarray:
    """(seeds,) float: what each seed adds to the pooled mean of values, (runs,) float."""
    tree = _Tree.of(units)
    sums, counts = tree.sums(values[:, None])[..., 0], tree.counts()[..., 0]
    return np.asarray((sums / counts.sum(axis=0)) @ tree.weights())


def family_parts(values: np.ndarray, units: Units) -> np.ndarray:
    """(families,) float: what each family adds to the pooled mean of values, (runs,) float."""
    tree = _Tree.of(units)
    sums, counts = tree.sums(values[:, None])[..., 0], tree.counts()[..., 0]
    of_bundles = sums.sum(axis=0) / counts.sum(axis=0) * tree.weights()
    return np.asarray(np.bincount(tree.family_of_bundle, of_bundles))


@dataclass(frozen=True, eq=False)
class _Tree:
    """Units, numbered from 0.

    Attributes:
        bundle_of_run: (runs,) int.
        seed_of_run: (runs,) int.
        family_of_bundle: (bundles,) int.
        families: how many.
        bundles: how many.
        seeds: how many.
    """

    bundle_of_run: np.ndarray
    seed_of_run: np.ndarray
    family_of_bundle: np.ndarray
    families: int
    bundles: int
    seeds: int

    @classmethod
    def of(cls, units: Units) -> _Tree:
        _, first, bundle_of_run = np.unique(units.bundles, return_index=True, return_inverse=True)
        names, family_of_bundle = np.unique(units.families[first], return_inverse=True)
        seeds, seed_of_run = np.unique(units.seeds, return_inverse=True)
        return cls(bundle_of_run, seed_of_run, family_of_bundle, len(names), len(first), len(seeds))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(seeds, bundles, statistics) float: by seed and bundle, of values, (runs, statistics) float."""
        at, size = self.seed_of_run * self.bundles + self.bundle_of_run, self.seeds * self.bundles
        columns = [np.bincount(at, column, size) for column in values.T]
        return np.stack(columns, axis=-1).reshape(self.seeds, self.bundles, -1)

    def counts(self) -> np.ndarray:
        """(seeds, bundles, 1) float: how many runs."""
        return self.sums(np.ones((len(self.bundle_of_run), 1)))

    def per_family(self) -> tuple[int, ...]:
        """How many bundles each family has."""
        return tuple(np.bincount(self.family_of_bundle).tolist())

    def weights(self) -> np.ndarray:
        """(bundles,) float: equal by family, and in it by bundle; their sum is 1."""
        per_family = np.asarray(self.per_family())
        return np.asarray(1.0 / (self.families * per_family[self.family_of_bundle]))


def _draws(tree: _Tree, over: Over, *, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """By block of resamples: (block, seeds) how often each seed was drawn, and (block, bundles) the weights of the bundles."""
    by_family = np.argsort(tree.family_of_bundle, kind="stable")
    weights = None
    if over == "families" and tree.families > 1:
        weights = np.empty((RESAMPLES, tree.bundles))
        weights[:, by_family] = _family_weights(tree.per_family())
    done = 0
    for block in _seed_blocks(tree.seeds, max(1, BLOCK // max(width, tree.seeds))):
        drawn, until = block.astype(float, copy=False), done + len(block)
        fixed = np.broadcast_to(tree.weights(), (len(drawn), tree.bundles))
        yield drawn, fixed if weights is None else weights[done:until]
        done = until


def _seed_blocks(seeds: int, size: int) -> Iterator[np.ndarray]:
    """(block, seeds) int, `RESAMPLES` rows in all; the same rows whatever the size of blocks."""
    if seeds <= KEPT_UNITS:
        kept = _kept_seed_draws(seeds)
        yield from (kept[start : start + size] for start in range(0, RESAMPLES, size))
        return
    rng = np.random.default_rng(_SEED)
    for start in range(0, RESAMPLES, size):
        yield _multiplicities(rng.integers(seeds, size=(min(size, RESAMPLES - start), seeds)))


@functools.lru_cache(maxsize=8)
def _kept_seed_draws(seeds: int) -> np.ndarray:
    """All draws of so many seeds, kept for the many groups of this size: 10 MB at most."""
    rng = np.random.default_rng(_SEED)
    drawn = _multiplicities(rng.integers(seeds, size=(RESAMPLES, seeds)))
    assert drawn.max() <= np.iinfo(np.uint8).max  # would take over 255 of 1,000 draws
    return drawn.astype(float if seeds <= _KEPT_AS_FLOATS else np.uint8)


def _multiplicities(drawn: np.ndarray) -> np.ndarray:
    """(resamples, units) int: how often each row drew each unit."""
    counts = np.empty(drawn.shape, dtype=np.int64)
    for resample, row in enumerate(drawn):
        counts[resample] = np.bincount(row, minlength=drawn.shape[1])
    return counts


@functools.lru_cache(maxsize=8)
def _family_weights(per_family: tuple[int, ...]) -> np.ndarray:
    """(resamples, bundles) float, bundles in order of families: families drawn, and of each drawn one its bundles."""
    rng, families = np.random.default_rng((_SEED, 1)), len(per_family)
    first = np.concatenate([[0], np.cumsum(per_family)])
    weights, rows = np.zeros((RESAMPLES, int(first[-1]))), np.arange(RESAMPLES)
    drawn = rng.integers(families, size=(RESAMPLES, families))
    of_drawn = np.asarray(per_family)[drawn]
    for place in range(families):
        size = of_drawn[:, place]
        for pick in range(max(per_family)):
            is_picked = pick < size
            bundle = first[drawn[:, place]] + (rng.random(RESAMPLES) * size).astype(np.int64)
            weights[rows[is_picked], bundle[is_picked]] += 1.0 / (families * size[is_picked])
    return weights


def _drawn_means(drawn: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(resamples, bundles, statistics) float; NaN where no seed of the bundle was drawn."""
    seeds, bundles, statistics = sums.shape
    totals = (drawn @ sums.reshape(seeds, -1)).reshape(len(drawn), bundles, statistics)
    return _ratio(totals, (drawn @ counts[..., 0])[..., None])


def _weighted(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resamples, statistics) float: over the bundles that have a mean; NaN where none has."""
    if means.shape[1] == 1:
        return np.asarray(means[:, 0])
    is_known = ~np.isnan(means[..., 0])
    if is_known.all():
        return np.asarray(np.einsum("rb,rbs->rs", weights, means))
    weights = np.where(is_known, weights, 0.0)
    total = np.einsum("rb,rbs->rs", weights, np.nan_to_num(means))
    return _ratio(total, weights.sum(axis=1, keepdims=True))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where both are 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above / below)


def _pooled(value: np.ndarray, resampled: np.ndarray, tree: _Tree, over: Over) -> Pooled:
    over = over if tree.families > 1 else "seeds"
    known = resampled[~np.isnan(resampled[:, 0])]
    low, high = _ends(value, known, tree.families if over == "families" else None)
    return Pooled(value, low, high, tree.families, tree.bundles, tree.seeds, over)


def _ends(value: np.ndarray, resampled: np.ndarray, families: int | None) -> np.ndarray:
    """(2, statistics) float: the ends of the interval around `value`, from (resamples, statistics) float."""
    # Contiguous columns sort faster.
    low, high = np.quantile(np.ascontiguousarray(resampled.T), _levels(families), axis=1)
    # Resamples are summed in another order, so rounding alone could put the value of equal runs outside of its interval.
    return np.stack([np.minimum(low, value), np.maximum(high, value)])


@functools.cache
def _levels(families: int | None) -> tuple[float, float]:
    """The quantiles of the resamples at which the interval ends; further out for few families."""
    tail = (1 - LEVEL) / 2
    if families is not None:
        # Not scipy.stats, which takes a second to import.
        from scipy.special import ndtr, stdtrit

        tail = float(ndtr(math.sqrt(families / (families - 1)) * stdtrit(families - 1, tail)))
        tail = 0.0 if tail * RESAMPLES < 1 else tail
    return tail, 1 - tail


def _nothing(statistics: int) -> Pooled:
    empty = np.full(statistics, math.nan)
    return Pooled(empty, empty, empty, 0, 0, 0, "seeds")
