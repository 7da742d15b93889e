"""Times a workload and writes a bundle: curves that exist already, with seconds of real workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from elastune.experiments.own_code import is_other_code
from elastune.experiments.profiling.curve_bundle import own_code_of
from elastune.experiments.profiling.estimates import Estimate, Timing, timing_of
from elastune.experiments.profiling.timing import surroundings_part, time_workload, timed
from elastune.experiments.profiling.timing_plan import TimingPlan, trained_numbers
from elastune.experiments.profiling.work_folder import WorkFolder, copy_bundle, rounded
from elastune.experiments.real.trainables import WorkloadTrainables
from elastune.sim.model.errors import InputError
from elastune.traces import Bundle, bundle_folder, load_bundle
from elastune.traces.bundles.writer import FILES
from elastune.traces.formats.yaml_text import dump_yaml, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from elastune.experiments.profiling.records import SegmentRecord, Surroundings
    from elastune.traces.workloads import BatchMode, Workload

SEGMENTS = "segments.csv"
"""One row per timed segment, beside the files of the bundle."""
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
        batch: whether a batch size is that of the worker group or of each worker.
        timing: the results.
        surroundings: where it was measured.
        remarks: reasons to doubt the results.
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
        """Start-up of nodes, from request to launch and from launch to readiness; empty if none was started."""
        starts = self.surroundings.nodes
        samples = {"queue_s": [one.queue_s for one in starts], "init_s": [one.init_s for one in starts]}
        return {name: estimate for name, of in samples.items() if (estimate := Estimate.of(of)) is not None}

    def to_json(self) -> dict[str, object]:
        """As `elastune profile --gpus --json` prints it."""
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
    """Time a workload on real workers and write a bundle; a second call continues the first.

    Args:
        workload: what is trained.
        plan: what is measured, and where.
        out_dir: a new folder, or that of a bundle of this workload, which keeps its curves.
        curves: bundle with the curves for a new folder; None for the shipped one.
        batch: whether a batch size is that of the worker group or of each worker.
        checkpoints: folder or fsspec URL that every node reaches; None for a temporary one in the bundle's folder.
        on_progress: called with the numbers of done and of all segments.

    Raises:
        InputError: an argument is out of range, there are too few slots, or the folder holds something else.
        WorkerError: a worker group broke; the same call continues.
    """
    from elastune.sim.bridge.workers.worker import WorkerSettings

    plan.require_slots()
    folder = WorkFolder(out_dir)
    asked = {**plan.asked(), "workload": workload.name, "curves": curves, "batch": batch, **own_code_of(workload)}
    folder.open(asked, None if folder.asked() is not None else _base(workload, out_dir, curves))
    bundle = load_bundle(folder.base)
    trainables = WorkloadTrainables(workload, _seed(bundle), trained_numbers(plan, bundle), batch)
    settings = WorkerSettings(
        build=timed(trainables),
        checkpoints=checkpoints or str((folder.path / "checkpoints").resolve()),
        device=plan.device,
    )
    try:
        series = time_workload(plan, bundle, settings, folder, on_progress=on_progress)
    except InputError:
        if not surroundings_part(folder).read():  # nothing was measured
            folder.remove()
        raise
    surroundings = surroundings_part(folder).read()[0]
    timing = timing_of(series, {row: float(cost) for row, cost in enumerate(bundle.relative_cost)})
    found = remarks(timing, surroundings)
    profile = TimingProfile(out_dir, workload.name, plan, batch, timing, surroundings, found)
    write_timing(profile, folder, series)
    return profile


def _base(workload: Workload, out_dir: Path, curves: str | None) -> Path:
    """The folder of the bundle with the curves.

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
    bundle = load_bundle(base)
    if bundle.name != workload.name:
        raise InputError(f"{base} is a bundle of {bundle.name}, but {workload.name} is to be timed")
    if is_other_code(bundle.source, workload.source):
        raise InputError(
            f"the curves in {base} are of other training code ({bundle.source}), not of {workload.source}: record them anew"
            " (elastune profile without --gpus) in another folder (-o)"
        )
    return base


def _seed(bundle: Bundle) -> int:
    """The seed of weights and data order with which the bundle's trials were profiled."""
    seed = bundle.notes.get("seed")
    return seed if isinstance(seed, int) else 0


