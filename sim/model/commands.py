"""Commands of the controller to a backend, in the imperative. Imports only the standard library and msgspec."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from elastune.sim.model.ids import InstanceId, Placement, SegmentId, TrialId


class BaseCommand(msgspec.Struct, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Base of all commands."""


class ProvisionInstance(BaseCommand, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Rent a machine. Answered by InstanceLaunched and InstanceReady, or by InstanceRefused."""

    instance: InstanceId
    instance_type: str
    market: str


class ReleaseInstance(BaseCommand, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Give a machine back, or cancel its request. Gangs still on it are cut at once. Answered by InstanceGone."""

    instance: InstanceId


class StartSegment(BaseCommand, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Train a trial on these GPUs. Answered by exactly one SegmentEnded.

    Attributes:
        from_iteration: iterations of its last durable checkpoint, 0 for a new trial.
        report_every: a ProgressReported at each multiple of it; 0 for none.
        checkpoint_every: a checkpoint at each multiple of it, besides the one at the segment's end; 0 for none.
        restore_from: the trial whose checkpoint is loaded; None for a new trial. Where it is another than `trial`, this one was
            cloned, and what it saved by itself before no longer counts as a checkpoint.
        configuration: of the trial, from its TrialSampled or CloneTrial event; None before the first of them. The backend then
            finds the configuration by the trial's number, or asks its source.
    """

    segment: SegmentId
    trial: TrialId
    placement: Placement
    from_iteration: int
    until_iteration: int
    report_every: int = 0
    checkpoint_every: int = 0
    restore_from: TrialId | None = None
    configuration: dict[str, float | int | str | bool | None] | None = None


class EndSegment(BaseCommand, frozen=True, tag=True, gc=False, omit_defaults=True):
    """End a segment at its next safe point (the end of the iteration under way), with a checkpoint."""

    segment: SegmentId


class StartTimer(BaseCommand, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Answer with TimerFired(tag) at `at_s`; an earlier timer of the same tag is void."""

    tag: str
    at_s: float


Command: TypeAlias = ProvisionInstance | ReleaseInstance | StartSegment | EndSegment | StartTimer
