"""One segment on real workers: a group of Ray actors, which a thread follows from its start to its end.

Imports ray inside functions. Whether a worker or a node dies or the segment is ended: the thread ends every actor of the group,
and then tells exactly one `SegmentEnded`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastune.sim.bridge.machines.nodes import CPU, bundle
from elastune.sim.bridge.workers.resumption import durable_of, known_score
from elastune.sim.bridge.workers.worker import (
    Assignment,
    Finished,
    Message,
    Saved,
    SegmentWorker,
    Started,
    Trained,
    WorkerSettings,
)
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import Event, Outcome, ProgressReported, SegmentEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.sim.bridge.machines.clock import Clock
    from elastune.sim.bridge.workers.checkpoint import CheckpointStore
    from elastune.sim.model.commands import StartSegment
    from elastune.sim.model.ids import SegmentId
    from elastune.sim.model.protocols import Configuration

_log = logging.getLogger(__name__)
_POLL_S = 0.02
_PLACED_WITHIN_S = 60.0
"""Ray frees the GPUs of ended actors within moments, so a group that cannot be placed for this long is broken."""


@dataclass(frozen=True)
class Site:
    """Where a worker group runs.

    Attributes:
        node_ids: (members,) Ray's names, one per member.
        host: address of the first of them.
        is_whole: whether all these machines still live.
    """

    node_ids: Sequence[str]
    host: str
    is_whole: Callable[[], bool]


@dataclass(frozen=True)
class GroupContext:
    """What all worker groups of a run share.

    Attributes:
        settings: of their workers.
        store: of checkpoints; tells what is durable if a worker could not.
        clock: of the run.
        tell: takes a function from the time to an event, and tells that event.
    """

    settings: WorkerSettings
    store: CheckpointStore
    clock: Clock
    tell: Callable[[Callable[[float], Event]], None]


@dataclass(frozen=True, kw_only=True)
class GroupListener:
    """Callbacks of a worker group, called in its thread.

    Attributes:
        ended: called after the segment's last event.
        broken: called if that event cannot be told.
        raised: called before that event if the training raised an error, with what it says; not if a process died.
        message: called with each message of the first member.
    """

    ended: Callable[[WorkerGroup], None]
    broken: Callable[[BaseException], None]
    raised: Callable[[SegmentId, str], None] = lambda _segment, _what: None
    message: Callable[[WorkerGroup, Message], None] = lambda _group, _message: None


class _AbortedError(Exception):
    """The worker group was stopped before it had workers."""


class WorkerGroup:
    """The workers of one segment.

    Args:
        command: what is trained.
        started_at_s: time of the event that the command answers; from then on the group holds its GPUs.
        configuration: of the trial.
        site: the machines.
        context: shared by all worker groups of the run.
        listener: told of all that happens to it.
    """

    def __init__(
        self,
        command: StartSegment,
        started_at_s: float,
        configuration: Configuration,
        site: Site,
        *,
        context: GroupContext,
        listener: GroupListener,
    ) -> None:
        self.command = command
        self._configuration, self._site = configuration, site
        self._settings, self._store = context.settings, context.store
        self._clock, self._tell = context.clock, context.tell
        self._listener = listener
        self._lock = threading.Lock()
        self._actors: list[Any] = []  # ray's handles have no types
        self._group: Any = None
        self._cut: Outcome | None = None
        self._is_ending = False
        self._saves_each = False
        self._broken = threading.Event()
        self._started_s = started_at_s
        self._restored: Started | None = None
        self._launch_s = 0.0
        self._trained = Trained(command.from_iteration, None, 0.0, 0.0, is_report=False)
        self._saved = Saved(command.from_iteration, 0.0, 0.0)
        self._finished: Finished | None = None
        self._is_over = threading.Event()

    def start(self) -> None:
        """Start the thread that brings the group up."""
        threading.Thread(target=self._run, name=f"segment-{self.command.segment}", daemon=True).start()

    def give_up(self) -> None:
        """It could not be started: nobody need wait for its end, which is not told."""
        self._listener.ended(self)
        self._is_over.set()

    def end(self) -> None:
        """End at the next safe point, with a checkpoint."""
        with self._lock:
            if not self._is_ending:
                self._is_ending = True
                self._ask("end")

    def save_each(self) -> None:
        """Save after every iteration from now on."""
        with self._lock:
            if not self._saves_each:
                self._saves_each = True
                self._ask("save_each")

    def abort(self, outcome: Outcome) -> None:
        """End at once; only checkpoints remain."""
        with self._lock:
            if self._cut is None:
                self._cut = outcome
            self._broken.set()
            self._kill()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the last event, of a group that may not have started yet; return whether it was told."""
        return self._is_over.wait(timeout_s)

    # The thread.

    def _run(self) -> None:
        try:
            self._live()
        finally:
            self._is_over.set()

    def _live(self) -> None:
        try:
            if not self._broken.is_set():
                self._train()
        except _AbortedError:
            pass
        except Exception as error:
            self._note(error)
        try:
            self._dismiss()
            self._tell(self._last_event())
        except Exception as error:
            self._listener.broken(error)
        finally:
            self._listener.ended(self)

    def _note(self, error: Exception) -> None:
        level = logging.DEBUG if self._cut is not None else logging.WARNING
        told = str(error).strip().splitlines() or [type(error).__name__]
        # Ray adds a paragraph of possible causes.
        what = told[-1].partition(" Worker exit type")[0].removeprefix(f"{WorkerError.__module__}.WorkerError: ")
        _log.log(level, "segment %d of trial %d broke: %s", self.command.segment, self.command.trial, what)
        if self._has_raised(error):
            self._listener.raised(self.command.segment, what)

    def _has_raised(self, error: Exception) -> bool:
        """Whether the training raised the error; in a group of several, the death of another member raises errors as well."""
        from ray.exceptions import OutOfMemoryError, RayTaskError

        return isinstance(error, OutOfMemoryError) or (
            isinstance(error, RayTaskError) and len(self._site.node_ids) == 1
        )

    def _train(self) -> None:
        import ray

        self._place()
        self._hire()
        first, *others = self._actors
        rendezvous = None
        if others and self._settings.build.needs_process_group:
            rendezvous = ray.get(first.rendezvous.remote(self._site.host))
        for member in others:
            # A survivor would wait for its lost peer for ever, so one broken member breaks the group.
            stream = member.train.options(num_returns="streaming").remote(rendezvous)
            stream.completed().future().add_done_callback(self._member_done)
        for reference in first.train.options(num_returns="streaming").remote(rendezvous):
            message: Message = ray.get(reference)
            self._hear(message)
            self._listener.message(self, message)

    def _place(self) -> None:
        from ray.util.placement_group import placement_group

        device = self._settings.device
        self._group = placement_group(
            [bundle(device) for _ in self._site.node_ids],
            bundle_label_selector=[{"ray.io/node-id": node_id} for node_id in self._site.node_ids],
        )
        give_up_s = time.monotonic() + _PLACED_WITHIN_S
        while not self._group.wait(0):
            if self._broken.wait(_POLL_S):
                raise _AbortedError
            if time.monotonic() > give_up_s:
                raise TimeoutError(
                    f"no room for a worker group of {len(self._site.node_ids)} within {_PLACED_WITHIN_S:g} s"
                )

    def _hire(self) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        actor = ray.remote(SegmentWorker)
        size = len(self._site.node_ids)
        with self._lock:
            if self._broken.is_set():
                raise _AbortedError
            for rank in range(size):
                strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
                options = {"num_cpus": 1, "max_concurrency": 4, "max_restarts": 0, "scheduling_strategy": strategy}
                if self._settings.device != CPU:
                    options["num_gpus"] = 1
                self._actors.append(actor.options(**options).remote(self._settings, self._assignment(rank, size)))
            if self._is_ending:
                self._ask("end")
            if self._saves_each:
                self._ask("save_each")

    def _assignment(self, rank: int, size: int) -> Assignment:
        command = self.command
        return Assignment(
            trial=command.trial,
            segment=command.segment,
            from_iteration=command.from_iteration,
            until_iteration=command.until_iteration,
            report_every=command.report_every,
            checkpoint_every=command.checkpoint_every,
            restore_from=command.restore_from,
            configuration=self._configuration,
            rank=rank,
            size=size,
            nodes=len(command.placement),
        )

    def _ask(self, method: str) -> None:
        """Call a method of the first member, if it exists, without waiting for the answer."""
        if self._actors:
            getattr(self._actors[0], method).remote()

    def _member_done(self, future: Any) -> None:  # noqa: ANN401  a future of ray's
        if future.exception() is not None and self._finished is None and not self._broken.is_set():
            # This is a thread of Ray, which must not wait for Ray.
            threading.Thread(target=self._break_up, name=f"segment-{self.command.segment}-breaks", daemon=True).start()

    def _break_up(self) -> None:
        self._broken.set()
        with self._lock:
            self._kill()

    def _hear(self, message: Message) -> None:
        command = self.command
        match message:
            case Started():
                self._restored = message
                self._launch_s = self._clock.now_s() - self._started_s
                self._trained = Trained(message.from_iteration, message.score, 0.0, 0.0, is_report=False)
                self._saved = Saved(message.from_iteration, 0.0, 0.0)
            case Trained():
                self._trained = message
                if message.is_report and message.iteration < command.until_iteration:
                    iteration, score = message.iteration, message.score
                    self._tell(lambda at_s: ProgressReported(at_s, command.trial, command.segment, iteration, score))
            case Saved():
                self._saved = message
            case Finished():
                self._finished = message

    # The end.

    def _kill(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor, no_restart=True)

    def _dismiss(self) -> None:
        from ray.util.placement_group import remove_placement_group

        with self._lock:
            self._broken.set()
            self._kill()
        if self._group is not None:
            remove_placement_group(self._group)

    def _last_event(self) -> Callable[[float], SegmentEnded]:
        finished = self._finished
        if finished is None:
            return self._broken_event()
        command, speed, started_s = self.command, self._clock.speed, self._started_s
        train_s, checkpoint_s = finished.train_s * speed, finished.checkpoint_s * speed
        outcome = Outcome.ENDED if finished.was_ended else Outcome.COMPLETED

        def event_at(at_s: float) -> SegmentEnded:
            # All other time counts as launch, including the end and the messages.
            launch_s = max(at_s - started_s - train_s - checkpoint_s, 0.0)
            end, score = finished.iteration, finished.score
            return SegmentEnded(
                at_s, command.trial, command.segment, end, end, score, outcome, launch_s, train_s, checkpoint_s
            )

        return event_at

    def _broken_event(self) -> Callable[[float], SegmentEnded]:
        """The end of a group that broke: whole checkpoints count, and unknown time since the launch counts as training."""
        command, trained, saved_last, started_s = self.command, self._trained, self._saved, self._started_s
        speed = self._clock.speed
        outcome = self._cut or (Outcome.FAILED if self._site.is_whole() else Outcome.INSTANCE_GONE)
        launched_s, kept_s = math.inf, 0.0
        durable = iteration = command.from_iteration
        score: float | None
        if self._restored is not None:
            is_clone = command.restore_from not in (None, command.trial)
            borrowed = command.from_iteration if is_clone else None
            saved, durable = durable_of(self._store, command.trial, command.segment, borrowed=borrowed)
            launched_s, iteration, score = self._launch_s, trained.iteration, trained.score
            kept_s = saved_last.train_s if durable <= saved_last.iteration else trained.train_s
            if saved is not None and durable > iteration:
                iteration, score = durable, saved.score  # the worker died before it told this
            if durable >= command.until_iteration:
                outcome = Outcome.COMPLETED  # nothing is left to do, so a policy must not restart it
        else:
            score = known_score(self._store, command)

        def event_at(at_s: float) -> SegmentEnded:
            elapsed_s = at_s - started_s
            launch_s = min(launched_s, elapsed_s)
            saving_s = max(trained.checkpoint_s, saved_last.checkpoint_s)
            checkpoint_s = min(saving_s * speed, elapsed_s - launch_s)
            train_s = elapsed_s - launch_s - checkpoint_s
            lost_s = max(train_s - kept_s * speed, 0.0)
            return SegmentEnded(
                at_s,
                command.trial,
                command.segment,
                iteration,
                durable,
                score,
                outcome,
                launch_s,
                train_s,
                checkpoint_s,
                lost_s,
            )

        return event_at
