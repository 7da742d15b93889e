"""Running brackets one after the other, each trial of a stage on a gang of its own size [ours].

What differs between the tuners on it is the `Director`: Hyperband, ElasticFlow's rule.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from policies.limits import live_instances
from sim.model.actions import FinishRun, SetTimer, StopTrial
from sim.model.events import InstanceGone, InstanceReady, InstanceRefused, RunStarted, SegmentEnded, TimerFired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.halving import Bracket
    from policies.limits import Limits
    from sim.model.actions import Action
    from sim.model.events import Event
    from sim.model.ids import TrialId
    from sim.model.protocols import RunView

BARRIER = "barrier"


@dataclass(frozen=True)
class Shares:
    """What a stage gets.

    Attributes:
        instances: machines to hold.
        gpus: (trials,) size of each trial's gang, best trial first; those without a share are dropped.
    """

    instances: int
    gpus: tuple[int, ...]


class Director(Protocol):
    """Decides which bracket comes next, and what each of its stages gets."""

    def next_bracket(self, view: RunView, stop_at_s: float) -> Bracket | None:
        """A bracket of new trials; None where nothing more is to be started.

        Args:
            view: the run.
            stop_at_s: when it ends at the latest, as known now.
        """

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:
        """What the stage that begins gets."""


class BracketsPolicy:
    """Successive halving with a barrier after each stage; see `Director`.

    Args:
        limits: of the run.
        sync_s: seconds a barrier takes.
        gpus_per_instance: of the machines.
    """

    def __init__(self, director: Director, limits: Limits, *, sync_s: float, gpus_per_instance: int) -> None:
        self._director = director
        self._limits = limits
        self._sync_s = sync_s
        self._gpus_per_instance = gpus_per_instance
        self._bracket: Bracket
        self._queue: deque[TrialId] = deque()
        self._gpus: dict[TrialId, int] = {}
        self._training: dict[TrialId, int] = {}

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        limiting = self._limits.on_event(event, view)
        if isinstance(event, SegmentEnded):
            self._settle(event)
        if self._limits.is_stopping:
            return limiting
        match event:
            case RunStarted():
                return self._next_bracket(view)
            case SegmentEnded():
                return (*limiting, *self._after_segment(view))
            case InstanceReady() | InstanceGone() | InstanceRefused():
                return (*limiting, *self._fill(view))
            case TimerFired(tag=tag) if tag == BARRIER:
                return self._next_stage(view)
        return limiting

    def _settle(self, event: SegmentEnded) -> None:
        del self._training[event.trial]
        if event.checkpoint_iteration >= self._bracket.stage.until_iteration:
            self._bracket.record(event.trial, event.score)
        else:
            self._queue.appendleft(event.trial)

    def _after_segment(self, view: RunView) -> Sequence[Action]:
        if self._bracket.is_stage_complete:
            if self._bracket.is_last:
                return self._next_bracket(view)
            if self._sync_s > 0:
                return (SetTimer(BARRIER, view.now_s + self._sync_s),)
            return self._next_stage(view)
        return self._fill(view)

    def _next_bracket(self, view: RunView) -> Sequence[Action]:
        bracket = self._director.next_bracket(view, self._limits.stop_at_s)
        if bracket is None:
            return (FinishRun(self._limits.best(view)),)
        self._bracket = bracket
        return self._begin_stage(view)

    def _next_stage(self, view: RunView) -> Sequence[Action]:
        dropped = self._bracket.advance()
        return (*(StopTrial(trial) for trial in dropped), *self._begin_stage(view))

    def _begin_stage(self, view: RunView) -> Sequence[Action]:
        shares = self._director.shares(self._bracket, view, self._limits.stop_at_s)
        late = self._bracket.drop(len(shares.gpus))
        stopped = tuple(StopTrial(trial) for trial in late if view.trial(trial).iteration)
        instances, scaling = self._limits.scale_to(view, shares.instances)
        if not instances:
            return self._limits.stop(view)
        self._gpus = dict(zip(self._bracket.trials, shares.gpus, strict=True))
        self._queue.extend(self._bracket.trials)
        return (*stopped, *scaling, *self._fill(view, instances))

    def _fill(self, view: RunView, instances: int | None = None) -> Sequence[Action]:
        """Start queued trials on the GPUs that are free; stop where nothing fits before the limit any more.

        Gangs wait here and not in the controller, so that they can still become smaller where machines are refused.
        """
        held = live_instances(view) if instances is None else instances
        capacity = held * self._gpus_per_instance
        free = min(capacity - sum(self._training.values()), view.free_gpus)
        actions: list[Action] = []
        while self._queue:
            trial = self._queue[0]
            gpus = min(self._gpus[trial], capacity)
            if not 0 < gpus <= free:
                break
            wish = self._limits.run(view, trial, gpus, self._bracket.stage.until_iteration)
            if wish is None:
                return actions if self._training else self._limits.stop(view)
            self._queue.popleft()
            self._training[trial] = gpus
            free -= gpus
            actions.append(wish)
        return actions
