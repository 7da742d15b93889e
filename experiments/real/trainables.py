"""Trials that the workers of a real run build: some train, others wait as long as in the simulated world.

May import `sim.bridge`, `sim.simulated.truth` and `traces`. Both factories can be pickled; the worker does the heavy imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import CloudTruth, GroundTruth
from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from elastune.sim.bridge.workers.emulated import EmulatedTrial
    from elastune.sim.bridge.workers.worker import Assignment, Device
    from elastune.traces.bundles.bundle import Bundle
    from elastune.traces.bundles.constraints import Constraint
    from elastune.traces.workloads import BatchMode, ScoredTrainable, Workload


@dataclass(frozen=True)
class WorkloadTrainables:
    """Real training of a workload.

    Attributes:
        workload: its name, where it ships.
        seed: of weights and data order, together with the number of each trial.
        numbers: by trial of the run, its number in the seed; None for the same number.
        batch: whether the batch size of a configuration is that of the worker group or of each worker.
        constraint: of the job, which makes one score of all that is measured.
    """

    workload: str | Workload
    seed: int
    numbers: tuple[int, ...] | None = None
    batch: BatchMode = "global"
    constraint: Constraint | None = None

    @property
    def needs_process_group(self) -> bool:
        """Whether the members of a gang train together."""
        return isinstance(self.workload, str) or self.workload.trains_in_gangs

    @classmethod
    def of_own(cls, workload: Workload, bundle: Bundle, trials: int, seed: int) -> WorkloadTrainables:
        """The trials that a run draws from a bundle, trained by code of the user's own; as profiled, where it was.

        Raises:
            InputError: the bundle has other hyperparameters than the search space.
        """
        for configuration in bundle.drawn_configurations(trials, seed):
            try:
                workload.search_space.require(configuration)
            except InputError as error:
                raise InputError(
                    f"bundle {bundle.name} was not recorded with workload.space: {error}; profile it, or draw anew"
                    " (workload.configurations: search-space)"
                ) from error
        profiled_with = bundle.notes.get("seed")
        if not isinstance(profiled_with, int):
            return cls(workload, seed)
        return cls(workload, profiled_with, tuple(bundle.draw(trials, seed).tolist()))

    @classmethod
    def of_bundle(cls, bundle: Bundle, trials: int, seed: int, batch: BatchMode = "global") -> WorkloadTrainables:
        """The trials that a run draws from a profile, each trained as when it was profiled.

        Args:
            bundle: the profile of a workload.
            trials: of the run.
            seed: of the run, which decides the draw.
            batch: as the attribute.

        Raises:
            InputError: the bundle is not a profile of a workload, or has fewer trials.
        """
        profiled_with = seed_of_profile(bundle)
        return cls(bundle.name, profiled_with, tuple(bundle.draw(trials, seed).tolist()), batch)

    def __call__(self, assignment: Assignment, device: Device) -> ScoredTrainable:
        """The trial before its first iteration, on this member of its worker group."""
        from elastune.traces.workloads import Seat, training_seed, workload_named

        number = assignment.trial if self.numbers is None else self.numbers[assignment.trial]
        seat = Seat(assignment.rank, assignment.size, self.batch, device)
        workload = workload_named(self.workload) if isinstance(self.workload, str) else self.workload
        trial = workload.build(assignment.configuration, training_seed(self.seed, number), seat)
        return trial if self.constraint is None else _BoundedTrial(trial, self.constraint)


def seed_of_profile(bundle: Bundle) -> int:
    """The seed with which a workload that ships was profiled.

    Raises:
        InputError: the bundle is not a profile of one.
    """
    from elastune.traces.workloads import WORKLOAD_NAMES

    profiled_with = bundle.notes.get("seed")
    if bundle.name not in WORKLOAD_NAMES or not isinstance(profiled_with, int):
        raise InputError(
            f"bundle {bundle.name} cannot be trained for real: it is no profile of one of {', '.join(WORKLOAD_NAMES)};"
            " name training code of your own (workload.trainable, workload.space)"
        )
    return profiled_with


@dataclass(frozen=True)
class _BoundedTrial:
    """A trial whose scores are those of a job with a constraint."""

    trained: ScoredTrainable
    constraint: Constraint

    def train_iteration(self) -> None:
        self.trained.train_iteration()

    def evaluate(self) -> float:
        return float(self.constraint.score(self.trained.evaluate(), self.trained.measures()))

    def test_score(self) -> float:
        return float(self.constraint.score(self.trained.test_score(), self.trained.measures()))

    def measures(self) -> Mapping[str, float]:
        return self.trained.measures()

    def save(self, path: Path) -> None:
        self.trained.save(path)

    def load(self, path: Path) -> None:
        self.trained.load(path)


@dataclass(frozen=True, eq=False)
class EmulatedTrainables:
    """Trials with the durations and scores of the simulated world with the same seed.

    Attributes:
        truth: of that world.
        seed: of that run.
        speed: seconds of the run that pass in one second of the wall clock.
    """

    needs_process_group: ClassVar[bool] = False

    truth: GroundTruth
    seed: int
    speed: float = 1.0

    def __call__(self, assignment: Assignment, device: Device) -> EmulatedTrial:  # noqa: ARG002  # it trains on none
        """The trial on its worker group, after its start-up."""
        from elastune.sim.bridge.workers.emulated import EmulatedTrial, Emulation
        from elastune.sim.simulated.truth import Draws

        draws, timings = Draws(self.truth, CloudTruth(), Streams(self.seed)), self.truth.timings
        iteration_s = draws.iteration_s(assignment.trial, assignment.size, assignment.nodes)
        return EmulatedTrial(
            Emulation(
                iteration_s=iteration_s * draws.slowness(assignment.trial, assignment.size),
                scores=self.truth.scores[assignment.trial],
                start_s=timings.launch_s if assignment.restore_from is None else timings.resume_s,
                checkpoint_s=timings.checkpoint_s,
                speed=self.speed,
            )
        )
