"""The seams: policy, backend, and what each is given. Imports only the standard library and numpy."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from elastune.sim.model.actions import Action
    from elastune.sim.model.commands import Command
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import InstanceId, TrialId
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile

Value: TypeAlias = float | int | str | bool | None
"""What a hyperparameter can be."""

Configuration: TypeAlias = Mapping[str, Value]
"""Hyperparameters by name."""


class Hyperparameter(Protocol):
    """One that may change while its trial trains; whoever knows the search space hands it to policies that explore."""

    def sample(self, rng: np.random.Generator) -> float | int | str:
        """A value drawn as for a new trial."""

    def scaled(self, value: Value, factor: float) -> float | int | str:
        """The value about `factor` times as large, or the nearest that is allowed; a value without size stays as it is.

        Raises:
            InputError: the value cannot be one of this hyperparameter.
        """


class TrialStatus(enum.StrEnum):
    """Where a trial is."""

    IDLE = "idle"
    """Not running: new, paused, or its segment has ended."""
    WAITING = "waiting"
    """A RunTrial waits for its GPUs, or for its own last segment to end."""
    RUNNING = "running"
    ENDING = "ending"
    """Told to end; its GPUs come back with its SegmentEnded."""
    STOPPED = "stopped"
    """Never runs again."""


class InstanceStatus(enum.StrEnum):
    """Where an instance is."""

    REQUESTED = "requested"
    LAUNCHED = "launched"
    READY = "ready"
    DRAINING = "draining"
    """Nothing new starts on it, as fewer are wanted or its provider takes it back; released when its last gang ends."""
    RELEASING = "releasing"


@runtime_checkable
class Scaling(Protocol):
    """Speed-up of one trial by its gang of GPUs (lambda in the papers)."""

    @property
    def max_gpus(self) -> int:
        """The largest gang it is known for."""

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; `speedup(1)` is 1.

        Raises:
            InputError: `gpus` is not between 1 and `max_gpus`.
        """


class TrialView(Protocol):
    """What is known of one trial."""

    @property
    def status(self) -> TrialStatus:
        """Where it is."""

    @property
    def iteration(self) -> int:
        """Iterations known to be completed on the current path (redone work does not count twice)."""

    @property
    def score(self) -> float | None:
        """Score at `iteration`; None where nothing was completed or it diverged."""

    @property
    def checkpoint_iteration(self) -> int:
        """Iterations that are durable; the trial goes on from there."""

    @property
    def checkpoint_score(self) -> float | None:
        """The last known score that is durable: at `checkpoint_iteration`, or below it where that one was never told."""

    @property
    def gpus(self) -> int:
        """GPUs it holds now."""

    @property
    def configuration(self) -> Configuration | None:
        """Its hyperparameters, where they were told (TrialSampled) or asked for (CloneTrial); None in the simulated world."""

    @property
    def cloned_from(self) -> TrialId | None:
        """The trial whose checkpoint it goes on from until it has saved one of its own; None for all others."""


class InstanceView(Protocol):
    """What is known of one instance."""

    @property
    def status(self) -> InstanceStatus:
        """Where it is."""

    @property
    def instance_type(self) -> str:
        """Name of its type."""

    @property
    def market(self) -> str:
        """Market it is rented on."""

    @property
    def gone_at_s(self) -> float:
        """When its provider takes it back, as far as it has said so; infinite before. Nothing new starts on it."""

    @property
    def gpus(self) -> int:
        """GPUs it has."""

    @property
    def free_gpus(self) -> int:
        """GPUs on it that no gang holds."""


class RunView(Protocol):
    """What a policy may look at: read-only, and true at the time of the event it was called for."""

    @property
    def now_s(self) -> float:
        """Time of the event being handled."""

    @property
    def job(self) -> TuningJob:
        """The job."""

    @property
    def free_gpus(self) -> int:
        """GPUs of ready instances that are neither held nor claimed by a waiting RunTrial."""

    @property
    def ready_gpus(self) -> int:
        """GPUs of all ready instances, held or not."""

    @property
    def target_instances(self) -> int:
        """Instances that the ScaleTo actions so far ask for."""

    @property
    def instances(self) -> Mapping[InstanceId, InstanceView]:
        """The live ones, by number; requested and draining ones included."""

    @property
    def running_trials(self) -> int:
        """Trials that hold GPUs."""

    @property
    def spent_usd(self) -> float:
        """The bill so far."""

    @property
    def committed_usd(self) -> float:
        """The bill if every live lease were given back now, its minimum charge, quantum and release latency included."""

    def committed_until_s(self, budget_usd: float, added_usd_per_hour: float = 0.0) -> float:
        """The last time the leases held now can be given back with a bill within the budget; may be infinite.

        Args:
            budget_usd: the budget.
            added_usd_per_hour: of what is about to be asked for and is billed from then on.
        """

    def trial(self, trial: TrialId) -> TrialView:
        """One trial."""

    def started_trials(self) -> Iterable[TrialId]:
        """Trials that have run at some time, in order of their first start."""


class Policy(Protocol):
    """Decides. Sees events, answers with actions; knows no clock, queue, process or GPU index."""

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """What it asks for, in order, now that this has happened."""


class Backend(Protocol):
    """Carries orders out, in simulation or for real."""

    def perform(self, command: Command) -> None:
        """Take an order; never blocks, its outcome arrives as an event."""

    def next_event(self) -> Event | None:
        """The next event; waits for it or jumps to it. None: nothing can happen any more."""

    def close(self) -> None:
        """Free everything."""


class ConfigurationSource(Protocol):
    """Says what the trials of a real run train with: from a table, or from a sampler that learns from what it hears."""

    def configuration_of(self, trial: TrialId) -> Configuration:
        """The configuration of a trial that starts for the first time; asked once for each."""

    def remember(self, trial: TrialId, configuration: Configuration) -> None:
        """A resumed run: the trial has got this configuration before."""

    def hear(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """A result of a trial that trains with what this source has said; those of clones are not told.

        The same iteration may come again, when it was done again.
        """


PolicyFactory: TypeAlias = "Callable[[TuningJob, Profile, PriceBook, np.random.Generator], Policy]"
"""Builds a policy for a job; parameters of the policy are bound before."""


class Trainable(Protocol):
    """One configuration that can be trained, whatever trains it."""

    def train_iteration(self) -> None:
        """Do one iteration of training."""

    def evaluate(self) -> float:
        """Validation score after the iterations done so far; may be NaN where training diverged."""

    def save(self, path: Path) -> None:
        """Write everything needed to go on, atomically."""

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote; never runs code from the file."""
