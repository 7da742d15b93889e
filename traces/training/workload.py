"""What describes a workload that is really trained. Imports the pure core only; torch comes with `Workload.build`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from elastune.sim.model.errors import InputError
from elastune.sim.model.protocols import Configuration, Trainable
from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from elastune.sim.model.job import Direction
    from elastune.traces.training.search_space import SearchSpace


class ScoredTrainable(Trainable, Protocol):
    """A trainable that also knows its score on data that no decision may look at."""

    def test_score(self) -> float:
        """Score on the test split, in the same unit as `evaluate`; NaN where training diverged."""

    def measures(self) -> Mapping[str, float]:
        """By name, what else the workload measures on the validation split, such as FLOPs; see `Workload.measures`."""


BatchMode: TypeAlias = Literal["global", "per-worker"]
"""Whether the batch size of a configuration is that of the whole gang (strong scaling), or of each worker (weak)."""


@dataclass(frozen=True)
class Seat:
    """A worker's place in the gang that trains a trial.

    Attributes:
        rank: of this worker, from 0.
        size: workers of the gang. With more than 1, torch.distributed's default group must be this gang.
        batch: what the batch size is of.
        device: `cpu` or `cuda`, the first one that this worker sees.
    """

    rank: int = 0
    size: int = 1
    batch: BatchMode = "global"
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise InputError(f"rank is {self.rank}, but must be from 0 to {self.size - 1} in a gang of {self.size}")


ALONE = Seat()
"""One worker on one processor."""


@dataclass(frozen=True)
class Workload:
    """Something that is really trained, and what its configurations are drawn from.

    Attributes:
        name: what the command line and the bundle call it.
        family: workloads of one family share their configurations.
        description: one sentence for people.
        direction: whether the score is minimised or maximised.
        iteration: what one iteration is, in words.
        score: what the validation score is, in words and with its unit.
        test_score_text: what the test score is, in words.
        search_space: what configurations are drawn from.
        max_iterations: iterations that count as trained, where the user does not say.
        trainable: builds a trial from a configuration, a seed and a seat; a module-level function, so that it can be sent to a
            worker process. It imports torch when it is called, not before.
        data_bytes: size of the data set as its package ships it, looked up when called.
        source: where the data come from.
        licence: of the data.
        adaptable: hyperparameters that may change while a trial trains, as its checkpoints fit whatever they are.
        schedule: learning-rate schedule; `constant`: a shorter run is a prefix of a longer one.
        measures: what is measured beside the score, in words by name; smaller is better.
        trains_in_gangs: whether several workers train a trial together, by torch.distributed.
        repeats_itself: whether a trial that is trained again must have equal scores.
    """

    name: str
    family: str
    description: str
    direction: Direction
    iteration: str
    score: str
    test_score_text: str
    search_space: SearchSpace
    max_iterations: int
    trainable: Callable[[Configuration, int, Seat], ScoredTrainable]
    data_bytes: Callable[[], int]
    source: str
    licence: str
    adaptable: tuple[str, ...] = ()
    schedule: str = "constant"
    measures: Mapping[str, str] = field(default_factory=dict)
    trains_in_gangs: bool = True
    repeats_itself: bool = True

    def build(self, configuration: Configuration, seed: int, seat: Seat = ALONE) -> ScoredTrainable:
        """A trial before its first iteration; equal arguments give equal scores on one machine.

        Args:
            configuration: its hyperparameters.
            seed: of its weights and of the order of its data.
            seat: this worker's, where several train it together; equal in all else among them.

        Raises:
            InputError: the configuration does not name exactly the hyperparameters of the search space, or torch or the
                package with the data is not installed.
        """
        self.search_space.require(configuration)
        try:
            return self.trainable(configuration, seed, seat)
        except ModuleNotFoundError as error:
            raise InputError(f"{self.name} needs {error.name}: pip install 'elastune[bridge]'") from error

    def configuration_of(self, seed: int, trial: int) -> dict[str, float | int | str]:
        """The configuration of trial number `trial` (from 0) of a job with this seed."""
        return self.search_space.sample(Streams(seed).rng(f"configuration {self.name}", trial))


def training_seed(seed: int, trial: int, replicate: int = 0) -> int:
    """The seed of the weights and of the order of the data, for trial number `trial` of a job with this seed.

    Replicates of a trial, counted from 0, differ in this seed alone.
    """
    entity = (trial, replicate) if replicate else (trial,)
    return int(Streams(seed).rng("training", *entity).integers(2**31))
