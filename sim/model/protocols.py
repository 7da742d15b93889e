"""The seams: protocols of policy and backend, and of what each is given. Imports only the standard library and numpy."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

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
    """A hyperparameter that may change while its trial trains. Policies that explore are given them with the job."""

    def sample(self, rng: np.random.Generator) -> float | int | str:
        """A value drawn as for a new trial."""

    def scaled(self, value: Value, factor: float) -> float | int | str:
        """The allowed value nearest to `factor` times this one; a value that is not a number stays as it is.

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
    """Nothing new starts on it: fewer machines are wanted, or its provider takes it back. Released when its last gang ends."""
    RELEASING = "releasing"


class TrialView(Protocol):
    """What is known of one trial."""

    @property
    def status(self) -> TrialStatus:
        """Where it is."""

    @property
    def iteration(self) -> int:
        """Completed iterations on the current path; work done again counts once."""

    @property
    def score(self) -> float | None:
        """Score at `iteration`; None before the first iteration and where the trial diverged."""

    @property
    def checkpoint_iteration(self) -> int:
        """Durable iterations; the next segment continues from there."""

    @property
    def checkpoint_score(self) -> float | None:
        """The last known durable score: at `checkpoint_iteration`, or at an earlier one where that score is unknown."""

    @property
    def gpus(self) -> int:
        """GPUs it holds now."""

    @property
    def configuration(self) -> Configuration | None:
        """Its hyperparameters, from TrialSampled or CloneTrial; None in the simulated world."""

    @property
    def cloned_from(self) -> TrialId | None:
        """The trial whose checkpoint it still borrows, for a clone that has saved none of its own; None for all others."""


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
        """When its provider takes it back; infinite before the notice. Nothing new starts on it after the notice."""

    @property
    def gpus(self) -> int:
        """GPUs it has."""

    @property
    def free_gpus(self) -> int:
        """GPUs on it that no gang holds."""


class RunView(Protocol):
    """What a policy may look at: read-only, as of the event that it is handling."""

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

    def committed_usd_by(self, later_s: float, added_usd_per_hour: float = 0.0) -> float:
        """`committed_usd` at a later time if nothing ends before.

        Args:
            later_s: the time.
            added_usd_per_hour: price of what is about to be requested or started, and is billed from now on.
        """

    def committed_until_s(
        self, budget_usd: float, added_usd_per_hour: float = 0.0, latest_s: float = math.inf, rounding_usd: float = 0.0
    ) -> float:
        """Latest time at which giving back all current leases keeps the bill within the budget; may be infinite.

        Args:
            budget_usd: the budget.
            added_usd_per_hour: price of what is about to be requested or started, and is billed from now on.
            latest_s: later times do not matter and are this one, which saves the search where the budget lasts until then.
            rounding_usd: how far the bill may be above the budget because floats are rounded.
        """

    def trial(self, trial: TrialId) -> TrialView:
        """One trial."""

    def started_trials(self) -> Iterable[TrialId]:
        """Trials that have run at some time, in order of their first start."""


class Policy(Protocol):
    """Decides. It sees events and returns actions; it knows no clock, queue, process or GPU index."""

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """Handle an event; return the actions in the order in which they are to be applied."""


class PlannedWork(NamedTuple):
    """What a policy has set out to train, and whether all of that is done.

    Attributes:
        target_iteration: iterations in all to which it trains its answer; None for R.
        done_at_s: when all training that it had planned was durable; None before, and for ever where some was left out.
        late_probability: that the plan it began with ends after the deadline; None where it has no estimate.
        search_gap: share of its price that this plan may lose by what its search counted and did not follow; 0 for nothing.
        left_out: what that search did not weigh, in words; empty for nothing.
    """

    target_iteration: int | None = None
    done_at_s: float | None = None
    late_probability: float | None = None
    search_gap: float = 0.0
    left_out: str = ""


@runtime_checkable
class TellsWork(Protocol):
    """A policy that says what it has set out to do. Policies need not."""

    @property
    def work(self) -> PlannedWork:
        """As of the last event."""


class Backend(Protocol):
    """Carries out commands, in simulation or for real."""

    def perform(self, command: Command) -> None:
        """Take a command. Never blocks; the outcome arrives as an event."""

    def next_event(self) -> Event | None:
        """Wait for the next event, or jump to it. None when nothing can happen any more."""

    def close(self) -> None:
        """Free everything."""


class ConfigurationSource(Protocol):
    """Gives the configurations of a real run: from a table, or from a sampler that learns from results."""

    def configuration_of(self, trial: TrialId) -> Configuration:
        """The configuration of a trial that starts for the first time; called once per trial."""

    def remember(self, trial: TrialId, configuration: Configuration) -> None:
        """In a resumed run: the trial already has this configuration."""

    def hear(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """Take a result of a trial that trains with a configuration of this source; results of clones are left out.

        The same iteration may come again when it was done again.
        """


PolicyFactory: TypeAlias = "Callable[[TuningJob, Profile, PriceBook, np.random.Generator], Policy]"
"""Builds a policy for a job; the policy's own parameters are already bound."""


class Trainable(Protocol):
    """One configuration that can be trained, whatever trains it."""

    def train_iteration(self) -> None:
        """Do one iteration of training."""

    def evaluate(self) -> float:
        """Validation score after the iterations done so far; may be NaN where training diverged."""

    def save(self, path: Path) -> None:
        """Write everything that is needed to continue, atomically."""

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote; never runs code from the file."""
