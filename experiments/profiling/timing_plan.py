"""What a timing profile measures: gangs, effort, and the series of segments that follow from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from elastune.experiments.profiling.estimates import ALONE
from elastune.experiments.real.slots import SLOTS, slots_here
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.profiling.records import GangShape
    from elastune.sim.bridge.workers.worker import Device
    from elastune.traces import Bundle


@dataclass(frozen=True, kw_only=True)
class TimingEffort:
    """How much is measured.

    Attributes:
        configurations: of the bundle, from cheap to dear.
        rounds: fresh trials of each configuration.
        seconds: shortest timed training of a segment.
        node_starts: nodes started only to time the start; none on a cluster that runs already.
        left_out: rows of the bundle that are not timed, such as those of a run that is to be predicted.
    """

    configurations: int = 3
    rounds: int = 2
    seconds: float = 2.0
    node_starts: int = 2
    left_out: tuple[int, ...] = ()

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
        ray_address: of a running cluster; None for an embedded one.
        gpus_per_node: slots of a node; None for the fewest that suffice.
        effort: how much is measured.
    """

    shapes: tuple[GangShape, ...]
    device: Device = "cpu"
    ray_address: str | None = None
    gpus_per_node: int | None = None
    effort: TimingEffort = TimingEffort()

    def __post_init__(self) -> None:
        if ALONE not in self.shapes:
            raise InputError(f"--gpus {self.gangs}: 1 is missing, with which speed-ups compare")
        if len(set(self.shapes)) < len(self.shapes):
            raise InputError(f"--gpus {self.gangs}: a gang is named twice")

    @property
    def gangs(self) -> str:
        """In the notation of the command line."""
        return ",".join(map(str, self.shapes))

    def require_slots(self) -> None:
        """Check that this machine has a core or a GPU for each slot, because shared ones give wrong timings.

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
        """What decides the measurements, for JSON."""
        return {
            "profile": "timings",
            "gangs": self.gangs,
            "device": self.device,
            "Ray cluster": self.ray_address,
            "GPUs per node": self.gpus_per_node,
            **asdict(self.effort),
            "left_out": list(self.effort.left_out),  # as JSON has it
        }


class TimingSeries(NamedTuple):
    """A configuration on gangs with equally many nodes."""

    number: int
    row: int
    round: int
    shapes: tuple[GangShape, ...]


def rows_to_time(bundle: Bundle, effort: TimingEffort) -> list[int]:
    """Rows of configurations with typical costs: the middle one of each of so many equal groups.

    Raises:
        InputError: fewer configurations fit on one GPU.
    """
    count, left_out = effort.configurations, set(effort.left_out)
    fits = [row for row in range(bundle.trials) if bundle.min_gpus is None or bundle.min_gpus[row] == 1]
    fits = [row for row in fits if row not in left_out]
    if count > len(fits) and left_out:
        raise InputError(
            f"bundle {bundle.name}: {count} configurations are timed that no run trains, but besides the {len(left_out)} of the"
            f" runs it has {len(fits)} that one GPU holds: record more (elastune profile --trials), or ask for fewer --repeats"
        )
    if count > len(fits):
        raise InputError(f"--configurations {count}: {bundle.name} has {len(fits)} that one GPU holds")
    by_cost = sorted(fits, key=lambda row: (bundle.relative_cost[row], row))
    return [by_cost[int((number + 0.5) * len(by_cost) / count)] for number in range(count)]


def series_of(plan: TimingPlan, rows: Sequence[int]) -> list[TimingSeries]:
    """All series, ordered by nodes. They begin with different gangs, so that a fresh start is timed on each gang."""
    found: list[TimingSeries] = []
    for nodes in sorted({shape.nodes for shape in plan.shapes}):
        shapes = sorted(shape for shape in plan.shapes if shape.nodes == nodes)
        for round_ in range(plan.effort.rounds):
            for position, row in enumerate(rows):
                turn = (position + round_) % len(shapes)
                turned = tuple(shapes[turn:] + shapes[:turn])
                # A single gang is used twice, so that restoring is timed as well.
                found.append(TimingSeries(len(found), row, round_, turned if len(turned) > 1 else turned * 2))
    return found


def trained_numbers(plan: TimingPlan, bundle: Bundle) -> tuple[int, ...]:
    """The bundle's row of each series, as `numbers` of `WorkloadTrainables`."""
    return tuple(series.row for series in series_of(plan, rows_to_time(bundle, plan.effort)))
