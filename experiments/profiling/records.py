"""What a timing profile measures, and the folder in which it is kept until the profile is complete.

Imports the pure core, `traces.bundles.writer`'s names of files, and msgspec.
"""

from __future__ import annotations

import json
import shutil
import statistics
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from elastune.experiments.files import write_atomically
from elastune.experiments.profiling.curve_store import require_same
from elastune.sim.model.errors import InputError
from elastune.traces.bundles.writer import FILES
from elastune.traces.scaling.inline import gang_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elastune.sim.bridge.workers.measured import TimedSegment

TIMING = ".timing"
"""The work folder inside the bundle's folder; gone when the profile is complete."""
WARM_UP = 1
"""Iterations at the start of a segment that count as its launch, as far as they last longer than the others."""


class GangShape(NamedTuple):
    """A gang: GPUs, or CPU slots, on so many nodes."""

    gpus: int
    nodes: int

    @classmethod
    def parse(cls, text: str, gpus_per_node: int | None) -> Self:
        """`4` is a gang on as few nodes as hold it, `4x2` one on two.

        Raises:
            InputError: it is neither, or a node has fewer GPUs.
        """
        gpus, nodes = gang_of(text)
        fewest = -(-gpus // (gpus_per_node or gpus))
        if nodes is not None and nodes < fewest:
            raise InputError(f"--gpus {text}: {gpus} GPUs do not fit on {nodes} nodes of {gpus_per_node}")
        return cls(gpus, fewest if nodes is None else nodes)

    @property
    def per_node(self) -> tuple[int, ...]:
        """(nodes,) GPUs on each, as even as they can be, the larger ones first."""
        each, more = divmod(self.gpus, self.nodes)
        return tuple(each + (number < more) for number in range(self.nodes))

    def __str__(self) -> str:
        return f"{self.gpus}x{self.nodes}" if self.nodes > 1 else str(self.gpus)


class SegmentRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One timed segment, in seconds of the wall clock.

    Attributes:
        series: segments of one trial, one after the other.
        row: of the configuration in the bundle.
        round: how often this configuration was trained anew before.
        is_fresh: the trial started anew; else it went on from the checkpoint of the segment before.
        iterations: that were timed, those of the warm-up left out.
        launch_s: all that is neither training nor saving, from the order to the end, and the warm-up.
        warm_up_s: the part of it by which the first iteration was longer; see `WARM_UP`.
        train_s: median of an iteration without its evaluation.
        evaluate_s: median of its evaluation.
        iteration_s: median of both together.
        mean_iteration_s: their mean.
        iteration_cv: their coefficient of variation.
        checkpoint_s: writing one.
        checkpoint_bytes: size of the checkpoint.
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
        """A segment of at least `WARM_UP` + 2 iterations, summed up."""
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
    """How a node came: seconds from the request to its launch, and from there until it was ready."""

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


class TimingFolder:
    """The `.timing` folder of a profile: what it was asked for, the bundle it began with, and what was measured so far."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir, self.path = out_dir, out_dir / TIMING
        self.base, self.checkpoints = self.path / "base", self.path / "checkpoints"

    @property
    def is_begun(self) -> bool:
        """Whether an earlier call left something to go on with."""
        return (self.path / "job.json").is_file()

    def open(self, asked: dict[str, object], base: Path) -> None:
        """Make the folder, or check that it belongs to the same profile.

        Args:
            asked: what decides the measurements.
            base: folder of the bundle whose curves are kept; copied, once.

        Raises:
            InputError: it holds another profile that is not complete; the message names what differs.
        """
        if self.is_begun:
            require_same(self.path, json.loads((self.path / "job.json").read_text(encoding="utf-8")), asked)
            return
        self.base.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (base / name).is_file():
                shutil.copyfile(base / name, self.base / name)
        write_atomically(self.path / "job.json", json.dumps(asked).encode())

    def surroundings(self) -> Surroundings | None:
        """As noted before; None where nothing was measured yet."""
        note = self.path / "surroundings.json"
        return msgspec.json.decode(note.read_bytes(), type=Surroundings) if note.is_file() else None

    def note_surroundings(self, found: Surroundings) -> None:
        """Keep them."""
        write_atomically(self.path / "surroundings.json", msgspec.json.encode(found))

    def series(self, number: int) -> list[SegmentRecord] | None:
        """The segments of a series; None where it is not complete."""
        note = self._note(number)
        return msgspec.json.decode(note.read_bytes(), type=list[SegmentRecord]) if note.is_file() else None

    def note_series(self, number: int, records: Sequence[SegmentRecord]) -> None:
        """Keep a complete series; its checkpoints are not needed any more."""
        write_atomically(self._note(number), msgspec.json.encode(list(records)))

    def _note(self, number: int) -> Path:
        return self.path / f"series-{number:04d}.json"

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Where nothing was measured yet, it is as if nobody had asked."""
        if self.surroundings() is None:
            self.remove()
            if self.out_dir.is_dir() and not any(self.out_dir.iterdir()):
                self.out_dir.rmdir()
