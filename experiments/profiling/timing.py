"""Timing a workload on real workers: how fast gangs of several sizes iterate, and what starting, saving and resizing take.

A composition root: may import `sim.bridge`, `traces` and the other modules of `experiments`. The workers are those of a run;
ray and torch are imported by the bridge, inside functions.

A series trains one configuration on one gang after the other, each going on from the checkpoint of the one before, as trials do
that are resized. A series that is complete is on disk; whatever ends the process loses the one under way.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from elastune.experiments.profiling.estimates import ALONE, Estimate
from elastune.experiments.profiling.records import (
    WARM_UP,
    GangShape,
    NodeStart,
    SegmentRecord,
    Surroundings,
    measured_on,
)
from elastune.experiments.profiling.work_folder import Part, WorkFolder
from elastune.experiments.real.slots import SLOTS, slots_here
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.sim.bridge.machines.nodes import Node, Nodes
    from elastune.sim.bridge.workers.worker import Device, TrainableFactory, WorkerSettings
    from elastune.traces import Bundle

_NO_LIMIT = 1_000_000
"""Iterations no segment comes to: it is ended when enough of them are known."""
_LEAST = 3
"""Iterations of a segment that are timed at least, after its warm-up."""
_STABLE = 0.02
"""Half the width of the interval of a segment's median, relative to it, that is good enough."""
_PATIENCE = 3
"""A segment whose median does not become stable ends after so many times its seconds."""
_LOOK_WITHIN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class TimingEffort:
    """How much is measured.

    Attributes:
        configurations: of the bundle, from cheap to dear.
        rounds: fresh trials of each, so that fresh workers can be compared.
        seconds: of training that each segment is timed for, at least.
        node_starts: nodes that are started only to time that; on a cluster that runs already, none are.
    """

    configurations: int = 3
    rounds: int = 2
    seconds: float = 2.0
    node_starts: int = 2

    def __post_init__(self) -> None:
        for name, least in (("configurations", 1), ("rounds", 1), ("node_starts", 0)):
            if getattr(self, name) < least:
                raise InputError(f"profile: {name} is {getattr(self, name)}, but must be at least {least}")
        if not self.seconds > 0:
            raise InputError(f"profile: seconds is {self.seconds}, but must be above 0")


@dataclass(frozen=True, kw_only=True)
class TimingPlan:
    """What is measured, and where.

    Attributes:
        shapes: the gangs.
        device: what a slot is.
        ray_address: of a cluster that runs; None for one of our own on this machine.
        gpus_per_node: slots of a node; None: as many as the gangs need, or the fewest that nodes of the cluster have.
        effort: how much.
    """

    shapes: tuple[GangShape, ...]
    device: Device = "cpu"
    ray_address: str | None = None
    gpus_per_node: int | None = None
    effort: TimingEffort = TimingEffort()

    def __post_init__(self) -> None:
        if ALONE not in self.shapes:
            raise InputError(f"--gpus {self.gangs}: 1 is missing, over which speed-ups are")
        if len(set(self.shapes)) < len(self.shapes):
            raise InputError(f"--gpus {self.gangs}: a gang is named twice")

    @property
    def gangs(self) -> str:
        """As the command line takes them."""
        return ",".join(map(str, self.shapes))

    def require_slots(self) -> None:
        """Check that this machine has a core or a GPU for each slot: shared ones would time nothing real.

        Raises:
            InputError: it has fewer.
        """
        if self.ray_address is not None:
            return
        there, most = slots_here(self.device), max(self.shapes)
        if most.gpus > there:
            raise InputError(
                f"--gpus {self.gangs}: a gang of {most} needs {most.gpus} slots, but this machine has {there}"
                f" {SLOTS[self.device]}: leave it out, or name a cluster (--ray ADDRESS)"
            )

    def asked(self) -> dict[str, object]:
        """What decides the measurements, as JSON has it."""
        return {
            "profile": "timings",
            "gangs": self.gangs,
            "device": self.device,
            "Ray cluster": self.ray_address,
            "GPUs per node": self.gpus_per_node,
            **asdict(self.effort),
        }


