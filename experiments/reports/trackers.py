"""A run as experiment trackers keep searches: MLflow in a local folder, Weights & Biases as offline runs.

One run for the search with its spec and result, and one for each trial with its hyperparameters and every score that was
reported.
Imports mlflow or wandb inside the function that needs it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from elastune.traces.importers.mlflow_runs import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from elastune.experiments.reports.of_run import RecordedRun

PROJECT = "elastune"
"""The experiment of MLflow and the project of W&B."""
ELAPSED = "elapsed_s"
"""The metric of W&B that holds seconds of the run, because wandb's own clock is that of the export."""
_MOST_AT_ONCE = 100
"""Parameters that MLflow takes in one call; of metrics it takes more."""


def write_mlflow(run: RecordedRun, folder: Path) -> int:
    """Add the run to a tracking folder of MLflow. Its times are those of the run, which ended when its journal was written.

    Returns:
        How many runs of MLflow were written.

    Raises:
        InputError: mlflow refuses the folder.
    """
    began_s = (run.folder / "journal.jsonl").stat().st_mtime - run.timeline.end_s

    def ms(at_s: float) -> int:
        return round(1000 * (began_s + at_s))

    with opened(folder) as client:
        from mlflow.entities import Metric, Param

        found = client.get_experiment_by_name(PROJECT)
        experiment = client.create_experiment(PROJECT) if found is None else found.experiment_id

        def add(
            name: str, at_s: float, tags: Mapping[str, str], params: Mapping[str, object], metrics: list[Metric]
        ) -> str:
            made = client.create_run(experiment, start_time=ms(at_s), tags=tags, run_name=name)
            run_id: str = made.info.run_id
            given = [Param(key, str(value)) for key, value in params.items()]
            for first in range(0, max(len(given), len(metrics)), _MOST_AT_ONCE):
                part = slice(first, first + _MOST_AT_ONCE)
                client.log_batch(run_id, metrics[part], given[part])
            client.set_terminated(run_id, end_time=max((one.timestamp for one in metrics), default=ms(at_s)))
            return run_id

        result = [Metric(key, value, ms(run.timeline.end_s), 0) for key, value in _measures(run)]
        parent = add(_name(run), 0.0, {}, _flat(run.spec.to_dict()), result)
        trials, started_s = list(_trials(run)), run.timeline.segments.groupby("trial")["start_s"].min()
        for trial, hyperparameters, points in trials:
            scores = [Metric("score", score, ms(at_s), step) for step, score, at_s in points]
            add(
                f"trial {run.name(trial)}",
                float(started_s[trial]),
                {"mlflow.parentRunId": parent},
                hyperparameters,
                scores,
            )
    return 1 + len(trials)


def write_wandb(run: RecordedRun, folder: Path) -> int:
    """Write the run as offline runs of W&B, one group; `wandb sync` uploads them, and nothing else does.

    Returns:
        How many runs of W&B were written.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    group = f"{_name(run)} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    quiet = wandb.Settings(console="off", disable_git=True, silent=True, x_disable_meta=True, x_disable_stats=True)

    def started(name: str, kind: str, config: Mapping[str, object]) -> Any:  # noqa: ANN401  wandb's run
        return wandb.init(
            mode="offline",
            dir=str(folder),
            project=PROJECT,
            group=group,
            job_type=kind,
            name=name,
            config=dict(config),
            settings=quiet,
            reinit="finish_previous",
        )

    search = started(_name(run), "search", run.spec.to_dict())
    search.log(dict(_measures(run)))
    search.finish()
    trials = list(_trials(run))
    for trial, hyperparameters, points in trials:
        logged = started(f"trial {run.name(trial)}", "trial", hyperparameters)
        for step, score, at_s in points:
            logged.log({"score": score, ELAPSED: at_s}, step=step)
        logged.finish()
    return 1 + len(trials)


def _name(run: RecordedRun) -> str:
    return f"{run.spec.policy.label}, seed {run.spec.seed}"


def _measures(run: RecordedRun) -> Iterator[tuple[str, float]]:
    """The numbers of the result."""
    for key, value in run.result.items():
        if isinstance(value, int | float) and key != "seed":
            yield f"result/{key}", float(value)  # a trial's score has the plain name


def _trials(run: RecordedRun) -> Iterator[tuple[int, Mapping[str, object], Sequence[tuple[int, float, float]]]]:
    """Number, hyperparameters and reported scores of each trial that was started, by iteration."""
    for trial, points in sorted(run.reported.items()):
        by_iteration = {iteration: (iteration, score, at_s) for iteration, score, at_s in points}
        yield trial, run.hyperparameters.get(trial, {}), [by_iteration[at] for at in sorted(by_iteration)]


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """The values of a spec by their dotted keys."""
    found: dict[str, object] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found
