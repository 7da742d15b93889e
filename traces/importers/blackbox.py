"""Tabular blackboxes of Syne Tune as bundles.

Imports the standard library, numpy, sim.model.errors and its neighbours; pandas when it is given some.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError, nearest
from elastune.traces.importers.assemble import write_recording
from elastune.traces.importers.read_table import SourceTable
from elastune.traces.importers.recording import CurveRules, Description, Points, RecordedCurves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from elastune.traces.bundles.bundle import Bundle

_NEEDED = ("hyperparameters", "objectives_evaluations", "fidelity_values", "objectives_names", "fidelity_space")


class TabularBlackbox(Protocol):
    """The attributes of Syne Tune's `BlackboxTabular` that are read.

    Attributes:
        hyperparameters: a row per configuration.
        objectives_evaluations: (configurations, seeds, fidelities, objectives) float.
        fidelity_values: (fidelities,) numbers.
        objectives_names: of the last axis.
        fidelity_space: its only key is what a fidelity is called.
    """

    hyperparameters: pd.DataFrame
    objectives_evaluations: np.ndarray
    fidelity_values: np.ndarray
    objectives_names: Sequence[str]
    fidelity_space: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class BlackboxChoice:
    """Which numbers of a blackbox to read.

    Attributes:
        objective: the score; None: the folder's default one.
        elapsed: the objective that holds seconds since the start; None: the one the folder names.
        seconds: the objective that holds the seconds of each iteration, instead.
        test_score: an objective that is reported, and never selected by.
        seed: which of the recorded training seeds; None: all of them, as replicates.
        untimed: leave the seconds out.
    """

    objective: str | None = None
    elapsed: str | None = None
    seconds: str | None = None
    test_score: str | None = None
    seed: int | None = 0
    untimed: bool = False


def from_blackbox(
    blackbox: TabularBlackbox,
    out: str | Path,
    description: Description,
    *,
    choice: BlackboxChoice,
    rules: CurveRules | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write one task of a tabular blackbox as a bundle, and one of its training seeds or all.

    A score that is no number beside seconds that are is a diverged run. Where neither is a number, or the seconds are left
    out, the blackbox does not tell whether the run diverged or was not recorded, and `rules.incomplete` decides.

    Args:
        blackbox: a `syne_tune.blackbox_repository.BlackboxTabular`, or what has the same attributes.
        out: folder of the bundle.
        description: what the blackbox does not say.
        choice: which of its numbers; `objective` is required.
        rules: how irregular curves become regular.
        overwrite: whether a bundle that is already there makes way.

    Raises:
        InvalidTraceError: it has no such objective, no elapsed time, or curves that are no curves.
        InputError: something is at `out` already.
    """
    recording = recording_of(blackbox, choice, "the blackbox")
    return write_recording(recording, description, rules or CurveRules(), Path(out), overwrite=overwrite)


