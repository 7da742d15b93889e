"""What the runs and plans of a claim say about its bounds, over everything and by cell.

Imports the entries, the statistics of `experiments`, and numpy; pandas inside. A gain is above 0 (as a ratio above 1) where the
policy is better. Its interval resamples families, bundles and seeds; its p-value flips the signs of whole seeds, and is Holm's
over the baselines of a contrast, or over the cells.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from elastune.experiments.statistics.bootstrap import Pooled, Units, pooled_means_each, seed_parts
from elastune.experiments.statistics.differences import HIGHER_IS_BETTER, needs_completed
from elastune.experiments.statistics.significance import LEVEL, holm, sign_flip_p_each
from elastune.experiments.sweeps.summary import codes_of, groups_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from elastune.experiments.claims.entries import Contrast, Endpoint

Side = Literal["right", "wrong", "open"]
"""Where an interval lies: on the claim's side of the bound, on the other, or on both."""
_UNITS = ("bundle_family", "bundle_sha256", "seed")
_OF_PLANS = "deadline_s"
"""Plans of one job have several deadlines; those of runs are cells."""


@dataclass(frozen=True)
class NeededGain:
    """The side of a number on which a claim needs its gains.

    Attributes:
        least: the smallest gain; -inf for none.
        most: the largest gain; inf for none.
        is_strict: whether gains at the end are too small (or large), and must be told apart from it.
    """

    least: float = -math.inf
    most: float = math.inf
    is_strict: bool = False

    @classmethod
    def of(cls, contrast: Contrast) -> NeededGain:
        """From a contrast that decides."""
        if contrast.above is not None or contrast.below is not None:
            return cls(*_ends(contrast.above, contrast.below), is_strict=True)
        return cls(*_ends(contrast.least, contrast.most))

    def __str__(self) -> str:
        above, below = ("above", "below") if self.is_strict else ("at least", "at most")
        told = [f"{above} {self.least:g}"] if math.isfinite(self.least) else []
        return " and ".join([*told, *([f"{below} {self.most:g}"] if math.isfinite(self.most) else [])])

    @property
    def end(self) -> float:
        """The end from which a strict bound tells gains apart."""
        return self.least if math.isfinite(self.least) else self.most

    def side(self, found: MeanGain, effect: float = 0.0) -> Side:
        """On which side a finding is; on the wrong one only if it is off by the effect."""
        is_told_apart = not self.is_strict or found.p_holm < LEVEL
        is_inside = self.least <= found.low and found.high <= self.most
        if self.is_strict:
            is_inside = self.least < found.low and found.high < self.most
        if is_inside and is_told_apart:
            return "right"
        off = max(self.least - found.value, found.value - self.most)
        is_outside = found.high < self.least or found.low > self.most
        return "wrong" if is_outside and is_told_apart and off >= effect else "open"


def _ends(low: float | None, high: float | None) -> tuple[float, float]:
    return -math.inf if low is None else low, math.inf if high is None else high


