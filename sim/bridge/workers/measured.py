"""Times segments on the worker groups of a run. A segment ends as soon as its durations are known well enough."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.sim.bridge.machines.clock import Clock
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.bridge.workers.worker import (
    Assignment,
    Device,
    Finished,
    Message,
    Started,
    Tested,
    TrainableFactory,
    Trained,
    WorkerSettings,
)
from elastune.sim.bridge.workers.worker_group import GroupContext, GroupListener, Site, WorkerGroup
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import Event, Outcome, SegmentEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elastune.sim.model.commands import StartSegment
    from elastune.sim.model.protocols import Configuration, Trainable

_ENDS_WITHIN_S = 60.0


@dataclass(frozen=True)
class TimedTrainables:
    """Wraps another factory: the score of each trial becomes the seconds of its evaluation.

    A worker reports the total seconds and the score of each iteration, so both parts of an iteration become known.
    """

    build: TrainableFactory

    @property
    def needs_process_group(self) -> bool:
        """As the wrapped factory says."""
        return self.build.needs_process_group

    def __call__(self, assignment: Assignment, device: Device) -> Trainable:
        """The trial before its first iteration, on this member."""
        trained = self.build(assignment, device)
        return _TimedTestedTrial(trained, trained) if isinstance(trained, Tested) else _TimedTrial(trained)


class _TimedTrial:
    def __init__(self, trained: Trainable) -> None:
        self._trained = trained

    def train_iteration(self) -> None:
        self._trained.train_iteration()

    def evaluate(self) -> float:
        began_s = time.monotonic()
        self._trained.evaluate()
        return time.monotonic() - began_s

    def save(self, path: Path) -> None:
        self._trained.save(path)

    def load(self, path: Path) -> None:
        self._trained.load(path)


class _TimedTestedTrial(_TimedTrial):
    """A trial that is also tested at each checkpoint, because a run spends that time as well."""

    def __init__(self, trained: Trainable, tested: Tested) -> None:
        super().__init__(trained)
        self._tested = tested

    def test_score(self) -> float:
        return self._tested.test_score()


@dataclass(frozen=True)
class TimedSegment:
    """What a segment took, in seconds of the wall clock.

    Attributes:
        from_iteration: what was restored; 0 for a trial that started anew.
        until_iteration: iterations of the trial that are durable at its end.
        launch_s: as a run counts it: from the start command to the last event, without training and saving.
        train_s: seconds of each iteration, without its evaluation.
        evaluate_s: seconds of each evaluation.
        checkpoint_s: writing its one checkpoint.
        checkpoint_bytes: size of the checkpoint.
    """

    from_iteration: int
    until_iteration: int
    launch_s: float
    train_s: Sequence[float]
    evaluate_s: Sequence[float]
    checkpoint_s: float
    checkpoint_bytes: int


def time_segment(
    command: StartSegment,
    configuration: Configuration,
    site: Site,
    settings: WorkerSettings,
    *,
    is_enough: Callable[[Sequence[float]], bool],
) -> TimedSegment:
    """Run a segment on a worker group, end it when enough iterations are known, and return its durations.

    Args:
        command: what is trained. Its last iteration is a limit that should not be reached.
        configuration: of the trial.
        site: the machines.
        settings: of `TimedTrainables`.
        is_enough: called after each iteration with the seconds of all iterations so far.

    Raises:
        WorkerError: the segment broke, or it did not start from its checkpoint.
    """
    clock, told = Clock(), list[SegmentEnded]()
    store = CheckpointStore(settings.checkpoints, settings.keep)

    def tell(event_at: Callable[[float], Event]) -> None:
        event = event_at(clock.now_s())
        if isinstance(event, SegmentEnded):
            told.append(event)

    context = GroupContext(settings, store, clock, tell)
    broken: list[BaseException] = []
    reports = _Reports(is_enough)
    group = WorkerGroup(
        command,
        clock.now_s(),
        configuration,
        site,
        context=context,
        listener=GroupListener(ended=lambda _group: None, broken=broken.append, message=reports.end_when_enough),
    )
    group.start()
    try:
        group.join()
    except BaseException:
        group.abort(Outcome.ENDED)
        group.join(_ENDS_WITHIN_S)
        raise
    if broken:
        raise WorkerError(
            f"a worker group of {len(site.node_ids)} was lost while it was timed: {broken[0]}"
        ) from broken[0]
    if told[0].outcome not in (Outcome.ENDED, Outcome.COMPLETED):
        raise WorkerError(f"a worker group of {len(site.node_ids)} broke while it was timed")
    recorded = store.recorded(command.trial)
    if reports.from_iteration != command.from_iteration or not recorded:
        raise WorkerError(
            f"{settings.checkpoints} does not hand checkpoints on from one worker to the next: name a folder or a URL that this"
            " machine and every node reach (--checkpoints URL)"
        )
    return reports.segment(told[0], recorded[0].size_bytes)


class _Reports:
    """What the first worker of a group reports about each iteration."""

    def __init__(self, is_enough: Callable[[Sequence[float]], bool]) -> None:
        self.from_iteration = 0
        self._is_enough = is_enough
        self._told_s = 0.0
        self._iteration_s: list[float] = []
        self._evaluate_s: list[float] = []

    def end_when_enough(self, group: WorkerGroup, message: Message) -> None:
        """Record a message, and end the segment once enough is known."""
        if isinstance(message, Started):
            self.from_iteration = message.from_iteration
        if not isinstance(message, Trained | Finished) or message.iteration != self.from_iteration + self._next:
            return
        self._iteration_s.append(message.train_s - self._told_s)
        self._evaluate_s.append(message.score or 0.0)
        self._told_s = message.train_s
        if isinstance(message, Trained) and self._is_enough(self._iteration_s):
            group.end()

    @property
    def _next(self) -> int:
        """The next iteration of the segment; only `Finished` reports the last one."""
        return len(self._iteration_s) + 1

    def segment(self, ended: SegmentEnded, checkpoint_bytes: int) -> TimedSegment:
        """The durations of the segment, once it has ended."""
        return TimedSegment(
            self.from_iteration,
            ended.iteration,
            ended.launch_s,
            tuple(whole - part for whole, part in zip(self._iteration_s, self._evaluate_s, strict=True)),
            tuple(self._evaluate_s),
            ended.checkpoint_s,
            checkpoint_bytes,
        )
