"""Tables of a claim's results: differences or ratios of paired runs, with intervals. No verdicts.

Imports the statistics of `experiments.sweeps.paired`; pandas inside the functions that need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.sweeps.paired import paired_table
from elastune.experiments.sweeps.rows import STATUSES
from elastune.experiments.sweeps.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from elastune.experiments.claims.entries import Claim, Contrast, Endpoint

WORKLOAD = "bundle_name"
_GRID = ("job.deadline_s", "job.budget_usd")
POOLED_SCOPE, CELL_SCOPE = "pooled", "cell"


def claim_table(claim: Claim, rows: pd.DataFrame) -> pd.DataFrame:
    """What the claim's endpoint says, over everything, by workload, by deadline, by budget, by further columns, and by cell.

    Returns:
        One row per contrast, policy, baseline and group: experiment, policy, against, measure, kind, scope (`pooled`, the names
        of the grouping columns, or `cell`), the grouping columns, then mean with low and high (of against - policy, or of
        against / policy as a geometric mean; of the measure itself where nothing is compared), better (share of pairs in which
        `policy` is better), ties, pairs, cells with the sign of their means, p_holm over baselines, what the interval rests on,
        and the runs without a plan. Empty where there are no rows.
    """
    import pandas as pd

    tables = []
    for contrast in claim.endpoint.contrasts:
        # Changes along a column, and parts of the rows, are in the page of the verdicts.
        if contrast.along is not None or contrast.where is not None:
            continue
        chosen = rows[(rows["experiment"] == contrast.experiment)] if len(rows) else rows
        if len(chosen):
            tables += list(_of_contrast(claim.endpoint, contrast, chosen))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _of_contrast(endpoint: Endpoint, contrast: Contrast, rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    groups = _groups(contrast, rows)
    for policy in contrast.policies:
        mine = rows[rows["policy"].isin([policy, *contrast.against])]
        if policy not in set(mine["policy"]):
            continue
        for scope, group in groups:
            # Further measures are given pooled only: they explain, and decide nothing.
            main = contrast.measure or endpoint.measure
            for measure in (main, *(() if group or contrast.measure else endpoint.also)):
                kind = (contrast.kind or endpoint.kind) if measure == main else "difference"
                if not contrast.against:
                    yield _alone(contrast, measure, mine, scope, group)
                elif set(mine["policy"]) != {policy}:
                    yield _compared(endpoint, contrast, measure, policy, mine, scope, group, is_ratio=kind == "ratio")


def _groups(contrast: Contrast, rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """By scope, the columns that tell groups apart; columns with one value tell nothing."""
    varying = [name for name in (WORKLOAD, *_GRID, *contrast.by) if len(rows[name].unique()) > 1]
    varying = list(dict.fromkeys(varying))
    groups: list[tuple[str, list[str]]] = [(POOLED_SCOPE, [])]
    groups += [(name, [name]) for name in varying]
    by = [name for name in dict.fromkeys(contrast.by) if name in varying]
    if len(by) > 1:
        groups.append((" x ".join(by), by))
    if len(varying) > 1 and varying != by:
        groups.append((CELL_SCOPE, varying))
    return groups


def _compared(
    endpoint: Endpoint,
    contrast: Contrast,
    measure: str,
    policy: str,
    rows: pd.DataFrame,
    scope: str,
    group: Sequence[str],
    *,
    is_ratio: bool,
) -> pd.DataFrame:
    if is_ratio:
        # Differences of logarithms are ratios, and their mean a geometric mean.
        rows = rows.assign(**{measure: np.log(rows[measure].astype(float))})
    table = paired_table(rows, policy, measure=measure, group=list(group), effect=endpoint.least_effect)
    table = table[table["scope"] == ("group" if group else "all")]
    # The mean is baseline minus policy; `better` counts pairs and cells in which the policy is ahead.
    table = table.rename(columns={"policy": "against", "against": "policy"}).assign(
        experiment=contrast.experiment,
        kind="ratio" if is_ratio else "difference",
        scope=scope,
        better=(1 - table["better"] - table["ties"]).round(12),
        cells_better=table["cells_worse"],
        cells_worse=table["cells_better"],
        only=table["only_against"],
        only_against=table["only"],
    )
    if is_ratio:
        table = table.assign(**{name: np.exp(table[name]) for name in ("mean", "low", "high")})
    return _ordered(table.drop(columns=["better_low", "better_high", "seeds_needed", "p"]), group)


def _alone(contrast: Contrast, measure: str, rows: pd.DataFrame, scope: str, group: Sequence[str]) -> pd.DataFrame:
    table = summarise(rows, ["policy", *group], [measure])
    table = table.rename(columns={measure: "mean", f"{measure}_low": "low", f"{measure}_high": "high"})
    table = table.assign(experiment=contrast.experiment, against="-", measure=measure, kind="mean", scope=scope)
    return _ordered(table, group)


def _ordered(table: pd.DataFrame, group: Sequence[str]) -> pd.DataFrame:
    first = ["experiment", "policy", "against", "measure", "kind", "scope", *group]
    return table[[*first, *(name for name in table if name not in first)]]


def runs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """By experiment and policy: runs done, infeasible, failed, and of those done the shares completed and within T and B."""
    import pandas as pd

    by = ["experiment", "policy"]
    counts = pd.crosstab([rows[name] for name in by], rows["status"]).reindex(columns=list(STATUSES), fill_value=0)
    shares = ("completed", "deadline_met", "budget_met")
    met = rows[[*by, *shares]].astype(dict.fromkeys(shares, float))
    return counts.join(met.groupby(by).mean()).reset_index()


def markdown(table: pd.DataFrame) -> str:
    """A table as markdown, numbers short."""
    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines += [
        "| " + " | ".join(_cell(value) for value in row) + " |" for row in table.itertuples(index=False, name=None)
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