def recording_of(
    blackbox: TabularBlackbox, choice: BlackboxChoice, origin: str, title: str = "Syne Tune blackbox"
) -> RecordedCurves:
    """One task of a blackbox; `origin` is what errors call it, `title` what the bundle says."""
    lacking = [name for name in _NEEDED if not hasattr(blackbox, name)]
    if lacking:
        hint = ""
        if isinstance(blackbox, dict):
            hint = f"; it holds one for each task: pass that of {', '.join(map(repr, blackbox))}"
        raise InputError(f"{origin} is a {type(blackbox).__name__} without {lacking[0]}, so no tabular blackbox{hint}")
    table = SourceTable.of(blackbox.hyperparameters)
    evaluations = np.asarray(blackbox.objectives_evaluations)
    fidelities = np.asarray(blackbox.fidelity_values, dtype=np.float64)
    objectives = [str(name) for name in blackbox.objectives_names]
    _check_shape(origin, evaluations, (len(table.frame), len(fidelities), len(objectives)))
    columns = _columns(origin, objectives, choice)
    seeds = _seeds(origin, evaluations, choice.seed)
    of_seeds = evaluations[:, seeds].astype(np.float64)
    curves = {key: of_seeds[..., objectives.index(name)] for key, name in columns.items()}
    trial, training, position = found = np.nonzero(_recorded(curves))
    points = Points(
        trial=trial,
        iteration=fidelities[position],
        row=trial + 1,
        **{key: curve[found] for key, curve in curves.items()},
    )
    texts = {name: table.texts(name) for name in table.names}
    unused = [name for name in objectives if name not in columns.values()]
    recording = RecordedCurves(
        origin=origin,
        labels=[str(number) for number in range(len(table.frame))],
        configurations=[{name: cells[row] for name, cells in texts.items()} for row in range(len(table.frame))],
        points=points,
        columns={"iteration": next(iter(blackbox.fidelity_space), "fidelity"), **columns},
        notes={"from": title}
        | ({} if choice.seed is None else {"training_seed": choice.seed})
        | ({} if evaluations.shape[1] == 1 else {"training_seeds_recorded": evaluations.shape[1]})
        | ({"objectives_left_out": unused} if unused else {}),
    )
    return recording if len(seeds) == 1 else recording.by_replicate(training)


def _check_shape(origin: str, evaluations: np.ndarray, shape: tuple[int, int, int]) -> None:
    configurations, fidelities, objectives = shape
    if evaluations.ndim != 4 or (evaluations.shape[0], *evaluations.shape[2:]) != shape or not evaluations.shape[1]:
        problem = (
            f"evaluations are of shape {evaluations.shape}, but there are {configurations} configurations, some seeds,"
            f" {fidelities} fidelities and {objectives} objectives"
        )
        raise InvalidTraceError(origin, problem)


def _columns(origin: str, objectives: Sequence[str], choice: BlackboxChoice) -> dict[str, str]:
    """Names of the objectives by those of `Points`."""
    listed = f"its objectives: {', '.join(objectives)}"
    if choice.objective is None:
        raise InvalidTraceError(origin, f"names no objective to tune; name the score with --objective; {listed}")
    wanted = {"score": choice.objective, "test_score": choice.test_score}
    if choice.elapsed is not None and choice.seconds is not None:
        raise InputError("seconds are those of each iteration or elapsed ones, not both: --elapsed or --seconds")
    if not choice.untimed:
        wanted |= {"elapsed_s": choice.elapsed, "seconds": choice.seconds}
        if choice.elapsed is None and choice.seconds is None:
            problem = (
                "is not known: name the objective that holds it with --elapsed (seconds since the start) or --seconds"
                f" (of each iteration); {listed}; or leave seconds out with --untimed, and set workload.iteration_s in a run"
            )
            raise InvalidTraceError(origin, problem, column="elapsed time")
    columns = {key: name for key, name in wanted.items() if name is not None}
    for name in columns.values():
        if name not in objectives:
            match = nearest(name, objectives)
            meant = f"did you mean {match!r}? " if match else ""
            raise InvalidTraceError(origin, f"is no objective; {meant}{listed}", column=name)
    return columns


def _seeds(origin: str, evaluations: np.ndarray, seed: int | None) -> list[int]:
    recorded = evaluations.shape[1]
    if seed is not None and not 0 <= seed < recorded:
        raise InputError(f"{origin}: asked for seed {seed}, but its seeds are 0 to {recorded - 1}")
    return list(range(recorded)) if seed is None else [seed]


def _recorded(curves: Mapping[str, np.ndarray]) -> np.ndarray:
    """(configurations, seeds, fidelities) bool: up to the last number of each curve, be it a score or seconds."""
    known = np.isfinite(curves["score"])
    for key in ("elapsed_s", "seconds"):
        if key in curves:
            known = known | np.isfinite(curves[key])
    after = np.flip(np.cumsum(np.flip(known, axis=-1), axis=-1), axis=-1)
    recorded: np.ndarray = after > 0
    return recorded
