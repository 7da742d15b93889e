"""Files of a profile: the part files it can be resumed from, and the bundle it ends as.

May import the pure core, `traces.bundles.writer` and `traces.workloads`; pandas is imported when a bundle is written.

The promise is that SIGKILL loses at most the iteration under way in each worker. A record is appended as one line when
its iteration ends; what the operating system has taken survives the end of the process. A checkpoint is only ever
written after the record of its iteration.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.experiments.files import write_atomically
from elastune.sim.model.errors import InputError, WorkerError
from elastune.traces.bundles.writer import write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from elastune.traces.workloads import Workload

PARTIAL = ".partial"
"""The work folder inside the bundle's folder; gone when the bundle is complete."""


@dataclass(frozen=True)
class ProfileArguments:
    """What decides the scores of a profile; the number of processes does not."""

    workload: str
    trials: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class IterationRecord:
    """One measured iteration.

    Attributes:
        iteration: counted from 1.
        score: on the validation split; NaN where training diverged.
        test_score: on the test split; NaN where training diverged.
        seconds: training and validation, by the wall clock.
        cpu_seconds: the same by the processor's clock, without the time spent waiting for it.
    """

    iteration: int
    score: float
    test_score: float
    seconds: float
    cpu_seconds: float

    def same_scores(self, other: IterationRecord) -> bool:
        """Whether both say the same, NaN being equal to NaN."""
        pairs = ((self.score, other.score), (self.test_score, other.test_score))
        return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


@dataclass(frozen=True)
class CheckpointCost:
    """What one checkpoint of a trial took: seconds to write it durably, and bytes."""

    checkpoint_s: float
    checkpoint_bytes: int


@dataclass(frozen=True)
class Probe:
    """What one fresh process measured.

    Attributes:
        launch_s: from its start to the moment its first iteration could begin.
        iteration_seconds: of one fixed configuration, after one iteration to warm up.
    """

    launch_s: float
    iteration_seconds: tuple[float, ...]


class TrialPart:
    """The records of one trial so far, one JSON line each, and a last line with the cost of its checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[list[IterationRecord], CheckpointCost | None]:
        """All complete lines; a line that was cut short, and whatever follows it, is removed from the file."""
        records: list[IterationRecord] = []
        cost: CheckpointCost | None = None
        good_bytes = 0
        content = self._path.read_bytes() if self._path.exists() else b""
        for line in content.splitlines(keepends=True):
            parsed = _parse_line(line, expected_iteration=len(records) + 1)
            if parsed is None or cost is not None:
                break
            good_bytes += len(line)
            if isinstance(parsed, CheckpointCost):
                cost = parsed
            else:
                records.append(parsed)
        if good_bytes < len(content):
            with self._path.open("r+b") as file:
                file.truncate(good_bytes)
        return records, cost

    def append(self, entry: IterationRecord | CheckpointCost) -> None:
        """Add one line in a single write."""
        plain = {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(entry).items()
        }
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(plain).encode() + b"\n")

    def lines(self) -> int:
        """Complete lines, without looking into them."""
        return self._path.read_bytes().count(b"\n") if self._path.exists() else 0


def _parse_line(line: bytes, *, expected_iteration: int) -> IterationRecord | CheckpointCost | None:
    """What a line says; None where it was cut short or does not follow the lines before it."""
    if not line.endswith(b"\n"):
        return None
    try:
        fields = json.loads(line)
        if "checkpoint_s" in fields:
            return CheckpointCost(**fields)
        values: dict[str, Any] = {key: math.nan if value is None else value for key, value in fields.items()}
        record = IterationRecord(**values)
    except (ValueError, TypeError):
        return None
    return record if record.iteration == expected_iteration else None


class WorkFolder:
    """The `.partial` folder of a profile."""

    def __init__(self, out_dir: Path) -> None:
        self.path = out_dir / PARTIAL

    def open(self, arguments: ProfileArguments, workload: Workload) -> None:
        """Make the folder, or check that it belongs to the same profile.

        Raises:
            InputError: it holds another profile; the message names what differs.
        """
        asked = asdict(arguments) | {"search space": _digest_of_configurations(arguments, workload)}
        job = self.path / "job.json"
        if job.exists():
            require_same(self.path.parent, json.loads(job.read_text()), asked)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(job, json.dumps(asked).encode())

    def part(self, trial: int) -> TrialPart:
        """The records of a trial."""
        return TrialPart(self.path / f"trial-{trial:05d}.jsonl")

    def checkpoints(self, trial: int) -> list[tuple[int, Path]]:
        """(iteration, file) of the checkpoints of a trial, the latest first."""
        files = self.path.glob(f"trial-{trial:05d}-*.ckpt")
        return sorted(((int(file.stem.rsplit("-", 1)[1]), file) for file in files), reverse=True)

    def checkpoint(self, trial: int, iteration: int) -> Path:
        """Where the checkpoint of a trial after an iteration goes."""
        return self.path / f"trial-{trial:05d}-{iteration:06d}.ckpt"

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _digest_of_configurations(arguments: ProfileArguments, workload: Workload) -> str:
    configurations = [workload.configuration_of(arguments.seed, trial) for trial in range(arguments.trials)]
    return hashlib.sha256(json.dumps(configurations).encode()).hexdigest()[:16]


def require_same(out_dir: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Check that what is found in a folder was asked for alike.

    Raises:
        InputError: it was not; the message names what differs.
    """
    differing = [key for key in asked if found.get(key) != asked[key]]
    if differing:
        what = "; ".join(f"{key} is {found.get(key)} there, asked was {asked[key]}" for key in differing)
        raise InputError(f"{out_dir} holds another profile: {what}. Choose another folder, or delete this one")


