"""One row per real run: how far its prediction was off, as the claims about real runs read it.

Imports the report and the sitting; pandas inside.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

from elastune.experiments.fidelity.report import told_names
from elastune.experiments.fidelity.sitting import profile_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from elastune.experiments.fidelity.analysis import CheckedRun

_DIGITS = 6


class RealRunRow(NamedTuple):
    """What one real run showed. Errors are shares of what was real, prediction less reality.

    Attributes:
        job: its name.
        workload: name of its profile.
        policy: with parameters.
        seed: of the run.
        makespan_s: real.
        cost_usd: real.
        score: real.
        direction: of the score.
        makespan_error: of the prediction.
        cost_error: of the prediction.
        makespan_structure: error of the simulation with the seconds of the run, absolute.
        cost_structure: the same of its cost.
        drift: how much slower the machine was than beside the profile: of training and of launches, by their shares of the run.
        makespan_beyond_drift: absolute error of the prediction, had it known of the drift: of the predicted times 1 + drift.
        cost_beyond_drift: the same of its cost.
        trained: share of the busy GPU-seconds that were trained.
        starting: share of them for start-up, launches and rescaling.
        same_decisions: 1 where every command was the predicted one, else 0.
        in_common: least share, over the rungs, of trials that reality and prediction both sent there.
        covered: share of the run's 90 % intervals in which reality lies.
        intervals: how many there are.
    """

    job: str
    workload: str
    policy: str
    seed: int
    makespan_s: float
    cost_usd: float
    score: float
    direction: str
    makespan_error: float
    cost_error: float
    makespan_structure: float
    cost_structure: float
    drift: float
    makespan_beyond_drift: float
    cost_beyond_drift: float
    trained: float
    starting: float
    same_decisions: int
    in_common: float
    covered: float
    intervals: int


def rows_of_runs(runs: Sequence[CheckedRun]) -> pd.DataFrame:
    """A table with the columns of `RealRunRow`, six significant digits."""
    import pandas as pd

    rows = pd.DataFrame([_row(run) for run in runs], columns=list(RealRunRow._fields))
    floats = rows.select_dtypes("float").columns
    rows[floats] = rows[floats].map(lambda value: float(f"{value:.{_DIGITS}g}"))
    return rows


def _row(run: CheckedRun) -> RealRunRow:
    makespan, cost, score = (run.split(name) for name in ("makespan_s", "cost_usd", "score"))
    assert makespan is not None  # every run has both
    assert cost is not None
    trained, starting = run.regime
    drift = math.nan if run.drift is None else trained * run.drift[0] + starting * run.drift[1]
    errors = [one.relative(one.total) for one in (makespan, cost)]
    slower = 1 + (drift if math.isfinite(drift) else 0.0)
    beyond = [abs((1 + error) * slower - 1) for error in errors]
    covered = [split.is_covered for name in told_names(run) if (split := run.split(name)) is not None]
    return RealRunRow(
        job=run.unit.job,
        workload=run.unit.bundle.name,
        policy=run.unit.policy,
        seed=run.unit.spec.seed,
        makespan_s=makespan.real,
        cost_usd=cost.real,
        score=math.nan if score is None else score.real,
        direction=profile_in(run.unit.bundle)[0].direction,
        makespan_error=errors[0],
        cost_error=errors[1],
        makespan_structure=abs(makespan.relative(makespan.structure)),
        cost_structure=abs(cost.relative(cost.structure)),
        drift=drift,
        makespan_beyond_drift=beyond[0],
        cost_beyond_drift=beyond[1],
        trained=trained,
        starting=starting,
        same_decisions=int(run.difference.number == 0),
        in_common=min(run.in_common.values(), default=math.nan),
        covered=statistics.fmean(covered) if covered else math.nan,
        intervals=len(covered),
    )
