"""Step times in the form of Pollux's artifact -> a scaling by GPUs and nodes. Imports sim.model and the table reader.

One row per measurement: `workload`, `gpus`, `nodes`, `local_batch_size` (of each GPU), `step_time_s`, `sync_time_s` (the part
of the step that synchronises), and further columns such as `placement`, `kind` and `gpu_type`, by which rows are filtered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from elastune.sim.model.errors import InputError, InvalidTraceError, unknown
from elastune.sim.model.node_scaling import PlacedTableScaling
from elastune.traces.formats.csv_rows import Row, matching, read_rows

Gang = tuple[int, int]
_MEASURED = ("step_time_s", "sync_time_s")
COLUMNS = ("workload", "gpus", "nodes", "local_batch_size", "step_time_s", "sync_time_s")


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step at one batch per GPU, the mean of what was measured, over `placements` ways to split a gang.

    Attributes:
        step_s: of the whole step.
        sync_s: of its synchronisation.
    """

    step_s: float
    sync_s: float
    placements: int


@dataclass(frozen=True)
class ImportedScaling:
    """A scaling, and what has to be known about how it came about.

    Attributes:
        seconds: of a step of the batch that was asked for, by (GPUs, nodes).
        notes: what was interpolated, accumulated, averaged or left out.
    """

    scaling: PlacedTableScaling
    seconds: Mapping[Gang, float]
    notes: tuple[str, ...]


def import_step_times(
    path: Path,
    workload: str,
    kind: Literal["weak", "strong"],
    batch: int,
    where: Mapping[str, str] | None = None,
) -> ImportedScaling:
    """The scaling of one workload in a table of step times.

    Weak: every GPU takes `batch` samples, which must have been measured. Strong: the gang takes `batch` samples, each of p
    GPUs batch / p. Where that lies between two measured batches per GPU, seconds are linear between them; where it is beyond
    the largest, it is divided into the fewest equal passes that fit, of which only the last synchronises (gradient
    accumulation, as in Pollux); where it is below the smallest, the gang is left out.

    Several placements of a gang on as many nodes (3 + 1 GPUs, 2 + 2) count by the mean of their seconds.

    Args:
        path: a .csv or .csv.gz file.
        workload: the text of its column `workload`.
        kind: see above.
        batch: samples per GPU (weak) or of the whole gang (strong).
        where: only rows whose columns have these texts.

    Raises:
        InputError: the workload or the batch is not in the table.
        InvalidTraceError: the file is malformed, or 1 GPU was not measured.
    """
    times = _read(path, workload, where or {})
    if (1, 1) not in times:
        gang = f"{min(times)[0]} GPUs on {min(times)[1]} nodes"
        raise InvalidTraceError(
            path,
            f"workload {workload} has no row for 1 GPU, over which speed-ups are; the smallest gang is {gang}."
            " Leave a filter out, or add a row",
            column="gpus",
        )
    notes: list[str] = []
    seconds = _weak(times, batch, notes) if kind == "weak" else _strong(times, batch, notes)
    averaged = sum(by_batch[max(by_batch)].placements > 1 for gang, by_batch in times.items() if gang in seconds)
    if averaged:
        notes.append(
            f"gangs measured in several placements on as many nodes: {averaged}; the mean of their seconds counts"
        )
    samples = {gang: gang[0] if kind == "weak" else 1 for gang in seconds}
    speedups = {gang: samples[gang] * seconds[1, 1] / step_s for gang, step_s in seconds.items()}
    return ImportedScaling(PlacedTableScaling(speedups, kind), seconds, tuple(notes))