def is_complete(out_dir: Path, arguments: ProfileArguments) -> bool:
    """Whether the folder already holds the finished bundle of these arguments.

    Raises:
        InputError: it holds the finished bundle of others; the message names what differs.
    """
    import yaml

    manifest = out_dir / "bundle.yaml"
    if not manifest.exists():
        return False
    found = yaml.safe_load(manifest.read_text())
    names = {"workload": "name", "iterations": "max_iterations"}
    require_same(out_dir, {key: found.get(names.get(key, key)) for key in asdict(arguments)}, asdict(arguments))
    return True


def assemble_bundle(
    workload: Workload,
    arguments: ProfileArguments,
    folder: WorkFolder,
    jobs: int,
    probe: Callable[[int, float], Sequence[Probe]],
) -> None:
    """Turn the complete part files into a bundle.

    Args:
        workload: what was trained.
        arguments: of the profile.
        folder: with the part files.
        jobs: worker processes that ran side by side.
        probe: measures a trial whose iterations take so many seconds on average in fresh processes.
    """
    import pandas as pd

    records, costs = _read_parts(folder, arguments)
    curves = _curves(records)
    relative_cost = _relative_cost(curves)
    iteration_s = float(curves["seconds"].mean())
    busy = float(curves["cpu_seconds"].sum() / curves["seconds"].sum())
    probes = probe(int((relative_cost - 1).abs().to_numpy().argmin()), iteration_s)
    configurations = pd.DataFrame(
        [workload.configuration_of(arguments.seed, trial) for trial in range(arguments.trials)]
    )
    configurations.insert(0, "trial", range(arguments.trials))
    configurations["relative_cost"] = relative_cost.map(_rounded).to_numpy()
    measured = {
        "iteration_s": _rounded(iteration_s),
        "launch_s": _rounded(statistics.median(one.launch_s for one in probes)),
        "checkpoint_s": _rounded(statistics.median(cost.checkpoint_s for cost in costs)),
        "checkpoint_bytes": round(statistics.median(cost.checkpoint_bytes for cost in costs)),
        "data_bytes": workload.data_bytes(),
        "straggler": {
            "persistent_cv": _persistent_cv([one.iteration_seconds for one in probes]),
            "per_iteration_cv": _per_iteration_cv(curves),
        },
    }
    _write_bundle(
        folder.path.parent, _manifest(workload, arguments, jobs, busy, len(probes), measured), curves, configurations
    )


def _read_parts(
    folder: WorkFolder, arguments: ProfileArguments
) -> tuple[list[list[IterationRecord]], list[CheckpointCost]]:
    records: list[list[IterationRecord]] = []
    costs: list[CheckpointCost] = []
    for trial in range(arguments.trials):
        of_trial, cost = folder.part(trial).read()
        if cost is None or len(of_trial) != arguments.iterations:
            raise WorkerError(f"{folder.path}: trial {trial} is not complete; run the same command again")
        records.append(of_trial)
        costs.append(cost)
    return records, costs


