"""Runs as experiment trackers keep them: a metric by step, parameters, a clock. Imports numpy and its neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from elastune.sim.model.errors import InvalidTraceError, nearest
from elastune.traces.importers.recording import Points, RecordedCurves


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """One run, which is a trial where it has the metric that is the score.

    Attributes:
        name: what its user calls it.
        key: what the tracker calls it, which is unique.
        began_s: since 1970.
        parameters: texts.
        metrics: by name, (step, value, seconds since the run began) of each time it was logged.
        is_cut_short: whether its log ends within a record.
    """

    name: str
    key: str
    began_s: float
    parameters: Mapping[str, str]
    metrics: Mapping[str, Sequence[tuple[float, float, float]]]
    is_cut_short: bool = False


def recording_of_runs(
    runs: Sequence[LoggedRun], metric: str, origin: str, tracker: str, *, untimed: bool
) -> RecordedCurves:
    """The curves of the runs that logged the metric.

    Args:
        runs: in any order.
        metric: the score.
        origin: what errors name as the file.
        tracker: that kept them, for notes.
        untimed: leave the seconds out.

    Raises:
        InvalidTraceError: no run logged the metric.
    """
    trials = [run for run in runs if run.metrics.get(metric)]
    trials.sort(key=lambda run: (run.began_s, run.name, run.key))
    if not trials:
        names = sorted({name for run in runs for name in run.metrics if not name.startswith("_")})
        match = nearest(metric, names)
        meant = f"did you mean {match!r}? " if match else ""
        listed = f"metrics: {', '.join(names)}" if names else "no run logged any"
        raise InvalidTraceError(origin, f"no run logged this metric; {meant}{listed}", column=metric)
    logged = np.array([(place, *point) for place, run in enumerate(trials) for point in run.metrics[metric]])
    named = Counter(run.name for run in trials)
    points = Points(
        trial=logged[:, 0].astype(np.int64),
        iteration=logged[:, 1],
        score=logged[:, 2],
        elapsed_s=None if untimed else logged[:, 3],
    )
    notes = {"from": f"{tracker} runs in {origin}", "runs_without_the_metric": len(runs) - len(trials)}
    notes["logs_cut_short"] = sum(run.is_cut_short for run in runs)
    return RecordedCurves(
        origin=origin,
        labels=[run.name if run.name and named[run.name] == 1 else run.key for run in trials],
        configurations=[run.parameters for run in trials],
        points=points,
        columns={"trial": "run", "iteration": "step", "score": metric, "elapsed_s": "time since the run began"},
        seconds_provenance="time between the steps of a run",
        notes={name: note for name, note in notes.items() if note},
    )
