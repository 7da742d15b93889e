"""Errors of replayed placements against a physical run, for our simulator and the authors'."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elastune.experiments.fidelity.physical_record import Outcomes, PhysicalRun, load_physical
from elastune.experiments.fidelity.physical_replay import learned_speeds, predicted_jcts, replay_physical

INTERVAL_DRAWS = 20
"""Replays behind the interval of a completion time [ours]."""
_MODES = ("profile", "learned", "measured")


class PhysicalRow(NamedTuple):
    """One simulation of one physical run; errors are simulated over real, less 1.

    Attributes:
        run: policy of the record.
        by: profile, learned or measured: our world with these speeds; authors: their simulator, which placed by itself.
        makespan_s: simulated, without the wait before the first round.
        makespan: its error.
        jct_median: median over jobs of the absolute error of the completion time.
        jct_p90: its 90th percentile.
        jct_bias: mean of the signed error.
        service_median: median of the absolute error of the service time.
        service_p90: its 90th percentile.
        coverage: share of jobs in whose 90 % interval reality lies; NaN without intervals.
    """

    run: str
    by: str
    makespan_s: float
    makespan: float
    jct_median: float
    jct_p90: float
    jct_bias: float
    service_median: float
    service_p90: float
    coverage: float = math.nan


class PhysicalOrder(NamedTuple):
    """Two policies: the first's mean completion time over the second's, less 1, real and simulated."""

    by: str
    first: str
    second: str
    real: float
    simulated: float

    @property
    def is_kept(self) -> bool:
        """Whether the sign is the same."""
        return self.real * self.simulated > 0


def physical_report(
    folder: Path, draws: int = INTERVAL_DRAWS, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> tuple[list[PhysicalRow], list[PhysicalOrder]]:
    """Replay every physical run of a folder; see `load_physical`.

    Args:
        folder: of the record.
        draws: replays behind the intervals; 0 for no intervals.
        on_progress: called with runs done and all runs.

    Raises:
        InputError: the record is incomplete.
    """
    runs, profile = load_physical(folder)
    rows: list[PhysicalRow] = []
    means: dict[str, dict[str, float]] = {"real": {}}
    for number, run in enumerate(runs):
        on_progress(number, len(runs))
        speeds = learned_speeds(run, profile)
        found = {mode: replay_physical(run, profile, mode, speeds) for mode in _MODES}  # type: ignore[arg-type]  # literals
        if run.authors is not None:
            found["authors"] = run.authors
        covered = math.nan
        if draws:
            covered = _coverage(run, predicted_jcts(run, profile, speeds, range(1, draws + 1)))
        for by, outcomes in found.items():
            rows.append(_row(run, by, outcomes, covered if by == "learned" else math.nan))
            means.setdefault(by, {})[run.name] = _mean(outcomes)
        means["real"][run.name] = _mean(run.real)
    return rows, list(_orders(means))


def _coverage(run: PhysicalRun, intervals: Mapping[int, tuple[float, float]]) -> float:
    return float(np.mean([low <= run.real.jct_s[job] <= high for job, (low, high) in intervals.items()]))


def _mean(outcomes: Outcomes) -> float:
    return float(np.mean(list(outcomes.jct_s.values())))


def _row(run: PhysicalRun, by: str, outcomes: Outcomes, coverage: float) -> PhysicalRow:
    real = run.real
    jct = np.array([outcomes.jct_s[job] / real.jct_s[job] - 1 for job in real.jct_s])
    service = np.array([outcomes.service_s[job] / real.service_s[job] - 1 for job in real.service_s])
    return PhysicalRow(
        run.name,
        by,
        outcomes.makespan_s,
        outcomes.makespan_s / real.makespan_s - 1,
        float(np.median(np.abs(jct))),
        float(np.quantile(np.abs(jct), 0.9)),
        float(jct.mean()),
        float(np.median(np.abs(service))),
        float(np.quantile(np.abs(service), 0.9)),
        coverage,
    )


def _orders(means: Mapping[str, Mapping[str, float]]) -> list[PhysicalOrder]:
    real, found = means["real"], []
    names = list(real)
    for by, of_runs in means.items():
        if by == "real":
            continue
        for at, first in enumerate(names):
            for second in names[at + 1 :]:
                if {first, second} <= of_runs.keys():
                    ours, theirs = of_runs[first] / of_runs[second] - 1, real[first] / real[second] - 1
                    found.append(PhysicalOrder(by, first, second, theirs, ours))
    return found
