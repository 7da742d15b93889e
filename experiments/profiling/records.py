"""Records of profiles: iterations and checkpoints of trials, segments on gangs, starts of processes and nodes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import statistics
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from elastune.sim.model.errors import InputError
from elastune.traces.scaling.inline import gang_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.sim.bridge.workers.measured import TimedSegment

WARM_UP = 1
"""First iterations of a segment; the time by which they are longer than the others counts as launch."""


class IterationRecord(msgspec.Struct, frozen=True, tag=True):
    """One measured iteration of a trial.

    Attributes:
        iteration: counted from 1.
        score: on the validation split; None where training diverged.
        test_score: on the test split; None where training diverged.
        seconds: training and validation, by the wall clock.
        cpu_seconds: the same, by the processor's clock.
        measures: by name, what the workload measures beside its score; None where it is not finite.
    """

    iteration: int
    score: float | None
    test_score: float | None
    seconds: float
    cpu_seconds: float
    measures: dict[str, float | None] = {}

    @classmethod
    def of(
        cls,
        iteration: int,
        score: float,
        test_score: float,
        *,
        seconds: float,
        cpu_seconds: float,
        measures: Mapping[str, float] = MappingProxyType({}),
    ) -> Self:
        """A record of an iteration; a score or measure that is not finite becomes None."""
        others = {name: _finite(value) for name, value in measures.items()}
        return cls(iteration, _finite(score), _finite(test_score), round(seconds, 7), round(cpu_seconds, 7), others)

    def same_scores(self, other: IterationRecord) -> bool:
        """Whether scores and measures are equal."""
        mine, its = ((one.score, one.test_score, one.measures) for one in (self, other))
        return mine == its


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class CheckpointCost(msgspec.Struct, frozen=True, tag=True):
    """One checkpoint of a trial: seconds to write it durably, and its size."""

    checkpoint_s: float
    checkpoint_bytes: int


class Probe(NamedTuple):
    """Measurements of one fresh process.

    Attributes:
        launch_s: from its start until its first iteration can begin.
        iteration_seconds: of one fixed configuration, after a warm-up iteration.
    """

    launch_s: float
    iteration_seconds: tuple[float, ...]


class GangShape(NamedTuple):
    """A gang: its GPUs or CPU slots, and its nodes."""

    gpus: int
    nodes: int

    @classmethod
    def parse(cls, text: str, gpus_per_node: int | None) -> Self:
        """Read `4`, a gang on as few nodes as possible, or `4x2`, one on two nodes.

        Raises:
            InputError: it is neither, or the nodes have fewer GPUs.
        """
        gpus, nodes = gang_of(text)
        fewest = -(-gpus // (gpus_per_node or gpus))
        if nodes is not None and nodes < fewest:
            raise InputError(f"--gpus {text}: {gpus} GPUs do not fit on {nodes} nodes of {gpus_per_node}")
        return cls(gpus, fewest if nodes is None else nodes)

    @property
    def per_node(self) -> tuple[int, ...]:
        """(nodes,) GPUs on each node, as even as possible, larger numbers first."""
        each, more = divmod(self.gpus, self.nodes)
        return tuple(each + (number < more) for number in range(self.nodes))

    def __str__(self) -> str:
        return f"{self.gpus}x{self.nodes}" if self.nodes > 1 else str(self.gpus)


class SegmentRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One timed segment, in seconds of the wall clock.

    Attributes:
        series: number of the trial, which has several segments.
        row: of the configuration in the bundle.
        round: earlier trials of this configuration.
        is_fresh: the trial started anew; else it continued from the previous segment.
        iterations: timed ones, without the warm-up.
        launch_s: all time but training and saving, plus the warm-up.
        warm_up_s: the part of it that is warm-up; see `WARM_UP`.
        train_s: median of an iteration without its evaluation.
        evaluate_s: median of its evaluation.
        iteration_s: median of both together.
        mean_iteration_s: their mean.
        iteration_cv: their coefficient of variation.
        checkpoint_s: writing the checkpoint.
        checkpoint_bytes: its size.
    """

    series: int
    row: int
    round: int
    gpus: int
    nodes: int
    is_fresh: bool
    iterations: int
    launch_s: float
    warm_up_s: float
    train_s: float
    evaluate_s: float
    iteration_s: float
    mean_iteration_s: float
    iteration_cv: float
    checkpoint_s: float
    checkpoint_bytes: int

    @property
    def shape(self) -> GangShape:
        """The gang."""
        return GangShape(self.gpus, self.nodes)

    @classmethod
    def of(cls, segment: TimedSegment, shape: GangShape, *, series: int, row: int, round_: int) -> Self:
        """The record of a segment with at least `WARM_UP` + 2 iterations."""
        both = [train + evaluate for train, evaluate in zip(segment.train_s, segment.evaluate_s, strict=True)]
        rest = both[WARM_UP:]
        median_s = statistics.median(rest)
        warm_up_s = sum(max(seconds - median_s, 0.0) for seconds in both[:WARM_UP])
        return cls(
            series=series,
            row=row,
            round=round_,
            gpus=shape.gpus,
            nodes=shape.nodes,
            is_fresh=segment.from_iteration == 0,
            iterations=len(rest),
            launch_s=segment.launch_s + warm_up_s,
            warm_up_s=warm_up_s,
            train_s=statistics.median(segment.train_s[WARM_UP:]),
            evaluate_s=statistics.median(segment.evaluate_s[WARM_UP:]),
            iteration_s=median_s,
            mean_iteration_s=statistics.fmean(rest),
            iteration_cv=statistics.stdev(rest) / statistics.fmean(rest),
            checkpoint_s=segment.checkpoint_s,
            checkpoint_bytes=segment.checkpoint_bytes,
        )


class NodeStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The start of a node: seconds from the request to the launch, and from there until it was ready."""

    queue_s: float
    init_s: float


class Surroundings(msgspec.Struct, frozen=True):
    """Where it was measured.

    Attributes:
        measured_on: processor or GPU, and versions.
        load_average: of the machine this ran on in the last minute, before anything was started.
        cores: of that machine.
        nodes: how those that were started came; none on a cluster that ran already.
    """

    measured_on: dict[str, str | int | None]
    load_average: float
    cores: int
    nodes: list[NodeStart]


def measured_on() -> dict[str, str | int | None]:
    """Processor and versions; no name of the machine and no path."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    versions = {}
    for package in ("torch", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
    }
