"""One member of a worker group during a segment: it restores, trains, saves and reports. Knows nothing of Ray, which runs it.

Imports the pure core, threads and the wall clock; torch only if the training or a group of several needs it. All seconds are
those of the wall clock.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from elastune.sim.bridge.workers.checkpoint import CheckpointStore, SavedCheckpoint
from elastune.sim.bridge.workers.process_group import FORMING_S, Alone, GroupMembers, form_group, listen
from elastune.sim.model.errors import WorkerError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from elastune.sim.model.ids import SegmentId, TrialId
    from elastune.sim.model.protocols import Configuration, Trainable

_log = logging.getLogger(__name__)

_STOP, _GO_ON = 0, 1

Device: TypeAlias = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Assignment:
    """The task of one member of a worker group.

    Attributes:
        from_iteration: iteration of the checkpoint to continue from; 0 starts anew.
        until_iteration: iteration at which the segment is complete.
        report_every: each multiple of it is reported; 0 for none.
        checkpoint_every: each multiple of it is saved, besides the end; 0 for none.
        restore_from: whose checkpoint is restored; None starts anew. Another trial than `trial` makes a clone.
        configuration: hyperparameters.
        rank: of this member, from 0.
        nodes: machines of the group.
        size: members of the group.
    """

    trial: TrialId
    segment: SegmentId
    from_iteration: int
    until_iteration: int
    report_every: int
    checkpoint_every: int
    restore_from: TrialId | None
    configuration: Configuration
    rank: int
    nodes: int
    size: int


@runtime_checkable
class Tested(Protocol):
    """A trainable that also has a score on data that no decision uses."""

    def test_score(self) -> float:
        """In the unit of `evaluate`; NaN if training diverged."""


@runtime_checkable
class Measuring(Protocol):
    """A trainable that also measures something beside its score, such as FLOPs."""

    def measures(self) -> Mapping[str, float]:
        """By name."""


class TrainableFactory(Protocol):
    """Builds trials. It can be pickled, and imports torch only when it is called."""

    @property
    def needs_process_group(self) -> bool:
        """Whether the members train together; else rank 0 trains alone and the others hold their slots."""

    def __call__(self, assignment: Assignment, device: Device) -> Trainable:
        """The trial before its first iteration, on this member."""


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of all workers of a run.

    Attributes:
        build: makes a trial.
        checkpoints: folder or fsspec URL that every worker reaches.
        device: with `cuda` each member sees one device, its own.
        keep: checkpoints kept per trial.
        told_every_s: iterations that need no report are told at most this often, because short ones would flood the driver.
        forming_s: how long members of a worker group wait for each other at the start.
    """

    build: TrainableFactory
    checkpoints: str
    device: Device = "cpu"
    keep: int = 2
    told_every_s: float = 0.1
    forming_s: float = FORMING_S


@dataclass(frozen=True)
class Started:
    """The first message: restored and ready to train.

    Attributes:
        launch_s: since the worker was made.
        from_iteration: that was really restored.
        score: of the restored checkpoint; None if there is none.
    """

    launch_s: float
    from_iteration: int
    score: float | None


@dataclass(frozen=True)
class Trained:
    """An iteration is complete, but not durable. Seconds are those of the segment so far.

    Attributes:
        score: None if it is not finite.
        is_report: the segment's command wants a report of this iteration.
    """

    iteration: int
    score: float | None
    train_s: float
    checkpoint_s: float
    is_report: bool


@dataclass(frozen=True)
class Saved:
    """An iteration within the segment is durable. Seconds are those of the segment so far."""

    iteration: int
    train_s: float
    checkpoint_s: float


@dataclass(frozen=True)
class Finished:
    """The last message; its iteration is durable. Seconds are those of the whole segment.

    Attributes:
        was_ended: the segment was ended before it was complete.
    """

    iteration: int
    score: float | None
    launch_s: float
    train_s: float
    checkpoint_s: float
    was_ended: bool


