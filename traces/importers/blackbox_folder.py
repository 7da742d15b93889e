"""Folders in which Syne Tune keeps its tabular blackboxes, as bundles.

Imports the standard library, numpy, sim.model.errors and its neighbours; pandas and pyarrow when a folder is read. The files
are read here, so Syne Tune itself is needed only to fetch a blackbox that is on no disk yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError, unknown
from elastune.traces.formats.texts import parse_json, read_text, require_file
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.blackbox import BlackboxChoice, recording_of
from elastune.traces.importers.read_table import read_parquet
from elastune.traces.importers.recording import CurveRules, Description

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from elastune.traces.bundles.bundle import Bundle

INSTALL = "pip install 'syne-tune[extra]'"
DOWNLOADS = Path("~/.blackbox-repository")
"""Where Syne Tune puts what it downloads."""


@dataclass(eq=False, kw_only=True)
class StoredBlackbox:
    """A blackbox read from a folder."""

    hyperparameters: pd.DataFrame
    objectives_evaluations: np.ndarray
    fidelity_values: np.ndarray
    objectives_names: Sequence[str]
    fidelity_space: Mapping[str, object]


@dataclass(frozen=True, eq=False, kw_only=True)
class BlackboxFolder:
    """A folder with the blackboxes of one or more tasks, which share their objectives.

    Attributes:
        path: of the folder.
        tasks: their names.
        objectives: names of the objectives.
        default_objective: what Syne Tune tunes, or None.
        elapsed: the objective that holds seconds since the start, or None.
    """

    path: Path
    tasks: Sequence[str]
    objectives: Sequence[str]
    default_objective: str | None = None
    elapsed: str | None = None

    @classmethod
    def open(cls, path: str | Path) -> BlackboxFolder:
        """The folder's contents, without its numbers.

        Raises:
            InvalidTraceError: it holds no tabular blackbox.
        """
        file = Path(path) / "metadata.json"
        metadata = _read_json(file)
        for key in ("objectives_names", "task_names"):
            if not isinstance(metadata.get(key), list) or not metadata[key]:
                raise InvalidTraceError(file, "must be a list with at least one name", column=key)
            for name in metadata[key]:
                if metadata[key].count(name) > 1:
                    raise InvalidTraceError(file, f"names {name!r} twice", column=key)
        for name in metadata["task_names"]:
            if Path(str(name)).name != str(name):
                raise InvalidTraceError(file, f"{name!r} is no part of a file's name", column="task_names")
        for key in ("metric_default", "metric_elapsed_time"):
            if not isinstance(metadata.get(key), str | None):
                raise InvalidTraceError(file, f"is {metadata[key]!r}, but must be the name of an objective", column=key)
        return cls(
            path=Path(path),
            tasks=[str(name) for name in metadata["task_names"]],
            objectives=[str(name) for name in metadata["objectives_names"]],
            default_objective=metadata.get("metric_default"),
            elapsed=metadata.get("metric_elapsed_time"),
        )

    def load(self, task: str | None = None) -> StoredBlackbox:
        """The blackbox of a task, which may be left out where there is one.

        Raises:
            InputError: there is no such task, or it must be named.
            InvalidTraceError: a file of it is missing, malformed, or of another shape than the others.
        """
        if task is None and len(self.tasks) > 1:
            raise InputError(f"{self.path} holds several tasks; name one with --task: {', '.join(sorted(self.tasks))}")
        task = self.tasks[0] if task is None else task
        if task not in self.tasks:
            raise unknown("task", task, self.tasks)
        # Where tasks differ in their configurations (PD1), each has files of its own.
        own = self.path / f"{task}-hyperparameters.parquet"
        if own.is_file():
            evaluations = _read_array(self.path / f"{task}-objectives_evaluations.npy")
            fidelities, space = f"{task}-fidelity_values.npy", f"{task}-fidelity_space.json"
            hyperparameters = read_parquet(own)
        else:
            evaluations = self._of_task(self.path / "objectives_evaluations.npy", task)
            fidelities, space = "fidelities_values.npy", "fidelityspace.json"
            hyperparameters = read_parquet(self.path / "hyperparameters.parquet")
        return StoredBlackbox(
            hyperparameters=hyperparameters,
            objectives_evaluations=evaluations,
            fidelity_values=_read_array(self.path / fidelities),
            objectives_names=self.objectives,
            fidelity_space=_read_json(self.path / space),
        )

    def _of_task(self, file: Path, task: str) -> np.ndarray:
        all_tasks = _read_array(file, mapped=True)
        if len(all_tasks) != len(self.tasks):
            problem = f"holds {len(all_tasks)} tasks, but metadata.json names {len(self.tasks)}"
            raise InvalidTraceError(file, problem)
        evaluations: np.ndarray = np.array(all_tasks[self.tasks.index(task)])
        return evaluations


def from_blackbox_folder(
    folder: str | Path,
    out: str | Path,
    description: Description,
    *,
    task: str | None = None,
    choice: BlackboxChoice | None = None,
    rules: CurveRules | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write one task of a folder that Syne Tune wrote as a bundle; see `from_blackbox`.

    Objective and elapsed time are the folder's own unless chosen. Tasks of one folder are one family unless the description
    says otherwise.

    Raises:
        InvalidTraceError: a file is missing or malformed, or the blackbox is not what a bundle needs.
        InputError: there is no such task, or something is at `out` already.
    """
    opened = BlackboxFolder.open(folder)
    choice = choice or BlackboxChoice()
    if choice.objective is None:
        choice = replace(choice, objective=opened.default_objective)
    if choice.elapsed is None and choice.seconds is None:
        choice = replace(choice, elapsed=opened.elapsed)
    origin, title = str(opened.path), f"Syne Tune blackbox {opened.path.name}"
    blackbox = opened.load(task)
    if len(opened.tasks) > 1:
        description = replace(description, others={"family": opened.path.name, **description.others})
        origin, title = f"{origin}, task {task}", f"{title}, task {task}"
    recording = recording_of(blackbox, choice, origin, title)
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