def _curves(records: Sequence[Sequence[IterationRecord]]) -> pd.DataFrame:
    """One row per trial and iteration, in this order."""
    import pandas as pd

    rows = [{"trial": trial, **asdict(record)} for trial, of_trial in enumerate(records) for record in of_trial]
    frame = pd.DataFrame(rows)[["trial", "iteration", "score", "seconds", "test_score", "cpu_seconds"]]
    return frame.astype({"trial": "int32", "iteration": "int32"})


def _rounded(value: float) -> float:
    """Six significant digits: more than any of these measurements carries."""
    return float(f"{value:.6g}")


def _relative_cost(curves: pd.DataFrame) -> pd.Series[float]:
    """Mean seconds of a trial over the mean of all, by the processor's clock.

    By the wall clock, a configuration would be dear because something else ran on the machine while it trained.
    """
    mean_s = curves.groupby("trial")["cpu_seconds"].mean()
    return mean_s / mean_s.mean()


def _per_iteration_cv(curves: pd.DataFrame) -> float | None:
    """Median over the trials of the coefficient of variation within a trial; None with one iteration."""
    grouped = curves.groupby("trial")["seconds"]
    spread = float((grouped.std() / grouped.mean()).median())
    return None if math.isnan(spread) else _rounded(spread)


def _persistent_cv(seconds: Sequence[Sequence[float]]) -> float | None:
    """Coefficient of variation of the processes' means, less what the spread within a process explains.

    None with one process. 0 where the means differ by no more than that.
    """
    if len(seconds) < 2:
        return None
    means = [statistics.fmean(of_process) for of_process in seconds]
    explained = statistics.fmean(statistics.variance(of_process) / len(of_process) for of_process in seconds)
    return _rounded(math.sqrt(max(0.0, statistics.variance(means) - explained)) / statistics.fmean(means))


def _manifest(
    workload: Workload, arguments: ProfileArguments, jobs: int, busy: float, probes: int, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """What `bundle.yaml` says; `busy` is the share of the training seconds that the processor worked on it."""
    wall = f"by the wall clock, {busy:.0%} of it on the processor, with {jobs} slots training on one machine"
    return {
        "name": workload.name,
        "family": workload.family,
        "description": workload.description,
        "direction": workload.direction,
        "iteration": workload.iteration,
        "score": workload.score,
        "test_score": workload.test_score_text,
        "max_iterations": arguments.iterations,
        "trials": arguments.trials,
        **measured,
        "schedule": workload.schedule,
        "scaling": None,
        "source": workload.source,
        "licence": workload.licence,
        "measured_on": measured_on(),
        "command": f"elastune profile {workload.name} --trials {arguments.trials} --iterations {arguments.iterations}"
        f" --jobs {jobs} --seed {arguments.seed}",
        "seed": arguments.seed,
        "note": "NaN marks a diverged run. It kept training, so its seconds are those of its configuration. cpu_seconds"
        " is the time of the same iteration by the processor's clock, without the time spent waiting for it.",
        "provenance": {
            "curves": f"measured: every point was trained; training and validation timed {wall}",
            "iteration_s": f"measured: mean over the trials, {wall}",
            "relative_cost": "measured: mean cpu_seconds of a trial over the mean of all",
            "launch_s": f"measured: fresh process to first iteration, torch and data loaded; median of {probes}",
            "checkpoint_s": "measured: write and fsync of the last checkpoint; median over the trials",
            "checkpoint_bytes": "measured: size of the last checkpoint; median over the trials",
            "data_bytes": "measured: size of the compressed table in its wheel",
            "straggler.persistent_cv": f"measured: one configuration in {probes} fresh processes, one after another;"
            " spread of their means less what the spread within them explains",
            "straggler.per_iteration_cv": "measured: spread of the seconds within a trial; median over the trials",
            "scaling": "not measured: a CPU slot says nothing about more GPUs; pair it with a scaling table",
        },
    }


def measured_on() -> dict[str, Any]:
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


def _write_bundle(
    out_dir: Path, manifest: Mapping[str, Any], curves: pd.DataFrame, configurations: pd.DataFrame
) -> None:
    """Put the three files of a bundle beside the part files; `bundle.yaml` comes last."""
    staging = out_dir / PARTIAL / "bundle"
    staging.mkdir(parents=True, exist_ok=True)
    write_files(staging, manifest, curves, {"configs.csv": configurations})
    for name in ("curves.parquet", "configs.csv", "bundle.yaml"):
        (staging / name).replace(out_dir / name)
