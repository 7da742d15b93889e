"""From recorded curves to a bundle on disk, with the provenance of every number in it.

Imports the standard library, numpy, sim.model.errors, traces.bundles and its neighbours; pandas when it writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.bundles.costs import iteration_costs, mean_seconds
from elastune.traces.bundles.writer import require_room, write_bundle
from elastune.traces.formats.limits import LONGEST_S, too_long
from elastune.traces.formats.texts import plain
from elastune.traces.importers.regular import regular_curves

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.bundles.costs import IterationCosts
    from elastune.traces.importers.recording import CurveRules, Description, Points, RecordedCurves
    from elastune.traces.importers.regular import RegularCurves

_ASSUMED = "assumed: set at import"
_STATED_TOGETHER = {"launch_s": "timings", "checkpoint_s": "timings", "rescale_s": "timings"}
_NUMBERS = ("iteration_s", "checkpoint_bytes", "data_bytes", "straggler", "scaling")
_MOST = 2**63 - 1  # the largest number of a trial that a parquet file holds


def write_recording(
    recording: RecordedCurves, description: Description, rules: CurveRules, out: Path, *, overwrite: bool
) -> Bundle:
    """Write recorded curves as a bundle, and load it.

    Raises:
        InputError: something is at `out` already, or the description is incomplete.
        InvalidTraceError: a bundle cannot hold the recording; nothing was written.
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


def _are_numbers(recording: RecordedCurves) -> bool:
    """Whether a bundle can keep the recording's names of its trials: whole numbers from 0 to 2^63 - 1."""
    digits = len(str(_MOST))
    return all(
        label.isascii()
        and label.isdigit()
        and len(label) <= digits
        and str(int(label)) == label
        and int(label) <= _MOST
        for label in recording.labels
    )


def _trial_numbers(recording: RecordedCurves, curves: RegularCurves) -> np.ndarray:
    """(kept trials,) int: their own numbers, or 0, 1, 2, ... in the order of the recording."""
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


def _costs(recording: RecordedCurves, curves: RegularCurves) -> IterationCosts:
    """What an iteration of each kept trial costs."""
    mean_s, lengths = _mean_seconds(recording, curves), curves.timed[curves.kept]
    if mean_s is not None:
        _check_means(recording, curves, mean_s)
    recorded = recording.relative_cost
    return iteration_costs(mean_s, lengths, None if recorded is None else recorded[curves.kept])


def _mean_seconds(recording: RecordedCurves, curves: RegularCurves) -> np.ndarray | None:
    """(kept trials,) float: mean seconds of an iteration, NaN where unknown; None where nothing was timed."""
    mean_s: np.ndarray
    if curves.points.seconds is not None:
        mean_s = mean_seconds(curves.points.seconds, curves.points.trial, len(curves.kept))[curves.kept]
    elif recording.trial_s is not None:
        mean_s = (recording.trial_s / np.where(curves.timed > 0, curves.timed, np.nan))[curves.kept]
    else:
        return None
    return mean_s


def _check_means(recording: RecordedCurves, curves: RegularCurves, mean_s: np.ndarray) -> None:
    for position in np.flatnonzero((mean_s <= 0) | (mean_s > LONGEST_S)).tolist():
        label = recording.labels[np.flatnonzero(curves.kept)[position]]
        took_s = mean_s[position]
        problem = too_long(took_s) if took_s > 0 else "leave seconds out altogether with --untimed"
        told = f"trial {label}: its iterations took {took_s:g} s; {problem}"
        raise InvalidTraceError(recording.origin, told, column=recording.columns.get("seconds"))


