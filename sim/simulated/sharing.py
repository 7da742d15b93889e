"""Segments slow each other: gangs on a shared node, checkpoints on a shared store.

A course is known in the seconds it would take alone; these are the time of its own clock. This module keeps the clocks of the
running segments and the pace of each, and moves their timeouts when a pace changes. Used only where something is shared.

Imports simpy and the pure core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import simpy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from elastune.sim.model.ids import InstanceId, SegmentId
    from elastune.sim.model.profile import Contention
    from elastune.sim.simulated.trainer import Course

    Callback = Callable[[simpy.Event], None]


class _Clock:
    """Progress of one segment.

    Attributes:
        alarms: callbacks by the time on its own clock: (own seconds, callback).
        own_s: time on its own clock at `at_s`.
        slowdown: seconds of the run per second of the clock.
        is_saving: it is writing a checkpoint.
        launch_s: seconds of the run it has spent on its launch.
        saving_s: seconds of the run it has spent on checkpoints.
        version: timeouts of earlier versions are void.
    """

    __slots__ = ("alarms", "at_s", "course", "is_saving", "launch_s", "own_s", "saving_s", "slowdown", "version")

    def __init__(self, course: Course) -> None:
        self.course = course
        self.alarms: list[tuple[float, Callback]] = []
        self.at_s = course.started_at_s
        self.own_s = self.launch_s = self.saving_s = 0.0
        self.slowdown = 1.0
        self.is_saving = False
        self.version = 0

    def advance(self, now_s: float) -> None:
        """Add the time since `at_s`, at the pace so far."""
        elapsed_s = now_s - self.at_s
        if elapsed_s <= 0:
            return
        own_s = elapsed_s / self.slowdown
        if self.is_saving:
            self.saving_s += elapsed_s
        else:
            self.launch_s += min(max(self.course.launch_s - self.own_s, 0.0), own_s) * self.slowdown
        self.own_s += own_s
        self.at_s = now_s


class SharedCourses:
    """The running segments and how they slow each other; see `sim.model.profile.Contention`."""

    def __init__(self, env: simpy.Environment, terms: Contention) -> None:
        self._env = env
        self._terms = terms
        self._clocks: dict[SegmentId, _Clock] = {}
        self._on_node: dict[InstanceId, dict[SegmentId, _Clock]] = {}
        self._writers: dict[SegmentId, _Clock] = {}

    def start(self, course: Course) -> None:
        """A gang begins on its nodes."""
        clock = self._clocks[course.command.segment] = _Clock(course)
        for instance, _ in course.command.placement:
            self._on_node.setdefault(instance, {})[course.command.segment] = clock
        self._adjust(self._neighbours(course))
        self._save_after(clock, course.saves_after(0))

    def end(self, course: Course) -> None:
        """A gang has left its nodes."""
        neighbours = self._neighbours(course)
        for instance, _ in course.command.placement:
            del self._on_node[instance][course.command.segment]
        del self._clocks[course.command.segment]
        if self._writers.pop(course.command.segment, None) is not None:
            neighbours |= self._writers
        neighbours.pop(course.command.segment)
        self._adjust(neighbours)

    def reschedule_checkpoint(self, course: Course, completed: int) -> None:
        """Schedule the next checkpoint after so many iterations anew, because the course has changed."""
        self._save_after(self._clocks[course.command.segment], course.saves_after(completed))

    def own_s(self, course: Course) -> float:
        """Progress of the course, in the seconds that it would have taken alone."""
        clock = self._clocks[course.command.segment]
        clock.advance(self._env.now)
        return clock.own_s

    def spent_s(self, course: Course) -> tuple[float, float, float]:
        """Seconds of the run that were spent on launch, training and checkpoints."""
        clock = self._clocks[course.command.segment]
        clock.advance(self._env.now)
        elapsed_s = self._env.now - course.started_at_s
        train_s = max(elapsed_s - clock.launch_s - clock.saving_s, 0.0)
        return clock.launch_s, train_s, clock.saving_s

    def when(self, course: Course, own_s: float, callback: Callback) -> None:
        """Call back when the course reaches this time on its own clock, unless it is over before."""
        clock = self._clocks[course.command.segment]
        clock.alarms.append((own_s, callback))
        clock.advance(self._env.now)
        self._set(clock, own_s, callback)

    def _set(self, clock: _Clock, own_s: float, callback: Callback) -> None:
        version = clock.version

        def ring(timeout: simpy.Event) -> None:
            if clock.version != version or clock.course.is_over:
                return
            clock.alarms.remove((own_s, callback))
            clock.advance(self._env.now)
            clock.own_s = own_s  # the sum of intervals may differ by rounding
            callback(timeout)

        delay_s = max((own_s - clock.own_s) * clock.slowdown, 0.0)
        callbacks = simpy.Timeout(self._env, delay_s, clock.course).callbacks
        assert callbacks is not None  # a fresh timeout has not been processed
        callbacks.append(ring)

    def _adjust(self, clocks: dict[SegmentId, _Clock]) -> None:
        """Set the present pace of each clock, and move its timeouts where the pace has changed."""
        for clock in clocks.values():
            slowdown = self._slowdown(clock)
            if slowdown != clock.slowdown:
                clock.advance(self._env.now)
                clock.slowdown = slowdown
                clock.version += 1
                for own_s, callback in clock.alarms:
                    self._set(clock, own_s, callback)

    def _slowdown(self, clock: _Clock) -> float:
        if clock.is_saving:
            at_full_speed = self._terms.store_writers
            return 1.0 if at_full_speed is None else max(len(self._writers) / at_full_speed, 1.0)
        others = max(len(self._on_node[instance]) for instance, _ in clock.course.command.placement) - 1
        return 1.0 + self._terms.per_gang * others

    def _neighbours(self, course: Course) -> dict[SegmentId, _Clock]:
        """The clocks of all segments that share a node with it, its own included."""
        together: Iterable[dict[SegmentId, _Clock]] = (self._on_node[node] for node, _ in course.command.placement)
        return {segment: clock for on_node in together for segment, clock in on_node.items()}

    def _save_after(self, clock: _Clock, iterations: int) -> None:
        """Schedule the checkpoint after so many iterations of the segment."""
        begins_s, ends_s = clock.course.checkpoint_span_s(iterations)
        if ends_s > begins_s:
            self.when(clock.course, begins_s, lambda _: self._begin_saving(clock, iterations))

    def _begin_saving(self, clock: _Clock, iterations: int) -> None:
        begins_s, ends_s = clock.course.checkpoint_span_s(iterations)
        if clock.is_saving or begins_s > clock.own_s:
            # A checkpoint was due here anyway, or this one belongs to the course before it changed.
            return
        clock.is_saving = True
        self._writers[clock.course.command.segment] = clock
        self._adjust(self._writers)
        self.when(clock.course, ends_s, lambda _: self._end_saving(clock, iterations))

    def _end_saving(self, clock: _Clock, iterations: int) -> None:
        course = clock.course
        clock.is_saving = False
        del self._writers[course.command.segment]
        self._adjust(self._writers | {course.command.segment: clock})
        if iterations < course.ends_after:
            self._save_after(clock, course.saves_after(iterations))