def blackbox_folder(name_or_path: str) -> Path:
    """The folder of a blackbox: this one, or that of the name in Syne Tune's downloads, fetched on the first use.

    Raises:
        InputError: Syne Tune is needed and not installed, knows no such name, or cannot download it.
    """
    for folder in (Path(name_or_path), DOWNLOADS.expanduser() / name_or_path):
        if folder.is_dir():
            return folder
    try:
        from syne_tune.blackbox_repository import blackbox_list, load_blackbox
    except ImportError as error:
        raise InputError(
            f"there is no folder {name_or_path!r}, and to fetch a blackbox by name takes network and Syne Tune,"
            f" in any environment: {INSTALL} ({error})"
        ) from error
    if name_or_path not in blackbox_list():
        raise unknown("blackbox", name_or_path, blackbox_list(), "or give a folder that holds a metadata.json")
    try:
        load_blackbox(name_or_path)
    except Exception as error:
        # Whatever went wrong between here and the server is in its message; the user must mend it there.
        raise InputError(f"Syne Tune could not fetch {name_or_path}: {error}") from error
    return DOWNLOADS.expanduser() / name_or_path


def _read_json(file: Path) -> dict[str, Any]:
    value = parse_json(file, read_text(file, "; is this a folder of Syne Tune's?"))
    if not isinstance(value, dict):
        raise InvalidTraceError(file, f"holds a {type(value).__name__}, but must hold keys and values")
    return value


def _read_array(file: Path, *, mapped: bool = False) -> np.ndarray:
    require_file(file)
    try:
        loaded: object = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    except OSError as error:
        raise InvalidTraceError(file, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise InvalidTraceError(file, f"is no array of numbers: {error}") from error
    if not isinstance(loaded, np.ndarray) or not loaded.ndim:
        raise InvalidTraceError(file, "is no array of numbers: it holds several, or a single number")
    if loaded.dtype.kind not in "iuf":
        raise InvalidTraceError(file, f"holds {loaded.dtype}, but must hold numbers")
    return loaded
