"""Folders of TensorBoard runs, each a trial, as bundles.

Imports the standard library, numpy, sim.model.errors and its neighbours; yaml when hyperparameters stand in a file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError, nearest
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.event_files import read_event_file
from elastune.traces.importers.recording import CurveRules, Points, Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.importers.event_files import EventFile
    from elastune.traces.importers.recording import Description

HYPERPARAMETER_FILES = ("hparams.yaml", "hparams.json", "params.json")
"""Looked for in a run's folder where its events hold no hyperparameters: what Lightning and Ray Tune write."""


@dataclass(frozen=True, kw_only=True)
class EventChoice:
    """Which of the runs' events are wanted.

    Attributes:
        tag: the scalar that is the score.
        test_tag: a scalar that is reported, and never selected by.
        hyperparameters: name of a YAML or JSON file in each run's folder; None: those of the hparams plugin, or of whichever
            of `HYPERPARAMETER_FILES` is there.
    """

    tag: str
    test_tag: str | None = None
    hyperparameters: str | None = None


def from_tensorboard(
    folder: str | Path,
    out: str | Path,
    description: Description,
    *,
    choice: EventChoice,
    rules: CurveRules | None = None,
    untimed: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Bundle:
    """Write the runs below a folder as a bundle.

    A run is a folder with event files that hold the tag, and its step is the iteration; what folders below it hold besides
    (as hyperparameters do) belongs to it. Several event files of a run are the parts of a training that was restarted: of
    steps that were done twice, the later part's count, as in TensorBoard.

    An iteration's seconds are the wall time between two points of one file. Nothing tells how long the first of a file took,
    so the median of the run's others is assumed.

    Args:
        folder: above the runs.
        out: folder of the bundle.
        description: what the events do not say.
        choice: which of their events.
        rules: how irregular curves become regular.
        untimed: leave the seconds out.
        overwrite: whether a bundle that is already there makes way.
        on_progress: is told (files read, all of them).

    Raises:
        InvalidTraceError: a file is damaged, no run has the tag, or the runs are not what a bundle needs.
        InputError: tensorboard is not installed, or something is at `out` already.
    """
    root = Path(folder)
    files = _read(root, choice, on_progress or (lambda _done, _total: None))
    recording = _recording(root, _runs(root, files, choice), choice, untimed=untimed)
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


@dataclass(eq=False, kw_only=True)
class _Run:
    """A trial.

    Attributes:
        path: its folder.
        files: in the order in which they were begun; of those below its folder, the ones without the tag.
        steps: (points,) float.
        scores: (points,) float.
        test_scores: (points,) float, or None.
        seconds: (points,) float, NaN at the first point of each file.
        redone: points that a later part of the training did again.
    """

    path: Path
    files: Sequence[EventFile]
    steps: np.ndarray
    scores: np.ndarray
    test_scores: np.ndarray | None
    seconds: np.ndarray
    redone: int


def _read(root: Path, choice: EventChoice, on_progress: Callable[[int, int], None]) -> list[EventFile]:
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give the one above the runs")
    paths = sorted(path for path in root.rglob("*tfevents*") if path.is_file())
    if not paths:
        raise InvalidTraceError(root, "holds no event file (*tfevents*), nor do the folders below it")
    tags = [tag for tag in (choice.tag, choice.test_tag) if tag is not None]
    files = []
    for done, path in enumerate(paths, start=1):
        files.append(read_event_file(path, tags))
        on_progress(done, len(paths))
    return files


def _runs(root: Path, files: Sequence[EventFile], choice: EventChoice) -> list[_Run]:
    """The topmost folders whose files hold the tag, in the order of their names."""
    tag = choice.tag
    tagged = {file.path.parent for file in files if tag in file.scalars}
    folders = sorted(folder for folder in tagged if not tagged & set(folder.parents))
    if not folders:
        tags = sorted({name for file in files for name in file.tags})
        match = nearest(tag, tags)
        meant = f"did you mean {match!r}? " if match else ""
        raise InvalidTraceError(root, f"no run has this tag; {meant}tags: {', '.join(tags)}", column=tag)
    of_folder: dict[Path, list[EventFile]] = {folder: [] for folder in folders}
    for file in sorted(files, key=lambda file: (file.began, file.path.name)):
        for folder in (file.path.parent, *file.path.parent.parents):
            if folder in of_folder:
                of_folder[folder].append(file)
                break
    return [_run(folder, of_folder[folder], choice) for folder in folders]


def _run(folder: Path, files: Sequence[EventFile], choice: EventChoice) -> _Run:
    tag, test_tag = choice.tag, choice.test_tag
    kept, redone = np.empty((0, 3)), 0
    for file in files:
        if file.path.parent != folder or tag not in file.scalars:
            continue
        points = np.array(file.scalars[tag], dtype=np.float64)
        wall_times = points[:, 2].copy()
        points[0, 2], points[1:, 2] = np.nan, np.diff(wall_times)
        again = kept[:, 0] >= points[0, 0]
        redone += int(again.sum())
        kept = np.concatenate([kept[~again], points])
    return _Run(
        path=folder,
        files=files,
        steps=kept[:, 0],
        scores=kept[:, 1],
        test_scores=None if test_tag is None else _test_scores(folder, files, test_tag, kept[:, 0]),
        seconds=kept[:, 2],
        redone=redone,
    )


def _test_scores(folder: Path, files: Sequence[EventFile], tag: str, steps: np.ndarray) -> np.ndarray:
    """The test score at each step, the latest where there are several."""
    at_step = {step: value for file in files for step, value, _ in file.scalars.get(tag, ())}
    missing = [step for step in steps.tolist() if step not in at_step]
    if missing:
        raise InvalidTraceError(folder, f"has no such scalar at step {missing[0]:g}, where it has a score", column=tag)
    return np.array([at_step[step] for step in steps.tolist()])


def _recording(root: Path, runs: Sequence[_Run], choice: EventChoice, *, untimed: bool) -> Recording:
    counts = [len(run.steps) for run in runs]
    tests = [run.test_scores for run in runs if run.test_scores is not None]
    seconds = np.concatenate([_filled(run.seconds) for run in runs])
    is_timed = not untimed and bool(np.isfinite(seconds).any())
    points = Points(
        trial=np.repeat(np.arange(len(runs)), counts),
        iteration=np.concatenate([run.steps for run in runs]),
        score=np.concatenate([run.scores for run in runs]),
        test_score=np.concatenate(tests) if tests else None,
        # A run with one point has no others, and stands for the run in the middle of all.
        seconds=np.where(np.isnan(seconds), np.nanmedian(seconds), seconds) if is_timed else None,
    )
    first = sum(int(np.isnan(run.seconds).sum()) for run in runs)
    counted = {
        "points_redone_after_a_restart": sum(run.redone for run in runs),
        "event_files_cut_short": sum(file.is_cut_short for run in runs for file in run.files),
    }
    return Recording(
        origin=str(root),
        labels=[run.path.relative_to(root).as_posix() if run.path != root else root.name for run in runs],
        configurations=_configurations(runs, choice.hyperparameters),
        points=points,
        columns={
            "trial": "run",
            "iteration": "step",
            "score": choice.tag,
            "test_score": choice.test_tag or "",
            "seconds": "wall time",
        },
        seconds_provenance=f"wall time between points, assumed to be the median of its run at the first of a file ({first}"
        f" of {len(seconds)})",
        notes={"from": f"TensorBoard runs in {root.name}"} | {key: count for key, count in counted.items() if count},
    )


def _filled(seconds: np.ndarray) -> np.ndarray:
    """The seconds, with their median where there are none."""
    known = seconds[np.isfinite(seconds)]
    return np.where(np.isnan(seconds), np.median(known), seconds) if known.size else seconds


def _configurations(runs: Sequence[_Run], file_name: str | None) -> list[dict[str, str]]:
    found = [_configuration(run, file_name) for run in runs]
    lacking = [run for run, configuration in zip(runs, found, strict=True) if not configuration]
    if lacking and len(lacking) < len(runs):
        problem = (
            "has no hyperparameters, but other runs have: record them with the hparams plugin, or put one of"
            f" {', '.join(HYPERPARAMETER_FILES)} into its folder"
        )
        raise InvalidTraceError(lacking[0].path, problem)
    return found


def _configuration(run: _Run, file_name: str | None) -> dict[str, str]:
    if file_name is not None:
        return _read_configuration(run.path / file_name)
    recorded = {name: text for file in run.files for name, text in file.hyperparameters.items()}
    files = [run.path / name for name in HYPERPARAMETER_FILES if (run.path / name).is_file()]
    return recorded or (_read_configuration(files[0]) if files else {})


def _read_configuration(file: Path) -> dict[str, str]:
    """Text of each value, under dotted names where they are nested."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise InvalidTraceError(file, f"cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidTraceError(file, f"is malformed: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InvalidTraceError(file, f"holds a {type(content).__name__}, but must hold names and values")
    return _flat("", content)


def _flat(prefix: str, content: Mapping[object, object]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            texts |= _flat(f"{prefix}{name}.", value)
        elif value is None:
            texts[f"{prefix}{name}"] = ""
        else:
            texts[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, list) else str(value)
    return texts
