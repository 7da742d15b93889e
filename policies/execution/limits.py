"""Keeping deadline and budget, shared by every policy: when to stop, what still fits, who is the answer [ours].

The deadline T is a time. The budget B bounds the committed bill: what everything would cost if it were given back now. The
bill of the machines held grows steadily, so B gives a time as well, the last at which it is kept. The earlier of both times
ends the run. A trial that would not end before it is paused after the last iteration whose checkpoint still fits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.policies.execution.budget import FunctionBudget, budget_of
from elastune.policies.execution.checkpoints import iterations_between
from elastune.policies.execution.pools import Pools, live_instances
from elastune.policies.rules.margin import MARGIN_S, run_ends_by_s
from elastune.sim.model.actions import Action, FinishRun, PauseTrial, RunTrial, SetTimer
from elastune.sim.model.events import (
    Event,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import TuningJob, loss_of
from elastune.sim.model.protocols import RunView, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile

__all__ = ["HARD_STOP", "Limits", "live_instances"]

HARD_STOP = "hard-stop"
_FAILED = Outcome.FAILED  # looking up a member of an enumeration costs a descriptor call
_ACTIVE = (TrialStatus.WAITING, TrialStatus.RUNNING, TrialStatus.ENDING)  # one that ends may wait to go on
CAUTION = 4.0
"""Safety factor on predicted durations."""


class Limits:
    """Deadline and budget of one run.

    Attributes:
        is_stopping: nothing may be started any more.
        stop_at_s: when the run ends at the latest if nothing else starts, as known now.
        meters_functions: there is a budget, and what runs is billed, not the machines that are held.
    """

    def __init__(self, job: TuningJob, profile: Profile, price_book: PriceBook) -> None:
        self._job = job
        self._profile = profile
        self._pools = Pools(price_book)
        self._budget = budget_of(job, price_book)
        self._gpus_per_instance, self._least_gpus = price_book.default_type.gpus_per_instance, profile.min_gpus
        self._has_moved = False
        self._has_answer = self._has_failed = False
        # Only where functions are billed does each start and end matter; else the machines are paid until they stop.
        self._meters = self._budget if isinstance(self._budget, FunctionBudget) else None
        self.meters_functions = self._meters is not None
        self._deadline_s = run_ends_by_s(job)
        self._is_limited = job.deadline_s is not None or job.budget_usd is not None
        self._is_rate_decisive = job.checkpoint_every == "auto"
        # With a budget, the stop is not known before the first machine is launched and its bill runs.
        self._is_stop_known = self._budget is None
        self._armed_at_s = math.inf
        # Until when what starts now may run; later than the stop while machines are being given back.
        self._starts_until_s = self._deadline_s
        self._last_report: dict[TrialId, tuple[float, int]] = {}
        # Seconds per iteration on one GPU of the trials that report.
        self._seen_s: dict[TrialId, float] = {}
        self._speedups: dict[int, float] = {}
        self._spread = 1.0 + 2.0 * profile.stragglers.per_iteration_cv
        timings = profile.timings
        self._launches_s, self._resumes_s, self._saves_s = timings.launch_s, timings.resume_s, timings.checkpoint_s
        self.is_stopping = False
        self.stop_at_s = self._deadline_s

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """What the limits demand at this event; every policy passes every event through here first."""
        if isinstance(event, InstanceRefused):
            return self._on_refusal(view)
        if not self._is_limited:
            return ()
        if self._meters is not None:
            self._meters.on_event(event, view)
        if type(event) is SegmentEnded:
            return self._after_segment(event, view)
        match event:
            case ProgressReported():
                return self._pause_if_late(event, view)
            case InstanceLaunched() | InstanceBooted() | InstanceReady():
                self._is_stop_known = True
                return self._arm(view)
            case InstanceGone() | ReclaimNoticed():
                return self._on_loss(view)
            case TimerFired(tag=tag) if tag == HARD_STOP:
                return self._on_timer(view)
            case _:
                return ()

    def scale_to(self, view: RunView, instances: int, *, rungs_left: int | None = None) -> tuple[int, Sequence[Action]]:
        """How many of these machines the budget allows, and the actions that hold them.

        Args:
            view: the run.
            instances: how many are wanted.
            rungs_left: number of stages left, this one included, which may decide on the market; None for rules without stages.
        """
        self._pools.choose(rungs_left)
        live = self._pools.held(view)
        added = max(instances - live, 0)
        if added and self._budget is not None:
            added = self._budget.may_add(view, added)
        granted = min(instances, live + added)
        timer = self._arm(view, pending_instances=added)
        if granted < live and self._budget is not None:
            # The timer stays safe as long as all machines are held; InstanceGone will move it.
            end_s = self._budget.expected_end_s(view, granted)
            self._starts_until_s = max(self.stop_at_s, min(self._deadline_s, end_s))
        return granted, (*timer, *self._pools.hold(view, granted))

    @property
    def wanted_instances(self) -> int:
        """Machines that are wanted from now on; fewer than `scale_to` granted if the provider has no more."""
        return self._pools.instances

    def changes_market(self, rungs_left: int) -> bool:
        """Whether the stage with so many stages left, itself included, trains on another market than the present one."""
        return self._pools.market_of(rungs_left) != self._pools.market

    def run(
        self, view: RunView, trial: TrialId, gpus: int, until_iteration: int, *, stands_at: int | None = None
    ) -> RunTrial | None:
        """The action to train a trial; None if no iteration would be durable by the limit, or its memory needs more GPUs.

        Args:
            view: the run.
            trial: who is to train.
            gpus: size of its gang.
            until_iteration: iterations in all when it is done.
            stands_at: iterations of the checkpoint it goes on from; None for the trial's own.
        """
        if gpus < self._least_gpus:
            return None
        every = self._checkpoint_every(gpus)
        if not self._is_limited:
            return RunTrial(trial, gpus, until_iteration, checkpoint_every=every)
        saves_s, starts_until_s = self._saves_s, self._starts_until_s
        done = view.trial(trial).checkpoint_iteration if stands_at is None else stands_at
        iteration_s = self._iteration_s(trial, gpus)
        start_s = view.now_s + (self._resumes_s if done else self._launches_s)
        # A trial that was paused as too slow must not start again at once.
        allowed_s = iteration_s * self._spread if trial in self._seen_s else iteration_s
        durable_s = start_s + allowed_s + saves_s
        if durable_s > starts_until_s or not self._pays(view, gpus, durable_s):
            return None
        # Reports cost events. They are asked for only if the limit may come first, should training be slower than predicted.
        train_s = (until_iteration - done) * iteration_s
        ends_s = start_s + CAUTION * train_s + saves_s
        is_safe = self._is_stop_known and ends_s < starts_until_s and self._pays(view, gpus, ends_s)
        if self._meters is not None:
            self._meters.starts(trial, gpus, start_s + train_s + saves_s if is_safe else durable_s)
            self._has_moved = True
        if not is_safe and self._has_failed and not self._has_answer and not self._job.checkpoint_every:
            every = 1  # else the run may end without an answer
        return RunTrial(trial, gpus, until_iteration, report_every=0 if is_safe else 1, checkpoint_every=every)

    def has_time(self, view: RunView, gpus: int, lasts_s: float) -> bool:
        """Whether a gang that starts now can train for so long."""
        until_s = view.now_s + lasts_s
        latest_s = self._deadline_s if self.meters_functions else self.stop_at_s
        return until_s <= latest_s and self._pays(view, gpus, until_s)

    def rearm(self, view: RunView) -> Sequence[Action]:
        """The timer of the hard stop, which each start and end moves where functions are billed; the last of an answer."""
        if self._meters is None:
            return ()
        has_moved, self._has_moved = self._has_moved, False
        return self._arm(view) if has_moved and not self.is_stopping else ()

    def busy_until_s(self, view: RunView) -> float:
        """When the run ends at the latest if all GPUs are busy from now on, as known now."""
        if self._budget is None or not self.meters_functions:
            return self.stop_at_s
        return min(self._deadline_s, self._budget.busy_until_s(view))

    def best(self, view: RunView) -> TrialId | None:
        """The trial whose latest durable checkpoint has the best known score; None if nothing is durable."""
        direction = self._job.direction
        durable = (
            (loss_of(view.trial(trial).checkpoint_score, direction), trial)
            for trial in view.started_trials()
            if view.trial(trial).checkpoint_iteration and view.trial(trial).cloned_from is None
        )
        return min(durable, default=(0.0, None))[1]

    def finish(self, view: RunView) -> Sequence[Action]:
        """End the run; the last action of all."""
        self.is_stopping = True
        return (FinishRun(self.best(view)),)

    def stop(self, view: RunView) -> Sequence[Action]:
        """Start nothing more; pause what runs, and end the run when that has ended."""
        self.is_stopping = True
        if not view.running_trials:
            return self.finish(view)
        trials = (TrialId(number) for number in range(self._job.trials))
        return tuple(PauseTrial(trial) for trial in trials if view.trial(trial).status in _ACTIVE)

    def _arm(self, view: RunView, pending_instances: int = 0) -> Sequence[Action]:
        """Set the timer of the hard stop again if the limit has moved."""
        if not self._is_limited:
            return ()
        budget_end_s = (
            math.inf if self._budget is None else self._budget.ends_at_s(view, pending_instances, self._deadline_s)
        )
        self.stop_at_s = max(min(self._deadline_s, budget_end_s), view.now_s)
        # What starts is paid one by one where functions are billed.
        self._starts_until_s = self._deadline_s if self.meters_functions else self.stop_at_s
        if self.stop_at_s == self._armed_at_s or math.isinf(self.stop_at_s):
            return ()
        self._armed_at_s = self.stop_at_s
        return (SetTimer(HARD_STOP, self.stop_at_s),)

    def _after_segment(self, event: SegmentEnded, view: RunView) -> Sequence[Action]:
        if event.checkpoint_iteration:
            self._has_answer = True
        if event.outcome is _FAILED:
            self._has_failed = True
        self._has_moved = True
        return self._finish_if_idle(view) if self.is_stopping else ()

    def _on_timer(self, view: RunView) -> Sequence[Action]:
        moved = self._arm(view)
        if self.stop_at_s - view.now_s > MARGIN_S:
            return moved
        return self.finish(view)

    def _on_loss(self, view: RunView) -> Sequence[Action]:
        """A machine is gone, or will be. Replace what the budget allows; end the run if no machine is left."""
        live = live_instances(view)
        missing = max(view.target_instances - live, 0)
        if self.is_stopping:
            return (*self._pools.hold(view, min(live, view.target_instances)), *self._finish_if_idle(view))
        if self._budget is not None and (affordable := self._budget.may_add(view, missing)) < missing:
            if live + affordable:
                return (*self._arm(view, pending_instances=affordable), *self._pools.hold(view, live + affordable))
            stopping = self.stop(view)
            return (*stopping, *self._pools.hold(view, live)) if view.running_trials else stopping
        return self._arm(view, pending_instances=missing)

    def _on_refusal(self, view: RunView) -> Sequence[Action]:
        """The provider has no more: ask for other machines, go on with those held, or end the run."""
        live = live_instances(view)
        if not self.is_stopping:
            most = None if self._budget is None else self._budget.may_add(view, view.target_instances)
            moved, others = self._pools.fail_over(view, most)
            if moved:
                return (*self._arm(view, pending_instances=moved), *others)
        return self._pools.hold(view, live) if live else self.stop(view)

    def _checkpoint_every(self, gpus: int) -> int:
        """Iterations between checkpoints within a segment if the job lets the loss rate decide; else 0."""
        if not self._is_rate_decisive or self._pools.has_left_spot:
            return 0
        return iterations_between(self._profile, gpus, math.ceil(gpus / self._gpus_per_instance))

    def _pause_if_late(self, event: ProgressReported, view: RunView) -> Sequence[Action]:
        """Pause a trial whose next iteration and checkpoint would not fit any more."""
        trial = view.trial(event.trial)
        before = self._last_report.get(event.trial)
        if before is not None and before[1] == event.iteration - 1:
            self._seen_s[event.trial] = (event.at_s - before[0]) * self._profile.scaling.speedup(trial.gpus)
        self._last_report[event.trial] = (event.at_s, event.iteration)
        iteration_s = self._iteration_s(event.trial, trial.gpus)
        every = self._checkpoint_every(trial.gpus) or self._job.checkpoint_every
        # The next iteration starts after the regular checkpoint that is being written now.
        is_saving = isinstance(every, int) and every > 0 and event.iteration % every == 0
        saving_s = self._profile.timings.checkpoint_s * (2 if is_saving else 1)
        if event.at_s + self._spread * iteration_s + saving_s <= self.stop_at_s:
            return ()
        return (PauseTrial(event.trial),) if trial.status is TrialStatus.RUNNING else ()

    def _iteration_s(self, trial: TrialId, gpus: int) -> float:
        """Seconds of the next iteration: as last seen of this trial, else as the profile says."""
        speedup = self._speedups.get(gpus)
        if speedup is None:
            speedup = self._speedups[gpus] = self._profile.scaling.speedup(gpus)
        return self._seen_s.get(trial, self._profile.iteration_s) / speedup

    def _pays(self, view: RunView, gpus: int, until_s: float) -> bool:
        return self._meters is None or self._meters.pays(view, gpus, until_s)

    def _finish_if_idle(self, view: RunView) -> Sequence[Action]:
        return () if view.running_trials else self.finish(view)
