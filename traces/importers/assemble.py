"""From recorded curves to a bundle on disk, with the provenance of every number in it.

Imports the standard library, numpy, sim.model.errors, traces.bundles and its neighbours; pandas when it writes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.bundles.costs import IterationCosts, iteration_costs, mean_seconds
from elastune.traces.bundles.writer import require_room, write_bundle
from elastune.traces.formats.limits import LONGEST_S, too_long
from elastune.traces.formats.texts import plain
from elastune.traces.importers.regular import RegularCurves, regular_curves

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.importers.recording import CurveRules, Description, Points, RecordedCurves

_ASSUMED = "assumed: set at import"
SECONDS_OF_ALL = "seconds_of_all_recorded_trials"
"""Of the notes of an import that left something out: what the recorded search took, the rest included."""
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
    _check_texts(recording)
    curves = regular_curves(recording, rules)
    trials = _Trials.of_recording(recording, curves)
    cost = _costs(recording, curves, trials)
    tables = {"configs.csv": _configurations(recording, trials, cost)}
    if not _are_numbers(recording):
        names = [recording.labels[position] for position in trials.first.tolist()]
        tables["trials.csv"] = _frame({"trial": trials.numbers, "recorded_as": names})
    header = _header(recording, description, curves, trials, cost)
    try:
        return write_bundle(out, header, _curves(recording, curves, trials), tables, overwrite=overwrite)
    except InvalidTraceError as error:
        if Path(error.file) != out / "configs.csv" or error.row is None:
            raise
        # That file was not written. Its rows are the trials.
        label = recording.labels[trials.first[error.row - 1]]
        raise InvalidTraceError(recording.origin, f"trial {label}: {error.problem}", column=error.column) from error


def _check_texts(recording: RecordedCurves) -> None:
    """Check that a file can hold the names and hyperparameters: half a pair of UTF-16, or a path that is no text, it cannot.

    Raises:
        InvalidTraceError: it cannot.
    """
    told = [note for note in recording.notes.values() if isinstance(note, list)]
    configured = zip(recording.labels, recording.configurations, strict=True)
    texts = [
        *((label, "its name") for label in (*recording.labels, *itertools.chain(*told))),
        *(
            (text, f"a hyperparameter of trial {label}")
            for label, one in configured
            for pair in one.items()
            for text in pair
        ),
    ]
    for text, what in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            shown = text.encode("utf-8", "backslashreplace").decode()
            raise InvalidTraceError(recording.origin, f"{what} is {shown}, which is no UTF-8 text: rename it")


@dataclass(frozen=True, eq=False)
class _Trials:
    """The trials that are kept.

    Attributes:
        numbers: (trials,) int; their own numbers, or 0, 1, 2, ... in the order of the recording.
        first: (trials,) int; the position of each trial, or of its first training, in the recording.
        of: (positions,) int; which of them a position in the recording is of, -1 where it is not kept.
    """

    numbers: np.ndarray
    first: np.ndarray
    of: np.ndarray

    @classmethod
    def of_recording(cls, recording: RecordedCurves, curves: RegularCurves) -> _Trials:
        kept = np.flatnonzero(curves.kept)
        labels = [recording.labels[position] for position in kept.tolist()]
        places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
        of = np.full(len(curves.kept), -1)
        of[kept] = [places[label] for label in labels]
        first = kept[np.unique(of[kept], return_index=True)[1]]
        numbers = [int(label) for label in places] if _are_numbers(recording) else np.arange(len(places))
        return cls(np.array(numbers, dtype=np.int64), first, of)

    def summed(self, counts: np.ndarray) -> np.ndarray:
        """(trials,) float: the sum over the trainings of each trial; `counts` is of shape (positions,)."""
        kept = self.of >= 0
        return np.bincount(self.of[kept], weights=counts[kept], minlength=len(self.numbers))


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


def _frame(columns: Mapping[str, object]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)


def _curves(recording: RecordedCurves, curves: RegularCurves, trials: _Trials) -> pd.DataFrame:
    points = curves.points
    columns = {
        "trial": trials.numbers[trials.of[points.trial]],
        "replicate": None if recording.replicates is None else recording.replicates[points.trial],
        "iteration": points.iteration.astype(np.int64),
        "score": points.score,
        "test_score": points.test_score,
        "seconds": points.seconds,
    }
    return _frame({name: column for name, column in columns.items() if column is not None})


def _costs(recording: RecordedCurves, curves: RegularCurves, trials: _Trials) -> IterationCosts:
    """What an iteration of each kept trial costs.

    Raises:
        InvalidTraceError: the seconds are no durations, or contradict the recorded costs.
    """
    mean_s, lengths = _mean_seconds(recording, curves, trials), trials.summed(curves.timed)
    recorded = None if recording.relative_cost is None else recording.relative_cost[trials.first]
    if mean_s is not None:
        _check_means(recording, trials, mean_s)
    cost = iteration_costs(mean_s, lengths, recorded)
    if cost.contradiction is not None:
        trial, problem = cost.contradiction
        label = recording.labels[trials.first[trial]]
        advice = "leave one of them out: relative_cost from the table, or the seconds with --untimed"
        raise InvalidTraceError(recording.origin, f"trial {label}: {problem}; {advice}", column="relative_cost")
    return cost


def _mean_seconds(recording: RecordedCurves, curves: RegularCurves, trials: _Trials) -> np.ndarray | None:
    """(trials,) float: mean seconds of an iteration, NaN where unknown; None where nothing was timed."""
    if curves.points.seconds is not None:
        return mean_seconds(curves.points.seconds, curves.points.trial, trials.of, len(trials.numbers))
    if recording.trial_s is None:
        return None
    mean_s: np.ndarray = (recording.trial_s / np.where(curves.timed > 0, curves.timed, np.nan))[trials.first]
    return mean_s


def _check_means(recording: RecordedCurves, trials: _Trials, mean_s: np.ndarray) -> None:
    for trial in np.flatnonzero((mean_s <= 0) | (mean_s > LONGEST_S)).tolist():
        label, took_s = recording.labels[trials.first[trial]], mean_s[trial]
        problem = too_long(took_s) if took_s > 0 else "leave seconds out altogether with --untimed"
        told = f"trial {label}: its iterations took {took_s:g} s; {problem}"
        raise InvalidTraceError(recording.origin, told, column=recording.columns.get("seconds"))


def _configurations(recording: RecordedCurves, trials: _Trials, cost: IterationCosts) -> pd.DataFrame:
    kept = [recording.configurations[position] for position in trials.first.tolist()]
    names = list(dict.fromkeys(name for configuration in kept for name in configuration))
    reserved = {"trial", "relative_cost"} & set(names)
    if reserved:
        problem = f"a hyperparameter is called {reserved.pop()!r}, which a bundle uses itself; rename it"
        raise InvalidTraceError(recording.origin, problem)
    columns = {name: [configuration.get(name, "") for configuration in kept] for name in names}
    costs = {} if cost.relative is None else {"relative_cost": cost.relative}
    return _frame({"trial": trials.numbers, **columns, **costs})


def _header(
    recording: RecordedCurves, description: Description, curves: RegularCurves, trials: _Trials, cost: IterationCosts
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
        "trials": len(trials.numbers),
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
    told = {
        "trials_recorded": len(set(recording.labels)),
        "trainings_recorded": 0 if recording.replicates is None else len(recording.labels),
        "trials_dropped_as_incomplete": recording.names(~curves.kept),
        "trials_ended_as_diverged": list(curves.ended),
        "points_of_iteration_0_dropped": curves.zeros,
        "points_beyond_iterations_cut": curves.cut,
        "recorded_units_per_iteration": curves.step if curves.step > 1 else 0,
        "points_without_score_before_one_with": _returns(curves.points),
        "trials_with_seconds_10_percent_off_their_relative_cost": cost.differing,
    }
    if curves.cut or not all(curves.kept):
        told[SECONDS_OF_ALL] = _seconds_of_all(recording)
    return dict(recording.notes) | {key: value for key, value in told.items() if value}


def _seconds_of_all(recording: RecordedCurves) -> float:
    """What all trials took as recorded, those and the points that are left out included; 0 where nothing was timed."""
    points = recording.points
    own = np.ones(len(points), dtype=bool) if points.inherited is None else ~points.inherited
    if points.seconds is not None:
        return float(np.nansum(points.seconds[own]))
    if points.elapsed_s is not None:
        ends = np.zeros(len(recording.labels))
        np.fmax.at(ends, points.trial, np.where(own, points.elapsed_s, np.nan))
        return float(ends.sum())
    return 0.0 if recording.trial_s is None else float(np.nansum(recording.trial_s))


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
