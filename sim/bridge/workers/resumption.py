"""What a driver that died has left behind, and how a new one takes it up: events that settle it, and orders given again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elastune.sim.model.commands import StartTimer
from elastune.sim.model.events import GoneCause, InstanceGone, Outcome, SegmentEnded
from elastune.sim.model.protocols import InstanceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from elastune.sim.bridge.machines.nodes import Node
    from elastune.sim.bridge.workers.checkpoint import CheckpointStore, SavedCheckpoint
    from elastune.sim.model.commands import StartSegment
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import InstanceId, Placement, SegmentId, TrialId
    from elastune.sim.model.protocols import Configuration, ConfigurationSource


@dataclass(frozen=True)
class OpenSegment:
    """A segment that was under way.

    Attributes:
        ordered_at_s: when it was ordered.
        from_iteration: where it started.
        until_iteration: where it would have been complete.
        iteration: the last that was told, or the one it started from.
        score: at that iteration.
        is_clone: whether it started from the checkpoint of another trial, and what it had saved before is void.
    """

    trial: TrialId
    segment: SegmentId
    placement: Placement
    started_at_s: float
    from_iteration: int
    until_iteration: int
    iteration: int
    score: float | None
    is_clone: bool = False


@dataclass(frozen=True)
class OpenInstance:
    """A machine whose end was not told yet."""

    instance: InstanceId
    instance_type: str
    market: str
    status: InstanceStatus


@dataclass(frozen=True)
class Resumption:
    """The state of a run at the last line of its journal.

    Attributes:
        at_s: time of that line; the run's clock goes on from there.
        segments: those under way. Their workers died with the driver.
        instances: those that are not gone.
        timers: those that have not fired, by tag.
        configurations: of the trials, as they are now.
        sampled: those that the source of configurations proposed, in its order.
        clones: trials whose configurations are not the source's any more.
        results: trial, iteration and score of what the source heard, in order.
        leased: Ray's nodes behind the instances, as far as the dead driver wrote them down.
    """

    at_s: float
    segments: Sequence[OpenSegment] = ()
    instances: Sequence[OpenInstance] = ()
    timers: Mapping[str, float] = field(default_factory=dict)
    configurations: Mapping[TrialId, Configuration] = field(default_factory=dict)
    sampled: Mapping[TrialId, Configuration] = field(default_factory=dict)
    clones: Collection[TrialId] = ()
    results: Sequence[tuple[TrialId, int, float | None]] = ()
    leased: Mapping[InstanceId, Node] = field(default_factory=dict)

    def teach(self, source: ConfigurationSource) -> None:
        """Let a fresh source know all that the one of the dead driver knew."""
        for trial, configuration in self.sampled.items():
            source.remember(trial, configuration)
        for trial, iteration, score in self.results:
            source.hear(trial, iteration, score)

    def kept(self) -> dict[InstanceId, Node]:
        """The nodes of machines that were ready: what may be taken over, where it still lives."""
        ready = (InstanceStatus.READY, InstanceStatus.DRAINING)
        usable = {one.instance for one in self.instances if one.status in ready}
        return {number: node for number, node in self.leased.items() if number in usable}

    def requested(self) -> list[OpenInstance]:
        """Machines that are asked for again, as nothing has come of the request yet."""
        return [one for one in self.instances if one.status is InstanceStatus.REQUESTED]

    def to_set(self) -> list[StartTimer]:
        """Timers that are set again."""
        return [StartTimer(tag, at_s) for tag, at_s in self.timers.items()]

    def settling(self, store: CheckpointStore, alive: Mapping[InstanceId, Node]) -> list[Callable[[float], Event]]:
        """Events, as functions of their time, that end what died with the driver; segments before their machines.

        Args:
            store: says what of each trial is durable.
            alive: the machines that were taken over.
        """
        events: list[Callable[[float], Event]] = [
            _ended(one, store, alive, is_sampled=one.trial in self.configurations) for one in self.segments
        ]
        lost = (one for one in self.instances if one.instance not in alive)
        return events + [_gone(one) for one in lost if one.status is not InstanceStatus.REQUESTED]


def durable_of(
    store: CheckpointStore, trial: TrialId, segment: SegmentId, *, borrowed: int | None
) -> tuple[SavedCheckpoint | None, int]:
    """The newest whole checkpoint of a trial whose segment broke, and up to which iteration it is durable.

    Args:
        store: of checkpoints.
        trial: whose segment broke.
        segment: that broke.
        borrowed: where the segment of a clone started, which has that of its source until it has saved one itself; else None.
    """
    saved = store.latest(trial)
    if borrowed is not None and (saved is None or saved.segment < segment):
        return None, borrowed
    return saved, 0 if saved is None else saved.iteration


def known_score(store: CheckpointStore, command: StartSegment) -> float | None:
    """The score where a segment began, for one that ended before it had said anything; None where there is none."""
    if command.restore_from is None:
        return None
    saved = store.recorded(command.restore_from, at_most=command.from_iteration)
    return saved[0].score if saved and saved[0].iteration == command.from_iteration else None


def _ended(
    one: OpenSegment, store: CheckpointStore, alive: Mapping[InstanceId, Node], *, is_sampled: bool
) -> Callable[[float], SegmentEnded]:
    """On what it spent its time died with the driver: all counts as training, in vain where nothing new became durable."""
    outcome = Outcome.FAILED if all(number in alive for number, _ in one.placement) else Outcome.INSTANCE_GONE
    saved, durable = None, one.from_iteration
    if is_sampled:  # else it has another configuration from now on, and what it may have saved is void
        saved, durable = durable_of(store, one.trial, one.segment, borrowed=durable if one.is_clone else None)
    iteration, score = one.iteration, one.score
    if saved is not None and durable > iteration:
        iteration, score = durable, saved.score
    if durable >= one.until_iteration:
        outcome = Outcome.COMPLETED  # which could not be told any more
    is_in_vain = durable <= one.from_iteration

    def event_at(at_s: float) -> SegmentEnded:
        train_s = max(at_s - one.started_at_s, 0.0)
        lost_s = train_s if is_in_vain else 0.0
        return SegmentEnded(at_s, one.trial, one.segment, iteration, durable, score, outcome, 0.0, train_s, 0.0, lost_s)

    return event_at


def _gone(one: OpenInstance) -> Callable[[float], InstanceGone]:
    cause = GoneCause.RELEASED if one.status is InstanceStatus.RELEASING else GoneCause.LOST
    return lambda at_s: InstanceGone(at_s, one.instance, cause)