def _configurations(
    recording: RecordedCurves, curves: RegularCurves, numbers: np.ndarray, cost: IterationCosts
) -> pd.DataFrame:
    kept = [recording.configurations[trial] for trial in np.flatnonzero(curves.kept).tolist()]
    names = list(dict.fromkeys(name for configuration in kept for name in configuration))
    reserved = {"trial", "relative_cost"} & set(names)
    if reserved:
        problem = f"a hyperparameter is called {reserved.pop()!r}, which a bundle uses itself; rename it"
        raise InvalidTraceError(recording.origin, problem)
    columns = {name: [configuration.get(name, "") for configuration in kept] for name in names}
    costs = {} if cost.relative is None else {"relative_cost": cost.relative}
    return _frame({"trial": numbers, **columns, **costs})


def _header(
    recording: RecordedCurves, description: Description, curves: RegularCurves, cost: IterationCosts
) -> dict[str, object]:
    """What `bundle.yaml` says."""
    if description.direction is None:
        raise InputError(
            f"{recording.origin} does not tell whether scores are minimised or maximised: give --direction"
        )
    others = dict(plain(description.others))
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
        "imported": _notes(recording, curves, cost),
    }
    owned = sorted(set(header) & set(others) - {"iteration_s"})
    if owned:
        raise InputError(f"--set {owned[0]}: follows from the import itself and cannot be set")
    if not isinstance(stated, dict):
        raise InputError(f"--set provenance: is {stated!r}, but must hold keys, as provenance.scaling")
    provenance = _provenance(recording, cost, others) | stated
    return header | others | {"provenance": {key: str(text) for key, text in provenance.items()}}


def _iteration_text(recording: RecordedCurves, step: int) -> str:
    unit = recording.columns["iteration"]
    return f"one {unit}" if step == 1 else f"{step} of the recorded {unit}"


def _notes(recording: RecordedCurves, curves: RegularCurves, cost: IterationCosts) -> dict[str, object]:
    """What was left out of the recording and what was made of it; nothing where it stands as it was."""
    dropped = [recording.labels[trial] for trial in np.flatnonzero(~curves.kept).tolist()]
    told = {
        "trials_recorded": len(recording.labels),
        "trials_dropped_as_incomplete": dropped,
        "trials_ended_as_diverged": list(curves.ended),
        "points_of_iteration_0_dropped": curves.zeros,
        "points_beyond_iterations_cut": curves.cut,
        "recorded_units_per_iteration": curves.step if curves.step > 1 else 0,
        "points_without_score_before_one_with": _returns(curves.points),
        "trials_with_seconds_10_percent_off_their_relative_cost": cost.differing,
    }
    return dict(recording.notes) | {key: value for key, value in told.items() if value}


def _returns(points: Points) -> int:
    """How many points have no score although the next point of their trial has one: such a run did not diverge."""
    finite = np.isfinite(points.score)
    return int((~finite[:-1] & finite[1:] & (np.diff(points.trial) == 0)).sum())


def _provenance(recording: RecordedCurves, cost: IterationCosts, others: Mapping[str, object]) -> dict[str, str]:
    origin = recording.notes["from"]
    stated = {"curves": f"measured elsewhere: {origin}", "iteration_s": "not measured: set workload.iteration_s"}
    if cost.iteration_s is not None:
        at = "at relative cost 1" if recording.relative_cost is not None else "their mean"
        stated["iteration_s"] = f"measured elsewhere: {recording.seconds_provenance}, {at}"
    if recording.relative_cost is not None:
        stated["relative_cost"] = f"measured elsewhere: {origin}"
    elif cost.relative is not None:
        without = f"; assumed to be 1 for {cost.untimed} trials without seconds" if cost.untimed else ""
        stated["relative_cost"] = f"measured elsewhere: seconds of a trial's iterations over the mean of all{without}"
    stated["timings"] = "not measured: set cloud.rescale_s"
    stated["scaling"] = "not measured: pair it with a scaling table by workload.scaling"
    given = [key for key in (*_NUMBERS, *_STATED_TOGETHER) if others.get(key) is not None]
    return stated | {_STATED_TOGETHER.get(key, key): _ASSUMED for key in given}
