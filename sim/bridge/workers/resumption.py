"""What a dead driver left behind, and the events and commands with which a new driver continues."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elastune.sim.model.commands import StartSegment, StartTimer
from elastune.sim.model.events import Event, GoneCause, InstanceGone, Outcome, SegmentEnded
from elastune.sim.model.protocols import Configuration, ConfigurationSource, InstanceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from elastune.sim.bridge.machines.nodes import Node
    from elastune.sim.bridge.workers.checkpoint import CheckpointStore, SavedCheckpoint
    from elastune.sim.model.ids import InstanceId, Placement, SegmentId, TrialId


@dataclass(frozen=True)
class OpenSegment:
    """A segment that had not ended.

    Attributes:
        started_at_s: time of its command.
        from_iteration: where it started.
        until_iteration: where it would have been complete.
        iteration: the last one that was told, or the one it started from.
        score: at that iteration.
        is_clone: it started from a checkpoint of another trial, so earlier checkpoints of its own do not count.
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
    """A machine whose end was not told."""

    instance: InstanceId
    instance_type: str
    market: str
    status: InstanceStatus


@dataclass(frozen=True)
class Resumption:
    """The state of a run at the last line of its journal.

    Attributes:
        at_s: time of that line; the run's clock continues from there.
        segments: that had not ended. Their workers died with the driver.
        instances: that are not gone.
        timers: that have not fired, by tag.
        configurations: current ones, by trial.
        sampled: configurations that the source proposed, in its order.
        clones: trials with a configuration of another trial.
        results: trial, iteration and score that the source was told, in order.
        leased: Ray nodes of the instances, as the dead driver noted them.
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
        """Tell a new source all that the old one knew."""
        for trial, configuration in self.sampled.items():
            source.remember(trial, configuration)
        for trial, iteration, score in self.results:
            source.hear(trial, iteration, score)

    def kept(self) -> dict[InstanceId, Node]:
        """Nodes of machines that were ready and may be taken over."""
        ready = (InstanceStatus.READY, InstanceStatus.DRAINING)
        usable = {one.instance for one in self.instances if one.status in ready}
        return {number: node for number, node in self.leased.items() if number in usable}

    def requested(self) -> list[OpenInstance]:
        """Machines that were requested and not launched; they are requested again."""
        return [one for one in self.instances if one.status is InstanceStatus.REQUESTED]

    def to_set(self) -> list[StartTimer]:
        """Commands that set the timers again."""
        return [StartTimer(tag, at_s) for tag, at_s in self.timers.items()]

    def settling(self, store: CheckpointStore, alive: Mapping[InstanceId, Node]) -> list[Callable[[float], Event]]:
        """Events, as functions of their time, that end what died with the driver: segments first, then machines.

        Args:
            store: of checkpoints.
            alive: machines that were taken over.
        """
        events: list[Callable[[float], Event]] = [
            _ended(one, store, alive, is_sampled=one.trial in self.configurations) for one in self.segments
        ]
        lost = (one for one in self.instances if one.instance not in alive)
        return events + [_gone(one) for one in lost if one.status is not InstanceStatus.REQUESTED]


def durable_of(
    store: CheckpointStore, trial: TrialId, segment: SegmentId, *, borrowed: int | None
) -> tuple[SavedCheckpoint | None, int]:
    """The newest whole checkpoint of a trial whose segment broke, and its last durable iteration.

    Args:
        store: of checkpoints.
        trial: whose segment broke.
        segment: that broke.
        borrowed: for a clone, the iteration of its source's checkpoint, which counts until the clone saves one; else None.
    """
    saved = store.latest(trial)
    if borrowed is not None and (saved is None or saved.segment < segment):
        return None, borrowed
    return saved, 0 if saved is None else saved.iteration


def known_score(store: CheckpointStore, command: StartSegment) -> float | None:
    """The score at the start of a segment that ended before its first message; None if there is none."""
    if command.restore_from is None:
        return None
    saved = store.recorded(command.restore_from, at_most=command.from_iteration)
    return saved[0].score if saved and saved[0].iteration == command.from_iteration else None


def _ended(
    one: OpenSegment, store: CheckpointStore, alive: Mapping[InstanceId, Node], *, is_sampled: bool
) -> Callable[[float], SegmentEnded]:
    """The end of a segment whose driver died. All its time counts as training, lost if no new checkpoint was saved."""
    outcome = Outcome.FAILED if all(number in alive for number, _ in one.placement) else Outcome.INSTANCE_GONE
    saved, durable = None, one.from_iteration
    if is_sampled:  # else the trial gets another configuration, and its checkpoints do not count
        saved, durable = durable_of(store, one.trial, one.segment, borrowed=durable if one.is_clone else None)
    iteration, score = one.iteration, one.score
    if saved is not None and durable > iteration:
        iteration, score = durable, saved.score
    if durable >= one.until_iteration:
        outcome = Outcome.COMPLETED  # the driver died before it was told
    is_in_vain = durable <= one.from_iteration

    def event_at(at_s: float) -> SegmentEnded:
        train_s = max(at_s - one.started_at_s, 0.0)
        lost_s = train_s if is_in_vain else 0.0
        return SegmentEnded(at_s, one.trial, one.segment, iteration, durable, score, outcome, 0.0, train_s, 0.0, lost_s)

    return event_at


def _gone(one: OpenInstance) -> Callable[[float], InstanceGone]:
    cause = GoneCause.RELEASED if one.status is InstanceStatus.RELEASING else GoneCause.LOST
    return lambda at_s: InstanceGone(at_s, one.instance, cause)
