"""The simulated backend: commands become SimPy timeouts, timeouts become events.

Each segment costs one timeout and one event. Its course is computed from arrays when it starts, and settled early when it is
cut short. Where segments slow each other, `sharing` moves their timeouts as they come and go.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NoReturn, cast

import simpy
from simpy.core import EmptySchedule

from elastune.sim.model.actions import CloneTrial
from elastune.sim.model.commands import (
    Command,
    EndSegment,
    ProvisionInstance,
    ReleaseInstance,
    StartSegment,
    StartTimer,
)
from elastune.sim.model.errors import InputError, RefusedCommandError
from elastune.sim.model.events import (
    Event,
    GoneCause,
    InstanceGone,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    RunStarted,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.simulated.cloud import Cloud
from elastune.sim.simulated.sharing import SharedCourses
from elastune.sim.simulated.trainer import Course
from elastune.sim.simulated.truth import Draws

if TYPE_CHECKING:
    from collections.abc import Callable

    from elastune.sim.model.ids import InstanceId, SegmentId
    from elastune.sim.model.profile import CloudTruth, GroundTruth
    from elastune.sim.model.streams import Streams

_COMPLETED = Outcome.COMPLETED  # looking up a member of an enumeration costs a descriptor call


class SimulatedBackend:
    """Replays a workload's ground truth on a simulated cloud; see `sim.model.protocols.Backend`.

    Simultaneous events come in SimPy's order: time, priority, then the order of scheduling.

    Args:
        truth: of the workload.
        cloud: what happens to machines.
        streams: of the run.
        draws: random quantities; None for those of the truth and the streams.
    """

    def __init__(self, truth: GroundTruth, cloud: CloudTruth, streams: Streams, *, draws: Draws | None = None) -> None:
        self._last_iteration = truth.scores.shape[1]
        self._env = simpy.Environment()
        self._draws = draws or Draws(truth, cloud, streams)
        self._events: deque[Event] = deque((RunStarted(0.0),))
        self._cloud = Cloud(
            self._env,
            cloud,
            self._draws,
            tell=self._events.append,
            on_notice=self._reclaim_noticed,
            on_gone=self._instance_gone,
        )
        self._rented = self._cloud.rented
        self._courses: dict[SegmentId, Course] = {}
        self._timers: dict[str, simpy.Event] = {}
        self._scores = truth.scores
        self._varies = self._draws.varies
        self._fails = cloud.faults.segment_failure_per_hour > 0
        self._nodes_differ = cloud.slow_nodes.any
        self._min_gpus = truth.min_gpus
        self._shared = SharedCourses(self._env, cloud.contention) if cloud.contention.any else None

    def perform(self, command: Command) -> None:
        """Take a command; see `sim.model.protocols.Backend`."""
        if type(command) is StartSegment:
            self._start(command)
            return
        match command:
            case EndSegment():
                self._end(command)
            case ProvisionInstance():
                self._cloud.provision(command.instance, (command.instance_type, command.market))
            case ReleaseInstance():
                self._cut_gangs(command.instance, Outcome.ENDED)
                self._cloud.release(command.instance)
            case StartTimer():
                self._start_timer(command)

    def next_event(self) -> Event | None:
        """Jump to the next event; see `sim.model.protocols.Backend`."""
        events, step = self._events, self._env.step
        try:
            while not events:
                step()
        except EmptySchedule:
            return None
        return events.popleft()

    def close(self) -> None:
        """Drop what is still scheduled."""
        self._courses.clear()

    # Segments.

    def _course_of(self, command: StartSegment) -> Course:
        """What the segment will do if nothing interferes."""
        placement = command.placement
        if command.configuration is not None:
            self._refuse(command)
        if command.until_iteration > self._last_iteration:
            raise InputError(
                f"trial {command.trial} is to train for {command.until_iteration} iterations, but its curve ends at"
                f" {self._last_iteration}"
            )
        nodes = len(placement)
        gpus = placement[0][1] if nodes == 1 else sum(count for _, count in placement)
        if self._min_gpus is not None and gpus < self._min_gpus[command.trial]:
            raise InputError(
                f"trial {command.trial} is to train on {gpus} GPU{'s' if gpus > 1 else ''}, but its memory takes at least"
                f" {self._min_gpus[command.trial]}: the policy's gangs must be no smaller"
            )
        draws = self._draws
        iteration_s = draws.iteration_s(command.trial, gpus, nodes)
        if self._nodes_differ:
            iteration_s *= max(draws.node_slowness(instance) for instance, _ in placement)
        launch_s, checkpoint_s = draws.around_s(command)
        course = Course(command, self._env.now, launch_s, iteration_s, checkpoint_s)
        if self._varies or command.checkpoint_every:
            course.vary(draws.slowness(command.trial, gpus) if self._varies else None)
        return course

    def _refuse(self, command: StartSegment) -> NoReturn:
        """Refuse a clone or a sampled trial: only recorded trials have a curve."""
        source = command.trial if command.restore_from is None else command.restore_from
        action = CloneTrial(source, command.trial, command.configuration or {})
        raise RefusedCommandError(action, self._env.now, "cloned trials have no recorded curve; they need real workers")

    def _start(self, command: StartSegment) -> None:
        course = self._course_of(command)
        self._courses[command.segment] = course
        if self._shared is not None:
            self._shared.start(course)
        rented = self._rented
        for instance, _ in command.placement:
            if instance not in rented:
                self._settle(course, Outcome.INSTANCE_GONE)
                return
        if self._shared is None:
            self._at(course.end_s, course, self._completed)
        else:
            self._shared.when(course, course.end_s, self._completed)
        if command.report_every:
            self._report_next(course, command.from_iteration)
        if self._fails:
            fails_after_s = self._draws.segment_fails_after_s(command.trial)
            if fails_after_s < course.end_s or self._shared is not None:
                self._at(fails_after_s, course, self._failed)

    def _elapsed_s(self, course: Course) -> float:
        """Progress of the course, in the seconds that it would have taken alone."""
        return self._env.now - course.started_at_s if self._shared is None else self._shared.own_s(course)

    def _when(self, own_s: float, course: Course, callback: Callable[[simpy.Event], None]) -> None:
        """Call back when the course reaches this point."""
        if self._shared is None:
            self._at(max(own_s - (self._env.now - course.started_at_s), 0.0), course, callback)
        else:
            self._shared.when(course, own_s, callback)

    def _at(self, delay_s: float, course: Course, callback: Callable[[simpy.Event], None]) -> None:
        callbacks = simpy.Timeout(self._env, delay_s, course).callbacks
        assert callbacks is not None  # a fresh timeout has not been processed
        callbacks.append(callback)

    def _completed(self, timeout: simpy.Event) -> None:
        """End a segment that has trained as far as it was to, and written its checkpoint."""
        course = cast("Course", timeout.value)
        if course.is_over or course.ends_after < course.iterations:
            return
        if course.is_put_off:
            course.is_put_off = False  # this was the planned end; checkpoints before the end of a machine have moved it
            return
        command = course.command
        iteration = command.from_iteration + course.iterations
        if self._shared is None:
            self._tell(course, iteration, iteration, _COMPLETED, course.launch_s, course.train_s, course.saving_s)
        else:
            self._tell(course, iteration, iteration, _COMPLETED, *self._shared.spent_s(course))

    def _end(self, command: EndSegment) -> None:
        """Finish the current iteration, write a checkpoint and end."""
        course = self._courses.get(command.segment)
        if course is None or course.ends_after < course.iterations:
            return  # it has ended, and the command crossed its event on the way; or it is ending already
        course.ends_after = course.safe_point(self._elapsed_s(course))
        if course.ends_after == 0 < course.iterations:
            self._settle(course, Outcome.ENDED)
        elif course.ends_after < course.iterations:
            if self._shared is not None:
                self._shared.reschedule_checkpoint(course, course.ends_after - 1)
            self._when(course.checkpoint_span_s(course.ends_after)[1], course, self._ended)

    def _ended(self, timeout: simpy.Event) -> None:
        course = cast("Course", timeout.value)
        if not course.is_over:
            self._tell_cut(course, course.ends_after, course.command.from_iteration + course.ends_after, Outcome.ENDED)

    def _failed(self, timeout: simpy.Event) -> None:
        course = cast("Course", timeout.value)
        if not course.is_over:
            self._settle(course, Outcome.FAILED)

    def _settle(self, course: Course, outcome: Outcome) -> None:
        """End a segment that breaks now; only checkpoints written before are durable."""
        elapsed_s = self._elapsed_s(course)
        completed = min(course.completed(elapsed_s), course.ends_after)
        durable = course.durable(completed, elapsed_s)
        self._tell_cut(course, completed, durable, outcome, kept_s=course.trained_s(durable))

    def _tell_cut(
        self,
        course: Course,
        completed: int,
        checkpoint_iteration: int,
        outcome: Outcome,
        *,
        kept_s: float = math.inf,
    ) -> None:
        """End a segment early: work out how it spent its time, and how much of its training is lost."""
        elapsed_s = self._elapsed_s(course)
        launch_s = min(elapsed_s, course.launch_s)
        checkpoint_s = course.checkpoints_s(completed, elapsed_s)
        train_s = max(elapsed_s - launch_s - checkpoint_s, 0.0)
        if self._shared is not None:
            alone_s = train_s
            launch_s, train_s, checkpoint_s = self._shared.spent_s(course)
            # Lost training is assumed to have slowed down like the rest: when neighbours came and went is not recorded.
            kept_s = min(kept_s, alone_s) * train_s / alone_s if alone_s > 0 else train_s
        iteration = course.command.from_iteration + completed
        lost_s = max(train_s - kept_s, 0.0)
        self._tell(course, iteration, checkpoint_iteration, outcome, launch_s, train_s, checkpoint_s, lost_s)

    def _tell(
        self,
        course: Course,
        iteration: int,
        checkpoint_iteration: int,
        outcome: Outcome,
        launch_s: float,
        train_s: float,
        checkpoint_s: float,
        lost_s: float = 0.0,
    ) -> None:
        trial, segment = course.command.trial, course.command.segment
        course.is_over = True
        del self._courses[segment]
        if self._shared is not None:
            self._shared.end(course)
        score = self._score(trial, iteration)
        self._events.append(
            SegmentEnded(
                self._env.now,
                trial,
                segment,
                iteration,
                checkpoint_iteration,
                score,
                outcome,
                launch_s,
                train_s,
                checkpoint_s,
                lost_s,
            )
        )

    def _score(self, trial: int, iteration: int) -> float | None:
        if iteration == 0:
            return None
        score: float = self._scores.item(trial, iteration - 1)
        return score if math.isfinite(score) else None

    def _report_next(self, course: Course, after_iteration: int) -> None:
        """Schedule the next report only; a queue filled with whole curves is slow."""
        command = course.command
        iteration = after_iteration - after_iteration % command.report_every + command.report_every
        if iteration < command.until_iteration:
            course.reports_next = iteration
            self._when(course.boundary_s(iteration - command.from_iteration), course, self._report)

    def _report(self, timeout: simpy.Event) -> None:
        course = cast("Course", timeout.value)
        command, iteration = course.command, course.reports_next
        done = iteration - command.from_iteration
        if course.is_over or done >= course.ends_after:
            return
        if course.saves_each_from < iteration and course.boundary_s(done) > self._elapsed_s(course) + 1e-6:
            self._report_next(course, iteration - 1)  # checkpoints before the end of a machine have put it off
            return
        score = self._score(command.trial, iteration)
        self._events.append(ProgressReported(self._env.now, command.trial, command.segment, iteration, score))
        self._report_next(course, iteration)

    # Machines and timers.

    def _courses_on(self, instance: InstanceId) -> list[Course]:
        return [
            course
            for course in self._courses.values()
            if any(number == instance for number, _ in course.command.placement)
        ]

    def _cut_gangs(self, instance: InstanceId, outcome: Outcome) -> None:
        for course in self._courses_on(instance):
            self._settle(course, outcome)

    def _reclaim_noticed(self, instance: InstanceId, gone_at_s: float) -> None:
        """Send the event, and let the workers on the machine save what they can."""
        self._events.append(ReclaimNoticed(self._env.now, instance, gone_at_s))
        for course in self._courses_on(instance):
            elapsed_s = self._elapsed_s(course)
            if course.save_each(elapsed_s):
                if self._shared is not None:
                    first = course.saves_each_from - course.command.from_iteration
                    self._shared.reschedule_checkpoint(course, first - 1)
                self._when(course.end_s, course, self._completed)

    def _instance_gone(self, instance: InstanceId, cause: GoneCause) -> None:
        self._cut_gangs(instance, Outcome.INSTANCE_GONE)
        self._events.append(InstanceGone(self._env.now, instance, cause))

    def _start_timer(self, command: StartTimer) -> None:
        timer = self._env.timeout(max(command.at_s - self._env.now, 0.0), command.tag)
        self._timers[command.tag] = timer
        assert timer.callbacks is not None  # a fresh timeout has not been processed
        timer.callbacks.append(self._timer_fired)

    def _timer_fired(self, timer: simpy.Event) -> None:
        tag = cast("str", timer.value)
        if self._timers.get(tag) is timer:
            del self._timers[tag]
            self._events.append(TimerFired(self._env.now, tag))
