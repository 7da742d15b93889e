"""Studies of Optuna whose trials reported intermediate values, as bundles.

Imports the standard library, numpy, sim.model.errors and its neighbours; optuna when a study is read.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError, unknown
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.recording import CurveRules, Points, Recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from elastune.sim.model.job import Direction
    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.importers.recording import Description

INSTALL = "pip install -e '.[optuna]'"
_SQLITE = b"SQLite format 3\0"
_STOPPED_FROM_OUTSIDE = ("PRUNED", "RUNNING", "WAITING")


def from_optuna(
    study: Study | str | Path,
    out: str | Path,
    description: Description,
    *,
    study_name: str | None = None,
    rules: CurveRules | None = None,
    untimed: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Write a study as a bundle: its intermediate values are the curves, its parameters the configurations.

    Optuna records when a trial began and ended, and nothing in between, so no iteration has seconds of its own: the cost of
    an iteration of a trial is its whole duration over its iterations.

    Args:
        study: a study, the URL of a storage, or the file of an SQLite or journal storage, which is only read.
        out: folder of the bundle.
        description: what the study does not say; its direction is the study's.
        study_name: which one, where the storage holds several.
        rules: how irregular curves become regular; a pruned trial is incomplete, and never `diverged`.
        untimed: leave the durations out.
        overwrite: whether a bundle that is already there makes way.

    Raises:
        InvalidTraceError: the study has no intermediate values, or curves that are no curves.
        InputError: Optuna is not installed, there is no such study, or something is at `out` already.
    """
    rules = rules or CurveRules()
    if isinstance(study, str | Path):
        with _opened(str(study)) as storage:
            found = _found(str(study), storage, study_name)
            described = _directed(description, found)
            recording = _recording(found, f"{study}, study {found.study_name!r}", rules, untimed=untimed)
    else:
        described = _directed(description, study)
        recording = _recording(study, f"study {study.study_name!r}", rules, untimed=untimed)
    return write_recording(recording, described, rules, Path(out), overwrite=overwrite)


def study_names(storage: str | Path) -> list[str]:
    """Names of the studies in a storage.

    Raises:
        InputError: Optuna is not installed, or cannot read it.
    """
    with _opened(str(storage)) as opened:
        return _names(str(storage), opened)


@contextmanager
def _opened(origin: str) -> Iterator[BaseStorage]:
    """The storage while the block runs."""
    storage = _open(origin)
    try:
        yield storage
    finally:
        storage.remove_session()
        engine = getattr(storage, "engine", None)
        if engine is not None:
            engine.dispose()


def _found(origin: str, storage: BaseStorage, name: str | None) -> Study:
    from optuna import load_study

    names = _names(origin, storage)
    if name is None and len(names) != 1:
        listed = f"name one with --study: {', '.join(names)}" if names else "there is nothing to import"
        raise InputError(f"{origin} holds {len(names)} studies; {listed}")
    if name is not None and name not in names:
        raise unknown("study", name, names)
    return load_study(study_name=name or names[0], storage=storage)


def _names(origin: str, storage: BaseStorage) -> list[str]:
    try:
        return sorted(study.study_name for study in storage.get_all_studies())
    except Exception as error:
        raise InputError(f"{origin}: Optuna cannot read it: {error}") from error


def _open(origin: str) -> BaseStorage:
    """The storage at a URL or in a file.

    Raises:
        InputError: Optuna is not installed, there is no such file, or Optuna cannot read it.
    """
    try:
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise InputError(f"reading a study takes Optuna: {INSTALL} ({error})") from error
    file = Path(origin.removeprefix("sqlite:///"))
    is_url = "://" in origin and not origin.startswith("sqlite:///")
    if not is_url and not file.is_file():
        # Optuna would make a new storage there.
        raise InputError(f"{origin}: there is no such file; give a storage's file, or a URL such as sqlite:///study.db")
    try:
        if is_url:
            return RDBStorage(origin, skip_table_creation=True)
        with file.open("rb") as opened:
            is_sqlite = opened.read(len(_SQLITE)) == _SQLITE
        if is_sqlite:
            return RDBStorage(f"sqlite:///file:{file.resolve()}?mode=ro&uri=true", skip_table_creation=True)
        return JournalStorage(JournalFileBackend(str(file)))
    except Exception as error:
        # SQLAlchemy's and Optuna's errors about servers, schemas and broken files have no common root.
        raise InputError(f"{origin}: Optuna cannot read it: {' '.join(str(error).split())}") from error


def _directed(description: Description, study: Study) -> Description:
    """The description with the study's direction."""
    if len(study.directions) > 1:
        raise InputError(f"study {study.study_name!r} has {len(study.directions)} objectives, which report no curves")
    direction: Direction = "minimize" if study.direction.name == "MINIMIZE" else "maximize"
    if description.direction not in (None, direction):
        raise InputError(f"study {study.study_name!r} says {direction}, but --direction says {description.direction}")
    return replace(description, direction=direction)


def _recording(study: Study, origin: str, rules: CurveRules, *, untimed: bool) -> Recording:
    trials = study.get_trials(deepcopy=False)
    stopped = [trial for trial in trials if trial.state.name in _STOPPED_FROM_OUTSIDE]
    if rules.incomplete == "diverged" and stopped:
        raise InputError(
            f"{origin}: trial {stopped[0].number} is {stopped[0].state.name}, which does not mean that it diverged: leave"
            " incomplete trials out with --incomplete drop, or cut all curves with --iterations N"
        )
    reported = [
        (place, step, score) for place, trial in enumerate(trials) for step, score in trial.intermediate_values.items()
    ]
    if not reported:
        problem = f"none of its {len(trials)} trials reported one (trial.report), so there is no curve to import"
        raise InvalidTraceError(origin, problem, column="intermediate value")
    place, step, score = (np.array(column) for column in zip(*reported, strict=True))
    return Recording(
        origin=origin,
        labels=[str(trial.number) for trial in trials],
        configurations=[{name: _text(value) for name, value in trial.params.items()} for trial in trials],
        points=Points(trial=place.astype(np.int64), iteration=step.astype(np.float64), score=score.astype(np.float64)),
        columns={"trial": "trial", "iteration": "step", "score": "intermediate value", "seconds": "duration"},
        trial_s=None if untimed else _durations(trials),
        seconds_provenance="duration of a trial over its iterations (the parts in between are not recorded)",
        notes={
            "from": f"Optuna study {study.study_name}",
            "trials_by_state": dict(Counter(trial.state.name for trial in trials)),
        },
    )


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _durations(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """(trials,) float: seconds, NaN where a trial has not ended."""
    return np.array([np.nan if trial.duration is None else trial.duration.total_seconds() for trial in trials])
