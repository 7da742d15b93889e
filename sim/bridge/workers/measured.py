"""Segments that are run to be timed: gangs and workers as in a run, listened to at each iteration, ended once enough is known.

Nothing trains here but `SegmentWorker`; what a segment takes in a run it takes here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.sim.bridge.machines.clock import Clock
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.bridge.workers.gang import Gang, Listener, Shop
from elastune.sim.bridge.workers.worker import Finished, Started, Tested, Trained
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import Outcome, SegmentEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elastune.sim.bridge.workers.gang import Site
    from elastune.sim.bridge.workers.worker import Assignment, Device, Message, TrainableFactory, Workshop
    from elastune.sim.model.commands import StartSegment
    from elastune.sim.model.events import Event
    from elastune.sim.model.protocols import Configuration, Trainable

_ENDS_WITHIN_S = 60.0


@dataclass(frozen=True)
class TimedTrainables:
    """Builds what another factory builds, with the seconds of its evaluation in place of its score.

    A worker tells of each iteration its seconds as a whole, and its score: so both parts of an iteration are told.
    """

    build: TrainableFactory

    @property
    def needs_process_group(self) -> bool:
        """As of the other."""
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
    """One that is also tested with each of its checkpoints, which takes its time in a run."""

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
        launch_s: as a run accounts for it: all that is neither training nor saving, from the order to the last event.
        train_s: of each iteration, without its evaluation.
        evaluate_s: of each iteration.
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
    order: StartSegment,
    configuration: Configuration,
    site: Site,
    workshop: Workshop,
    *,
    is_enough: Callable[[Sequence[float]], bool],
) -> TimedSegment:
    """Run a segment on a gang, end it when enough of its iterations are known, and tell what it took.

    Args:
        order: what is trained. Its iterations are a limit that should not be met.
        configuration: of the trial.
        site: the machines.
        workshop: of `TimedTrainables`.
        is_enough: called with the seconds of the iterations so far after each of them.

    Raises:
        WorkerError: the segment broke, or did not start from the checkpoint that it was to.
    """
    clock, told = Clock(), list[SegmentEnded]()
    store = CheckpointStore(workshop.checkpoints, workshop.keep)

    def tell(event_at: Callable[[float], Event]) -> None:
        event = event_at(clock.now_s())
        if isinstance(event, SegmentEnded):
            told.append(event)

    shop = Shop(workshop, store, clock, tell)
    broken: list[BaseException] = []
    heard = _Heard(is_enough)
    gang = Gang(
        order,
        clock.now_s(),
        configuration,
        site,
        shop=shop,
        listener=Listener(ended=lambda _gang: None, broken=broken.append, heard=heard.end_when_enough),
    )
    gang.start()
    try:
        gang.join()
    except BaseException:
        gang.abort(Outcome.ENDED)
        gang.join(_ENDS_WITHIN_S)
        raise
    if broken:
        raise WorkerError(f"a gang of {len(site.node_ids)} was lost while it was timed: {broken[0]}") from broken[0]
    if told[0].outcome not in (Outcome.ENDED, Outcome.COMPLETED):
        raise WorkerError(f"a gang of {len(site.node_ids)} broke while it was timed")
    recorded = store.recorded(order.trial)
    if heard.from_iteration != order.from_iteration or not recorded:
        raise WorkerError(
            f"{workshop.checkpoints} does not hand checkpoints on from one worker to the next: name a folder or a URL that this"
            " machine and every node reach (--checkpoints URL)"
        )
    return heard.segment(told[0], recorded[0].size_bytes)


class _Heard:
    """What the first member of a gang said of each iteration."""

    def __init__(self, is_enough: Callable[[Sequence[float]], bool]) -> None:
        self.from_iteration = 0
        self._is_enough = is_enough
        self._told_s = 0.0
        self._iteration_s: list[float] = []
        self._evaluate_s: list[float] = []

    def end_when_enough(self, gang: Gang, message: Message) -> None:
        """Take note of a message, and end the segment where it may end."""
        if isinstance(message, Started):
            self.from_iteration = message.from_iteration
        if not isinstance(message, Trained | Finished) or message.iteration != self.from_iteration + self._next:
            return
        self._iteration_s.append(message.train_s - self._told_s)
        self._evaluate_s.append(message.score or 0.0)
        self._told_s = message.train_s
        if isinstance(message, Trained) and self._is_enough(self._iteration_s):
            gang.end()

    @property
    def _next(self) -> int:
        """The next iteration of the segment; its last one is told by `Finished` alone."""
        return len(self._iteration_s) + 1

    def segment(self, ended: SegmentEnded, checkpoint_bytes: int) -> TimedSegment:
        """All of it, once it has ended."""
        return TimedSegment(
            self.from_iteration,
            ended.iteration,
            ended.launch_s,
            tuple(whole - part for whole, part in zip(self._iteration_s, self._evaluate_s, strict=True)),
            tuple(self._evaluate_s),
            ended.checkpoint_s,
            checkpoint_bytes,
        )
