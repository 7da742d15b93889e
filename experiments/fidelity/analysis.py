"""Compares predictions with real runs: the error of each run, split into its parts, from recorded folders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elastune.experiments.fidelity.measures import Difference, RunNumbers, first_difference, in_common
from elastune.experiments.fidelity.prediction import Guess, prediction_of
from elastune.experiments.fidelity.simulations import from_profile, with_measured_seconds
from elastune.experiments.fidelity.sitting import Began, Calibration, Ended, Sitting, Unit, profile_in, read_note
from elastune.experiments.runs.fold import Tables
from elastune.experiments.runs.journals import entries_of, spec_of
from elastune.experiments.runs.replay import replay_journal
from elastune.experiments.runs.world import World
from elastune.sim.model.errors import InputError


@dataclass(frozen=True, eq=False)
class CheckedRun:
    """One real run, beside its prediction and simulations.

    Attributes:
        unit: the run.
        entries: of its journal that replay decided again, command by command: all of them.
        guesses: what was predicted.
        real: what was measured.
        simulated: by the simulation from the profile, without further noise.
        measured: by the simulation with the seconds that were measured in this run.
        difference: the first decision in which the simulation from the profile differs.
        difference_measured: the same of the one with measured seconds.
        in_common: by rung, share of trials that reality and the simulation from the profile sent there.
        drift: iteration and launch seconds of the calibrations around the run over those beside the profile, less 1.
        regime: shares of the GPU-seconds that were trained, and that went into start-up and launches.
        tables: of the real run, of the simulation from the profile, and of the one with measured seconds.
    """

    unit: Unit
    entries: int
    guesses: Mapping[str, Guess]
    real: RunNumbers
    simulated: RunNumbers
    measured: RunNumbers
    difference: Difference
    difference_measured: Difference
    in_common: Mapping[int, float]
    drift: tuple[float, float] | None
    regime: tuple[float, float]
    tables: tuple[Tables, Tables, Tables]

    def split(self, name: str) -> ErrorSplit | None:
        """The error of one quantity; None where reality or prediction does not have it."""
        guess, real, measured = (
            self.guesses.get(name), self.real.quantities.get(name), self.measured.quantities.get(name)
        )  # fmt: skip
        if guess is None or real is None or not math.isfinite(real):
            return None
        return ErrorSplit(real, guess, measured if measured is not None and math.isfinite(measured) else real)

    def names(self) -> list[str]:
        """All quantities that were predicted and measured."""
        return [name for name in self.guesses if self.split(name) is not None]


@dataclass(frozen=True)
class ErrorSplit:
    """One number of one run.

    Attributes:
        real: as it was.
        guess: as it was predicted.
        measured: as simulated with the seconds of the run.
    """

    real: float
    guess: Guess
    measured: float

    @property
    def total(self) -> float:
        """Prediction minus reality; the sum of the two parts."""
        return self.guess.value - self.real

    @property
    def parameters(self) -> float:
        """Prediction minus simulation with measured seconds: what the profile did not know."""
        return self.guess.value - self.measured

    @property
    def structure(self) -> float:
        """Simulation with measured seconds minus reality: what the simulator does otherwise."""
        return self.measured - self.real

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds reality, to rounding."""
        slack = 1e-6 * abs(self.real)
        return self.guess.low - slack <= self.real <= self.guess.high + slack

    def relative(self, part: float) -> float:
        """A part of the error over reality; NaN where reality is 0."""
        return part / abs(self.real) if self.real else math.nan


def checked_runs(folders: Iterable[Path]) -> list[CheckedRun]:
    """Every run that has ended in these folders of sittings.

    Raises:
        InputError: a folder is of another version, a run has no prediction or a later one, or a journal is damaged; or a run
            is there twice, as where a sitting and its copy are given.
        ReplayError: a journal does not replay, so that comparing it means nothing.
    """
    found: list[CheckedRun] = []
    folder_of: dict[tuple[bytes, float], Path] = {}
    for folder in folders:
        units = list(Sitting.load(folder).units())
        begun = [unit for unit in units if (unit.folder / "began.json").is_file() or unit.is_done]
        found += [_once(check(unit), folder_of) for unit in begun if unit.is_done]
        if not any(unit.is_done for unit in units):
            raise InputError(f"{folder}: no run of this sitting has ended; the command that began it goes on with it")
    return found


def _once(run: CheckedRun, folder_of: dict[tuple[bytes, float], Path]) -> CheckedRun:
    """The run, whose folder is noted.

    Raises:
        InputError: it was noted before; no two runs begin at the same instant and take equally long.
    """
    folder = run.unit.folder
    key = (folder / "began.json").read_bytes(), run.real.quantities["makespan_s"]
    if key in folder_of:
        raise InputError(f"{folder} is the same run as {folder_of[key]}: name each sitting once, or one of its copies")
    folder_of[key] = folder
    return run


def check(unit: Unit) -> CheckedRun:
    """Compare one run with its prediction; see `checked_runs`."""
    prediction = prediction_of(unit)
    bundle, _ = profile_in(unit.bundle)
    spec = spec_of(unit.journal)
    if spec.digest() != unit.spec.digest():
        raise InputError(f"{unit.journal} is of another run than its folder says: bring the right one back")
    entries, is_whole = replay_journal(unit.journal, bundle=bundle)
    if not is_whole:
        raise InputError(f"{unit.journal} ends before its run did: go on with the run, or measure it again")
    world = World.of(unit.spec, bundle)
    real = Tables.of(entries_of(unit.journal, is_whole=True), world.price_book)
    tables = (real, from_profile(world), with_measured_seconds(world, real))
    found, simulated, measured = map(RunNumbers.of, tables)
    return CheckedRun(
        unit,
        entries,
        prediction.guesses,
        found,
        simulated,
        measured,
        first_difference(found, simulated),
        first_difference(found, measured),
        in_common(found, simulated),
        _drift(unit),
        _regime(found),
        tables,
    )


def _drift(unit: Unit) -> tuple[float, float] | None:
    began, ended = read_note(unit.folder / "began.json", Began), read_note(unit.folder / "ended.json", Ended)
    around = [one for one in (began.before, ended.after) if one is not None]
    if began.profiled is None or not around:
        return None
    return _ratio(around, began.profiled, "iteration_s"), _ratio(around, began.profiled, "launch_s")


def _ratio(around: Sequence[Calibration], profiled: Calibration, name: str) -> float:
    mean_s: float = statistics.fmean(getattr(one, name) for one in around)
    return mean_s / float(getattr(profiled, name)) - 1


def _regime(real: RunNumbers) -> tuple[float, float]:
    """Shares of the seconds that gangs and starting machines took; idle GPUs belong to neither."""
    gpu_s = {name.partition(":")[2]: value for name, value in real.quantities.items() if name.startswith("gpu_s:")}
    trained = gpu_s["training"] + gpu_s["redone"]
    starting = sum(gpu_s[part] for part in ("startup", "launch", "rescale", "checkpoint"))
    busy = trained + starting
    return (trained / busy, starting / busy) if busy else (math.nan, math.nan)
