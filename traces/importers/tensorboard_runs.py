"""Folders of TensorBoard runs, each a trial, as bundles.

Imports the standard library, numpy, sim.model.errors, traces.formats and its neighbours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError, nearest
from elastune.traces.formats.texts import parse_json, read_text, text_of
from elastune.traces.formats.yaml_text import parse_yaml
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.event_files import EventFile, merge_hyperparameters, read_event_file
from elastune.traces.importers.recording import CurveRules, Description, Points, RecordedCurves

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from elastune.traces.bundles.bundle import Bundle

HYPERPARAMETER_FILES = ("hparams.yaml", "hparams.json", "params.json")
"""Looked for in a run's folder where its events hold no hyperparameters: what Lightning and Ray Tune write."""


EACH = "each"
_HALVES = re.compile(r"(.*[^a-z])?(train|training|fit|val|valid|validation|eval|evaluation|test|dev)")
"""Folders that hold one part of a training, as Keras names them (`train`) and PyTorch's `add_scalars` (`loss_train`)."""


@dataclass(frozen=True, kw_only=True)
class EventChoice:
    """Which events of the runs to read.

    Attributes:
        tag: the scalar that is the score.
        test_tag: a scalar that is reported, and never selected by.
        hyperparameters: name of a YAML or JSON file in each run's folder; None: those of the hparams plugin, or of whichever
            of `HYPERPARAMETER_FILES` are there, which must agree.
        part: name of the folder in each run's folder that holds the tag, where several do, such as `validation` beside
            `train`; `EACH` where every folder is a run of its own.
    """

    tag: str
    test_tag: str | None = None
    hyperparameters: str | None = None
    part: str | None = None


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

    A run is a folder with event files that hold the tag, and its step is the iteration. Folders below it may hold its
    hyperparameters. Several event files of a run are the parts of a training that was restarted. TensorBoard reads them in the
    order of their names, and so does this: of steps that were done twice, those of the later part count.

    Where folders look like parts of one training (`train` beside `validation`), the choice must say which one holds the score.

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
        on_progress: called with the number of files read, and of all.

    Raises:
        InvalidTraceError: a file is damaged, no run has the tag, or the runs are not what a bundle needs.
        InputError: tensorboard is not installed, or something is at `out` already.
    """
    if choice.test_tag == choice.tag:
        raise InputError(f"--test-tag {choice.tag}: is the tag of the score; name another one")
    root = Path(folder)
    files = _read(root, choice, on_progress or (lambda _done, _total: None))
    runs = _runs(root, files, choice)
    recording = _recording(root, runs, choice, _left_out(root, files, runs), untimed=untimed)
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


@dataclass(eq=False, kw_only=True)
class _Run:
    """A trial.

    Attributes:
        path: its folder.
        files: of its folder and those below it, in the order of their names.
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
    """The runs whose files hold the tag, in the order of their names."""
    scored = _scored(root, files, choice)
    of_run: dict[Path, list[EventFile]] = {run: [] for run in sorted(scored)}
    for file in sorted(files, key=lambda file: file.order):
        for folder in (file.path.parent, *file.path.parent.parents):
            if folder in of_run:
                of_run[folder].append(file)
                break
    return [_run(run, scored[run], files, choice) for run, files in of_run.items()]


def _scored(root: Path, files: Sequence[EventFile], choice: EventChoice) -> dict[Path, Path]:
    """The folder of each run, and the folder of it that holds its score.

    Raises:
        InvalidTraceError: none holds the tag, or the choice does not say which of several does.
    """
    tagged = {file.path.parent for file in files if choice.tag in file.scalars}
    if not tagged:
        tags = sorted({name for file in files for name in file.tags})
        match = nearest(choice.tag, tags)
        meant = f"did you mean {match!r}? " if match else ""
        raise InvalidTraceError(root, f"no run has this tag; {meant}tags: {', '.join(tags)}", column=choice.tag)
    if choice.part == EACH:
        return {folder: folder for folder in tagged}
    if choice.part is not None:
        return _in_part(root, tagged, choice)
    # A run's hyperparameters may stand in a folder of their own, together with its last scores.
    sessions = {file.path.parent for file in files if file.hyperparameters}
    parts = _parts(
        root, {folder for folder in tagged if folder not in sessions or not tagged & set(folder.parents)}, choice
    )
    if parts:
        one = next((part for part in reversed(parts) if "train" not in part.name.lower()), parts[-1])
        what = f"name the one that holds the score, as in --part {one.name}" if one in tagged else f"import {one} alone"
        listed = " and ".join(part.relative_to(root).as_posix() for part in parts[:2])
        problem = (
            f"{listed} look like parts of one training: {what}, or say that each folder is a run, with --part {EACH}"
        )
        raise InvalidTraceError(root, problem, column=choice.tag)
    return {folder: folder for folder in tagged if not tagged & set(folder.parents)}


def _in_part(root: Path, tagged: Collection[Path], choice: EventChoice) -> dict[Path, Path]:
    scored = {folder.parent: folder for folder in tagged if folder.name == choice.part and folder != root}
    if not scored:
        names = ", ".join(sorted({folder.name for folder in tagged if folder != root}))
        raise InvalidTraceError(
            root, f"no folder {choice.part!r} has this tag; folders that do: {names}", column=choice.tag
        )
    for folder in sorted(tagged):
        if folder not in scored and folder.parent not in scored:
            problem = f"has this tag, but no folder {choice.part!r} that has it: is this a run?"
            raise InvalidTraceError(folder, problem, column=choice.tag)
    return scored