def _read(path: Path, workload: str, where: Mapping[str, str]) -> dict[Gang, dict[int, StepTime]]:
    """By gang, and by batch per GPU."""
    rows = read_rows(path, COLUMNS)
    known = {row.text("workload") for row in rows}
    if workload not in known:
        raise unknown(f"workload in {path}", workload, known)
    measured: dict[Gang, dict[int, list[tuple[float, float]]]] = {}
    seen: dict[tuple[str, ...], Row] = {}
    for row in matching(path, rows, {"workload": workload, **where}):
        gpus, nodes = row.whole_number("gpus", 1), row.whole_number("nodes", 1)
        if nodes > gpus:
            raise row.wrong("nodes", f"is {nodes}, but {gpus} GPUs fit on at most as many nodes")
        step_s, sync_s = row.positive_number("step_time_s"), row.number_at_least("sync_time_s")
        if sync_s > step_s:
            raise row.wrong("sync_time_s", f"is {sync_s:g}, but the whole step takes {step_s:g}")
        described = tuple(text for column, text in row.cells.items() if column not in _MEASURED)
        before = seen.setdefault(described, row)
        if before is not row:
            problem = f"measures what row {before.number} does: keep one, or tell them apart in a column of your own"
            raise row.wrong("step_time_s", problem)
        by_batch = measured.setdefault((gpus, nodes), {})
        by_batch.setdefault(row.whole_number("local_batch_size", 1), []).append((step_s, sync_s))
    return {gang: {b: _mean(found) for b, found in sorted(by.items())} for gang, by in sorted(measured.items())}


def _mean(found: list[tuple[float, float]]) -> StepTime:
    return StepTime(fmean(step_s for step_s, _ in found), fmean(sync_s for _, sync_s in found), len(found))


def _weak(times: Mapping[Gang, Mapping[int, StepTime]], batch: int, notes: list[str]) -> dict[Gang, float]:
    single = times[1, 1]
    if batch not in single:
        raise InputError(f"a batch of {batch} per GPU was not measured on 1 GPU; measured: {_listed(single)}")
    lacking = [f"{gpus}x{nodes}" for (gpus, nodes), by_batch in times.items() if batch not in by_batch]
    if lacking:
        notes.append(
            f"gangs left out: {len(lacking)}, not measured at a batch of {batch} per GPU: {', '.join(lacking)}"
        )
    return {gang: by_batch[batch].step_s for gang, by_batch in times.items() if batch in by_batch}


def _strong(times: Mapping[Gang, Mapping[int, StepTime]], batch: int, notes: list[str]) -> dict[Gang, float]:
    seconds: dict[Gang, float] = {}
    too_small: list[Gang] = []
    most_passes = 1
    for gang, by_batch in times.items():
        passes = max(1, math.ceil(batch / gang[0] / max(by_batch)))
        local = batch / gang[0] / passes
        if local < min(by_batch):
            too_small.append(gang)
            continue
        most_passes = max(most_passes, passes)
        step_s, sync_s = _at(by_batch, local)
        seconds[gang] = (passes - 1) * (step_s - sync_s) + step_s
    if (1, 1) not in seconds:
        raise InputError(f"a batch of {batch} on 1 GPU is below every measured one: {_listed(times[1, 1])}")
    if most_passes > 1:
        notes.append(f"batches beyond the largest measured one are accumulated, in up to {most_passes} passes")
    if too_small:
        smallest = min(min(by_batch) for by_batch in times.values())
        notes.append(
            f"gangs left out: {len(too_small)}, of {too_small[0][0]} GPUs and more, whose share of the batch is below the"
            f" smallest measured one, {smallest}"
        )
    return seconds


def _at(by_batch: Mapping[int, StepTime], local: float) -> tuple[float, float]:
    """Seconds of the step and of its synchronisation at a batch per GPU, linear between measured ones."""
    below, above = max(b for b in by_batch if b <= local), min(b for b in by_batch if b >= local)
    low, high = by_batch[below], by_batch[above]
    share = (local - below) / (above - below) if above > below else 0.0
    return low.step_s + share * (high.step_s - low.step_s), low.sync_s + share * (high.sync_s - low.sync_s)


def _listed(by_batch: Mapping[int, StepTime]) -> str:
    return ", ".join(map(str, by_batch))
