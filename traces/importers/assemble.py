"""From a recording to a bundle on disk, with the provenance of every number in it.

Imports the standard library, numpy, sim.model.errors, traces.bundles.writer and its neighbours; pandas when it writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.bundles.writer import require_room, write_bundle
from elastune.traces.importers.regular import regular_curves

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.importers.recording import CurveRules, Description, Points, Recording
    from elastune.traces.importers.regular import RegularCurves

_ASSUMED = "assumed: set at import"
_STATED_TOGETHER = {"launch_s": "timings", "checkpoint_s": "timings", "rescale_s": "timings"}
_NUMBERS = ("iteration_s", "checkpoint_bytes", "data_bytes", "straggler", "scaling")


def write_recording(
    recording: Recording, description: Description, rules: CurveRules, out: Path, *, overwrite: bool
) -> Bundle:
    """Write a recording as a bundle, and load it.

    Raises:
        InputError: something is at `out` already, or the description is incomplete.
        InvalidTraceError: the recording is not what a bundle needs; nothing was written.
    """
    require_room(out, overwrite=overwrite)
    curves = regular_curves(recording, rules)
    numbers, cost = _trial_numbers(recording, curves), _costs(recording, curves)
    tables = {"configs.csv": _configurations(recording, curves, numbers, cost)}
    if not _are_numbers(recording):
        names = [recording.labels[trial] for trial in np.flatnonzero(curves.kept).tolist()]
        tables["trials.csv"] = _frame({"trial": numbers, "recorded_as": names})
    header = _header(recording, description, curves, cost)
    return write_bundle(out, header, _curves(curves, numbers), tables, overwrite=overwrite)


def _are_numbers(recording: Recording) -> bool:
    """Whether the recording's names of its trials can stay: whole numbers, 0 or more."""
    return all(label.isascii() and label.isdigit() and str(int(label)) == label for label in recording.labels)


def _trial_numbers(recording: Recording, curves: RegularCurves) -> np.ndarray:
    """(kept trials,) int: their own numbers, or those of their order."""
    if _are_numbers(recording):
        own: np.ndarray = np.array([int(label) for label in recording.labels], dtype=np.int64)[curves.kept]
        return own
    return np.arange(curves.kept.sum())


def _frame(columns: Mapping[str, object]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)


def _curves(curves: RegularCurves, numbers: np.ndarray) -> pd.DataFrame:
    points = curves.points
    number_of = np.zeros(len(curves.kept), dtype=np.int64)
    number_of[curves.kept] = numbers
    columns = {
        "trial": number_of[points.trial],
        "iteration": points.iteration.astype(np.int64),
        "score": points.score,
        "test_score": points.test_score,
        "seconds": points.seconds,
    }
    return _frame({name: column for name, column in columns.items() if column is not None})


class _Costs:
    """What an iteration costs.

    Attributes:
        iteration_s: mean seconds of an iteration on one GPU, or None.
        relative: (kept trials,) float; over the mean, or None where nothing tells the trials apart.
        untimed: kept trials without seconds, whose relative cost is taken to be 1.
        is_recorded: whether `relative` was recorded as such.
    """

    def __init__(
        self, iteration_s: float | None, relative: np.ndarray | None, untimed: int = 0, *, is_recorded: bool = False
    ) -> None:
        self.iteration_s, self.relative = iteration_s, relative
        self.untimed, self.is_recorded = untimed, is_recorded


def _costs(recording: Recording, curves: RegularCurves) -> _Costs:
    seconds = curves.points.seconds
    mean_s = None
    if seconds is not None:
        mean_s = _means(curves.points, seconds, len(curves.kept))
    elif recording.trial_s is not None:
        mean_s = recording.trial_s / np.maximum(curves.recorded, 1)
    if recording.relative_cost is not None:
        overall_s = None if seconds is None else float(np.nanmean(seconds))
        return _Costs(overall_s, recording.relative_cost[curves.kept], is_recorded=True)
    if mean_s is None:
        return _Costs(None, None)
    mean_s = mean_s[curves.kept]
    if (mean_s <= 0).any():
        label = recording.labels[np.flatnonzero(curves.kept)[np.flatnonzero(mean_s <= 0)[0]]]
        problem = f"trial {label}: its iterations took {mean_s.min():g} s; leave seconds out altogether with --untimed"
        raise InvalidTraceError(recording.origin, problem, column=recording.columns.get("seconds"))
    timed = np.isfinite(mean_s)
    if not timed.any():
        return _Costs(None, None)
    overall_s = float(mean_s[timed].mean())
    return _Costs(overall_s, np.where(timed, mean_s / overall_s, 1.0), int((~timed).sum()))


