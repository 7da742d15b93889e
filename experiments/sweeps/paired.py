"""Tables of results that compare policies run by run: paired differences, and performance profiles.

Imports the row schema, the statistics of `experiments`, and sim.model.errors; pandas inside the functions that need it. Rows
whose scaling was measured for their workload and rows that borrow another's are never pooled, nor are rows of several versions
of results: where there are both, the column `scaling_from` or `results_version` is one of the groups, and pairs are of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.experiments.statistics.bootstrap import (
    Interval,
    Over,
    Pooled,
    Units,
    family_parts,
    pooled_means,
    pooled_means_each,
    seed_parts,
)
from elastune.experiments.statistics.differences import HIGHER_IS_BETTER, needs_completed
from elastune.experiments.statistics.significance import EFFECT, holm, seeds_needed, sign_flip_p_each
from elastune.experiments.sweeps.rows import measures
from elastune.experiments.sweeps.summary import (
    codes_of,
    groups_of,
    kept_apart,
    known_column,
    varying,
    with_origins,
)
from elastune.sim.model.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

POOLED = "all"
"""The scope of a row that pools everything."""
PAIRED_COLUMNS = (
    *("mean", "low", "high", "better", "better_low", "better_high", "ties"),
    *("pairs", "unfinished", "only", "only_against"),
    *("cells", "cells_better", "cells_worse", "p", "p_holm", "seeds_needed", "families", "bundles", "seeds", "over"),
)


def paired_table(
    results: pd.DataFrame,
    against: str,
    *,
    measure: str = "regret",
    group: Sequence[str] | None = None,
    over: Over = "families",
    effect: float = EFFECT,
) -> pd.DataFrame:
    """Compare every policy with one of them, on the same cells and seeds.

    Args:
        results: rows of a folder.
        against: a policy as the rows name it.
        measure: what is compared; less is better but for scores that are maximised and `HIGHER_IS_BETTER`. Costs and makespans
            are compared where both runs have `completed` their jobs.
        group: columns; None for those of the spec that vary, the policy apart; empty for the pooled rows alone.
        over: what intervals and p-values speak of: workloads like these (where there are several families), or these.
        effect: the least difference that counts, for `seeds_needed`; for other measures than regret a share of the mean of
            `against`.

    Returns:
        One row per policy and group, then the pooled ones: policy, against, measure, scope (`group` or `all`), the group's
        columns (None in pooled rows), mean (of policy - against) with low and high, better (share of pairs in which the policy
        is better) with its interval, ties, pairs, unfinished (pairs left out because a run was cut), only and only_against
        (cells and seeds for which one of the two alone has a value), cells, cells_better and cells_worse (by the sign of their
        mean difference), p (sign flips of whole families, or of whole seeds) and p_holm (over the policies of one group),
        seeds_needed (per cell, for 80 % power at `effect`), and families, bundles, seeds and over: what the interval rests on.

    Raises:
        InputError: a column, measure or policy is unknown, the rows have no other policy, one run is there twice, or scores
            are minimised in some and maximised in others.
    """
    runs = _Runs.of(results, measure)
    runs.require(against)
    others = [policy for policy in runs.policies if policy != against]
    if not others:
        raise InputError(f"there is no other policy than {against} to compare with it")
    group = runs.default_group() if group is None else _known_groups(group)
    shown = [*group, *kept_apart(runs.places, group)]
    scopes = [
        *(runs.groups(shown, "group", shown) if group else ()),
        *runs.groups(kept_apart(runs.places, []), POOLED, shown),
    ]
    told = [
        ({"policy": policy, "against": against, "measure": measure, "scope": scope, **labels}, chosen)
        for scope, labels, chosen in scopes
        for policy in others
    ]
    pairs = [_Pairs.of(runs, str(row["policy"]), against, chosen) for row, chosen in told]
    rows = _paired_rows(pairs, over, effect)
    for start in range(0, len(rows), len(others)):
        of_group = rows[start : start + len(others)]
        for row, adjusted in zip(of_group, holm([row["p"] for row in of_group]), strict=True):
            row["p_holm"] = float(adjusted)
    rows = [labels | row for (labels, _), row in zip(told, rows, strict=True)]
    return _frame(rows, ["policy", "against", "measure", "scope", *shown, *PAIRED_COLUMNS])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Two policies in the same cells and seeds (`places`).

    Attributes:
        difference: (pairs,) float.
        worse: (pairs,) float; the same, above 0 where the policy is worse.
        units: of the pairs.
        cells: (pairs,) int.
        unfinished: places where both have a value, but the measure needs completed jobs, and one of them is not.
        only: places where only the policy has a value.
        only_against: places where only the other has one.
        scale: what the least difference that counts is a share of; NaN where the pairs have no common mean: there are none,
            or scores that are minimised and scores that are maximised.
    """

    difference: np.ndarray
    worse: np.ndarray
    units: Units
    cells: np.ndarray
    unfinished: int
    only: int
    only_against: int
    scale: float

    @classmethod
    def of(cls, runs: _Runs, policy: str, against: str, chosen: np.ndarray) -> _Pairs:
        a, b = runs.measured[policy][chosen], runs.measured[against][chosen]
        has_a, has_b = np.isfinite(a), np.isfinite(b)
        is_cut = runs.is_cut[policy][chosen] | runs.is_cut[against][chosen]
        is_pair = has_a & has_b & ~is_cut
        pairs, reference = chosen[is_pair], b[is_pair]
        difference, signs = a[is_pair] - reference, runs.signs[pairs]
        if len(np.unique(signs)) != 1:
            scale = math.nan
        else:
            scale = 1.0 if runs.measure.startswith("regret") else abs(float(reference.mean()))
        return cls(
            difference,
            difference * signs,
            runs.units.where(pairs),
            runs.cells[pairs],
            unfinished=int((has_a & has_b & is_cut).sum()),
            only=int((has_a & ~has_b).sum()),
            only_against=int((has_b & ~has_a).sum()),
            scale=scale,
        )

    def statistics(self) -> np.ndarray:
        """(pairs, 3) float: the difference, whether the policy is better, and whether both are equal."""
        return np.column_stack([self.difference, self.worse < 0, self.difference == 0]).astype(float)

    def needed(self, effect: float) -> float:
        """How many seeds a cell needs; NaN where that is unknown."""
        if math.isnan(self.scale):
            return math.nan
        by_seed = seed_parts(self.difference, self.units)
        found = seeds_needed((by_seed * len(by_seed)).tolist(), effect * self.scale)
        return math.nan if found is None else float(found)

    def parts(self, over: Over) -> np.ndarray:
        """What each independent unit adds to the mean; none where there is no mean."""
        if math.isnan(self.scale):
            return np.empty(0)
        return (family_parts if over == "families" else seed_parts)(self.difference, self.units)


