"""Actions of a policy, in the imperative. Imports only the standard library and msgspec."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from elastune.sim.model.ids import TrialId


class BaseAction(msgspec.Struct, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Base of all actions."""


class ScaleTo(BaseAction, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Hold this many instances from now on; lost ones are requested again.

    None means the job's first instance type, and its market (spot, where it is rented on both).
    """

    instances: int
    instance_type: str | None = None
    market: str | None = None


class RunTrial(BaseAction, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Train the trial on `gpus` GPUs until it has completed `until_iteration` iterations in all.

    The request waits in the controller while the trial is still ending or too few GPUs are free. Requests start in the order
    in which they were made.
    `report_every` > 0 asks for a ProgressReported at each multiple of it. `checkpoint_every` > 0 asks for a checkpoint at each
    multiple of it; 0 means as the job says.
    """

    trial: TrialId
    gpus: int
    until_iteration: int
    report_every: int = 0
    checkpoint_every: int = 0


class PauseTrial(BaseAction, frozen=True, tag=True, gc=False, omit_defaults=True):
    """End the trial's segment at its next safe point, with a checkpoint; it may run again."""

    trial: TrialId


class StopTrial(BaseAction, frozen=True, tag=True, gc=False, omit_defaults=True):
    """End the trial's segment; it never runs again."""

    trial: TrialId


class CloneTrial(BaseAction, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Let `target` continue from the last durable checkpoint of `source`, with another configuration (real workers only).

    The target must be idle (new, paused, or its segment has ended) and not stopped. The source may be in any status, but needs
    a durable checkpoint. The view shows the source's durable iteration and score as the target's at once; the target's earlier
    training is given up. The target borrows the checkpoint until a segment of its own has made a further iteration durable.
    Until then it cannot be the answer of the run, and its lender cannot become a clone. If the source itself still borrows a
    checkpoint, the target borrows the same one.
    """

    source: TrialId
    target: TrialId
    configuration: dict[str, float | int | str | bool | None]


class SetTimer(BaseAction, frozen=True, tag=True, gc=False, omit_defaults=True):
    """Ask for a TimerFired(tag) at `at_s`; setting a tag again moves its timer."""

    tag: str
    at_s: float


class FinishRun(BaseAction, frozen=True, tag=True, gc=False, omit_defaults=True):
    """The job is over and this trial is its answer; None where nothing was trained."""

    best: TrialId | None


Action: TypeAlias = ScaleTo | RunTrial | PauseTrial | StopTrial | CloneTrial | SetTimer | FinishRun
