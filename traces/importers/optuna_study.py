"""Studies of Optuna whose trials reported intermediate values, as bundles.

Imports the standard library, numpy, sim.model.errors and its neighbours; optuna and sqlalchemy when a study is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError, unknown
from elastune.traces.formats.sqlite_file import is_sqlite, reading
from elastune.traces.formats.texts import require_file, text_of
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.recording import CurveRules, Description, Points, RecordedCurves

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optuna.storages import BaseStorage, RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from elastune.sim.model.job import Direction
    from elastune.traces.bundles.bundle import Bundle

INSTALL = "pip install -e '.[optuna]'"
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

    Optuna records when a trial began and ended and nothing in between, so no iteration has seconds of its own: an iteration
    costs the duration of its trial over the iterations that the trial trained. A trial that retries a failed one may inherit
    its values. It did not train those, so they do not count.

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
            origin = f"{_told(str(study))}, study {found.study_name!r}"
            described, recording = _read(found, origin, description, rules, untimed=untimed)
        if _ends_within_a_line(str(study)):
            recording = replace(recording, notes={**recording.notes, "journals_cut_short": 1})
    else:
        origin = f"study {study.study_name!r}"
        described, recording = _read(study, origin, description, rules, untimed=untimed)
    return write_recording(recording, described, rules, Path(out), overwrite=overwrite)


def _read(
    study: Study, origin: str, description: Description, rules: CurveRules, *, untimed: bool
) -> tuple[Description, RecordedCurves]:
    # Whatever a damaged storage makes of Optuna's objects is the storage's fault.
    with _reading(origin):
        return _directed(description, study), _recording(study, origin, rules, untimed=untimed)


def study_names(storage: str | Path) -> list[str]:
    """Names of the studies in a storage.

    Raises:
        InputError: Optuna is not installed, or cannot read it.
    """
    with _opened(str(storage)) as opened:
        return _names(str(storage), opened)


@contextmanager
def _opened(origin: str) -> Iterator[BaseStorage]:
    """Open the storage while the block runs."""
    with ExitStack() as stack:
        yield _open(origin, stack)


def _closing(storage: RDBStorage, stack: ExitStack) -> RDBStorage:
    """The storage, whose connections end with the block."""
    stack.callback(storage.engine.dispose)
    stack.callback(storage.remove_session)
    return storage


def _found(origin: str, storage: BaseStorage, name: str | None) -> Study:
    from optuna import load_study

    names = _names(origin, storage)
    if name is None and len(names) != 1:
        listed = (
            f"name one with --study: {', '.join(names)}"
            if names
            else "there is nothing to import: is it a storage of Optuna's?"
        )
        raise InputError(f"{_told(origin)} holds {len(names)} studies; {listed}")
    if name is not None and name not in names:
        raise unknown("study", name, names)
    with _reading(origin):
        return load_study(study_name=name or names[0], storage=storage)


def _names(origin: str, storage: BaseStorage) -> list[str]:
    with _reading(origin):
        return sorted(study.study_name for study in storage.get_all_studies())


@contextmanager
def _reading(origin: str) -> Iterator[None]:
    """Turn the errors of SQLAlchemy and Optuna, which have no common class, into one."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Optuna says "invalid data in the commit" of a database that is locked; the driver's own error tells more.
        told = " ".join(str(getattr(error.__cause__, "orig", error)).split()) or type(error).__name__
        raise InputError(f"{_told(origin)}: Optuna cannot read it: {told}") from error


def _told(origin: str) -> str:
    """A path or URL for messages, without the password."""
    return re.sub(r"(://[^:/@]*:)[^/]*@", r"\1***@", origin)


def _open(origin: str, stack: ExitStack) -> BaseStorage:
    """The storage at a URL or in a file.

    Raises:
        InputError: Optuna is not installed, there is no such file, or Optuna cannot read it.
    """
    try:
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise InputError(f"reading a study takes Optuna: {INSTALL} ({error})") from error
    with _reading(origin):
        file = _file_of(origin)
        if file is None:
            return _closing(RDBStorage(origin, engine_kwargs=_read_only(origin), skip_table_creation=True), stack)
        if is_sqlite(file):
            connect = stack.enter_context(reading(file))
            return _closing(
                RDBStorage("sqlite://", engine_kwargs={"creator": connect}, skip_table_creation=True), stack
            )
        return JournalStorage(JournalFileBackend(str(file)))


