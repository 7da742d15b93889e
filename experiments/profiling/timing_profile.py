"""A timing profile from its request to the bundle it ends as.

A composition root: may import `sim.bridge`, `traces` and the other modules of `experiments`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.experiments.profiling.estimates import Estimate, timing_of
from elastune.experiments.profiling.records import TimingFolder
from elastune.experiments.profiling.timed_bundle import write_timing
from elastune.experiments.profiling.timing import TimingPlan, time_workload, timed, trained_numbers
from elastune.experiments.real.trainables import WorkloadTrainables
from elastune.sim.model.errors import InputError
from elastune.traces import bundle_folder, load_bundle
from elastune.traces.bundles.writer import FILES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elastune.experiments.profiling.estimates import Timing
    from elastune.experiments.profiling.records import Surroundings
    from elastune.traces import Bundle
    from elastune.traces.workloads import BatchMode, Workload

_MISFIT = 0.2
_BUSY_LOAD = 0.5
_BUSYNESS = 1.2


@dataclass(frozen=True)
class TimingProfile:
    """A bundle that was timed.

    Attributes:
        folder: of the bundle.
        workload: its name.
        plan: what was measured.
        batch: what the batch size of a configuration was of.
        timing: what was found.
        surroundings: where.
        remarks: what should make one doubt it; none where there is nothing.
    """

    folder: Path
    workload: str
    plan: TimingPlan
    batch: BatchMode
    timing: Timing
    surroundings: Surroundings
    remarks: tuple[str, ...]

    @property
    def startup(self) -> dict[str, Estimate]:
        """How nodes came: seconds from the request to the launch, and to readiness; empty where none was started for this."""
        starts = self.surroundings.nodes
        samples = {"queue_s": [one.queue_s for one in starts], "init_s": [one.init_s for one in starts]}
        return {name: estimate for name, of in samples.items() if (estimate := Estimate.of(of)) is not None}

    def to_json(self) -> dict[str, object]:
        """What `elastune profile --gpus --json` prints."""
        timing = self.timing
        seconds = ("iteration_s", "evaluate_s", "launch_s", "resume_s", "checkpoint_s", "rescale_s")
        return {
            "bundle": str(self.folder),
            "device": self.plan.device,
            **{name: getattr(timing, name)._asdict() for name in seconds},
            "scaling": [
                {"gpus": shape.gpus, "nodes": shape.nodes, "train_s": timing.train_s[shape].value, **speedup._asdict()}
                for shape, speedup in timing.speedups.items()
            ],
            "checkpoint_bytes": timing.checkpoint_bytes,
            "spread": {**timing.spread._asdict(), "persistent": timing.spread.persistent},
            "startup": {name: estimate._asdict() for name, estimate in self.startup.items()},
            "measured_on": self.surroundings.measured_on,
            "load_average": self.surroundings.load_average,
            "remarks": list(self.remarks),
        }


def profile_timing(
    workload: Workload,
    plan: TimingPlan,
    out_dir: Path,
    *,
    curves: str | None = None,
    batch: BatchMode = "global",
    checkpoints: str | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> TimingProfile:
    """Time a workload on real workers and write it into a bundle; goes on where it stopped.

    Args:
        workload: what is trained.
        plan: what is measured, and where.
        out_dir: folder of a bundle of this workload, whose curves stay; or one that is not there yet.
        curves: the bundle that a new one has its curves from; None for the one that ships.
        batch: what the batch size of a configuration is of.
        checkpoints: folder or fsspec URL that every node reaches; None for one in the bundle's folder while it is measured.
        on_progress: called with the segments that are done, and that there are.

    Raises:
        InputError: an argument is out of range, there are too few slots, or the folder holds something else.
        WorkerError: a gang broke; the same call goes on from what is done.
    """
    from elastune.sim.bridge.workers.worker import WorkerSettings

    plan.require_slots()
    folder = TimingFolder(out_dir)
    base = folder.base if folder.is_begun else _base(workload, out_dir, curves)
    folder.open({"workload": workload.name, "curves": curves, "batch": batch, **plan.asked()}, base)
    bundle = load_bundle(folder.base)
    trainables = WorkloadTrainables(workload.name, _seed(bundle), trained_numbers(plan, bundle), batch)
    workshop = WorkerSettings(
        build=timed(trainables), checkpoints=checkpoints or str(folder.checkpoints.resolve()), device=plan.device
    )
    try:
        series = time_workload(plan, bundle, workshop, folder, on_progress=on_progress)
    except InputError:
        folder.remove_if_empty()
        raise
    surroundings = folder.surroundings()
    assert surroundings is not None, "noted before the first series"
    timing = timing_of(series, {row: float(cost) for row, cost in enumerate(bundle.relative_cost)})
    found = remarks(timing, surroundings)
    profile = TimingProfile(out_dir, workload.name, plan, batch, timing, surroundings, found)
    write_timing(profile, folder, series)
    load_bundle(out_dir)
    folder.remove()
    return profile


def _base(workload: Workload, out_dir: Path, curves: str | None) -> Path:
    """The folder of the bundle whose curves are kept.

    Raises:
        InputError: there is none, or it is of another workload.
    """
    if (out_dir / "bundle.yaml").is_file():
        if curves is not None:
            raise InputError(
                f"--curves {curves}: {out_dir} holds a bundle, whose curves stay; choose another folder (-o)"
            )
        base = out_dir
    else:
        if out_dir.is_dir() and any(path.name in FILES for path in out_dir.iterdir()):
            raise InputError(f"{out_dir} holds a part of a bundle, without its bundle.yaml: choose another folder (-o)")
        base = bundle_folder(curves or workload.name)
    name = load_bundle(base).name
    if name != workload.name:
        raise InputError(f"{base} is a bundle of {name}, but {workload.name} is to be timed")
    return base


def _seed(bundle: Bundle) -> int:
    """Of the weights and of the order of the data, as its trials were profiled with."""
    seed = bundle.notes.get("seed")
    return seed if isinstance(seed, int) else 0


def remarks(timing: Timing, surroundings: Surroundings) -> tuple[str, ...]:
    """What should make one doubt the numbers."""
    found = []
    if surroundings.load_average > _BUSY_LOAD * surroundings.cores:
        found.append(
            f"the machine was busy before anything was started (load {surroundings.load_average:.1f} on"
            f" {surroundings.cores} cores): gangs had to share it"
        )
    if timing.busyness > _BUSYNESS:
        found.append(
            f"iterations lasted {timing.busyness - 1:.0%} longer on average than their median, which is what was written"
        )
    misfit = timing.spread.configurations
    if misfit is not None and misfit > _MISFIT:
        found.append(
            f"the bundle's relative costs of configurations are off by {misfit:.0%} on this device: plans hold on average,"
            " not for each configuration"
        )
    return tuple(found)
