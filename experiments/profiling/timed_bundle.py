"""Timed segments written into a bundle: curves that are there already, with seconds and speed-ups of real workers.

Imports the pure core, `traces` and the other modules of `experiments`; pandas and yaml when it writes.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, cast

import msgspec

from elastune.experiments.files import write_atomically
from elastune.traces.bundles.writer import FILES
from elastune.traces.formats.yaml_text import dump_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.experiments.profiling.records import SegmentRecord, TimingFolder
    from elastune.experiments.profiling.timing_profile import TimingProfile

SEGMENTS = "segments.csv"
"""One row per timed segment, beside the files of the bundle."""


def write_timing(profile: TimingProfile, folder: TimingFolder, series: Sequence[Sequence[SegmentRecord]]) -> None:
    """The profile's folder is a bundle afterwards, with the curves of the one in the work folder.

    Every file is written as a whole, `bundle.yaml` last. A process that dies between two of them goes on from the work folder.
    """
    import pandas as pd
    import yaml

    out_dir = profile.folder
    for name in FILES:
        if (folder.base / name).is_file() and not (out_dir / name).exists():
            shutil.copyfile(folder.base / name, out_dir / name)
    records = pd.DataFrame([msgspec.to_builtins(record) for segments in series for record in segments])
    tables = {"scaling.csv": pd.DataFrame(_scaling_rows(profile)), SEGMENTS: records}
    for name, table in tables.items():
        write_atomically(out_dir / name, table.to_csv(index=False, lineterminator="\n").encode())
    before = yaml.safe_load((folder.base / "bundle.yaml").read_text(encoding="utf-8"))
    header = _header(before, profile)
    text = dump_yaml(header)
    write_atomically(out_dir / "bundle.yaml", text.encode())


def _scaling_rows(profile: TimingProfile) -> list[dict[str, object]]:
    timing = profile.timing
    return [
        {
            "gpus": shape.gpus,
            "nodes": shape.nodes,
            "speedup": _rounded(speedup.value),
            "speedup_low": _rounded(speedup.low),
            "speedup_high": _rounded(speedup.high),
            "samples": speedup.samples,
            "train_s": _rounded(timing.train_s[shape].value),
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
    """What `bundle.yaml` said, with the numbers and their provenance that are new."""
    timing, how = profile.timing, _how(profile)
    spread, effort = timing.spread, profile.plan.effort
    of = f"{effort.configurations} configurations x {effort.rounds} fresh trials"
    measured = {
        "iteration_s": _rounded(timing.iteration_s.value),
        "evaluate_s": _rounded(timing.evaluate_s.value),
        "launch_s": _rounded(timing.launch_s.value),
        "checkpoint_s": _rounded(timing.checkpoint_s.value),
        "rescale_s": _rounded(max(timing.rescale_s.value, timing.checkpoint_s.value)),
        "checkpoint_bytes": timing.checkpoint_bytes,
        "straggler": {
            "persistent_cv": None if spread.persistent is None else _rounded(spread.persistent),
            "per_iteration_cv": _rounded(spread.per_iteration),
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
    """For readers: how it was timed, what no key of a bundle says, and how sure the medians are."""
    timing, surroundings = profile.timing, profile.surroundings
    named = ("iteration_s", "evaluate_s", "launch_s", "resume_s", "checkpoint_s", "rescale_s")
    estimates = {name: getattr(timing, name) for name in named} | {f"node_{n}": e for n, e in profile.startup.items()}
    return {
        "command": _command(profile),
        "measured_on": surroundings.measured_on,
        "load_average": _rounded(surroundings.load_average),
        "medians": {
            name: {
                "value": _rounded(estimate.value),
                "interval": [_rounded(estimate.low), _rounded(estimate.high)],
                "coverage": _rounded(estimate.coverage),
                "samples": estimate.samples,
            }
            for name, estimate in estimates.items()
        },
        "spread": {name: None if cv is None else _rounded(cv) for name, cv in timing.spread._asdict().items()},
        "remarks": list(profile.remarks),
    }


def _command(profile: TimingProfile) -> str:
    """What measures the same again; of a cluster that is rented anew each time, no address."""
    plan, effort = profile.plan, profile.plan.effort
    parts = [f"elastune profile {profile.workload} --gpus {plan.gangs} --device {plan.device}"]
    parts += ["--ray ADDRESS"] if plan.ray_address is not None else []
    parts += [f"--gpus-per-node {plan.gpus_per_node}"] if plan.gpus_per_node is not None else []
    parts += [f"--configurations {effort.configurations} --rounds {effort.rounds} --seconds {effort.seconds:g}"]
    parts += [f"--batch {profile.batch}"] if profile.batch != "global" else []
    return " ".join(parts)


def _rounded(value: float) -> float:
    """Six significant digits: more than any of these measurements carries."""
    return float(f"{value:.6g}")
