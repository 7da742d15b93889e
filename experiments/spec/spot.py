"""What of the `cloud` section is about machines that are not to be had, or are taken back: `spot`, `capacity`, `fail_over`.

Imports sim.model, the loaders of traces, and pydantic.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from elastune.experiments.spec.section import (
    SECONDS,
    SOME_SECONDS,
    Count,
    Number,
    Range,
    Seconds,
    Section,
    seconds_form,
)
from elastune.sim.model.capacity import Steps
from elastune.sim.model.errors import InputError
from elastune.sim.model.prices import ON_DEMAND, SPOT, Pool
from elastune.sim.model.profile import Spot
from elastune.sim.model.reclaim import Lifetimes, ReclaimProcess
from elastune.traces import load_spot_trace

# How long before the end of a spot machine its provider says so: EC2 user guide, "Spot Instance interruption notices"; Compute
# Engine documentation, "Spot VMs", preemption process.
NOTICES_S = {"aws": 120.0, "gcp": 30.0}

StepPairs = list[tuple[Annotated[Seconds, SECONDS], Annotated[Count, Range(0, 10_000)]]]


class LifetimeSpec(Section):
    """Spot machines go by chance, each on its own; see `sim.model.reclaim.Lifetimes`."""

    mean_s: Annotated[Seconds, Range(1, 1e9), "mean life of a spot machine"]
    shape: Annotated[Number, Range(0.1, 100), "shape of the Weibull distribution of lives; 1 is exponential"] = 1.0


class BulkSpec(Section):
    """Many machines of a zone go at once; see `sim.model.reclaim.Lifetimes`."""

    per_hour: Annotated[Number, Range(0, 60), "how many times an hour a zone takes many machines back at once"]
    share: Annotated[Number, Range(1e-3, 1), "share of the zone's machines that it takes back"] = 1.0
    zones: Annotated[Count, Range(1, 1000), "number of zones, over which machines are spread evenly"] = 1


def _notice_form(value: object) -> object:
    if isinstance(value, str):
        if value not in NOTICES_S:
            return _seconds_or(value, f"one of {', '.join(NOTICES_S)}")
        return NOTICES_S[value]
    return value


def _seconds_or(value: str, other: str) -> object:
    try:
        return seconds_form(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {other}") from None


def _start_form(value: object) -> object:
    if isinstance(value, str) and value != "random":
        return _seconds_or(value, "random")
    return value


class SpotSpec(Section):
    """How spot machines are taken back: by a recording, or by chance."""

    trace: Annotated[str | None, "a file that recorded when machines came and went"] = None
    recording: Annotated[str | None, "which of the file's recordings, by its name"] = None
    start_s: Annotated[
        Seconds | Literal["random"] | None,
        BeforeValidator(_start_form),
        SECONDS,
        "second of the recording at which the run begins, or `random`",
    ] = None
    lifetime: LifetimeSpec | None = None
    bulk: BulkSpec | None = None
    notice_s: Annotated[
        Seconds,
        BeforeValidator(_notice_form),
        SECONDS,
        "how long before its end a machine gets a notice; or `aws` (120), `gcp` (30)",
    ] = NOTICES_S["aws"]
    mtbf_s: Annotated[
        Seconds | None, SOME_SECONDS, "mean life of a machine that policies believe; default: the true one"
    ] = None

    @model_validator(mode="after")
    def _recorded_or_drawn(self) -> Self:
        is_drawn = self.lifetime is not None or self.bulk is not None
        if (self.trace is not None) == is_drawn:
            raise InputError(
                "cloud.spot must say how machines are taken back: either trace (a file), or lifetime and bulk (by chance)"
            )
        if is_drawn and (self.recording, self.start_s) != (None, None):
            raise InputError("cloud.spot.recording and cloud.spot.start_s are about a trace, and there is none")
        return self

    def truth(self) -> Spot:
        """What really happens to spot machines.

        Raises:
            InputError: a number is out of range.
            InvalidTraceError: the trace is malformed.
        """
        return Spot(self.process(), self.notice_s)

    def believed_mtbf_s(self) -> float:
        """Mean seconds for which a machine is held: as given, else as the recording or the distributions have it."""
        return self.process().mtbf_s if self.mtbf_s is None else self.mtbf_s

    def data_sha256(self) -> dict[str, str]:
        """Digest of the trace by its path; empty where there is none."""
        return {} if self.trace is None else {self.trace: hashlib.sha256(Path(self.trace).read_bytes()).hexdigest()}

    def process(self) -> ReclaimProcess:
        """How machines are taken back.

        Raises:
            InputError: a number is out of range.
            InvalidTraceError: the trace is malformed.
        """
        if self.trace is not None:
            start_s = None if self.start_s == "random" else float(self.start_s or 0.0)
            return load_spot_trace(Path(self.trace), self.recording, start_s)
        lifetime, bulk = self.lifetime, self.bulk
        mean_s, shape = (math.inf, 1.0) if lifetime is None else (lifetime.mean_s, lifetime.shape)
        try:
            if bulk is None:
                return Lifetimes(mean_s, shape)
            return Lifetimes(mean_s, shape, bulk.per_hour, bulk.share, bulk.zones)
        except InputError as error:
            raise InputError(f"cloud.spot.{error}") from error


def steps_of(where: str, value: int | StepPairs) -> Steps:
    """A number of instances over time.

    Args:
        where: the key, for messages.
        value: one number, or pairs [seconds, instances].

    Raises:
        InputError: a number is out of range, or the times do not rise from 0.
    """
    try:
        if isinstance(value, int):
            return Steps.constant(value)
        return Steps(tuple(float(at_s) for at_s, _ in value), tuple(count for _, count in value))
    except InputError as error:
        raise InputError(f"{where} {error}") from error


def pool_named(where: str, text: str, default: Pool) -> Pool:
    """A pool as a spec writes it: `spot`, `p3.8xlarge` or `p3.8xlarge/spot`; what is left out is the default's.

    Raises:
        InputError: the market is none.
    """
    name, slash, market = text.partition("/")
    if not slash and name in (ON_DEMAND, SPOT):
        return default[0], name
    if not slash:
        return name, default[1]
    if market not in (ON_DEMAND, SPOT):
        raise InputError(f"{where} is {text!r}, but the market after the slash must be {ON_DEMAND} or {SPOT}")
    return name, market


def pair_form(value: Any) -> Any:  # noqa: ANN401  whatever YAML held there
    """Lists of pairs, as YAML and JSON hold them."""
    if isinstance(value, list) and not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        raise ValueError("must be a number of instances, or a list of pairs [seconds, instances]")
    return value