@dataclass(frozen=True)
class MeanGain:
    """A mean gain with its interval; NaN where there are no pairs.

    Attributes:
        value: a ratio is a geometric mean.
        low: lower end of the 95 % interval.
        high: upper end.
        p: that the mean is the bound's end, by sign flips of whole seeds.
        p_holm: the same, over the baselines or the cells.
        pairs: how many pairs.
        families: of the pairs, as bundles and seeds.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    pairs: int
    families: int
    bundles: int
    seeds: int


@dataclass(frozen=True)
class CellGain:
    """The finding in one cell, named by its settings."""

    settings: Mapping[str, Any]
    found: MeanGain


@dataclass(frozen=True)
class Evidence:
    """What one policy gains over one other.

    Attributes:
        contrast: of the claim.
        policy: whose gain it is.
        against: the other one; None for the measure itself.
        measure: what is gained.
        kind: of the gain.
        bound: that decides.
        effect: by how much a cell must be off to count against the claim.
        pooled: over all pairs.
        cells: by their settings.
        one_sided: places in which only one of the two has a value: the other found no plan, or its job was cut and has no cost.
        unfinished: pairs of runs that count for nothing, since T cut one or both and what is measured needs the whole job.
    """

    contrast: Contrast
    policy: str
    against: str | None
    measure: str
    kind: Literal["difference", "ratio"]
    bound: NeededGain
    effect: float
    pooled: MeanGain
    cells: Sequence[CellGain]
    one_sided: int
    unfinished: int

    @property
    def name(self) -> str:
        """What is gained: `regret, sha-fixed minus seer`."""
        told = f"{self.measure} of {self.policy}"
        if self.against is not None:
            pair = (self.policy, self.against) if self.measure in HIGHER_IS_BETTER else (self.against, self.policy)
            told = f"{self.measure}, {(' over ' if self.kind == 'ratio' else ' minus ').join(pair)}"
        if self.contrast.along:
            values = " to ".join(map(str, self.contrast.values))
            told += f", change along {self.contrast.along}{f' from {values}' if values else ''}"
        return f"{told}, where {self.contrast.where}" if self.contrast.where else told

    @property
    def side(self) -> Side:
        """Over all pairs."""
        return self.bound.side(self.pooled)

    def cells_on(self, side: Side) -> list[CellGain]:
        """The cells on one side of the bound."""
        return [cell for cell in self.cells if self.bound.side(cell.found, self.effect) == side]


def evidence_of(endpoint: Endpoint, contrast: Contrast, rows: pd.DataFrame, cells: Sequence[str]) -> list[Evidence]:
    """What every policy of a contrast gains over every baseline.

    Args:
        endpoint: of the claim.
        contrast: with a bound.
        rows: of the experiment that meet the contrast's condition: policy, seed, bundle_family, bundle_sha256, direction, the
            measure, NaN where a run has no value.
        cells: columns that tell cells apart.
    """
    cells = [name for name in cells if not _follows(rows, name, contrast.along)]
    return [one for policy in contrast.policies for one in _over_baselines(endpoint, contrast, rows, cells, policy)]


def _follows(rows: pd.DataFrame, name: str, along: str | None) -> bool:
    """Whether a setting is the same as another one, or moves with it: such cells have no change along it."""
    return along is not None and rows.groupby(along)[name].nunique(dropna=False).max() <= 1


def _over_baselines(
    endpoint: Endpoint, contrast: Contrast, rows: pd.DataFrame, cells: Sequence[str], policy: str
) -> list[Evidence]:
    found = [_evidence(endpoint, contrast, rows, cells, policy, against) for against in contrast.against or (None,)]
    adjusted = holm([one.pooled.p for one in found])
    return [replace(one, pooled=replace(one.pooled, p_holm=float(p))) for one, p in zip(found, adjusted, strict=True)]


def _evidence(
    endpoint: Endpoint, contrast: Contrast, rows: pd.DataFrame, cells: Sequence[str], policy: str, against: str | None
) -> Evidence:
    measure, kind = contrast.measure or endpoint.measure, contrast.kind or endpoint.kind
    is_ratio = kind == "ratio" and (contrast.along is not None or against is not None)
    bound = NeededGain.of(contrast)
    along, settings = contrast.along, contrast.values  # noqa: PD011  not of a table
    if along is not None and settings:
        rows = rows[rows[along].isin(settings)]
    gains, one_sided, unfinished = _gains(rows, policy, against, measure, [*cells, *filter(None, [along])], is_ratio)
    if along is not None:
        gains, cells = _changes(gains, along, settings, cells), [*cells, along]
    ends = bound.end if not is_ratio else math.log(bound.end)
    groups = [({}, np.arange(len(gains))), *(groups_of(gains, cells) if len(gains) else ())]
    pooled, *by_cell = _findings(gains, [chosen for _, chosen in groups], ends, is_ratio=is_ratio)
    adjusted = holm([one.p for one in by_cell])
    told = [
        CellGain({name: labels[name] for name in cells}, replace(one, p_holm=float(p)))
        for (labels, _), one, p in zip(groups[1:], by_cell, adjusted, strict=True)
    ]
    told_kind: Literal["difference", "ratio"] = "ratio" if is_ratio else "difference"
    return Evidence(
        contrast, policy, against, measure, told_kind, bound, endpoint.least_effect, pooled, told, one_sided, unfinished
    )


def _gains(
    rows: pd.DataFrame, policy: str, against: str | None, measure: str, places: Sequence[str], is_ratio: bool
) -> tuple[pd.DataFrame, int, int]:
    """The gain of each pair in column `gain`, with its place; in how many places one of the two has no value, or T cut a run.

    A run that was cut has no cost: it is cheaper for having done less.
    """
    values, is_cut = rows[measure].astype(float).to_numpy(), np.zeros(len(rows), dtype=bool)
    if needs_completed(measure) and "completed" in rows:
        is_cut = (rows["completed"] == False).to_numpy()  # noqa: E712  empty without a result
    values = np.where(is_cut, np.nan, values)
    values = np.log(values) if is_ratio else values
    keys = [*places, *_UNITS, *([_OF_PLANS] if _OF_PLANS in rows else [])]
    known = rows.assign(gain=values, place=codes_of(rows, keys))[["policy", "place", "gain", *keys]]
    cut_at, finished_at = (
        {name: set(known["place"][which & (known["policy"] == name)]) for name in filter(None, (policy, against))}
        for which in (is_cut, np.isfinite(known["gain"]))
    )
    known = known[np.isfinite(known["gain"])]
    mine = known[known["policy"] == policy]
    if against is None:
        return mine, 0, len(cut_at[policy])
    ran_at = (cut_at[name] | finished_at[name] for name in (policy, against))
    unfinished = len(set.intersection(*ran_at) & (cut_at[policy] | cut_at[against]))
    theirs = known[known["policy"] == against].set_index("place")["gain"]
    pairs = mine.join(theirs.rename("other"), on="place", how="inner")
    sign = _signs(rows.loc[pairs.index], measure)
    one_sided = len(mine) + len(theirs) - 2 * len(pairs)
    return pairs.assign(gain=sign * (pairs["other"] - pairs["gain"])), one_sided, unfinished


def _signs(rows: pd.DataFrame, measure: str) -> np.ndarray:
    """1 where less is better."""
    if measure in ("score", "test_score"):
        return np.where(rows["direction"] == "maximize", -1.0, 1.0)
    return np.full(len(rows), -1.0 if measure in HIGHER_IS_BETTER else 1.0)


def _changes(gains: pd.DataFrame, along: str, values: Sequence[Any], cells: Sequence[str]) -> pd.DataFrame:
    """The gains at one setting minus those at the one before it, where both are known."""
    import pandas as pd

    settings = list(values) or sorted(gains[along].dropna().unique().tolist())
    keys = [*cells, *_UNITS, *([_OF_PLANS] if _OF_PLANS in gains else [])]
    gains = gains.assign(place=codes_of(gains, keys))
    steps = []
    for before, after in itertools.pairwise(settings):
        start = gains[gains[along] == before].set_index("place")["gain"]
        end = gains[gains[along] == after].join(start.rename("start"), on="place", how="inner")
        steps.append(end.assign(gain=end["gain"] - end["start"], **{along: f"{before} to {after}"}))
    return pd.concat(steps) if steps else gains.head(0)


def _findings(gains: pd.DataFrame, groups: Sequence[np.ndarray], end: float, *, is_ratio: bool) -> list[MeanGain]:
    """The finding of each group of rows, by position."""
    values, units = gains["gain"].to_numpy(dtype=float), Units.of_table(gains)
    pooled = pooled_means_each([(values[chosen, None], units.where(chosen)) for chosen in groups])
    flipped = [seed_parts(values[chosen] - end, units.where(chosen)) if len(chosen) else () for chosen in groups]
    return [
        _finding(found, p, len(chosen), is_ratio=is_ratio)
        for found, p, chosen in zip(pooled, sign_flip_p_each(flipped), groups, strict=True)
    ]


def _finding(found: Pooled, p: float, pairs: int, *, is_ratio: bool) -> MeanGain:
    told = found.interval()
    ends = [told.value, told.low, told.high]
    value, low, high = np.exp(ends).tolist() if is_ratio else ends
    return MeanGain(value, low, high, p, p, pairs, found.families, found.bundles, found.seeds)
