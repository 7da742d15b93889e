"""Turns events into commands: update the state, ask the policy, check its actions, place them.

Pure: no clock, no I/O beyond the journal sink it is given. The same object drives simulated and real runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

from elastune.sim.control.fleet import Fleet
from elastune.sim.control.journal import Entry, Sink
from elastune.sim.control.state import NO_SEGMENT, RunState, TrialState
from elastune.sim.control.view import StateView
from elastune.sim.model.actions import Action, CloneTrial, FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer, StopTrial
from elastune.sim.model.commands import Command, EndSegment, StartSegment, StartTimer
from elastune.sim.model.errors import InputError, InvalidActionError
from elastune.sim.model.events import (
    Event,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    ProgressReported,
    ReclaimNoticed,
    SegmentEnded,
    TrialSampled,
)
from elastune.sim.model.ids import SegmentId, TrialId
from elastune.sim.model.protocols import InstanceStatus, PlannedWork, Policy, TellsWork, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.control.placement import PlacementRule
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook

# Looking up a member of an enumeration costs a descriptor call; these are needed at every segment.
_IDLE, _ENDING = TrialStatus.IDLE, TrialStatus.ENDING
_ADVICE = "set a deadline, checkpoint more often, train on larger gangs, or rent machines that live longer"
_LOSSES = (InstanceGone, ReclaimNoticed)


class Controller:
    """Runs one policy over one job.

    Attributes:
        state: everything known of the run, bill and totals included.
        is_finished: the policy has returned FinishRun; later events are only recorded.
        finished_at_s: time of FinishRun, the makespan.
        best: the trial that FinishRun named.
        name: of the policy, for errors.
    """

    def __init__(
        self,
        policy: Policy,
        job: TuningJob,
        price_book: PriceBook,
        *,
        name: str,
        sink: Sink | None = None,
        placement: PlacementRule = "on",
    ) -> None:
        self.state = RunState(job, price_book, placement)
        self.is_finished = False
        self.finished_at_s = 0.0
        self.best: TrialId | None = None
        self._policy = policy
        self.name = name
        self._sink = sink
        self._view = StateView(self.state)
        self._fleet = Fleet(self.state)
        self._commands: list[Command] = []
        self._segments = 0
        self._holdable_gpus = 0
        self._checkpoint_every = 0 if isinstance(job.checkpoint_every, str) else job.checkpoint_every
        self._last_event: Event | None = None
        self._progress = self.state.progress

    @property
    def is_closed(self) -> bool:
        """Whether the run is finished and every machine is gone."""
        return self.is_finished and not self.state.instances

    @property
    def is_stalled(self) -> bool:
        """Whether the run goes on without gaining anything; see `sim.control.progress`."""
        return not self.is_finished and self._progress.is_stalled

    @property
    def work(self) -> PlannedWork | None:
        """What the policy has set out to train; None where it does not say."""
        return self._policy.work if isinstance(self._policy, TellsWork) else None

    @property
    def view(self) -> StateView:
        """What policies see."""
        return self._view

    def handle(self, event: Event) -> list[Command]:
        """Handle an event; return commands in execution order.

        Raises:
            InvalidActionError: the policy asked for something impossible.
        """
        self._last_event = event
        commands: list[Command] = []
        self._commands = commands
        state = self.state
        if self.is_finished:
            self._drain(event)
            self._write(Entry(event, status="drained"))
            return commands
        state.now_s = event.at_s
        self._progress.events += 1
        is_fresh = state.segment_ended(event) if type(event) is SegmentEnded else self._fold(event)
        if not is_fresh:
            self._write(Entry(event, status="stale"))
            return commands
        actions = self._decide(event, state)
        if self._sink is not None:
            self._sink.write(Entry(event, list(actions), commands))
        return commands

    def _decide(self, event: Event, state: RunState) -> Sequence[Action]:
        """Ask the policy and apply its actions. Waiting requests are tried before and after."""
        if state.draining:
            self._fleet.release_drained(self._commands)
        if state.waiting:
            self._start_waiting()
        actions = self._policy.on_event(event, self._view)
        for action in actions:
            if type(action) is RunTrial and not self.is_finished:
                self._run_trial(action)
            else:
                self._apply(action)
        if state.waiting:
            self._require_room(actions)
        if type(event) in _LOSSES and not self.is_finished:
            # After the policy, so that it can lower its target first when it cannot pay for a replacement.
            for key in state.targets:
                self._fleet.reconcile(key, self._commands)
        if state.waiting:
            self._start_waiting()
        return actions

    def _require_room(self, actions: Sequence[Action]) -> None:
        """What waits must fit the targets that all actions together leave; in between, targets may be lower."""
        for request in self.state.waiting:
            if request.gpus > self._holdable_gpus:
                lowering = next(action for action in reversed(actions) if isinstance(action, ScaleTo))
                problem = f"trial {request.trial} waits for {request.gpus} GPUs, which that target can never hold"
                raise self._invalid(lowering, problem)

    def story(self) -> str:
        """Describe where the run stands, for errors."""
        state = self.state
        if state.progress.is_stalled:
            return f"{self.name}: no progress is possible at {state.now_s:.1f} s: {state.progress.story()}; {_ADVICE}"
        return (
            f"{self.name}: nothing can happen any more at {state.now_s:.1f} s, and the policy has not finished the run:"
            f" {state.running_trials} trials running, {len(state.waiting)} waiting for GPUs, {len(state.instances)} instances,"
            f" ScaleTo target {sum(state.targets.values())}; the last event was {self._last_event}"
        )

    def _write(self, entry: Entry) -> None:
        if self._sink is not None:
            self._sink.write(entry)

    # Events.

    def _fold(self, event: Event) -> bool:
        """Update the state by an event other than a segment's end. Returns whether the policy is asked about it."""
        state = self.state
        match event:
            case ProgressReported():
                return state.progress_reported(event)
            case InstanceLaunched():
                state.instance_launched(event)
            case InstanceBooted():
                state.instance_booted(event)
            case InstanceReady():
                state.instance_ready(event)
            case InstanceRefused():
                state.instance_refused(event)
            case ReclaimNoticed():
                state.reclaim_noticed(event)
            case InstanceGone():
                state.instance_gone(event)
            case TrialSampled():
                state.trial_sampled(event)
            case _:
                pass
        return True

    def _drain(self, event: Event) -> None:
        """Update the state by an event after the end of the run: segments that it cut still say how far they came."""
        match event:
            case SegmentEnded():
                self.state.segment_ended(event)
            case InstanceGone():
                del self.state.instances[event.instance]
            case InstanceRefused():
                self.state.instances.pop(event.instance, None)
            case _:
                pass

    # Actions.

    def _apply(self, action: Action) -> None:
        if self.is_finished:
            raise self._invalid(action, "the run is finished")
        match action:
            case RunTrial():
                self._run_trial(action)
            case PauseTrial() | StopTrial():
                self._end(action)
            case ScaleTo():
                self._scale_to(action)
            case SetTimer():
                self._set_timer(action)
            case FinishRun():
                self._finish(action)
            case CloneTrial():
                self._clone(action)
            case _:
                assert_never(action)

    def _trial(self, action: Action, trial: TrialId) -> TrialState:
        if not 0 <= trial < len(self.state.trials):
            raise self._invalid(action, f"the job has trials 0 to {len(self.state.trials) - 1}")
        return self.state.trials[trial]

    def _run_trial(self, action: RunTrial) -> None:
        state = self.state
        number = action.trial
        trial = state.trials[number] if 0 <= number < len(state.trials) else self._trial(action, number)
        if trial.status is _IDLE:
            if action.until_iteration <= trial.checkpoint_iteration:
                raise self._invalid(action, f"the trial has completed {trial.checkpoint_iteration} iterations already")
        elif trial.status is not _ENDING or trial.is_waiting:
            raise self._invalid(action, f"the trial is {trial.status}; only an idle or ending one can be run")
        if not 1 <= action.gpus <= self._holdable_gpus:
            raise self._invalid(
                action, f"ScaleTo's target holds {self._holdable_gpus} GPUs; a gang has between 1 and that many"
            )
        if action.report_every < 0 or action.checkpoint_every < 0:
            raise self._invalid(action, "report_every must be >= 0, and so must checkpoint_every")
        if state.waiting or trial.status is _ENDING or not self._start(action, trial):
            if trial.status is _IDLE:
                trial.status = TrialStatus.WAITING
            trial.is_waiting = True
            state.waiting.append(action)
            state.waiting_gpus += action.gpus

    def _start(self, action: RunTrial, trial: TrialState) -> bool:
        """Start the segment if its GPUs are free; returns whether they were."""
        state = self.state
        placement = state.free.take(action.gpus)
        if placement is None:
            return False
        segment = SegmentId(self._segments)
        self._segments += 1
        from_iteration = trial.checkpoint_iteration
        self._commands.append(
            StartSegment(
                segment,
                action.trial,
                placement,
                from_iteration,
                action.until_iteration,
                action.report_every,
                action.checkpoint_every or self._checkpoint_every,
                trial.restores_from(action.trial) if from_iteration else None,
                trial.configuration,
            )
        )
        state.segment_started(segment, action.trial, trial, placement, action.gpus)
        return True

    def _start_waiting(self) -> None:
        """Start waiting requests in the order in which they were made; none overtakes a gang that does not fit yet."""
        state = self.state
        waiting = state.waiting
        while waiting:
            action = waiting[0]
            trial = state.trials[action.trial]
            if trial.segment != NO_SEGMENT or not self._start(action, trial):
                return
            waiting.popleft()
            trial.is_waiting = False
            state.waiting_gpus -= action.gpus

    def _end(self, action: PauseTrial | StopTrial) -> None:
        """Cancel the trial's waiting request and end its running segment."""
        state = self.state
        trial = self._trial(action, action.trial)
        if trial.is_waiting:
            request = next(request for request in state.waiting if request.trial == action.trial)
            state.waiting.remove(request)
            state.waiting_gpus -= request.gpus
            trial.is_waiting = False
        if trial.status is TrialStatus.WAITING:
            trial.status = TrialStatus.IDLE
        if trial.status is TrialStatus.RUNNING:
            trial.status = TrialStatus.ENDING
            self._commands.append(EndSegment(trial.segment))
        if isinstance(action, StopTrial):
            trial.status = TrialStatus.STOPPED

    def _clone(self, action: CloneTrial) -> None:
        """Put the target at the source's last durable checkpoint, with its own configuration from now on."""
        source, target = self._trial(action, action.source), self._trial(action, action.target)
        if source is target:
            raise self._invalid(action, "a trial cannot be its own clone")
        if target.status is not _IDLE:
            raise self._invalid(action, f"the target is {target.status}; only an idle trial can become a clone")
        if not source.checkpoint_iteration:
            raise self._invalid(action, "the source has no durable checkpoint")
        borrower = self.state.borrower_of(action.target)
        if borrower is not None:
            # Cloning would make its own checkpoints void, but another trial still needs one.
            problem = f"trial {borrower} goes on from the target's checkpoint and has not saved one of its own yet"
            raise self._invalid(action, problem)
        if not action.configuration:
            raise self._invalid(action, "the configuration is empty")
        self.state.trial_cloned(action)

    def _set_timer(self, action: SetTimer) -> None:
        if not action.at_s >= self.state.now_s:
            raise self._invalid(action, "that is in the past")
        if math.isinf(action.at_s):
            raise self._invalid(action, "a timer must fire at a finite time")
        self._commands.append(StartTimer(action.tag, action.at_s))

    def _require_answer(self, action: FinishRun) -> None:
        if action.best is None:
            return
        answer = self._trial(action, action.best)
        if not answer.checkpoint_iteration:
            raise self._invalid(action, "the trial has no durable checkpoint")
        if answer.cloned_from is not None:
            raise self._invalid(
                action,
                f"the trial has saved nothing since it was cloned; its checkpoint is trial {answer.cloned_from}'s",
            )

    def _finish(self, action: FinishRun) -> None:
        state = self.state
        self._require_answer(action)
        self.is_finished = True
        self.finished_at_s = state.now_s
        self.best = action.best
        for request in state.waiting:
            state.trials[request.trial].is_waiting = False
        state.waiting.clear()
        state.waiting_gpus = 0
        for number, instance in state.instances.items():
            if instance.status is not InstanceStatus.RELEASING:
                self._fleet.release(number, instance, self._commands)
        state.finish(state.now_s)

    # Machines.

    def _scale_to(self, action: ScaleTo) -> None:
        state, book = self.state, self.state.price_book
        try:
            key = book.pool(action.instance_type, action.market)
            book.usd_per_hour(*key)
        except InputError as error:
            raise self._invalid(action, str(error)) from error
        others = sum(count for other, count in state.targets.items() if other != key)
        if not 0 <= action.instances <= book.max_instances - others:
            raise self._invalid(
                action, f"the quota is {book.max_instances} instances, {others} of them held for other types"
            )
        state.targets[key] = action.instances
        self._holdable_gpus = sum(
            count * book.type_named(name).gpus_per_instance for (name, _), count in state.targets.items()
        )
        self._fleet.reconcile(key, self._commands)

    def _invalid(self, action: object, problem: str) -> InvalidActionError:
        return InvalidActionError(self.name, action, self.state.now_s, problem)