def _means(points: Points, seconds: np.ndarray, trials: int) -> np.ndarray:
    """(trials,) float: mean of the seconds that are numbers, NaN where there are none."""
    known = np.isfinite(seconds)
    counted = np.bincount(points.trial[known], minlength=trials)
    total = np.bincount(points.trial[known], weights=seconds[known], minlength=trials)
    means: np.ndarray = np.divide(total, counted, out=np.full(trials, np.nan), where=counted > 0)
    return means


def _configurations(recording: Recording, curves: RegularCurves, numbers: np.ndarray, cost: _Costs) -> pd.DataFrame:
    kept = [recording.configurations[trial] for trial in np.flatnonzero(curves.kept).tolist()]
    names = list(dict.fromkeys(name for configuration in kept for name in configuration))
    reserved = {"trial", "relative_cost"} & set(names)
    if reserved:
        problem = f"a hyperparameter is called {reserved.pop()!r}, which a bundle uses itself; rename it"
        raise InvalidTraceError(recording.origin, problem)
    columns = {name: [configuration.get(name, "") for configuration in kept] for name in names}
    costs = {} if cost.relative is None else {"relative_cost": cost.relative}
    return _frame({"trial": numbers, **columns, **costs})


def _header(recording: Recording, description: Description, curves: RegularCurves, cost: _Costs) -> dict[str, object]:
    """What `bundle.yaml` says."""
    if description.direction is None:
        raise InputError(
            f"{recording.origin} does not tell whether scores are minimised or maximised: give --direction"
        )
    others = dict(description.others)
    stated = others.pop("provenance", {})
    header = {
        "name": description.name,
        "direction": description.direction,
        "score": description.score or recording.columns["score"],
        "iteration": description.iteration or _iteration_text(recording, curves.step),
        "max_iterations": curves.max_iterations,
        "trials": int(curves.kept.sum()),
        "iteration_s": cost.iteration_s,
        "source": description.source,
        "licence": description.licence,
        "imported": _notes(recording, curves),
    }
    owned = sorted(set(header) & set(others) - {"iteration_s"})
    if owned:
        raise InputError(f"--set {owned[0]}: follows from the import itself and cannot be set")
    if not isinstance(stated, dict):
        raise InputError(f"--set provenance: is {stated!r}, but must hold keys, as provenance.scaling")
    provenance = _provenance(recording, cost, others) | stated
    return header | others | {"provenance": {key: str(text) for key, text in provenance.items()}}


def _iteration_text(recording: Recording, step: int) -> str:
    unit = recording.columns["iteration"]
    return f"one {unit}" if step == 1 else f"{step} of the recorded {unit}"


def _notes(recording: Recording, curves: RegularCurves) -> dict[str, object]:
    """What was done to the recording; only what differs from nothing."""
    dropped = [recording.labels[trial] for trial in np.flatnonzero(~curves.kept).tolist()]
    told = {
        "trials_recorded": len(recording.labels),
        "trials_dropped_as_incomplete": dropped,
        "trials_ended_as_diverged": list(curves.ended),
        "points_beyond_iterations_cut": curves.cut,
        "recorded_units_per_iteration": curves.step if curves.step > 1 else 0,
        "points_without_score_before_one_with": _returns(curves.points),
    }
    return dict(recording.notes) | {key: value for key, value in told.items() if value}


def _returns(points: Points) -> int:
    """Points without a score that the next point of their trial does have: hardly a diverged run."""
    finite = np.isfinite(points.score)
    return int((~finite[:-1] & finite[1:] & (np.diff(points.trial) == 0)).sum())


def _provenance(recording: Recording, cost: _Costs, others: Mapping[str, object]) -> dict[str, str]:
    origin = recording.notes["from"]
    stated = {"curves": f"measured elsewhere: {origin}", "iteration_s": "not measured: set workload.iteration_s"}
    if cost.iteration_s is not None:
        stated["iteration_s"] = f"measured elsewhere: {recording.seconds_provenance}, their mean"
    if cost.is_recorded:
        stated["relative_cost"] = f"measured elsewhere: {origin}"
    elif cost.relative is not None:
        without = f"; assumed to be 1 for {cost.untimed} trials without seconds" if cost.untimed else ""
        stated["relative_cost"] = f"measured elsewhere: seconds of a trial's iterations over the mean of all{without}"
    stated["timings"] = "not measured: set cloud.rescale_s"
    stated["scaling"] = "not measured: pair it with a scaling table by workload.scaling"
    given = [key for key in (*_NUMBERS, *_STATED_TOGETHER) if others.get(key) is not None]
    return stated | {_STATED_TOGETHER.get(key, key): _ASSUMED for key in given}
