"""The course of one segment, known from arrays when it starts. Imports numpy only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sim.model.commands import StartSegment


class Course:
    """When a segment will have done what, in seconds since its start, if nothing interferes.

    Attributes:
        order: the StartSegment it carries out.
        started_at_s: when it started.
        iterations: how many it is to do.
        launch_s: before its first iteration.
        train_s: on all its iterations.
        saving_s: on all its checkpoints, the closing one included.
        ends_after: iterations after which it ends; fewer than `iterations` where it was told to end.
        is_over: its SegmentEnded has been told.
    """

    __slots__ = (
        "_boundaries_s",
        "_checkpoint_s",
        "_iteration_s",
        "ends_after",
        "is_over",
        "iterations",
        "launch_s",
        "order",
        "saving_s",
        "started_at_s",
        "train_s",
    )

    def __init__(
        self, order: StartSegment, started_at_s: float, launch_s: float, iteration_s: float, checkpoint_s: float
    ) -> None:
        self.order = order
        self.started_at_s = started_at_s
        # A trial may have come further than the policy wished for when it was told to end; then there is nothing to do.
        iterations = order.until_iteration - order.from_iteration
        self.iterations = self.ends_after = iterations if iterations > 0 else 0  # noqa: FURB136  max() costs a call
        self.launch_s = launch_s
        self.is_over = False
        self._iteration_s = iteration_s
        self._checkpoint_s = checkpoint_s
        self._boundaries_s: np.ndarray | None = None
        self.train_s = self.iterations * iteration_s
        self.saving_s = checkpoint_s

    @property
    def end_s(self) -> float:
        """When its closing checkpoint is written."""
        return self.launch_s + self.train_s + self.saving_s

    def vary(self, slowness: np.ndarray | None) -> None:
        """Let durations vary, and pay for the checkpoints within the segment.

        Args:
            slowness: (job iterations,) factor per iteration of the trial, or None.
        """
        order = self.order
        each_s = np.full(self.iterations, self._iteration_s)
        if slowness is not None:
            each_s *= slowness[order.from_iteration : order.from_iteration + self.iterations]
        self.train_s = float(each_s.sum())
        if order.checkpoint_every:
            # Iteration k + 1 can only begin when the checkpoint after iteration k is written.
            done = np.arange(order.from_iteration, order.from_iteration + self.iterations)
            each_s[1:] += self._checkpoint_s * (done[1:] % order.checkpoint_every == 0)
        self._boundaries_s = np.concatenate(([0.0], np.cumsum(each_s)))
        self.saving_s = float(self._boundaries_s[-1]) - self.train_s + self._checkpoint_s

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
        """After how many iterations, more than so many, the next checkpoint is written; 0 where there are none to do."""
        first, every = self.order.from_iteration, self.order.checkpoint_every
        if not every:
            return self.ends_after
        reached = first + completed
        return min(reached - reached % every + every - first, self.ends_after)

    def checkpoint_span_s(self, iterations: int) -> tuple[float, float]:
        """When the checkpoint after this many iterations begins and ends."""
        begins_s = self.boundary_s(iterations)
        return begins_s, begins_s + self._checkpoint_s

    def durable(self, completed: int, elapsed_s: float) -> int:
        """Iterations of the trial that are durable when the segment breaks now, with `completed` of its iterations done."""
        first, every = self.order.from_iteration, self.order.checkpoint_every
        if not every:
            return first
        reached = first + completed
        saved = reached - reached % every
        if saved > first and self.boundary_s(saved - first) + self._checkpoint_s > elapsed_s + 1e-9:
            saved -= every  # that checkpoint is still being written
        return max(first, saved)

    def safe_point(self, elapsed_s: float) -> int:
        """Iterations of the segment after which it can end if it is told so now."""
        done = self.completed(elapsed_s)
        at_boundary = elapsed_s - self.boundary_s(done) <= 1e-9
        return done if at_boundary or done == self.iterations else done + 1

    def checkpoints_s(self, completed: int, elapsed_s: float) -> float:
        """Seconds spent on checkpoints so far: those within the segment, and the one being written now, if any."""
        first, every = self.order.from_iteration, self.order.checkpoint_every
        reached = first + completed
        is_last_saved = completed == self.ends_after or (completed > 0 and every > 0 and reached % every == 0)
        last_s = min(max(elapsed_s - self.boundary_s(completed), 0.0), self._checkpoint_s) if is_last_saved else 0.0
        if not every or completed < 2:
            return last_s
        return self._checkpoint_s * ((reached - 1) // every - first // every) + last_s