def _file_of(origin: str) -> Path | None:
    """The file that a path or a URL of SQLite names; None for the URL of a server.

    Raises:
        InputError: the database is in memory, or there is no such file.
    """
    literal = Path(origin.removeprefix("sqlite:///"))
    if "://" not in origin or (origin.startswith("sqlite:///") and literal.is_file()):
        return _existing(origin, literal)
    from sqlalchemy.engine import make_url

    url = make_url(origin)
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise InputError(f"{origin}: a database in memory holds no study of another program; give a file")
    is_uri = url.database.startswith("file:")
    return _existing(origin, Path(unquote(urlsplit(url.database).path) if is_uri else url.database))


def _ends_within_a_line(origin: str) -> bool:
    """Whether the last line of a journal is no JSON, as when its writer was killed: Optuna leaves it out and says nothing."""
    file = _file_of(origin)
    if file is None or is_sqlite(file):
        return False
    last = file.read_bytes().rstrip().rpartition(b"\n")[2]
    try:
        json.loads(last)
    except ValueError:
        return True
    return False


def _existing(origin: str, file: Path) -> Path:
    require_file(file)
    if not file.is_file():
        # Optuna would make a new storage there.
        raise InputError(f"{origin}: there is no such file; give a storage's file, or a URL such as sqlite:///study.db")
    return file


def _read_only(origin: str) -> dict[str, object]:
    """What makes the server refuse to write; a storage without its tables would get some otherwise."""
    if origin.startswith("postgresql"):
        return {"execution_options": {"postgresql_readonly": True}}
    if origin.startswith(("mysql", "mariadb")):
        return {"connect_args": {"init_command": "SET SESSION TRANSACTION READ ONLY"}}
    return {}


def _directed(description: Description, study: Study) -> Description:
    """The description with the study's direction."""
    if len(study.directions) > 1:
        raise InputError(f"study {study.study_name!r} has {len(study.directions)} objectives, which report no curves")
    named = study.directions[0].name if study.directions else "NOT_SET"
    if named == "NOT_SET":
        return description
    direction: Direction = "minimize" if named == "MINIMIZE" else "maximize"
    if description.direction not in (None, direction):
        raise InputError(f"study {study.study_name!r} says {direction}, but --direction says {description.direction}")
    return replace(description, direction=direction)


def _recording(study: Study, origin: str, rules: CurveRules, *, untimed: bool) -> RecordedCurves:
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
    inherited = [_inherited_steps(trial, trials) for trial in trials]
    heirs = [str(trial.number) for trial, steps in zip(trials, inherited, strict=True) if steps]
    return RecordedCurves(
        origin=origin,
        labels=[str(trial.number) for trial in trials],
        configurations=[{name: text_of(value) for name, value in trial.params.items()} for trial in trials],
        points=Points(
            trial=place.astype(np.int64),
            iteration=step.astype(np.float64),
            score=score.astype(np.float64),
            inherited=np.array([step in inherited[place] for place, step, _ in reported]),
        ),
        columns={"trial": "trial", "iteration": "step", "score": "intermediate value", "seconds": "duration"},
        trial_s=None if untimed else _durations(trials),
        seconds_provenance="duration of a trial over its iterations (the parts in between are not recorded)",
        notes={
            "from": f"Optuna study {study.study_name}",
            "trials_by_state": dict(Counter(trial.state.name for trial in trials)),
            **({"trials_with_inherited_steps": heirs} if heirs else {}),
        },
    )


def _inherited_steps(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> set[int]:
    """Steps whose values a retry took over from the trial that failed: those of both with equal values."""
    history = trial.system_attrs.get("retry_history")
    if not history:
        return set()
    failed = next((other for other in trials if other.number == history[-1]), None)
    before = {} if failed is None else failed.intermediate_values
    return {step for step, score in trial.intermediate_values.items() if step in before and _equal(before[step], score)}


def _equal(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)  # noqa: PLR0124  NaN equals NaN here


def _durations(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """(trials,) float: seconds, NaN where a trial has not ended."""
    return np.array([np.nan if trial.duration is None else trial.duration.total_seconds() for trial in trials])