def remarks(timing: Timing, surroundings: Surroundings) -> tuple[str, ...]:
    """Reasons to doubt the numbers."""
    found = []
    if surroundings.load_average > _BUSY_LOAD * surroundings.cores:
        found.append(
            f"the machine was busy before the profile began (load {surroundings.load_average:.1f} on"
            f" {surroundings.cores} cores), so workers shared it"
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


def write_timing(profile: TimingProfile, folder: WorkFolder, series: Sequence[Sequence[SegmentRecord]]) -> None:
    """Write the bundle with the curves in the work folder, and remove that folder."""
    import pandas as pd

    def write(staging: Path) -> None:
        copy_bundle(folder.base, staging)
        records = [msgspec.to_builtins(record) for segments in series for record in segments]
        for name, rows in {"scaling.csv": _scaling_rows(profile), SEGMENTS: records}.items():
            pd.DataFrame(rows).to_csv(staging / name, index=False, lineterminator="\n")
        header = staging / "bundle.yaml"
        before = cast("dict[str, Any]", parse_yaml(header.read_text(encoding="utf-8"), str(header)))
        header.write_text(dump_yaml(_header(before, profile)), encoding="utf-8")
        load_bundle(staging)

    folder.publish(write)


def _scaling_rows(profile: TimingProfile) -> list[dict[str, object]]:
    timing = profile.timing
    return [
        {
            "gpus": shape.gpus,
            "nodes": shape.nodes,
            "speedup": rounded(speedup.value),
            "speedup_low": rounded(speedup.low),
            "speedup_high": rounded(speedup.high),
            "samples": speedup.samples,
            "train_s": rounded(timing.train_s[shape].value),
            "kind": "weak" if profile.batch == "per-worker" else "strong",
            "source": _how(profile),
        }
        for shape, speedup in timing.speedups.items()
    ]


def _how(profile: TimingProfile) -> str:
    found = profile.surroundings.measured_on
    slot = (
        f"a CUDA device, {found.get('gpu')}" if profile.plan.device == "cuda" else f"a CPU slot of {found.get('cpu')}"
    )
    return f"measured on Ray workers, each on {slot}"


def _header(before: Mapping[str, Any], profile: TimingProfile) -> dict[str, Any]:
    """The old `bundle.yaml` with the new numbers and their provenance."""
    timing, how = profile.timing, _how(profile)
    spread, effort = timing.spread, profile.plan.effort
    of = f"{effort.configurations} configurations x {effort.rounds} fresh trials"
    measured = {
        "iteration_s": rounded(timing.iteration_s.value),
        "evaluate_s": rounded(timing.evaluate_s.value),
        "launch_s": rounded(timing.launch_s.value),
        "checkpoint_s": rounded(timing.checkpoint_s.value),
        "rescale_s": rounded(max(timing.rescale_s.value, timing.checkpoint_s.value)),
        "checkpoint_bytes": timing.checkpoint_bytes,
        "straggler": {
            "persistent_cv": None if spread.persistent is None else rounded(spread.persistent),
            "per_iteration_cv": rounded(spread.per_iteration),
        },
        "scaling": None,
    }
    provenance = {
        "iteration_s": f"{how}; median of {of}, each over its relative cost",
        "evaluate_s": f"{how}; median, on the first worker of a gang while the others wait",
        "launch_s": f"{how}; a trial that starts anew, all but training and saving; median",
        "checkpoint_s": f"{how}; the test score included, which a run takes with each; median",
        "rescale_s": f"{how}; the checkpoint on one gang and the launch on the next; median",
        "checkpoint_bytes": f"{how}; median",
        "straggler.persistent_cv": f"{how}; between fresh workers, and between configurations beyond their relative costs",
        "straggler.per_iteration_cv": f"{how}; within a segment; median",
        "scaling": f"{how}; training without evaluation, each configuration against itself alone; median",
    }
    return {
        **before,
        **measured,
        "timing": _timing_notes(profile),
        "provenance": {**cast("dict[str, str]", before.get("provenance") or {}), **provenance},
    }


def _timing_notes(profile: TimingProfile) -> dict[str, Any]:
    """Notes for readers: command, machine, and intervals of the medians."""
    timing, surroundings = profile.timing, profile.surroundings
    named = ("iteration_s", "evaluate_s", "launch_s", "resume_s", "checkpoint_s", "rescale_s")
    estimates = {name: getattr(timing, name) for name in named} | {f"node_{n}": e for n, e in profile.startup.items()}
    return {
        "command": _command(profile),
        "measured_on": surroundings.measured_on,
        "load_average": rounded(surroundings.load_average),
        "medians": {
            name: {
                "value": rounded(estimate.value),
                "interval": [rounded(estimate.low), rounded(estimate.high)],
                "coverage": rounded(estimate.coverage),
                "samples": estimate.samples,
            }
            for name, estimate in estimates.items()
        },
        "node_starts_s": [rounded(start.init_s) for start in surroundings.nodes],
        "spread": {name: None if cv is None else rounded(cv) for name, cv in timing.spread._asdict().items()},
        "remarks": list(profile.remarks),
    }


def _command(profile: TimingProfile) -> str:
    """The command that measures the same again, without the address of the cluster."""
    plan, effort = profile.plan, profile.plan.effort
    parts = [f"elastune profile {profile.workload} --gpus {plan.gangs} --device {plan.device}"]
    parts += ["--ray ADDRESS"] if plan.ray_address is not None else []
    parts += [f"--gpus-per-node {plan.gpus_per_node}"] if plan.gpus_per_node is not None else []
    parts += [f"--configurations {effort.configurations} --rounds {effort.rounds} --seconds {effort.seconds:g}"]
    parts += [f"--batch {profile.batch}"] if profile.batch != "global" else []
    return " ".join(parts)
