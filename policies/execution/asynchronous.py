"""Running a rule without barriers: whenever the GPUs of a gang are free, ask the rule what comes next [ours].

What differs between the tuners on it is the `Rule`: ASHA that promotes, ASHA that stops, PASHA, PBT.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from elastune.policies.execution.limits import Limits, live_instances
from elastune.sim.model.actions import Action, CloneTrial, StopTrial
from elastune.sim.model.events import (
    Event,
    InstanceGone,
    InstanceReady,
    InstanceRefused,
    ProgressReported,
    RunStarted,
    SegmentEnded,
)
from elastune.sim.model.ids import TrialId
from elastune.sim.model.protocols import InstanceStatus, PlannedWork, RunView, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Task(msgspec.Struct, frozen=True, gc=False):  # made for each segment; a named tuple takes three times as long
    """What a gang is to do next.

    Attributes:
        until_iteration: iterations of the trial in all when it is done.
        report_every: iterations between reports to the rule; 0 for the end only.
        clone: makes the trial go on from another trial's checkpoint; None for its own.
    """

    trial: TrialId
    until_iteration: int
    report_every: int = 0
    clone: CloneTrial | None = None


class Rule(Protocol):
    """Decides who trains, and how far."""

    def next_task(self) -> Task | None:
        """What a free gang does; None if there is nothing to do now."""

    def last_resort(self) -> Task | None:
        """What is still worth doing when nothing runs and `next_task` has nothing."""

    def reached(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """A task is done."""

    def reported(self, trial: TrialId, iteration: int, score: float | None) -> bool:
        """A task is under way: whether it goes on. After a failure it may report the same iteration again."""


class Admission(NamedTuple):
    """Which tasks an elastic cluster takes on.

    Attributes:
        lasts_s: (iterations, whether the trial is new) -> expected seconds.
    """

    lasts_s: Callable[[int, bool], float]


def _stands_at(task: Task, view: RunView) -> int:
    """Iterations of the checkpoint that the task goes on from."""
    clone = task.clone
    return view.trial(task.trial if clone is None else clone.source).checkpoint_iteration


class AsynchronousPolicy:
    """Runs a rule on gangs of one size. A task whose segment failed goes on from its checkpoint.

    Args:
        rule: decides.
        limits: of the run.
        instances: machines to begin with.
        gpus_per_trial: size of the gangs.
        min_gpus: least gang, because of memory; if the provider has too few machines, gangs shrink to it.
        gpus_per_instance: of the machines.
        admission: start only tasks that end before the limit, and give idle machines back; None for a fixed cluster, which
            starts every task that can make one iteration durable.
        holds: keep the machines until the limit even if the work is done.
    """

    def __init__(
        self,
        rule: Rule,
        limits: Limits,
        *,
        instances: int,
        gpus_per_trial: int = 1,
        min_gpus: int = 1,
        gpus_per_instance: int = 1,
        admission: Admission | None = None,
        holds: bool = False,
    ) -> None:
        self._rule = rule
        self._limits = limits
        self._instances = instances
        self._gang = gpus_per_trial
        self._least_gang = min_gpus
        self._gpus_per_instance = gpus_per_instance
        self._admission = admission
        self._holds = holds
        self._tasks: dict[TrialId, Task] = {}
        self._returned: list[Task] = []
        self._declined: list[Task] = []
        self._declined_until_s = 0.0
        self._done_at_s: float | None = None

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        limits = self._limits
        limiting = limits.on_event(event, view)
        if type(event) is SegmentEnded:  # nearly all events of a long run
            self._settle(event, view)
        else:
            match event:
                case RunStarted():
                    return self._begin(view)
                case ProgressReported():
                    return limiting if limiting or limits.is_stopping else self._judge(event)
                case InstanceReady():
                    pass
                case InstanceGone() | InstanceRefused():
                    # Fewer machines are held than were requested, or the budget lasts longer.
                    pass
                case _:
                    return limiting
        if limits.is_stopping:
            return limiting
        filled = self._fill(view)
        return (*limiting, *filled, *limits.rearm(view)) if limiting or limits.meters_functions else filled

    @property
    def work(self) -> PlannedWork:
        """Done when the rule has nothing more to train, if every task that it gave was done."""
        return PlannedWork(done_at_s=self._done_at_s)

    def _begin(self, view: RunView) -> Sequence[Action]:
        instances, scaling = self._limits.scale_to(view, self._instances)
        return scaling if instances * self._gpus_per_instance >= self._gang else self._limits.stop(view)

    def _judge(self, event: ProgressReported) -> Sequence[Action]:
        goes_on = self._rule.reported(event.trial, event.iteration, event.score)
        return () if goes_on else (StopTrial(event.trial),)

    def _settle(self, event: SegmentEnded, view: RunView) -> None:
        task = self._tasks.pop(event.trial)
        if event.checkpoint_iteration >= task.until_iteration:
            self._rule.reached(event.trial, event.iteration, event.score)
        elif view.trial(event.trial).status is not TrialStatus.STOPPED:
            self._returned.append(msgspec.structs.replace(task, clone=None))  # it has become one

    def _fill(self, view: RunView) -> Sequence[Action]:
        """Work for every free gang; the end of the run if there is none and nothing runs."""
        self._reconsider(view)
        actions: list[Action] = []
        limits = self._limits
        gang = self._gang_held(view)
        for _ in range(view.free_gpus // gang):
            task = self._next_admitted(view, is_idle=not actions and not view.running_trials)
            if task is None:
                break
            action = limits.run(view, task.trial, gang, task.until_iteration, stands_at=_stands_at(task, view))
            if action is None:
                self._returned.append(task)
                break
            self._tasks[task.trial] = task
            if task.clone is not None:
                actions.append(task.clone)
            if task.report_every and not action.report_every:
                action = msgspec.structs.replace(action, report_every=task.report_every)
            actions.append(action)
        if actions or view.free_gpus < gang:
            return actions
        shrinking = self._shrink(view)
        is_left_out = self._returned or self._declined
        if not (view.running_trials or is_left_out or self._done_at_s is not None):
            self._done_at_s = view.now_s
        if shrinking or view.running_trials or self._holds:
            return shrinking
        return self._limits.finish(view)

    def _gang_held(self, view: RunView) -> int:
        """The gang's size, or as many GPUs as the machines held have, but at least what the memory needs."""
        if self._gang <= self._gpus_per_instance:
            return max(self._gang, self._least_gang)  # on any machine; counting them for each segment takes long
        return max(min(self._gang, max(live_instances(view), 1) * self._gpus_per_instance), self._least_gang)

    def _next_admitted(self, view: RunView, *, is_idle: bool) -> Task | None:
        while True:
            task = self._returned.pop() if self._returned else self._rule.next_task()
            if task is None and is_idle and not self._declined:
                task = self._rule.last_resort()
            if task is None or self._admission is None or self._is_admitted(task, view, self._admission):
                return task
            self._declined.append(task)

    def _is_admitted(self, task: Task, view: RunView, admission: Admission) -> bool:
        done = _stands_at(task, view)
        lasts_s = admission.lasts_s(task.until_iteration - done, done == 0)
        return self._limits.has_time(view, self._gang_held(view), lasts_s)

    def _reconsider(self, view: RunView) -> None:
        """With fewer machines, or fewer segments where those are billed, the budget lasts longer: what was declined may fit."""
        if self._declined:
            lasts_longer = self._limits.stop_at_s > self._declined_until_s
            if lasts_longer or (self._limits.meters_functions and not view.running_trials):
                self._returned += reversed(self._declined)
                self._declined.clear()
        self._declined_until_s = self._limits.stop_at_s

    def _shrink(self, view: RunView) -> Sequence[Action]:
        """Give idle machines back. If tasks were declined and nothing runs, keep the machines of one gang for them."""
        if self._admission is None:
            return ()
        # Work on a machine that is about to be taken back needs another one afterwards.
        held = [i for i in view.instances.values() if i.status is not InstanceStatus.RELEASING]
        kept = len(held) - sum(i.free_gpus == i.gpus and i.status is not InstanceStatus.DRAINING for i in held)
        if not view.running_trials:
            if not self._declined:
                return ()
            kept = math.ceil(self._gang / self._gpus_per_instance)
        return self._limits.scale_to(view, kept)[1] if kept < live_instances(view) else ()
