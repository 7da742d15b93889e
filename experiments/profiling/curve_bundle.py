"""Turns the records of a curve profile into a bundle with the provenance of each number. Imports pandas inside functions."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from elastune.experiments.profiling.records import CheckpointCost, IterationRecord, Probe, measured_on
from elastune.experiments.profiling.work_folder import Part, WorkFolder, require_same, rounded
from elastune.sim.model.errors import WorkerError
from elastune.traces.bundles.writer import write_files
from elastune.traces.formats.yaml_text import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from elastune.traces.workloads import Workload


TWICE = 2
"""Trainings of what is trained again, unless said otherwise."""
_UNSAID = {"again": 0, "replicates": TWICE}


@dataclass(frozen=True)
class ProfileArguments:
    """What decides the scores of a profile. The number of processes does not.

    The trainings of a profile are numbered: the trials first, then those that are trained again, round by round.

    Attributes:
        workload: by its name.
        trials: configurations.
        iterations: of each training.
        seed: of configurations, weights and the order of the data.
        again: how many of the trials, the first ones, are trained again.
        replicates: trainings of each of these, at least 2.
    """

    workload: str
    trials: int
    iterations: int
    seed: int
    again: int = 0
    replicates: int = TWICE

    @property
    def trainings(self) -> int:
        """How often something is trained from its start."""
        return self.trials + self.again * (self.replicates - 1)

    def trial_of(self, training: int) -> tuple[int, int]:
        """The trial of a training, and its number among those of the trial."""
        if training < self.trials:
            return training, 0
        earlier, trial = divmod(training - self.trials, self.again)
        return trial, earlier + 1

    def named(self) -> dict[str, object]:
        """The arguments by name; those at their defaults that older folders lack are left out."""
        return {name: value for name, value in asdict(self).items() if value != _UNSAID.get(name)}

    def command(self, jobs: int) -> str:
        """The command line that does the same with so many worker processes."""
        again = f" --again {self.again}" if self.again else ""
        replicates = f" --replicates {self.replicates}" if self.replicates != TWICE else ""
        size = f"--trials {self.trials} --iterations {self.iterations} --jobs {jobs} --seed {self.seed}"
        return f"elastune profile {self.workload} {size}{again}{replicates}"

    def asked(self, workload: Workload) -> dict[str, object]:
        """What decides the measurements, for JSON."""
        drawn = [workload.configuration_of(self.seed, trial) for trial in range(self.trials)]
        digest = hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16]
        return {"profile": "curves", **self.named(), "search space": digest, **own_code_of(workload)}


def own_code_of(workload: Workload) -> dict[str, object]:
    """The user's own code that a workload trains, by a name for requests; empty for those that ship."""
    return {} if workload.repeats_itself else {"training code": workload.source}


def trial_part(folder: WorkFolder, trial: int) -> Part[IterationRecord | CheckpointCost]:
    """The records of a trial: its iterations in order, then the cost of its last checkpoint."""
    return Part(folder.file(trial, ".jsonl"), IterationRecord | CheckpointCost, _follows)


def _follows(before: Sequence[IterationRecord | CheckpointCost], record: IterationRecord | CheckpointCost) -> bool:
    if before and isinstance(before[-1], CheckpointCost):
        return False
    return isinstance(record, CheckpointCost) or record.iteration == len(before) + 1


def read_trial(folder: WorkFolder, trial: int) -> tuple[list[IterationRecord], CheckpointCost | None]:
    """The iterations of a trial, and the cost of its checkpoint if it is complete."""
    records = trial_part(folder, trial).read()
    iterations = [record for record in records if isinstance(record, IterationRecord)]
    cost = records[-1] if records else None
    return iterations, cost if isinstance(cost, CheckpointCost) else None


