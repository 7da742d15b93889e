"""The course of one segment, known from arrays when it starts. Imports numpy only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from elastune.sim.model.commands import StartSegment


_NEVER = 1 << 62  # more iterations than any trial has


class Course:
    """The timetable of a segment, in seconds since its start, if nothing interferes.

    Attributes:
        command: the StartSegment it carries out.
        started_at_s: when it started.
        iterations: how many it is to do.
        launch_s: before its first iteration.
        train_s: on all its iterations.
        saving_s: on all its checkpoints, the closing one included.
        ends_after: iterations after which it ends; fewer than `iterations` where it was told to end.
        is_over: its SegmentEnded has been sent.
        is_put_off: its end comes later than was scheduled when it started.
        reports_next: the trial's iteration that is reported next.
        saves_each_from: the trial's iteration from which on each is checkpointed, because a machine will be taken back.
    """

    __slots__ = (
        "_boundaries_s",
        "_checkpoint_s",
        "_iteration_s",
        "command",
        "ends_after",
        "is_over",
        "is_put_off",
        "iterations",
        "launch_s",
        "reports_next",
        "saves_each_from",
        "saving_s",
        "started_at_s",
        "train_s",
    )

    def __init__(
        self, command: StartSegment, started_at_s: float, launch_s: float, iteration_s: float, checkpoint_s: float
    ) -> None:
        self.command = command
        self.started_at_s = started_at_s
        # A trial that was told to end may have passed the iteration that the policy asked for; then nothing is left to do.
        iterations = command.until_iteration - command.from_iteration
        self.iterations = self.ends_after = iterations if iterations > 0 else 0  # noqa: FURB136  max() costs a call
        self.launch_s = launch_s
        self.is_over = False
        self.is_put_off = False
        self.reports_next = 0
        self._iteration_s = iteration_s
        self._checkpoint_s = checkpoint_s
        self._boundaries_s: np.ndarray | None = None
        self.train_s = self.iterations * iteration_s
        self.saving_s = checkpoint_s
        self.saves_each_from = _NEVER

    @property
    def end_s(self) -> float:
        """When its closing checkpoint has been written."""
        return self.launch_s + self.train_s + self.saving_s

    def vary(self, slowness: np.ndarray | None) -> None:
        """Let durations vary, and add the checkpoints within the segment.

        Args:
            slowness: (job iterations,) factor per iteration of the trial, or None.
        """
        command = self.command
        first, last = command.from_iteration, command.from_iteration + self.iterations
        each_s = (
            np.full(self.iterations, self._iteration_s)
            if slowness is None
            else slowness[first:last] * self._iteration_s
        )
        self.train_s = np.add.reduce(each_s).item()  # the method `sum` calls it through two more functions
        if 0 < command.checkpoint_every < command.until_iteration:
            # Iteration k + 1 begins after the checkpoint of iteration k.
            done = np.arange(first, last)
            each_s[1:] += self._checkpoint_s * (done[1:] % command.checkpoint_every == 0)
        self._boundaries_s = np.zeros(self.iterations + 1)
        each_s.cumsum(out=self._boundaries_s[1:])
        # Rounding may leave this slightly below zero.
        self.saving_s = max(self._boundaries_s.item(-1) - self.train_s + self._checkpoint_s, 0.0)

    def save_each(self, elapsed_s: float) -> bool:
        """Write a checkpoint after each iteration from now on; returns whether that moves the end."""
        if self.saves_each_from != _NEVER or self.ends_after < self.iterations:
            return False
        first = max(self.safe_point(elapsed_s), 1)
        if first >= self.iterations:
            return False  # the closing checkpoint comes next anyway
        started, every = self.command.from_iteration, self.command.checkpoint_every
        if self._boundaries_s is None:
            self._boundaries_s = np.arange(self.iterations + 1) * self._iteration_s
        saved = np.arange(started + first, started + self.iterations)
        is_new = saved % every != 0 if every else np.ones(len(saved), dtype=bool)
        self._boundaries_s[first + 1 :] += self._checkpoint_s * np.cumsum(is_new)
        self.saving_s += self._checkpoint_s * int(is_new.sum())
        self.saves_each_from = started + first
        self.is_put_off = True
        return True

    def boundary_s(self, iterations: int) -> float:
        """When this many iterations of the segment are complete."""
        if self._boundaries_s is None:
            return self.launch_s + iterations * self._iteration_s
        return self.launch_s + float(self._boundaries_s[iterations])

    def completed(self, elapsed_s: float) -> int:
        """Iterations of the segment that are complete after this time."""
        trained_s = elapsed_s - self.launch_s
        if trained_s < 0:
            return 0
        # The tolerance counts an iteration that ends at this very moment.
        if self._boundaries_s is None:
            return min(math.floor(trained_s / self._iteration_s + 1e-9), self.iterations)
        return int(np.searchsorted(self._boundaries_s, trained_s * (1 + 1e-12) + 1e-9, side="right")) - 1

    def saves_after(self, completed: int) -> int:
        """Iterations of the segment at its next checkpoint after `completed`; 0 where it has no iterations."""
        first, every = self.command.from_iteration, self.command.checkpoint_every
        reached = first + completed
        regular = reached - reached % every + every if every else _NEVER
        return min(regular - first, max(reached + 1, self.saves_each_from) - first, self.ends_after)

    def checkpoint_span_s(self, iterations: int) -> tuple[float, float]:
        """When the checkpoint after this many iterations begins and ends."""
        begins_s = self.boundary_s(iterations)
        return begins_s, begins_s + self._checkpoint_s

    def durable(self, completed: int, elapsed_s: float) -> int:
        """Iterations of the trial that are durable when the segment breaks now, with `completed` of its iterations done."""
        first = self.command.from_iteration
        saved = self._last_saved(first + completed)
        if saved > first and self.boundary_s(saved - first) + self._checkpoint_s > elapsed_s + 1e-9:
            saved = self._last_saved(saved - 1)  # that checkpoint is still being written
        return max(first, saved)

    def _last_saved(self, reached: int) -> int:
        """The last iteration of the trial up to this one after which a checkpoint within the segment is due, or 0."""
        if reached >= self.saves_each_from:
            return reached
        every = self.command.checkpoint_every
        return reached - reached % every if every else 0

    def safe_point(self, elapsed_s: float) -> int:
        """Iterations of the segment after which it can end if it is told to end now."""
        done = self.completed(elapsed_s)
        at_boundary = elapsed_s - self.boundary_s(done) <= 1e-9
        return done if at_boundary or done == self.iterations else done + 1

    def checkpoints_s(self, completed: int, elapsed_s: float) -> float:
        """Seconds spent on checkpoints so far, including one that is being written now."""
        reached = self.command.from_iteration + completed
        is_last_saved = completed == self.ends_after or (completed > 0 and self._last_saved(reached) == reached)
        last_s = min(max(elapsed_s - self.boundary_s(completed), 0.0), self._checkpoint_s) if is_last_saved else 0.0
        return self._checkpoint_s * self._saves_before(reached) + last_s

    def trained_s(self, reached: int) -> float:
        """Seconds of training up to this iteration of the trial."""
        first = self.command.from_iteration
        if reached <= first:
            return 0.0
        return self.boundary_s(reached - first) - self.launch_s - self._checkpoint_s * self._saves_before(reached)

    def _saves_before(self, reached: int) -> int:
        """Checkpoints within the segment that are written before this iteration of the trial is complete."""
        first, every = self.command.from_iteration, self.command.checkpoint_every
        if reached < first + 2:
            return 0
        regular = max(min(reached, self.saves_each_from) - 1, first)
        return (regular // every - first // every if every else 0) + max(reached - self.saves_each_from, 0)
