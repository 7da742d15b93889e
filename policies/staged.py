"""Running a bracket stage by stage, each on an allocation of its own: the executor that SHA, RubberBand and SEER share [ours].

What differs between them is the `Allocator`: how many GPUs a stage gets and how many of its trials survive.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from policies.halving import Bracket
from policies.limits import live_instances
from sim.model.actions import FinishRun, PauseTrial, SetTimer, StopTrial
from sim.model.events import InstanceReady, InstanceRefused, Outcome, RunStarted, SegmentEnded, TimerFired
from sim.model.ids import TrialId
from sim.model.protocols import TrialStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.halving import Stage
    from policies.limits import Limits
    from policies.planning.plan import Allocation
    from sim.model.actions import Action, RunTrial
    from sim.model.events import Event
    from sim.model.job import TuningJob
    from sim.model.profile import Profile
    from sim.model.protocols import RunView

BARRIER = "barrier"
PREFETCH = "prefetch"


class Allocator(Protocol):
    """Decides what a stage gets, when it begins."""

    def allocate(self, bracket: Bracket, view: RunView) -> Allocation:
        """The allocation of the stage that begins; may name fewer trials than survived."""

    def prefetch(self, bracket: Bracket) -> tuple[float, int] | None:
        """Machines to be asked for during the stage that begins: (seconds from now, how many to hold then)."""

    def observe(self, event: SegmentEnded, gpus: int, iterations: int) -> None:
        """A segment has ended: what it took, for allocators that learn.

        Args:
            event: the fact.
            gpus: GPUs of its gang.
            iterations: iterations it was to do.
        """


class StagedPolicy:
    """Successive halving with a barrier after each stage.

    A stage's trials share its GPUs evenly, `allocation.gangs` at a time; the barrier takes `profile.sync_s`, then the
    cluster is resized and the survivors go on. A trial whose segment failed goes on from its checkpoint.

    Args:
        holds: keep the machines until the limit although the work is done.
    """

    def __init__(
        self,
        job: TuningJob,
        profile: Profile,
        stages: Sequence[Stage],
        allocator: Allocator,
        limits: Limits,
        *,
        holds: bool = False,
    ) -> None:
        trials = [TrialId(number) for number in range(stages[0].trials)]
        self._bracket = Bracket(stages, trials, job.direction)
        self._sync_s = profile.sync_s
        self._allocator = allocator
        self._limits = limits
        self._holds = holds
        self._allocation: Allocation
        self._prefetched_instances = 0
        self._queue: deque[TrialId] = deque()
        self._started: dict[TrialId, tuple[int, int]] = {}  # checkpoint they started from, and size of their gang

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        limiting = self._limits.on_event(event, view)
        if isinstance(event, SegmentEnded):
            self._settle(event)
        if self._limits.is_stopping:
            return limiting
        match event:
            case RunStarted():
                return self._begin_stage(view)
            case SegmentEnded():
                return (*limiting, *self._after_segment(view))
            case InstanceReady() if self._queue:
                return (*limiting, *self._fill(view, self._allocation.gangs - len(self._started)))
            case InstanceRefused():
                return self._make_do(view, limiting)
            case TimerFired(tag=tag) if tag == BARRIER:
                return self._next_stage(view)
            case TimerFired(tag=tag) if tag == self._prefetch_tag and self._prefetched_instances:
                return self._limits.scale_to(view, self._prefetched_instances)[1]
        return limiting

    def _make_do(self, view: RunView, limiting: Sequence[Action]) -> Sequence[Action]:
        """The provider has no more machines: gangs that no longer fit are made smaller."""
        allocation = self._allocation
        whole = allocation.gpus_per_instance
        gpus = live_instances(view) * whole
        if gpus >= allocation.gpus_per_trial:
            return limiting
        size = max(size for size in range(1, gpus + 1) if whole % size == 0 or size % whole == 0)
        self._allocation = replace(allocation, gpus=gpus, gpus_per_trial=size)
        waiting = [trial for trial in self._started if view.trial(trial).status is TrialStatus.WAITING]
        for trial in waiting:
            del self._started[trial]
        self._queue.extendleft(reversed(waiting))
        smaller = self._fill(view, self._allocation.gangs - len(self._started))
        return (*(PauseTrial(trial) for trial in waiting), *limiting, *smaller)

    def _settle(self, event: SegmentEnded) -> None:
        from_iteration, gpus = self._started.pop(event.trial)
        self._allocator.observe(event, gpus, self._bracket.stage.until_iteration - from_iteration)
        if event.outcome is Outcome.COMPLETED:
            self._bracket.record(event.trial, event.score)
        else:
            self._queue.appendleft(event.trial)

    def _after_segment(self, view: RunView) -> Sequence[Action]:
        if self._bracket.is_stage_complete:
            if self._bracket.is_last:
                return self._finish(view)
            if self._sync_s > 0:
                return (SetTimer(BARRIER, view.now_s + self._sync_s),)
            return self._next_stage(view)
        started = self._fill(view, self._allocation.gangs - len(self._started))
        if not started and not self._started:
            return self._limits.stop(view)
        return started

    def _next_stage(self, view: RunView) -> Sequence[Action]:
        dropped = self._bracket.advance()
        return (*(StopTrial(trial) for trial in dropped), *self._begin_stage(view))

    def _begin_stage(self, view: RunView) -> Sequence[Action]:
        allocation = self._allocator.allocate(self._bracket, view)
        self._allocation = allocation
        late = self._bracket.drop(allocation.trials) if allocation.trials < len(self._bracket.trials) else []
        stopped = tuple(StopTrial(trial) for trial in late if view.trial(trial).iteration)
        instances, scaling = self._limits.scale_to(view, allocation.instances)
        if instances * allocation.gpus_per_instance < allocation.gpus_per_trial:
            return self._limits.stop(view)
        self._queue.extend(self._bracket.trials)
        started = self._fill(view, allocation.gangs)
        if not started:
            return self._limits.stop(view)
        return (*stopped, *scaling, *started, *self._plan_prefetch(view))

    def _plan_prefetch(self, view: RunView) -> Sequence[Action]:
        prefetch = self._allocator.prefetch(self._bracket)
        if prefetch is None:
            self._prefetched_instances = 0
            return ()
        after_s, self._prefetched_instances = prefetch
        return (SetTimer(self._prefetch_tag, view.now_s + after_s),)

    @property
    def _prefetch_tag(self) -> str:
        """A timer of a stage that ended early must not fire for the next one."""
        return f"{PREFETCH}-{self._bracket.index}"

    def _fill(self, view: RunView, gangs: int) -> Sequence[Action]:
        """Start up to this many of the queued trials; what no longer fits before the limit stays where it is."""
        actions: list[RunTrial] = []
        stage, allocation = self._bracket.stage, self._allocation
        for trial in self._queue:
            if len(actions) >= gangs:
                break
            wish = self._limits.run(view, trial, allocation.gpus_per_trial, stage.until_iteration)
            if wish is not None:
                self._started[trial] = (view.trial(trial).checkpoint_iteration, allocation.gpus_per_trial)
                actions.append(wish)
        for wish in actions:
            self._queue.remove(wish.trial)
        return actions

    def _finish(self, view: RunView) -> Sequence[Action]:
        return () if self._holds else (FinishRun(self._limits.best(view)),)