def is_complete(out_dir: Path, arguments: ProfileArguments, workload: Workload) -> bool:
    """Whether the folder already holds the finished bundle of these arguments.

    Raises:
        InputError: it holds another finished bundle; the message names what differs.
    """
    manifest = out_dir / "bundle.yaml"
    if not manifest.exists():
        return False
    found = parse_yaml(manifest.read_text(encoding="utf-8"), str(manifest))
    assert isinstance(found, dict)
    names = {"workload": "name", "iterations": "max_iterations", "training code": "source"}
    keys = {*arguments.named(), *(set(_UNSAID) & set(found))}
    asked = {key: value for key, value in asdict(arguments).items() if key in keys} | own_code_of(workload)
    require_same(out_dir, {key: found.get(names.get(key, key)) for key in asked}, asked)
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
        jobs: parallel worker processes.
        probe: measures a trial in fresh processes; takes its number and its mean seconds per iteration.
    """
    import pandas as pd

    records, costs = _read_parts(folder, arguments)
    curves = _curves(records, arguments)
    relative_cost = _relative_cost(curves)
    iteration_s = float(curves.groupby("trial")["seconds"].mean().mean())  # however often each was trained
    busy = float(curves["cpu_seconds"].sum() / curves["seconds"].sum())
    probes = probe(int((relative_cost - 1).abs().to_numpy().argmin()), iteration_s)
    configurations = pd.DataFrame(
        [workload.configuration_of(arguments.seed, trial) for trial in range(arguments.trials)]
    )
    configurations.insert(0, "trial", range(arguments.trials))
    configurations["relative_cost"] = relative_cost.map(rounded).to_numpy()
    measured = {
        "iteration_s": rounded(iteration_s),
        "launch_s": rounded(statistics.median(one.launch_s for one in probes)),
        "checkpoint_s": rounded(statistics.median(cost.checkpoint_s for cost in costs)),
        "checkpoint_bytes": round(statistics.median(cost.checkpoint_bytes for cost in costs)),
        "data_bytes": workload.data_bytes(),
        "straggler": {
            "persistent_cv": _persistent_cv([one.iteration_seconds for one in probes]),
            "per_iteration_cv": _per_iteration_cv(curves),
        },
    }
    manifest = _manifest(workload, arguments, jobs, busy, len(probes), measured)
    folder.publish(lambda staging: write_files(staging, manifest, curves, {"configs.csv": configurations}))


def _read_parts(
    folder: WorkFolder, arguments: ProfileArguments
) -> tuple[list[list[IterationRecord]], list[CheckpointCost]]:
    records: list[list[IterationRecord]] = []
    costs: list[CheckpointCost] = []
    for trial in range(arguments.trainings):
        of_trial, cost = read_trial(folder, trial)
        if cost is None or len(of_trial) != arguments.iterations:
            raise WorkerError(f"{folder.path}: trial {trial} is not complete; run the same command again")
        records.append(of_trial)
        costs.append(cost)
    return records, costs


def _curves(records: Sequence[Sequence[IterationRecord]], arguments: ProfileArguments) -> pd.DataFrame:
    """One row per training and iteration, in this order; `replicate` only where trials were trained again."""
    import pandas as pd

    rows = []
    for training, of_training in enumerate(records):
        trial, replicate = arguments.trial_of(training)
        for record in of_training:
            cells = msgspec.structs.asdict(record)
            measures = cells.pop("measures")
            rows.append({"trial": trial, "replicate": replicate, **cells, **measures})
    measured = sorted(records[0][0].measures)
    numbered = ["trial", *(["replicate"] if arguments.again else []), "iteration"]
    frame = pd.DataFrame(rows)[[*numbered, "score", "seconds", "test_score", "cpu_seconds", *measured]]
    if frame["test_score"].isna().all():  # code of the user's own need not have one
        frame = frame.drop(columns="test_score")
    scores = (name for name in ("score", "test_score", *measured) if name in frame)
    values = dict.fromkeys(scores, float)  # None is NaN from here on
    return frame.astype({**dict.fromkeys(numbered, "int32"), **values})


def _relative_cost(curves: pd.DataFrame) -> pd.Series[float]:
    """Mean processor seconds of a trial over the mean of all. Wall seconds would include other work on the machine."""
    mean_s = curves.groupby("trial")["cpu_seconds"].mean()
    return mean_s / mean_s.mean()


def _per_iteration_cv(curves: pd.DataFrame) -> float | None:
    """Median over the trainings of the coefficient of variation within a training; None with one iteration."""
    grouped = curves.groupby([name for name in ("trial", "replicate") if name in curves])["seconds"]
    spread = float((grouped.std() / grouped.mean()).median())
    return None if math.isnan(spread) else rounded(spread)


def _persistent_cv(seconds: Sequence[Sequence[float]]) -> float | None:
    """Coefficient of variation between processes, without the part that the spread within processes explains.

    None with one process; 0 if nothing else is left.
    """
    if len(seconds) < 2:
        return None
    means = [statistics.fmean(of_process) for of_process in seconds]
    explained = statistics.fmean(statistics.variance(of_process) / len(of_process) for of_process in seconds)
    return rounded(math.sqrt(max(0.0, statistics.variance(means) - explained)) / statistics.fmean(means))


def _manifest(
    workload: Workload, arguments: ProfileArguments, jobs: int, busy: float, probes: int, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of `bundle.yaml`; `busy` is the share of training seconds spent on the processor."""
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
        **({"measures": dict(workload.measures)} if workload.measures else {}),
        "schedule": workload.schedule,
        "scaling": None,
        "source": workload.source,
        "licence": workload.licence,
        "measured_on": measured_on(),
        "command": arguments.command(jobs),
        **{name: value for name, value in arguments.named().items() if name in ("seed", *_UNSAID)},
        "note": "NaN marks a diverged run. It kept training, so its seconds are those of its configuration. cpu_seconds"
        " is the time of the same iteration by the processor's clock, without the time spent waiting for it.",
        "provenance": {
            "curves": f"measured: every point was trained; training and validation timed {wall}",
            "iteration_s": f"measured: mean over the trials, {wall}",
            "relative_cost": "measured: mean cpu_seconds of a trial over the mean of all",
            "launch_s": f"measured: fresh process to first iteration, torch and data loaded; median of {probes}",
            "checkpoint_s": "measured: write and fsync of the last checkpoint; median over the trainings",
            "checkpoint_bytes": "measured: size of the last checkpoint; median over the trainings",
            "data_bytes": "measured: size of the compressed table in its wheel"
            if workload.data_bytes()
            else "not measured: training code of somebody's own does not say what it loads",
            "straggler.persistent_cv": f"measured: one configuration in {probes} fresh processes, one after another;"
            " spread of their means less what the spread within them explains",
            "straggler.per_iteration_cv": "measured: spread of the seconds within a training; median over the trainings",
            "scaling": "not measured: a CPU slot says nothing about more GPUs; pair it with a scaling table",
        },
    }