Message: TypeAlias = Started | Trained | Saved | Finished


@dataclass
class _Course:
    """Progress of the segment."""

    iteration: int
    score: float | None
    saved_iteration: int
    launch_s: float
    told_at_s: float
    train_s: float = 0.0
    checkpoint_s: float = 0.0


class SegmentWorker:
    """One member of a worker group, for one segment. `train` does the work.

    Another thread calls `end` and `save_each`, on rank 0 only.
    """

    def __init__(self, settings: WorkerSettings, assignment: Assignment) -> None:
        self._made_at_s = time.monotonic()
        self._settings, self._assignment = settings, assignment
        self._store = CheckpointStore(settings.checkpoints, settings.keep)
        self._is_ending, self._saves_each = threading.Event(), threading.Event()
        self._listening: socket.socket | None = None

    def rendezvous(self, host: str = "127.0.0.1") -> str:
        """`host:port` at which the other members find rank 0, which is this one.

        Args:
            host: address of this node that the other nodes reach.
        """
        self._listening = listen(host)
        return f"{host}:{self._listening.getsockname()[1]}"

    def end(self) -> None:
        """End the segment after the current iteration, with a checkpoint."""
        self._is_ending.set()

    def save_each(self) -> None:
        """Write a checkpoint after each iteration from now on."""
        self._saves_each.set()

    def train(self, rendezvous: str | None = None) -> Iterator[Message]:
        """Train the segment; only rank 0 yields messages.

        Args:
            rendezvous: of rank 0; only members that train together need it.

        Raises:
            WorkerError: the members did not come together, a checkpoint could not be written, or training failed.
        """
        if self._assignment.rank and not self._settings.build.needs_process_group:
            self._is_ending.wait()  # holds the slot until the group is dismissed, and its death is noticed
            return
        if self._settings.build.needs_process_group:
            import torch

            torch.set_num_threads(1)  # a worker has one slot; two threads on a shared core ran 40 times slower
        with self._members(rendezvous) as group:
            trainable, iteration, score = self._restored(group)
            if self._assignment.rank == 0:
                yield from self._lead(group, trainable, iteration, score)
            else:
                while group.agree(_STOP) != _STOP:
                    trainable.train_iteration()

    def _lead(
        self, group: GroupMembers, trainable: Trainable, iteration: int, score: float | None
    ) -> Iterator[Message]:
        """Rank 0's part: it alone decides when to stop, evaluates, saves and reports."""
        assignment = self._assignment
        is_own = assignment.restore_from == assignment.trial
        self._store.forget(assignment.trial, above=iteration if is_own else 0)
        now_s = time.monotonic()
        # A later checkpoint is of another trial until this one has saved it (see `_candidates`).
        saved_iteration = iteration if iteration <= assignment.from_iteration else 0
        course = _Course(iteration, score, saved_iteration, now_s - self._made_at_s, now_s)
        yield Started(course.launch_s, iteration, score)
        while group.agree(_STOP if self._is_over(course) else _GO_ON) != _STOP:
            self._train_iteration(trainable, course)
            if not self._is_over(course):
                yield from self._tell(course)
                if self._is_checkpoint_due(course.iteration):
                    self._save(trainable, course)
                    yield Saved(course.iteration, course.train_s, course.checkpoint_s)
        if course.saved_iteration != course.iteration:
            self._save(trainable, course)
        was_ended = course.iteration < assignment.until_iteration
        yield Finished(course.iteration, course.score, course.launch_s, course.train_s, course.checkpoint_s, was_ended)

    def _is_over(self, course: _Course) -> bool:
        return self._is_ending.is_set() or course.iteration >= self._assignment.until_iteration

    def _is_checkpoint_due(self, iteration: int) -> bool:
        every = self._assignment.checkpoint_every
        return self._saves_each.is_set() or (every > 0 and iteration % every == 0)

    def _train_iteration(self, trainable: Trainable, course: _Course) -> None:
        began_s = time.monotonic()
        trainable.train_iteration()
        score = trainable.evaluate()
        course.train_s += time.monotonic() - began_s
        course.iteration += 1
        course.score = score if math.isfinite(score) else None

    def _tell(self, course: _Course) -> Iterator[Message]:
        every = self._assignment.report_every
        is_report = every > 0 and course.iteration % every == 0
        now_s = time.monotonic()
        if is_report or now_s - course.told_at_s >= self._settings.told_every_s:
            course.told_at_s = now_s
            yield Trained(course.iteration, course.score, course.train_s, course.checkpoint_s, is_report)

    def _save(self, trainable: Trainable, course: _Course) -> None:
        assignment, began_s = self._assignment, time.monotonic()
        # The start of the segment is kept as well, because a clone may have been promised it.
        spare = (assignment.from_iteration,)
        # No decision sees the test score; it is for the report of the winner.
        test_score = trainable.test_score() if isinstance(trainable, Tested) else None
        self._store.save(
            assignment.trial,
            course.iteration,
            course.score,
            trainable.save,
            segment=assignment.segment,
            test_score=test_score,
            measures=trainable.measures() if isinstance(trainable, Measuring) else {},
            spare=spare,
        )
        course.checkpoint_s += time.monotonic() - began_s
        course.saved_iteration = course.iteration

    def _members(self, rendezvous: str | None) -> AbstractContextManager[GroupMembers]:
        assignment, settings = self._assignment, self._settings
        if assignment.size == 1 or not settings.build.needs_process_group:
            return nullcontext(Alone())
        if rendezvous is None or (assignment.rank == 0) != (self._listening is not None):
            raise WorkerError(
                f"trial {assignment.trial}: rank {assignment.rank} does not know where its worker group meets"
            )
        listening, self._listening = self._listening, None
        return form_group(assignment.rank, assignment.size, settings.device, rendezvous, listening, settings.forming_s)

    def _restored(self, group: GroupMembers) -> tuple[Trainable, int, float | None]:
        """The trial at the best checkpoint that every member can load, else a new one; with its iteration and score."""
        candidates = iter(self._candidates() if self._assignment.rank == 0 else ())
        while True:
            offered = next(candidates, None)
            trainable = self._settings.build(self._assignment, self._settings.device)
            iteration = group.agree(0 if offered is None else offered.iteration)
            if iteration == 0:
                return trainable, 0, None
            if group.all_of(self._load(trainable, iteration)):
                return trainable, iteration, None if offered is None else offered.score

    def _candidates(self) -> list[SavedCheckpoint]:
        """Checkpoints to continue from, best first: that of the assignment, then earlier ones.

        If the source of a clone has trained on and deleted them all, the clone takes the source's next one.
        """
        assignment = self._assignment
        if assignment.restore_from is None:
            return []
        recorded = self._store.recorded(assignment.restore_from)
        before = [saved for saved in recorded if saved.iteration <= assignment.from_iteration]
        if assignment.restore_from == assignment.trial:
            return before
        return before + [saved for saved in reversed(recorded) if saved.iteration > assignment.from_iteration]

    def _load(self, trainable: Trainable, iteration: int) -> bool:
        """Load a checkpoint of the source; return whether that worked."""
        source = self._assignment.restore_from
        assert source is not None, "rank 0 offers checkpoints only if there is a trial to restore from"
        try:
            saved = next(saved for saved in self._store.recorded(source) if saved.iteration == iteration)
            with self._store.restore(saved) as path:
                trainable.load(path)
        except (StopIteration, WorkerError) as error:
            why = "has no record any more" if isinstance(error, StopIteration) else error
            _log.warning("trial %d, checkpoint %d: %s; another one is used", source, iteration, why)
            return False
        return True