def _paired_rows(pairs: Sequence[_Pairs], over: Over, effect: float) -> list[dict[str, Any]]:
    pooled = pooled_means_each([(one.statistics(), one.units) for one in pairs], over)
    p_values = sign_flip_p_each([one.parts(found.over) for one, found in zip(pairs, pooled, strict=True)])
    return [_paired_row(*row, effect) for row in zip(pairs, pooled, p_values, strict=True)]


def _paired_row(pairs: _Pairs, found: Pooled, p: float, effect: float) -> dict[str, Any]:
    better, of_cell = found.interval(1), _means_by(pairs.cells, pairs.worse)
    difference = Interval(math.nan, math.nan, math.nan) if math.isnan(pairs.scale) else found.interval(0)
    return {
        "mean": difference.value,
        "low": difference.low,
        "high": difference.high,
        "better": better.value,
        "better_low": better.low,
        "better_high": better.high,
        "ties": float(found.value[2]),
        "pairs": len(pairs.difference),
        "unfinished": pairs.unfinished,
        "only": pairs.only,
        "only_against": pairs.only_against,
        "cells": len(of_cell),
        "cells_better": int((of_cell < 0).sum()),
        "cells_worse": int((of_cell > 0).sum()),
        "p": p,
        "seeds_needed": pairs.needed(effect),
        "families": found.families,
        "bundles": found.bundles,
        "seeds": found.seeds,
        "over": found.over,
    }


