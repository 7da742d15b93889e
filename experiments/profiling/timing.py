"""Times a workload on the workers of a real run: iterations on several gangs, start-up, saving and resizing.

May import `sim.bridge` and `traces`; the bridge imports ray and torch inside functions.

A series trains one configuration on several gangs in turn, each from the checkpoint of the one before, like a trial that is
resized. A complete series is on disk; if the process dies, only the current one is lost.
"""

from __future__ import annotations

import os
import platform
from contextlib import closing
from typing import TYPE_CHECKING

from elastune.experiments.profiling.estimates import Estimate
from elastune.experiments.profiling.records import (
    WARM_UP,
    SegmentRecord,
    Surroundings,
    measured_on,
)
from elastune.experiments.profiling.timing_nodes import TimingNodes, nodes_for_plan
from elastune.experiments.profiling.timing_plan import TimingEffort, TimingPlan, TimingSeries, rows_to_time, series_of
from elastune.experiments.profiling.work_folder import Part, WorkFolder
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.sim.bridge.machines.nodes import Node, Nodes
    from elastune.sim.bridge.workers.worker import TrainableFactory, WorkerSettings
    from elastune.traces import Bundle

_NO_LIMIT = 1_000_000
"""No segment reaches this iteration; it is ended as soon as enough iterations are timed."""
_LEAST = 3
"""Fewest timed iterations of a segment, after its warm-up."""
_STABLE = 0.02
"""A segment ends when the interval of its median is at most this wide: half its width, relative to the median."""
_PATIENCE = 3
"""A segment whose median stays unstable ends after this many times its seconds."""
_LOOK_WITHIN_S = 120.0


def series_part(folder: WorkFolder, number: int) -> Part[SegmentRecord]:
    """The segments of a complete series."""
    return Part(folder.file(number, ".jsonl"), SegmentRecord)


def surroundings_part(folder: WorkFolder) -> Part[Surroundings]:
    """Where the profile was measured; written before the first series."""
    return Part(folder.path / "surroundings.jsonl", Surroundings)


def _recorded(folder: WorkFolder, series: TimingSeries) -> list[SegmentRecord]:
    """The segments of a series; none if it is not complete."""
    part = series_part(folder, series.number)
    records = part.read()
    if len(records) == len(series.shapes):
        return records
    part.clear()
    return []


def time_workload(
    plan: TimingPlan,
    bundle: Bundle,
    settings: WorkerSettings,
    folder: WorkFolder,
    *,
    connect: Callable[[TimingPlan], Nodes] = nodes_for_plan,
    time_one: Callable[..., list[SegmentRecord]] | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[list[SegmentRecord]]:
    """Measure what is not yet in the folder; all series, in order.

    Args:
        plan: what is measured, and where.
        bundle: with the configurations.
        settings: of the workers; the number of a trial is that of its series.
        folder: open; keeps each complete series.
        connect: gives the nodes; called only if something is to be measured.
        time_one: measures one series; None for `time_series`.
        on_progress: called with the numbers of done and of all segments.

    Raises:
        InputError: there are too few slots, or no such nodes.
        WorkerError: a worker group broke. The same call continues from what was measured.
    """
    plan.require_slots()
    todo = series_of(plan, rows_to_time(bundle, plan.effort))
    found = {series.number: records for series in todo if (records := _recorded(folder, series))}
    where = surroundings_part(folder)
    total = sum(len(series.shapes) for series in todo)

    def report() -> None:
        on_progress(sum(map(len, found.values())), total)

    report()
    open_series = [series for series in todo if series.number not in found]
    if not open_series and where.read():
        return [found[series.number] for series in todo]
    load_average = os.getloadavg()[0]
    with closing(TimingNodes(plan, connect(plan))) as fleet:
        if not where.read():
            where.append(_surroundings(fleet, plan, load_average))
        for series in open_series:
            nodes = fleet.nodes_for([one for one in plan.shapes if one.nodes == series.shapes[0].nodes])
            found[series.number] = (time_one or time_series)(series, bundle, settings, nodes, plan.effort)
            series_part(folder, series.number).append(*found[series.number])
            report()
    return [found[series.number] for series in todo]


def time_series(
    series: TimingSeries, bundle: Bundle, settings: WorkerSettings, nodes: Sequence[Node], effort: TimingEffort
) -> list[SegmentRecord]:
    """Train the configuration of a series on its gangs in turn, and time each segment."""
    from elastune.sim.bridge.workers.measured import time_segment
    from elastune.sim.bridge.workers.worker_group import Site

    trial, iteration = TrialId(series.number), 0
    records: list[SegmentRecord] = []
    for shape in series.shapes:
        placement = tuple((InstanceId(number), count) for number, count in enumerate(shape.per_node))
        site = Site(
            [node.node_id for node, (_, count) in zip(nodes, placement, strict=False) for _ in range(count)],
            nodes[0].host,
            lambda: True,
        )
        command = StartSegment(
            segment=SegmentId(series.number * 1000 + len(records)),
            trial=trial,
            placement=placement,
            from_iteration=iteration,
            until_iteration=iteration + _NO_LIMIT,
            report_every=1,
            restore_from=trial if iteration else None,
        )
        segment = time_segment(
            command,
            bundle.configurations[series.row],
            site,
            settings,
            is_enough=lambda told: is_enough(told, effort.seconds),
        )
        records.append(SegmentRecord.of(segment, shape, series=series.number, row=series.row, round_=series.round))
        iteration = segment.until_iteration
    return records


def is_enough(iteration_s: Sequence[float], seconds: float) -> bool:
    """Whether these iterations of a segment, including its warm-up, are enough to know their median."""
    rest = iteration_s[WARM_UP:]
    trained_s = sum(rest)
    if len(rest) < _LEAST or trained_s < seconds:
        return False
    median = Estimate.of(rest)
    return trained_s >= _PATIENCE * seconds or (median is not None and median.half_width <= _STABLE)


def _surroundings(fleet: TimingNodes, plan: TimingPlan, load_average: float) -> Surroundings:
    """Time the starts of nodes, and describe one."""
    from elastune.sim.bridge.machines.remote_call import run_on

    first = [shape for shape in plan.shapes if shape.nodes == min(one.nodes for one in plan.shapes)]
    for _ in range(plan.effort.node_starts if plan.ray_address is None else 0):
        fleet.acquire(fleet.size_for(max(first)))
        fleet.release()
    [node, *_] = fleet.nodes_for(first)
    found = run_on(node, plan.device, describe_slot, within_s=_LOOK_WITHIN_S)
    return Surroundings(found, load_average, os.cpu_count() or 1, list(fleet.starts))


def describe_slot() -> dict[str, str | int | None]:
    """Processor, GPU where this process sees one, and versions; no name of the machine and no path."""
    from importlib.metadata import version

    import torch

    found: dict[str, str | int | None] = {**measured_on(), "ray": version("ray"), "system": platform.system()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
        found["cuda"] = torch.version.cuda
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return found


def timed(build: TrainableFactory) -> TrainableFactory:
    """The same trials, timed part by part."""
    from elastune.sim.bridge.workers.measured import TimedTrainables

    return TimedTrainables(build)
