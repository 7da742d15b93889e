"""The rows of a claim's runs as one tidy table. Imports the store, the entries and sweeps of the catalogue; pandas inside.

Regret in these tables is that of the model that is reported, as claims are decided on it: by the test score where there is one,
of the configuration and iteration that were selected by the validation score. `regret_validation` is what runs print. In
`regret_at_most_1` an answer that is worse than the bundle's median configuration counts as the median.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.claims.entries import REGRET_AT_MOST_1
from elastune.experiments.claims.sweeps import BUDGET, DEADLINE, ClaimSweep
from elastune.experiments.runs.regret import regret_of
from elastune.experiments.sweeps.store import Store
from elastune.experiments.sweeps.summary import condition
from elastune.traces import Bundle, load_bundle
from elastune.traces.bundles.constraints import constrained

DEADLINE_MULTIPLE, BUDGET_MULTIPLE = "deadline_r_tau", "budget_c_r_tau"
"""Columns of T and B as multiples of what one configuration takes to R on one GPU; empty where there is no limit."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import pyarrow as pa


def rows_of(sweeps: Sequence[ClaimSweep], where: str | None = None) -> pd.DataFrame:
    """The rows that are there, with experiment, workload, T and B as multiples, and regret by the reported score.

    Args:
        sweeps: of a claim.
        where: a condition that rows meet, as `elastune results --where` takes it.

    Raises:
        InputError: the condition is malformed, or a folder holds rows of another version.
    """
    import pandas as pd
    import pyarrow as pa

    tables = [_rows(sweep, where) for sweep in sweeps if Store(sweep.folder).parts()]
    if not any(len(table) for table in tables):
        return pd.DataFrame()
    # Joined as Arrow tables, because pandas has other types for columns with gaps.
    rows: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return rows


def _rows(sweep: ClaimSweep, where: str | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = Store(sweep.folder).read(None if where is None else condition(where))
    rows = rows.filter(pc.is_in(rows["seed"], pa.array(sweep.sweep.seeds)))
    base = sweep.sweep.base
    bundle = constrained(load_bundle(str(base["workload"]["bundle"])), base.get("job", {}).get("constraint") or {})
    reported = reported_regret(rows.to_pandas(), bundle)
    named = {"experiment": sweep.experiment, "workload": sweep.workload}
    for name, value in named.items():
        rows = rows.append_column(name, pa.array([value] * len(rows), pa.string()))
    for name, column, unit in (
        (DEADLINE_MULTIPLE, DEADLINE, sweep.units.deadline_s),
        (BUDGET_MULTIPLE, BUDGET, sweep.units.budget_usd),
    ):
        # Three digits undo the rounding of the limits themselves.
        rows = rows.append_column(name, pc.round(pc.divide(rows[column], unit), ndigits=3))
    rows = rows.append_column("regret_validation", rows["regret"])
    rows = rows.append_column(REGRET_AT_MOST_1, pa.array(np.minimum(reported, 1.0), from_pandas=True))
    return rows.set_column(rows.schema.get_field_index("regret"), "regret", pa.array(reported, from_pandas=True))


def reported_regret(rows: pd.DataFrame, bundle: Bundle) -> np.ndarray:
    """(rows,) float: regret by test scores where the bundle has them, else as it is; NaN where there is none.

    On the scale of test scores: against the best final one of the seed's draw, over (median - best) of the bundle's.
    """
    if bundle.test_scores is None:
        return rows["regret"].to_numpy(dtype=float)
    found = np.full(len(rows), np.nan)
    columns = ["status", "best_trial", "test_score", "seed", "job.trials", "job.max_iterations", "job.stages"]
    for at, row in enumerate(rows[columns].itertuples(index=False, name=None)):
        status, best_trial, test_score, seed, trials, iterations, stages = row
        if status != "done" or np.isnan(best_trial):
            continue
        if isinstance(stages, str):
            trials, iterations = _of_stages(stages)
        drawn = bundle.drawn_test_scores(int(trials), int(seed), int(iterations))
        assert drawn is not None, "the bundle has test scores"
        trained = None if np.isnan(test_score) else float(test_score)
        # The started trials do not change the total.
        regret = regret_of(drawn, [0], 0, trained, direction=bundle.direction, bundle_finals=bundle.test_scores[:, -1])
        found[at] = np.nan if regret is None else regret.total
    return found


@functools.cache
def _of_stages(text: str) -> tuple[int, int]:
    """Trials and iterations of a job, as rows hold its stages."""
    stages = json.loads(text)
    return stages[0][0], sum(further for _, further in stages)
