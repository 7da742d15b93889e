"""Training code of the user's own as a workload: a class, or a function that calls `elastune.report`.

What is made here can be pickled and goes to the workers of a run; they load the code. A checkpoint is an archive of the folder
that the code wrote. Imports experiments.own_code, experiments.reporting and traces.workloads.
"""

from __future__ import annotations

import inspect
import math
import os
import random
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from elastune.experiments.own_code import OwnCode, called, raised_at
from elastune.experiments.reporting import FunctionTrial
from elastune.sim.model.errors import InputError, WorkerError
from elastune.sim.model.numbers import as_float
from elastune.traces.workloads import ScoredTrainable, SearchSpace, Seat, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from elastune.sim.model.job import Direction
    from elastune.sim.model.protocols import Configuration

NEEDED = ("train_iteration", "evaluate", "save", "load")
EXPECTED = (
    "it must be a class with train_iteration(), evaluate(), save(folder) and load(folder), or a function that calls"
    " elastune.report(score, save=...)"
)
_OPTIONAL = ("seed", "device", "rank", "size")


def own_workload(code: OwnCode, space: SearchSpace, direction: Direction | None, max_iterations: int) -> Workload:
    """The workload of somebody's own training code, which this imports.

    Args:
        code: of the class or function.
        space: what its configurations are drawn from.
        direction: of its score; None where the code says it (`direction = "maximize"` in the class).
        max_iterations: iterations that count as trained.

    Raises:
        InputError: it cannot be imported, is no training code, or nothing says the direction.
    """
    target = code.load()
    _require_training(code, target)
    told = direction or getattr(target, "direction", None)
    if told not in ("minimize", "maximize"):
        raise InputError(
            f"{code.name}: whether less or more is better is not known: give job.direction, minimize or maximize"
        )
    return Workload(
        name=code.place.rpartition(":")[2],
        family=code.place.rpartition(":")[2],
        description=(inspect.getdoc(target) or "Training code of your own.").partition("\n")[0],
        direction=cast("Direction", told),
        iteration="one call of train_iteration, or one report",
        score="as the code gives it",
        test_score_text="as the code gives it",
        search_space=space,
        max_iterations=max_iterations,
        trainable=OwnTraining(code),
        data_bytes=_no_data,
        source=code.cited,
        licence="your own",
        schedule="unknown",
        trains_in_gangs=bool(getattr(target, "distributed", False)),
        repeats_itself=False,
    )


def _no_data() -> int:
    return 0


def _require_training(code: OwnCode, target: object) -> None:
    if isinstance(target, type):
        missing = [name for name in NEEDED if not callable(getattr(target, name, None))]
        if missing:
            raise InputError(f"trainable {code.name} lacks {', '.join(missing)}: {EXPECTED}")
    elif not callable(target):
        raise InputError(f"trainable {code.name} is a {type(target).__name__}: {EXPECTED}")
    try:
        inspect.signature(target).bind(None, **dict.fromkeys(_wanted(target)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"trainable {code.name} cannot be called: {error}; it is given the configuration, and"
            f" {', '.join(_OPTIONAL)} where it has parameters of these names"
        ) from error


def _wanted(target: Callable[..., object]) -> list[str]:
    """The keyword arguments that the code takes beside the configuration."""
    known = list(inspect.signature(target).parameters)[1:]
    return [name for name in _OPTIONAL if name in known]


@dataclass(frozen=True)
class OwnTraining:
    """Builds trials of the user's own code; see `traces.workloads.Workload.trainable`."""

    code: OwnCode

    def __call__(self, configuration: Configuration, seed: int, seat: Seat) -> ScoredTrainable:
        """A trial before its first iteration.

        Raises:
            InputError: the code cannot be imported.
            WorkerError: it failed to build the trial; says where.
        """
        target = self.code.load()
        _prepare(seed, seat)
        known = {"seed": seed, "device": seat.device, "rank": seat.rank, "size": seat.size}
        build = partial(target, dict(configuration), **{name: known[name] for name in _wanted(target)})
        if isinstance(target, type):
            return OwnTrial(self.code, _located(self.code, build))
        return OwnTrial(self.code, FunctionTrial(build))


def _prepare(seed: int, seat: Seat) -> None:
    """Seed the common generators; on a CPU slot, one thread: two on a shared core ran 40 times slower."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  code of the user's own may draw from it
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
        if seat.device == "cpu":
            torch.set_num_threads(1)


class _InFolders(Protocol):
    """Training code of the user's own."""

    def train_iteration(self) -> object: ...
    def evaluate(self) -> float: ...
    def save(self, folder: Path) -> object: ...
    def load(self, folder: Path) -> object: ...


class OwnTrial:
    """A trial whose code keeps its state in a folder; see `traces.workloads.ScoredTrainable`."""

    def __init__(self, code: OwnCode, own: _InFolders) -> None:
        self._code, self._own = code, own

    def train_iteration(self) -> None:
        """One iteration of the user's own code."""
        _located(self._code, self._own.train_iteration)

    def evaluate(self) -> float:
        """Its score."""
        return self._number("evaluate", self._own.evaluate)

    def test_score(self) -> float:
        """Its test score; NaN where it has none."""
        test = getattr(self._own, "test_score", None)
        return math.nan if test is None else self._number("test_score", test)

    def _number(self, name: str, call: Callable[[], object]) -> float:
        given = _located(self._code, call)
        try:
            return as_float(given)
        except ValueError as error:
            raise WorkerError(f"trainable {self._code.short}: what {name}() gives {error}") from error

    def measures(self) -> dict[str, float]:
        """Empty: the user's own code reports its score only."""
        return {}

    def save(self, path: Path) -> None:
        """An archive of what the code writes into an empty folder; whole or not there."""
        with tempfile.TemporaryDirectory(prefix="elastune-") as folder:
            _located(self._code, partial(self._own.save, Path(folder)))
            part = path.with_name(f"{path.name}.part")
            with part.open("wb") as stream:
                with tarfile.open(fileobj=stream, mode="w") as archive:
                    archive.add(folder, arcname=".")
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from such an archive.

        Raises:
            WorkerError: it is damaged, or the code cannot read it.
        """
        with tempfile.TemporaryDirectory(prefix="elastune-") as folder:
            unpack(path, Path(folder))
            _located(self._code, partial(self._own.load, Path(folder)))


def unpack(checkpoint: Path, folder: Path) -> None:
    """Write the files of a checkpoint of the user's own code into a folder; nothing leaves it.

    Raises:
        WorkerError: it is damaged.
    """
    try:
        with tarfile.open(checkpoint, mode="r:") as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise WorkerError(f"{checkpoint}: the checkpoint cannot be read: {error}") from error


def _located(code: OwnCode, call: Callable[[], Any]) -> Any:  # noqa: ANN401  as the call
    """The result of the call; an exception of user code says where it was raised."""
    try:
        return called(call)
    except (InputError, WorkerError):
        raise
    except Exception as error:
        raise WorkerError(f"trainable {code.short}: {type(error).__name__}: {error}{raised_at(error)}") from error
