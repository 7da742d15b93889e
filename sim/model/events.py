"""Events: what has happened, in the past tense. Imports only the standard library and msgspec.

A score is None before the first completed iteration and where the run diverged (NaN in the recorded curve). JSON has no NaN,
and a diverged run ranks last either way.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from elastune.sim.model.ids import InstanceId, SegmentId, TrialId


class Outcome(enum.StrEnum):
    """How a segment ended."""

    COMPLETED = "completed"
    """It reached the iteration it was started for."""
    ENDED = "ended"
    """It was told to end and did, at a safe point."""
    FAILED = "failed"
    """A worker died; its machines live on."""
    INSTANCE_GONE = "instance_gone"
    """A machine under it went away."""


class GoneCause(enum.StrEnum):
    """Why an instance is gone."""

    RELEASED = "released"
    RECLAIMED = "reclaimed"
    LOST = "lost"


class BaseEvent(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Base of all events.

    Attributes:
        at_s: when it happened, seconds since the run started.
    """

    at_s: float


class RunStarted(BaseEvent, frozen=True, tag=True, gc=False):
    """The first event of every run."""


class InstanceLaunched(BaseEvent, frozen=True, tag=True, gc=False):
    """Queueing is over, the machine boots; the bill may start."""

    instance: InstanceId


class InstanceBooted(BaseEvent, frozen=True, tag=True, gc=False):
    """The boot is over and set-up begins; sent only where set-up takes time of its own."""

    instance: InstanceId


class InstanceReady(BaseEvent, frozen=True, tag=True, gc=False):
    """The machine can train."""

    instance: InstanceId


class InstanceRefused(BaseEvent, frozen=True, tag=True, gc=False):
    """The provider has no capacity, or the quota is used up; the request is void."""

    instance: InstanceId
    reason: str


class ReclaimNoticed(BaseEvent, frozen=True, tag=True, gc=False):
    """The provider will take the machine back at `gone_at_s`."""

    instance: InstanceId
    gone_at_s: float


class InstanceGone(BaseEvent, frozen=True, tag=True, gc=False):
    """The machine is no longer ours; comes after the SegmentEnded of its gangs."""

    instance: InstanceId
    cause: GoneCause


class ProgressReported(BaseEvent, frozen=True, tag=True, gc=False):
    """A segment passed an iteration that its policy asked to hear of. Its last iteration comes with SegmentEnded only."""

    trial: TrialId
    segment: SegmentId
    iteration: int
    score: float | None


class SegmentEnded(BaseEvent, frozen=True, tag=True, gc=False, omit_defaults=True):
    """A segment gave its GPUs back.

    Attributes:
        iteration: iterations of the trial completed, over all its segments.
        checkpoint_iteration: the last durable one of them; a later segment continues from there.
        score: the score at `iteration`.
        launch_s: seconds spent on starting workers and restoring.
        train_s: seconds spent on training, an iteration cut short included.
        checkpoint_s: seconds spent on writing checkpoints.
        lost_s: the part of `train_s` after the last durable iteration; a later segment does that work again.
    """

    trial: TrialId
    segment: SegmentId
    iteration: int
    checkpoint_iteration: int
    score: float | None
    outcome: Outcome
    launch_s: float
    train_s: float
    checkpoint_s: float
    lost_s: float = 0.0


class TrialSampled(BaseEvent, frozen=True, tag=True, gc=False):
    """The configuration of a trial. Backends that train for real send it once, before any other event of the trial.

    It is in the journal and in every later StartSegment of the trial, so neither replay nor a resumed run needs the sampler.
    """

    trial: TrialId
    configuration: dict[str, float | int | str | bool | None]


class TimerFired(BaseEvent, frozen=True, tag=True, gc=False):
    """A timer of the policy has run out."""

    tag: str


Event: TypeAlias = (
    RunStarted
    | InstanceLaunched
    | InstanceBooted
    | InstanceReady
    | InstanceRefused
    | ReclaimNoticed
    | InstanceGone
    | ProgressReported
    | SegmentEnded
    | TrialSampled
    | TimerFired
)