class _Series(NamedTuple):
    """A configuration on gangs that are all on as many nodes."""

    number: int
    row: int
    round: int
    shapes: tuple[GangShape, ...]


def rows_to_time(bundle: Bundle, count: int) -> list[int]:
    """Rows of configurations that stand for all by their costs: in the middle of each of `count` equal groups.

    Raises:
        InputError: there are not so many that one GPU holds.
    """
    fits = [row for row in range(bundle.trials) if bundle.min_gpus is None or bundle.min_gpus[row] == 1]
    if count > len(fits):
        raise InputError(f"--configurations {count}: {bundle.name} has {len(fits)} that one GPU holds")
    by_cost = sorted(fits, key=lambda row: (bundle.relative_cost[row], row))
    return [by_cost[int((number + 0.5) * len(by_cost) / count)] for number in range(count)]


def series_of(plan: TimingPlan, rows: Sequence[int]) -> list[_Series]:
    """All series, those on as many nodes together. Each begins with another gang: a fresh start is timed on all of them."""
    found: list[_Series] = []
    for nodes in sorted({shape.nodes for shape in plan.shapes}):
        shapes = sorted(shape for shape in plan.shapes if shape.nodes == nodes)
        for round_ in range(plan.effort.rounds):
            for position, row in enumerate(rows):
                turn = (position + round_) % len(shapes)
                turned = tuple(shapes[turn:] + shapes[:turn])
                # A gang without another to resize to goes on as it was: restoring is timed all the same.
                found.append(_Series(len(found), row, round_, turned if len(turned) > 1 else turned * 2))
    return found


def series_part(folder: WorkFolder, number: int) -> Part[SegmentRecord]:
    """The segments of a series, written when it is complete."""
    return Part(folder.file(number, ".jsonl"), SegmentRecord)


def surroundings_part(folder: WorkFolder) -> Part[Surroundings]:
    """Where it was measured, noted before the first series."""
    return Part(folder.path / "surroundings.jsonl", Surroundings)


def _recorded(folder: WorkFolder, series: _Series) -> list[SegmentRecord]:
    """The segments of a series; none where it is not complete."""
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
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[list[SegmentRecord]]:
    """Measure what is not yet in the folder; all series, in order.

    Args:
        plan: what is measured, and where.
        bundle: whose configurations are trained.
        settings: of the workers; builds a trial from its number, that of the series.
        folder: opened; each series is kept there when it is complete.
        on_progress: called with the segments that are done, and that there are.

    Raises:
        InputError: there are too few slots, or no such nodes.
        WorkerError: a gang broke. What was measured is kept, and the same call goes on.
    """
    plan.require_slots()
    todo = series_of(plan, rows_to_time(bundle, plan.effort.configurations))
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
    with closing(_Fleet(plan)) as fleet:
        if not where.read():
            where.append(_surroundings(fleet, plan, load_average))
        for series in open_series:
            nodes = fleet.nodes_for([one for one in plan.shapes if one.nodes == series.shapes[0].nodes])
            found[series.number] = _timed(series, bundle, settings, nodes, plan.effort)
            series_part(folder, series.number).append(*found[series.number])
            report()
    return [found[series.number] for series in todo]


def _timed(
    series: _Series, bundle: Bundle, settings: WorkerSettings, nodes: Sequence[Node], effort: TimingEffort
) -> list[SegmentRecord]:
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
        order = StartSegment(
            segment=SegmentId(series.number * 1000 + len(records)),
            trial=trial,
            placement=placement,
            from_iteration=iteration,
            until_iteration=iteration + _NO_LIMIT,
            report_every=1,
            restore_from=trial if iteration else None,
        )
        segment = time_segment(
            order,
            bundle.configurations[series.row],
            site,
            settings,
            is_enough=lambda told: is_enough(told, effort.seconds),
        )
        records.append(SegmentRecord.of(segment, shape, series=series.number, row=series.row, round_=series.round))
        iteration = segment.until_iteration
    return records


def is_enough(iteration_s: Sequence[float], seconds: float) -> bool:
    """Whether these iterations of a segment, its warm-up among them, tell their median well enough."""
    rest = iteration_s[WARM_UP:]
    trained_s = sum(rest)
    if len(rest) < _LEAST or trained_s < seconds:
        return False
    median = Estimate.of(rest)
    return trained_s >= _PATIENCE * seconds or (median is not None and median.half_width <= _STABLE)


