"""Runs of a physical cluster that others recorded: its jobs, rounds, placements and speeds, as tables of a folder.

The folder holds jobs.parquet, placements.parquet, throughput.parquet, rounds.csv, runs.csv and profile.csv, each with columns
`run` and `kind` (physical, or simulation for what the authors' simulator said). Imports pandas inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from elastune.experiments.files import read_table
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

_TABLES: Mapping[str, tuple[str, ...]] = {
    "jobs.parquet": (
        "run", "kind", "job", "arrival_s", "gpus", "model", "batch_size", "total_steps", "jct_s", "end_s", "service_s",
    ),
    "placements.parquet": ("run", "kind", "round", "job", "worker"),
    "throughput.parquet": ("run", "kind", "job", "round", "steps_per_s", "batch_size"),
    "rounds.csv": ("run", "kind", "round", "round_s"),
    "runs.csv": ("run", "kind", "makespan_s"),
    "profile.csv": ("model", "batch_size", "gpus", "steps_per_s"),
}  # fmt: skip

Config = tuple[str, int, int]
"""(model, batch per worker, GPUs)."""


class PhysicalJob(NamedTuple):
    """One job, and what became of it.

    Attributes:
        job: its number.
        arrival_s: when it was submitted.
        gpus: that it trains on.
        model: what it trains.
        samples: of its whole training.
        end_s: when it ended.
        service_s: seconds for which it held its GPUs and ran.
        batches: (share of the samples, batch per worker from there on), from 0.
    """

    job: int
    arrival_s: float
    gpus: int
    model: str
    samples: float
    end_s: float
    service_s: float
    batches: tuple[tuple[float, int], ...]


class PhysicalLease(NamedTuple):
    """A stretch of rounds of one job, with the speed that was measured over it: `until` is the first round after it."""

    until: int
    config: Config
    samples_per_s: float


class Outcomes(NamedTuple):
    """What happened to each job: seconds from submission to the end, and of service; and the whole run's.

    The wait before the first round is in none of them: a job that was there before it counts from then on.
    """

    jct_s: Mapping[int, float]
    service_s: Mapping[int, float]
    makespan_s: float


@dataclass(frozen=True)
class PhysicalRun:
    """One policy on the physical cluster.

    Attributes:
        name: of the policy.
        jobs: by number.
        workers: GPUs of the cluster.
        rounds_s: when each round began; some of the record's are estimates.
        placements: by round, the workers of each job in it.
        leases: by job, in order.
        real: what happened.
        authors: what the authors' simulator said, if it is in the folder.
    """

    name: str
    jobs: Mapping[int, PhysicalJob]
    workers: int
    rounds_s: Sequence[float]
    placements: Mapping[int, Mapping[int, tuple[int, ...]]]
    leases: Mapping[int, Sequence[PhysicalLease]]
    real: Outcomes
    authors: Outcomes | None

    @property
    def first_s(self) -> float:
        """When the first round began."""
        return self.rounds_s[0]


def load_physical(folder: Path) -> tuple[list[PhysicalRun], Mapping[Config, float]]:
    """The physical runs in a folder, and the profile: samples per second by configuration.

    Raises:
        InputError: a table or a column is missing, a job never ends or was never placed, or the profile lacks a configuration.
    """
    tables = {name: _table(folder, name, columns) for name, columns in _TABLES.items()}
    profile = {
        (str(row["model"]), int(row["batch_size"]), int(row["gpus"])): float(row["steps_per_s"])
        * int(row["batch_size"])
        for row in _records(tables["profile.csv"])
    }
    names = tables["jobs.parquet"].query("kind == 'physical'")["run"].drop_duplicates()
    if names.empty:
        raise InputError(f"{folder / 'jobs.parquet'}: no row is of kind physical")
    runs = [_run(folder, str(name), tables) for name in names]
    for run in runs:
        for job in run.jobs.values():
            for _, batch in job.batches:
                if (job.model, batch, job.gpus) not in profile:
                    raise InputError(
                        f"{folder / 'profile.csv'}: {job.model} at batch {batch} on {job.gpus} GPUs is missing, which job"
                        f" {job.job} of {run.name} trains"
                    )
    return runs, profile


def _table(folder: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path} is missing: a physical record is {', '.join(_TABLES)}")
    try:
        table = read_table(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"{path}: column {', '.join(missing)} is missing; it has {', '.join(map(str, table.columns))}")
    return table


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", table.to_dict("records"))


def _of(tables: Mapping[str, pd.DataFrame], name: str, run: str, kind: str) -> pd.DataFrame:
    table = tables[name]
    return table[(table["run"] == run) & (table["kind"] == kind)]


def _run(folder: Path, name: str, tables: Mapping[str, pd.DataFrame]) -> PhysicalRun:
    rows = _of(tables, "jobs.parquet", name, "physical")
    rounds = _of(tables, "rounds.csv", name, "physical").sort_values("round")["round_s"].tolist()
    placements = _placements(_of(tables, "placements.parquet", name, "physical"))
    placed = {job for jobs in placements.values() for job in jobs}
    schedule = _of(tables, "throughput.parquet", name, "simulation")
    if schedule.empty:
        schedule = _of(tables, "throughput.parquet", name, "physical")
    by_job = {int(cast("int", job)): group for job, group in schedule.sort_values("round").groupby("job")}
    jobs = {}
    for row in _records(rows):
        where = f"{folder / 'jobs.parquet'}: job {row['job']} of {name}"
        if not (math.isfinite(row["jct_s"]) and row["jct_s"] > 0 and math.isfinite(row["end_s"])):
            raise InputError(
                f"{where} never ends: its jct_s is {row['jct_s']}; leave it out of every table, or give its end"
            )
        if row["job"] not in placed:
            raise InputError(f"{where} was never placed, although it ended: placements.parquet has no row of it")
        jobs[int(row["job"])] = _job(row, by_job.get(row["job"]))
    if not rounds or max(placements) >= len(rounds):
        raise InputError(
            f"{folder / 'rounds.csv'}: {name} has placements in round {max(placements)}, which is not in it"
        )
    return PhysicalRun(
        name,
        jobs,
        1 + max(worker for of_round in placements.values() for workers in of_round.values() for worker in workers),
        rounds,
        placements,
        _leases(_of(tables, "throughput.parquet", name, "physical"), jobs),
        _outcomes(tables, name, "physical", rounds[0]),
        None if _of(tables, "jobs.parquet", name, "simulation").empty else _outcomes(tables, name, "simulation", 0.0),
    )


def _placements(rows: pd.DataFrame) -> dict[int, dict[int, tuple[int, ...]]]:
    found: dict[int, dict[int, tuple[int, ...]]] = {}
    columns = (rows[name].tolist() for name in ("round", "job", "worker"))
    for number, job, worker in sorted(zip(*columns, strict=True)):
        of_round = found.setdefault(number, {})
        of_round[job] = (*of_round.get(job, ()), worker)
    return found


def _job(row: Mapping[str, Any], schedule: pd.DataFrame | None) -> PhysicalJob:
    """The job with its batches by progress, as the trace has them; a job without a schedule keeps its first."""
    batches: list[tuple[float, int]] = [(0.0, int(row["batch_size"]))]
    if schedule is not None:
        done = schedule["steps_per_s"] * schedule["batch_size"]
        share = (done.cumsum() - done) / done.sum()
        batches = []
        for at, batch in zip(share, schedule["batch_size"], strict=True):
            if not batches or batches[-1][1] != batch:
                batches.append((float(at), int(batch)))
    samples = float(row["total_steps"]) * float(row["batch_size"])
    return PhysicalJob(
        int(row["job"]), float(row["arrival_s"]), int(row["gpus"]), str(row["model"]), samples, float(row["end_s"]),
        float(row["service_s"]), tuple(batches),
    )  # fmt: skip


def _leases(rows: pd.DataFrame, jobs: Mapping[int, PhysicalJob]) -> dict[int, list[PhysicalLease]]:
    found: dict[int, list[PhysicalLease]] = {job: [] for job in jobs}
    for row in _records(rows.sort_values("round")):
        job = jobs[int(row["job"])]
        config = (job.model, int(row["batch_size"]), job.gpus)
        found[job.job].append(
            PhysicalLease(int(row["round"]), config, float(row["steps_per_s"]) * int(row["batch_size"]))
        )
    return found


def _outcomes(tables: Mapping[str, pd.DataFrame], name: str, kind: str, first_s: float) -> Outcomes:
    rows = _of(tables, "jobs.parquet", name, kind)
    [makespan_s] = _of(tables, "runs.csv", name, kind)["makespan_s"].tolist()[:1] or [math.nan]
    return Outcomes(
        {int(row["job"]): float(row["end_s"]) - max(float(row["arrival_s"]), first_s) for row in _records(rows)},
        {int(row["job"]): float(row["service_s"]) for row in _records(rows)},
        float(makespan_s) - first_s,
    )
