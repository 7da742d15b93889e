"""The loop of all tuners with barriers: brackets, stage by stage, each trial on a gang of its own size [ours].

What differs between them is the `Director`; see `policies.execution.director`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from elastune.policies.execution.limits import Limits, live_instances
from elastune.policies.rules.margin import MARGIN_S
from elastune.sim.model.actions import Action, PauseTrial, SetTimer, StopTrial
from elastune.sim.model.events import (
    Event,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    RunStarted,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.model.protocols import InstanceStatus, PlannedWork, RunView, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elastune.policies.execution.director import Director
    from elastune.policies.rules.halving import Bracket
    from elastune.sim.model.ids import TrialId

BARRIER = "barrier"
PREFETCH = "prefetch"
CUT = "cut"
_WHOLE = (Outcome.COMPLETED, Outcome.ENDED)
"""Segments that ended after whole iterations, so that their seconds tell how long one takes."""


class _Gang(msgspec.Struct, frozen=True, gc=False):
    gpus: int
    from_iteration: int


class StagedPolicy:
    """Successive halving with a barrier after each stage; see `Director`.

    Trials of a stage start in order as GPUs come free. The barrier takes `sync_s`; then the cluster is resized and the
    survivors go on. A trial whose segment failed goes on from its checkpoint, before other trials. Gangs wait here and not in
    the controller, so that they can become smaller if machines are refused.

    Args:
        director: decides.
        limits: deadline and budget of the run.
        sync_s: seconds that a barrier takes.
        gpus_per_instance: of the machines.
        holds: keep the machines until the limit even if the work is done.
        late_probability: that the plan ends after the deadline, where that is estimated.
        search_gap: what the plan may lose because of what its search left out; see `PlannedWork`.
        left_out: what that is, in words.
    """

    def __init__(
        self,
        director: Director,
        limits: Limits,
        *,
        sync_s: float,
        gpus_per_instance: int,
        holds: bool = False,
        late_probability: float | None = None,
        search_gap: float = 0.0,
        left_out: str = "",
    ) -> None:
        self._director = director
        self._limits = limits
        self._sync_s = sync_s
        self._gpus_per_instance = gpus_per_instance
        self._holds = holds
        self._work = PlannedWork(late_probability=late_probability, search_gap=search_gap, left_out=left_out)
        self._is_whole = True
        self._bracket: Bracket
        self._held = 0
        self._planned = 0
        self._most_gpus: int | None = None
        self._prefetched = 0
        self._begun_stages = 0
        self._cut_at_s = math.inf
        self._queue: deque[TrialId] = deque()
        self._gpus: dict[TrialId, int] = {}
        self._training: dict[TrialId, _Gang] = {}
        self._resizing: dict[TrialId, int] = {}  # GPUs that it will take in addition
        self._leaving: set[TrialId] = set()  # cut, and on their way to a safe point

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        limiting = self._limits.on_event(event, view)
        if isinstance(event, SegmentEnded):
            self._settle(event)
        if self._limits.is_stopping:
            return limiting
        if isinstance(event, ProgressReported):
            return limiting or self._after_report(event, view)
        return (*limiting, *self._answer(event, view), *self._limits.rearm(view))

    @property
    def work(self) -> PlannedWork:
        """Done when the last stage of the last bracket is, if every stage trained all trials that it was to train."""
        return self._work

    def _answer(self, event: Event, view: RunView) -> Sequence[Action]:
        match event:
            case RunStarted():
                return self._next_bracket(view)
            case SegmentEnded():
                return self._after_segment(event, view)
            case InstanceLaunched():
                return self._cut_in_time(view)
            case InstanceReady():
                return self._fill(view)
            case InstanceGone() | InstanceRefused() | ReclaimNoticed():
                self._held = self._limits.wanted_instances
                return self._fill(view)
            case TimerFired():
                return self._on_timer(event.tag, view)
            case _:
                return ()

    def _on_timer(self, tag: str, view: RunView) -> Sequence[Action]:
        if tag == BARRIER:
            return self._next_stage(view)
        if tag == self._tag(PREFETCH):
            wanted = self._director.prefetched(self._bracket, self._prefetched, view)
            if wanted <= self._held:
                return ()
            self._held, scaling = self._limits.scale_to(view, wanted, rungs_left=self._rungs_left)
            return scaling
        if tag == self._tag(CUT):
            return self._cut_in_time(view)
        return ()

    @property
    def _rungs_left(self) -> int:
        """The stage under way and those after it."""
        return len(self._bracket.remaining) + 1

    def _tag(self, name: str) -> str:
        """A timer of a stage that ended early must not fire for the next one."""
        return f"{name}-{self._begun_stages - 1}"

    # Segments.

    def _settle(self, event: SegmentEnded) -> None:
        trial = event.trial
        gang = self._training.pop(trial)
        self._resizing.pop(trial, None)
        iterations = event.iteration - gang.from_iteration
        if iterations and event.outcome in _WHOLE:
            self._director.observe(event, gang.gpus, iterations)
        if trial in self._leaving:
            self._leaving.remove(trial)
        elif event.checkpoint_iteration >= self._bracket.stage.until_iteration:
            self._bracket.record(trial, event.score)
        else:
            self._queue.appendleft(trial)

    def _after_segment(self, event: SegmentEnded, view: RunView) -> Sequence[Action]:
        if event.trial not in self._gpus:
            return self._after_leaving(view)
        if self._bracket.is_stage_complete:
            return self._after_stage(view)
        begun = self._begun_stages
        cut = self._cut_in_time(view) if self._bracket.reports == 1 else ()
        # The cut may have ended the run, or begun the next stage, whose actions the view does not show yet.
        if self._limits.is_stopping or self._begun_stages > begun:
            return cut
        started = self._fill(view)
        if started or self._queue or self._limits.is_stopping:
            return (*cut, *started)
        resizing = self._resize([trial for trial in self._training if trial not in self._leaving], view)
        return (*cut, *resizing, *self._release_idle(view))

    def _after_leaving(self, view: RunView) -> Sequence[Action]:
        """A trial that was cut has left its GPUs: its machine is no longer held beside the planned ones."""
        started = self._fill(view)
        if self._leaving or self._held == self._planned or self._limits.is_stopping:
            return started
        self._held, scaling = self._limits.scale_to(view, self._planned, rungs_left=self._rungs_left)
        return (*started, *scaling)

    def _after_report(self, event: ProgressReported, view: RunView) -> Sequence[Action]:
        gang = self._training[event.trial]
        self._director.observe_report(event, gang.gpus)
        return () if self._queue else self._resize([event.trial], view)

    # Stages.

    def _after_stage(self, view: RunView) -> Sequence[Action]:
        if self._bracket.is_last:
            return self._next_bracket(view)
        if self._sync_s > 0:
            return (SetTimer(BARRIER, view.now_s + self._sync_s),)
        return self._next_stage(view)

    def _next_bracket(self, view: RunView) -> Sequence[Action]:
        bracket = self._director.next_bracket(view, self._limits.stop_at_s)
        if bracket is None:
            self._work = self._work._replace(done_at_s=view.now_s if self._is_whole else None)
            return () if self._holds else self._limits.finish(view)
        self._bracket = bracket
        return self._begin_stage(view)

    def _next_stage(self, view: RunView) -> Sequence[Action]:
        dropped = self._bracket.advance()
        return (*(StopTrial(trial) for trial in dropped), *self._begin_stage(view))

    def _begin_stage(self, view: RunView) -> Sequence[Action]:
        bracket = self._bracket
        self._begun_stages += 1
        self._cut_at_s = math.inf
        planned = min(self._director.planned_trials(bracket), len(bracket.trials))
        shares = self._director.shares(bracket, view, self._limits.stop_at_s)
        self._work = self._work._replace(target_iteration=self._director.target_iteration(bracket))
        late = bracket.drop(len(shares.gpus))
        self._is_whole &= len(bracket.trials) >= planned
        stopped = [StopTrial(trial) for trial in late if view.trial(trial).iteration]
        self._planned = shares.instances
        instances = self._beside_leaving(shares.instances, view)
        self._held, scaling = self._limits.scale_to(view, instances, rungs_left=self._rungs_left)
        if not self._held:
            return self._limits.stop(view)
        self._most_gpus = shares.most_gpus
        # After a cut, fewer trials may be left than there are shares.
        self._gpus = dict(zip(bracket.trials, shares.gpus, strict=False))
        self._queue.extend(bracket.trials)
        started = self._fill(view)
        if self._limits.is_stopping:
            return started
        return (*stopped, *scaling, *started, *self._plan_prefetch(view), *self._arm_cut(view)[1])

    def _beside_leaving(self, instances: int, view: RunView) -> int:
        """So many machines, and those on which trials that were cut still run: idle ones would be given back before them."""
        if not self._leaving:
            return instances
        busy = sum(instance.free_gpus < instance.gpus for instance in view.instances.values())
        return max(instances, min(instances + busy, live_instances(view)))

    def _plan_prefetch(self, view: RunView) -> Sequence[Action]:
        prefetch = self._director.prefetch(self._bracket)
        if prefetch is None or self._limits.changes_market(len(self._bracket.remaining)):
            return ()
        after_s, self._prefetched = prefetch
        return (SetTimer(self._tag(PREFETCH), view.now_s + after_s),)

    def _fill(self, view: RunView) -> Sequence[Action]:
        """Start queued trials on free GPUs; stop the run if nothing fits before the limit any more."""
        if not self._queue:
            return ()
        capacity = self._held * self._gpus_per_instance
        usable = capacity if self._most_gpus is None else min(capacity, self._most_gpus)
        busy = sum(gang.gpus for trial, gang in self._training.items() if trial not in self._leaving)
        free = min(usable - busy, view.free_gpus)
        actions: list[Action] = []
        late: list[TrialId] = []
        while self._queue:
            trial = self._queue[0]
            gpus = min(self._gpus[trial], capacity)
            if not 0 < gpus <= free:
                break
            self._queue.popleft()
            started = self._started(trial, gpus, view)
            if started is None:
                late.append(trial)
                continue
            free -= gpus
            actions.append(started)
        is_over = late and not self._queue and not self._training.keys() - self._leaving
        self._queue.extendleft(reversed(late))
        return self._limits.stop(view) if is_over else actions

    def _started(self, trial: TrialId, gpus: int, view: RunView) -> Action | None:
        """The action to train it; None if nothing would be durable by the limit."""
        action = self._limits.run(view, trial, gpus, self._bracket.stage.until_iteration)
        if action is None:
            return None
        self._training[trial] = _Gang(gpus, view.trial(trial).checkpoint_iteration)
        self._director.begun(trial, gpus, view)
        every = self._director.report_every(self._bracket)
        return action if action.report_every or not every else msgspec.structs.replace(action, report_every=every)

    # Within a stage.

    def _resize(self, trials: Iterable[TrialId], view: RunView) -> list[Action]:
        """Let trials go on with larger gangs, through a checkpoint, on GPUs that no other trial of this stage will need."""
        spare = view.free_gpus - sum(self._resizing.values())
        actions: list[Action] = []
        for trial in trials:
            if spare <= 0 or trial in self._resizing or view.trial(trial).status is not TrialStatus.RUNNING:
                continue
            now = self._training[trial].gpus
            wanted = self._director.resized(self._bracket, trial, now + spare, view)
            if wanted > now:
                self._gpus[trial] = wanted
                self._resizing[trial] = wanted - now
                spare -= wanted - now
                actions.append(PauseTrial(trial))
        if actions:
            self._most_gpus = None
        return actions

    def _release_idle(self, view: RunView) -> Sequence[Action]:
        """Give back whole machines that neither this stage nor the next one needs."""
        kept = self._director.kept_instances(self._bracket)
        if kept is None or self._resizing or self._leaving:
            return ()
        held = [i for i in view.instances.values() if i.status is not InstanceStatus.RELEASING]
        kept = max(kept, sum(instance.free_gpus < instance.gpus for instance in held))
        if kept >= min(self._held, live_instances(view)):
            return ()
        self._held, scaling = self._limits.scale_to(view, kept, rungs_left=self._rungs_left)
        return scaling

    def _cut_in_time(self, view: RunView) -> Sequence[Action]:
        is_due, timer = self._arm_cut(view)
        return self._cut(view) if is_due else timer

    def _arm_cut(self, view: RunView) -> tuple[bool, Sequence[Action]]:
        """Whether to cut the stage now; else the timer for the cut, if its time has moved."""
        can_be_cut = self._bracket.index > 0 or self._bracket.reports > 0
        at_s = self._director.cut_at_s(self._bracket, view) if can_be_cut else None
        if at_s is None or math.isinf(at_s):
            return False, ()
        if at_s <= view.now_s + MARGIN_S:
            return True, ()
        moved = at_s != self._cut_at_s
        self._cut_at_s = at_s
        return False, (SetTimer(self._tag(CUT), at_s),) if moved else ()

    def _cut(self, view: RunView) -> Sequence[Action]:
        """End the stage with the trials that have reached its end."""
        dropped = self._bracket.cut()
        self._is_whole &= not dropped
        for trial in dropped:
            del self._gpus[trial]
        self._leaving.update(trial for trial in dropped if trial in self._training)
        self._queue = deque(trial for trial in self._queue if trial in self._gpus)
        stopped = [StopTrial(trial) for trial in dropped if trial in self._training or view.trial(trial).iteration]
        return (*stopped, *self._after_stage(view)) if self._bracket.is_stage_complete else stopped