class _Fleet:
    """The nodes that are ours now: those that one group of gangs needs."""

    def __init__(self, plan: TimingPlan) -> None:
        self._plan = plan
        self._nodes = _nodes(plan)
        self._held: dict[InstanceId, Node] = {}
        self._size = 0
        self._next = 0
        self.starts: list[NodeStart] = []

    def nodes_for(self, shapes: Sequence[GangShape]) -> list[Node]:
        """Nodes for each of these gangs, which are all on as many.

        Raises:
            InputError: there are no such nodes.
        """
        count, size = shapes[0].nodes, self.size_for(max(shapes))
        if (count, size) != (len(self._held), self._size):
            self.release()
            self._size = size
            for _ in range(count):
                self.acquire(size)
        return list(self._held.values())

    def size_for(self, shape: GangShape) -> int:
        """Slots of a node for such a gang: as was asked for, or the fewest that will do."""
        least = max(shape.per_node)
        if self._plan.gpus_per_node is not None:
            return self._plan.gpus_per_node
        return least if self._plan.ray_address is None else _size_in_cluster(shape, self._plan.device)

    def acquire(self, size: int) -> None:
        """One more node; its start is timed where it is started for us.

        Raises:
            InputError: there is none.
        """
        from elastune.sim.bridge.machines.nodes import NoNodeError

        number, asked_s, launched_s = InstanceId(self._next), time.monotonic(), list[float]()
        self._next += 1
        try:
            node = self._nodes.acquire(
                number, size, launched=lambda: launched_s.append(time.monotonic()), is_cancelled=lambda: False
            )
        except NoNodeError as error:
            raise InputError(f"--gpus {self._plan.gangs}: {error}") from error
        if self._plan.ray_address is None:  # what an autoscaler takes shows in no single lease: it may have been there
            self.starts.append(NodeStart(launched_s[0] - asked_s, time.monotonic() - launched_s[0]))
        self._held[number] = node

    def release(self) -> None:
        """Give all of them back."""
        for number in list(self._held):
            self._nodes.release(number)
            del self._held[number]

    def close(self) -> None:
        """End what was started."""
        self._nodes.close()


def _nodes(plan: TimingPlan) -> Nodes:
    if plan.ray_address is not None:
        from elastune.sim.bridge.machines.attached import AttachedNodes

        return AttachedNodes(plan.ray_address, plan.device)
    from elastune.sim.bridge.machines.embedded import EmbeddedNodes

    return EmbeddedNodes(plan.device)


def _size_in_cluster(shape: GangShape, device: str) -> int:
    """The fewest slots that enough nodes of the cluster have.

    Raises:
        InputError: too few have enough.
    """
    from elastune.sim.bridge.machines.attached import alive_nodes
    from elastune.sim.bridge.machines.nodes import slots_of

    sizes = sorted(slots_of(node["Resources"], device) for node in alive_nodes().values())
    for size in sizes:
        if size >= max(shape.per_node) and sizes.count(size) >= shape.nodes:
            return size
    raise InputError(
        f"a gang of {shape} needs {shape.nodes} nodes with equally many slots, {max(shape.per_node)} or more, but those of the"
        f" cluster have {', '.join(map(str, sizes)) or 'none'}: leave it out, or say what its autoscaler will bring"
        " (--gpus-per-node N)"
    )


def _surroundings(fleet: _Fleet, plan: TimingPlan, load_average: float) -> Surroundings:
    """What a node is, after as many starts as are to be timed."""
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


def trained_numbers(plan: TimingPlan, bundle: Bundle) -> tuple[int, ...]:
    """By series, the row of the bundle that it trains: what `WorkloadTrainables` calls numbers."""
    return tuple(series.row for series in series_of(plan, rows_to_time(bundle, plan.effort.configurations)))


def timed(build: TrainableFactory) -> TrainableFactory:
    """The same trials, timed part by part."""
    from elastune.sim.bridge.workers.measured import TimedTrainables

    return TimedTrainables(build)