def _means_by(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of the values of each code that occurs."""
    _, codes = np.unique(codes, return_inverse=True)
    return np.asarray(np.bincount(codes, values) / np.bincount(codes)) if len(codes) else np.empty(0)


def profile_table(
    results: pd.DataFrame,
    *,
    measure: str = "regret",
    taus: Sequence[float] | None = None,
    group: Sequence[str] = (),
    over: Over = "families",
) -> pd.DataFrame:
    """Performance profiles: the share of runs at least as good as tau, with pointwise 95 % bands.

    Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021, section 4.2. A run that
    has no value (its policy found no plan, broke down, or named no trial) is at least as good as no tau; a cell and seed for
    which no policy has a value are left out.

    Args:
        results: rows of a folder.
        measure: what is profiled; see `paired_table` for which way is better.
        taus: where; None for 0, 0.01, ... 1 of regret, and of other measures 51 between the best value and the 95th percentile.
        group: columns.
        over: see `paired_table`.

    Returns:
        By group, policy and tau: the group's columns, policy, tau, share, low, high, runs, families, bundles, seeds, over.

    Raises:
        InputError: a column or measure is unknown, one run is there twice, or the scores of a group are minimised in some of
            its cells and maximised in others.
    """
    runs = _Runs.of(results, measure)
    group = _known_groups(group)
    shown = [*group, *kept_apart(runs.places, group)]
    levels = np.asarray(runs.default_taus() if taus is None else taus, dtype=float)
    rows: list[dict[str, Any]] = []
    for _, labels, chosen in runs.groups(shown, "group", shown):
        sign = runs.sign_of(chosen)
        for policy in runs.policies:
            counted = chosen[runs.is_there[policy][chosen] & runs.is_answered[chosen]]
            values = np.where(np.isfinite(runs.measured[policy]), sign * runs.measured[policy], math.inf)[counted]
            reached = (values[:, None] <= sign * levels[None, :]).astype(float)
            found = pooled_means(reached, runs.units.where(counted), over)
            told = {"runs": len(counted), "families": found.families, "bundles": found.bundles, "seeds": found.seeds}
            for at, tau in enumerate(levels.tolist()):
                share = found.interval(at)
                point = {"tau": tau, "share": share.value, "low": share.low, "high": share.high}
                rows.append({**labels, "policy": policy, **point, **told, "over": found.over})
    counts = ("runs", "families", "bundles", "seeds", "over")
    return _frame(rows, [*shown, "policy", "tau", "share", "low", "high", *counts])


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))


def _known_groups(group: Sequence[str]) -> list[str]:
    """The columns, the policy apart, by which every row is told anyway.

    Raises:
        InputError: one is unknown, or says what came out of a run.
    """
    found = [known_column(name) for name in group if name != "policy"]
    for name in found:
        if name in measures() or name in ("key", "status", "error", "policy.name", "policy.params", "digest"):
            raise InputError(f"policies are compared within groups of equal cells, and {name} is not of the cell")
    return found


@dataclass(frozen=True, eq=False)
class _Runs:
    """Results by cell and seed, and policy.

    Attributes:
        measure: what was measured.
        places: one row per cell and seed, with what does not depend on the policy.
        cells: (places,) int.
        units: of the places.
        measured: by policy, (places,) float, NaN where there is none.
        is_there: by policy, (places,) bool: whether there is a row.
        is_cut: by policy, (places,) bool: whether the run did not complete its job, and the measure is of those that did.
        is_answered: (places,) bool: whether any policy has a value.
        signs: (places,) float; 1 where less is better, else -1.
    """

    measure: str
    places: pd.DataFrame
    cells: np.ndarray
    units: Units
    measured: dict[str, np.ndarray]
    is_there: dict[str, np.ndarray]
    is_cut: dict[str, np.ndarray]
    is_answered: np.ndarray
    signs: np.ndarray

    @classmethod
    def of(cls, results: pd.DataFrame, measure: str) -> _Runs:
        known_column(measure, measures())
        results = with_origins(results)
        keys = [*(name for name in varying(results) if name != "policy"), "results_version"]
        cell_of_run = codes_of(results, keys)
        seeds, seed_of_run = np.unique(results["seed"].to_numpy(), return_inverse=True)
        _, first, place_of_run = np.unique(
            cell_of_run * len(seeds) + seed_of_run, return_index=True, return_inverse=True
        )
        policies = sorted(results["policy"].unique())
        measured = results[measure].astype(float).to_numpy()
        values = {policy: np.full(len(first), math.nan) for policy in policies}
        was_cut = (results["completed"] == False).to_numpy() & needs_completed(measure)  # noqa: E712  empty without a result
        is_there, is_cut = ({policy: np.zeros(len(first), dtype=bool) for policy in policies} for _ in range(2))
        for policy in policies:
            rows = np.flatnonzero((results["policy"] == policy).to_numpy())
            at = place_of_run[rows]
            if len(np.unique(at)) < len(at):
                raise InputError(f"{policy} has several rows for one cell and seed")
            values[policy][at], is_there[policy][at], is_cut[policy][at] = measured[rows], True, was_cut[rows]
        places = results.iloc[first]
        units = Units.of_table(places)
        is_answered = np.any([np.isfinite(column) for column in values.values()], axis=0)
        return cls(
            measure,
            places,
            cell_of_run[first],
            units,
            values,
            is_there,
            is_cut,
            is_answered,
            _signs(places, measure),
        )

    @property
    def policies(self) -> list[str]:
        return list(self.measured)

    def require(self, policy: str) -> None:
        """Accept a known policy.

        Raises:
            InputError: there is none; names the nearest.
        """
        if policy not in self.measured:
            raise unknown("policy", policy, self.policies)

    def default_group(self) -> list[str]:
        return [name for name in varying(self.places) if name != "policy"]

    def groups(
        self, columns: Sequence[str], scope: str, shown: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any], np.ndarray]]:
        """Scope, the values of the shown columns (None for those that are pooled) and the places of each group, sorted."""
        for labels, chosen in groups_of(self.places, columns):
            yield scope, dict.fromkeys(shown) | labels, chosen

    def default_taus(self) -> list[float]:
        if self.measure.startswith("regret"):
            return [percent / 100 for percent in range(101)]
        known = np.concatenate([values[np.isfinite(values)] for values in self.measured.values()])
        if not known.size:
            return [0.0]
        sign = self.sign_of(np.arange(len(self.signs)))
        best, far = np.quantile(known * sign, [0.0, 0.95])
        return [float(tau) for tau in np.linspace(sign * best, sign * far, 51)]

    def sign_of(self, chosen: np.ndarray) -> float:
        """1 where less is better, -1 where more is.

        Raises:
            InputError: of some of these places the one, of others the other.
        """
        signs = set(self.signs[chosen].tolist())
        if len(signs) > 1:
            raise InputError(
                f"{self.measure} is minimised in some cells and maximised in others; ask for regret, or for some with --where"
            )
        return float(signs.pop())


def _signs(places: pd.DataFrame, measure: str) -> np.ndarray:
    if measure in ("score", "test_score"):
        return np.where(places["direction"] == "maximize", -1.0, 1.0)
    return np.full(len(places), -1.0 if measure in HIGHER_IS_BETTER else 1.0)
