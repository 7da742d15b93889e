"""What a tuner with barriers decides: its brackets, what their stages get, and what may change within one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from elastune.policies.planning.plan import Allocation
    from elastune.policies.rules.halving import Bracket
    from elastune.sim.model.events import (
        ProgressReported,
        SegmentEnded,
    )
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.protocols import RunView


@dataclass(frozen=True)
class Shares:
    """What a stage gets.

    Attributes:
        instances: machines to hold.
        gpus: (trials,) size of each trial's gang, best trial first; trials without a share are dropped.
        most_gpus: GPUs that train at the same time; None for all.
    """

    instances: int
    gpus: tuple[int, ...]
    most_gpus: int | None = None

    @classmethod
    def of(cls, allocation: Allocation) -> Shares:
        """The same gang for each trial, so many at a time."""
        size = allocation.gpus_per_trial
        return cls(allocation.instances, (size,) * allocation.trials, allocation.gangs * size)


class Director(Protocol):
    """Decides which bracket comes next and what each stage gets. All other methods have a default that changes nothing."""

    def next_bracket(self, view: RunView, stop_at_s: float) -> Bracket | None:
        """A bracket of new trials; None if nothing more is to be started.

        Args:
            view: the run.
            stop_at_s: when it ends at the latest, as known now.
        """

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:
        """What the stage that begins gets; may change the stages after it."""

    def target_iteration(self, bracket: Bracket) -> int:
        """Iterations in all to which the answer is to be trained, as planned for the stage that begins."""
        return bracket.stages[-1].until_iteration

    def planned_trials(self, bracket: Bracket) -> int:
        """How many trials the plan so far has for the stage that begins; asked before `shares`, which may change the plan."""
        return bracket.stage.trials

    def prefetch(self, bracket: Bracket) -> tuple[float, int] | None:  # noqa: ARG002
        """Machines to request during the stage that begins: (seconds from now, how many to hold then)."""
        return None

    def prefetched(self, bracket: Bracket, instances: int, view: RunView) -> int:  # noqa: ARG002
        """How many of these machines, which `prefetch` has asked for, are requested now that it is time."""
        return instances

    def report_every(self, bracket: Bracket) -> int:  # noqa: ARG002
        """Iterations between the reports of a trial; 0 for none."""
        return 0

    def begun(self, trial: TrialId, gpus: int, view: RunView) -> None:  # noqa: ARG002
        """A segment of this trial starts on so many GPUs."""
        return

    def observe(self, event: SegmentEnded, gpus: int, iterations: int) -> None:  # noqa: ARG002
        """A segment has ended.

        Args:
            event: the event.
            gpus: of its gang.
            iterations: that it has completed.
        """
        return

    def observe_report(self, event: ProgressReported, gpus: int) -> None:  # noqa: ARG002
        """A segment has reported."""
        return

    def cut_at_s(self, bracket: Bracket, view: RunView) -> float | None:  # noqa: ARG002
        """When to end the stage under way although trials still train; None for never, as far as is known."""
        return None

    def resized(self, bracket: Bracket, trial: TrialId, most_gpus: int, view: RunView) -> int:  # noqa: ARG002
        """The gang of a running trial from now on, between its present one and `most_gpus`."""
        return view.trial(trial).gpus

    def kept_instances(self, bracket: Bracket) -> int | None:  # noqa: ARG002
        """Machines to keep when nothing is left to start in this stage; None for all."""
        return None