def _parts(root: Path, tagged: Collection[Path], choice: EventChoice) -> list[Path]:
    """Folders that may be parts of one training and no runs: several in one folder, or one within another."""
    for folder in sorted(tagged):
        below = sorted(other for other in tagged if folder in other.parents)
        if below:
            return [folder, *below]
    above = {parent for folder in tagged for parent in folder.parents if root in parent.parents}
    for folders in _siblings(above - {root}).values():
        if len(halves := _halves(folders)) > 1:
            return halves
    written = choice.tag.replace("/", "_") + "_"  # by PyTorch's add_scalars
    siblings = _siblings({folder for folder in tagged if folder != root})
    for folders in siblings.values():
        if len(halves := _halves(folders)) > 1:
            return halves
        if len(folders) > 1 and all(folder.name.startswith(written) for folder in folders):
            return folders
    names = {tuple(folder.name for folder in folders) for folders in siblings.values()}
    if len(siblings) > 1 and len(names) == 1 and len(next(iter(names))) > 1:
        return next(iter(siblings.values()))
    return []


def _siblings(folders: Collection[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for folder in sorted(folders):
        found.setdefault(folder.parent, []).append(folder)
    return found


def _halves(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in folders if _HALVES.fullmatch(folder.name.lower())]


def _run(path: Path, scored: Path, files: Sequence[EventFile], choice: EventChoice) -> _Run:
    kept, redone = np.empty((0, 3)), 0
    for file in files:
        if file.path.parent != scored or choice.tag not in file.scalars:
            continue
        points = np.array(file.scalars[choice.tag], dtype=np.float64)
        wall_times = points[:, 2].copy()
        points[0, 2], points[1:, 2] = np.nan, np.diff(wall_times)
        again = kept[:, 0] >= points[0, 0]
        if again.any() and again.all():
            problem = (
                f"begins at step {points[0, 0]:g}, so that nothing is left of the event files before it in this folder: if"
                " these are two runs, put each into a folder of its own; if a run was started anew, remove its first attempt"
            )
            raise InvalidTraceError(file.path, problem, column=choice.tag)
        redone += int(again.sum())
        kept = np.concatenate([kept[~again], points])
    return _Run(
        path=path,
        files=files,
        steps=kept[:, 0],
        scores=kept[:, 1],
        test_scores=_test_scores(path, scored, files, choice.test_tag, kept[:, 0]) if choice.test_tag else None,
        seconds=kept[:, 2],
        redone=redone,
    )


def _test_scores(path: Path, scored: Path, files: Sequence[EventFile], tag: str, steps: np.ndarray) -> np.ndarray:
    """The test score at each step; of several parts of a training, that of the last.

    Raises:
        InvalidTraceError: a step has none, or two in one file or in two folders.
    """
    at_step: dict[float, tuple[float, EventFile]] = {}
    beside = [file for file in files if file.path.parent == scored and tag in file.scalars]
    for file in beside or files:
        for step, value, _ in file.scalars.get(tag, ()):
            before, where = at_step.get(step, (value, file))
            is_later_part = where is not file and where.path.parent == file.path.parent
            if before != value and before == before and not is_later_part:  # noqa: PLR0124  NaN differs from itself
                problem = f"is {before:g} at step {step:g} in {where.path}, and {value:g} in {file.path}; keep one"
                raise InvalidTraceError(path, problem, column=tag)
            at_step[step] = (value, file)
    missing = [step for step in steps.tolist() if step not in at_step]
    if missing:
        raise InvalidTraceError(path, f"has no such scalar at step {missing[0]:g}, where it has a score", column=tag)
    return np.array([at_step[step][0] for step in steps.tolist()])


def _left_out(root: Path, files: Sequence[EventFile], runs: Sequence[_Run]) -> list[str]:
    """Folders with event files that belong to no run, because none of theirs holds the tag."""
    used = {file.path for run in runs for file in run.files}
    return sorted({file.path.parent.relative_to(root).as_posix() for file in files if file.path not in used})


def _recording(
    root: Path, runs: Sequence[_Run], choice: EventChoice, left_out: Sequence[str], *, untimed: bool
) -> RecordedCurves:
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
        "folders_without_the_tag": list(left_out),
        "symbolic_links_not_followed": _links(root),
        "points_redone_after_a_restart": sum(run.redone for run in runs),
        "event_files_cut_short": sum(file.is_cut_short for run in runs for file in run.files),
    }
    return RecordedCurves(
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


def _links(root: Path) -> list[str]:
    """Folders below that are symbolic links; they may lead in circles, or to a run that is there already."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() and path.is_dir())


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
    recorded: dict[str, str] = {}
    for file in run.files:
        merge_hyperparameters(file.path, recorded, file.hyperparameters)
    if recorded:
        return recorded
    for name in HYPERPARAMETER_FILES:
        if (run.path / name).is_file():
            merge_hyperparameters(run.path / name, recorded, _read_configuration(run.path / name))
    return recorded


def _read_configuration(file: Path) -> dict[str, str]:
    """Text of each value, under dotted names where they are nested."""
    text = read_text(file)
    content = parse_json(file, text) if file.suffix == ".json" else parse_yaml(text, str(file))
    if not isinstance(content, dict):
        raise InvalidTraceError(file, f"holds a {type(content).__name__}, but must hold names and values")
    return _flat(file, "", content)


def _flat(file: Path, prefix: str, content: Mapping[object, object]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in content.items():
        whole = f"{prefix}{name}"
        below = _flat(file, f"{whole}.", value) if isinstance(value, dict) else {whole: text_of(value)}
        for twice in texts.keys() & below.keys():
            raise InvalidTraceError(file, "is given twice, once under a dotted name", column=twice)
        texts |= below
    return texts
