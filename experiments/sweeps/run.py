"""Run the missing runs of a sweep in parallel; finished runs are never lost.

Imports the other modules of `experiments`. Workers compute and return rows (`experiments.sweeps.worker`, `sweep_pools`); this
process alone writes, whole parts at a time (`experiments.sweeps.store`). So a sweep that is killed loses at most the
seconds since the last part, and goes on with the runs whose keys are in no part.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.runs.world import World
from elastune.experiments.sweeps.grid import Cell, SweepSpec
from elastune.experiments.sweeps.keys import data_sha256, run_keys
from elastune.experiments.sweeps.pools import workers
from elastune.experiments.sweeps.store import Known, Store
from elastune.experiments.sweeps.worker import Row, Run, SweepTask, shared_bundles
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from elastune.traces import Bundle

PART_ROWS = 512
PART_S = 5.0
"""A part is written after this many rows or seconds. Larger parts mean fewer files, and more rows lost by a kill."""


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """A sweep and what its folder already holds.

    Attributes:
        runs: all of them, by cell, then seed.
        known: by key, what the folder holds.
        bundles: by name, those that the runs need.
        versions: of the packages that compute, as JSON.
    """

    sweep: SweepSpec
    runs: Sequence[Run]
    known: Mapping[str, Known]
    bundles: Mapping[str, Bundle]
    versions: str

    def status(self, run: Run) -> str | None:
        """Status of a run in the folder; None if it has no row."""
        known = self.known.get(run.key)
        return None if known is None else known.status

    def missing(self, *, is_retrying: bool = False) -> list[Run]:
        """Runs without a row, and on request those that failed."""
        redone = (None, "failed") if is_retrying else (None,)
        return [run for run in self.runs if self.status(run) in redone]


@dataclass(frozen=True)
class SweepOutcome:
    """Summary of a finished sweep.

    Attributes:
        skipped: runs that were there already.
        counts: by status, of all runs of the sweep, those that were there already included.
        failures: key, policy, seed, settings and error of each run that failed now.
        seconds: from the first run to the last part.
        ran: runs that were run now.
    """

    skipped: int
    ran: int
    seconds: float
    counts: Mapping[str, int]
    failures: Sequence[Mapping[str, object]]


def plan(sweep: SweepSpec, folder: str | Path) -> SweepPlan:
    """Check every cell of a sweep, and look up what its folder holds. Nothing is written.

    Raises:
        InputError: a cell is no run or does not fit its bundle, or the folder holds results of another sweep or version.
    """
    store = Store(Path(folder))
    known = store.known()
    bundles: dict[str, Bundle] = {}
    runs: list[Run] = []
    versions = ""
    for cell in sweep.cells():
        world = _world(cell, bundles)
        versions = versions or json.dumps(world.header().versions, sort_keys=True)
        data = data_sha256(cell.spec, world.bundle)
        keys = run_keys(cell.spec, sweep.seeds, data, RESULTS_VERSION)
        for seed, key in zip(sweep.seeds, keys, strict=True):
            runs.append(Run(cell, cell.spec.with_seed(seed), key, data, world.bundle.sha256))
    planned = SweepPlan(sweep, runs, known, bundles, versions)
    _require_same_sweep(store.folder, planned)
    return planned


def _world(cell: Cell, bundles: dict[str, Bundle]) -> World:
    """Build the cell's world on its first seed, which checks that spec and bundle fit."""
    name = cell.spec.workload.bundle or ""
    try:
        cell.spec.require_simulable()
        if name not in bundles:
            bundles[name] = cell.spec.bundle()
        return World.of(cell.spec, bundles[name])
    except InputError as error:
        raise InputError(f"cell {cell.label}: {error}") from error


def _require_same_sweep(folder: Path, planned: SweepPlan) -> None:
    """Check that every row of the folder belongs to the sweep. The sweep may have more runs than the folder."""
    keys = {run.key for run in planned.runs}
    foreign = [known for key, known in planned.known.items() if key not in keys]
    if not foreign:
        return
    told = f"{folder}: {len(foreign)} of its {len(planned.known)} rows are"
    older = sorted({known.results_version for known in foreign} - {str(RESULTS_VERSION)})
    if older:
        raise InputError(
            f"{told} of another version of results ({', '.join(older)}), and this elastune makes version {RESULTS_VERSION};"
            " they are kept and can be shown: sweep into another folder (-o)"
        )
    raise InputError(
        f"{told} of another sweep or of data that changed; they are kept: sweep into another folder (-o). A sweep may"
        f" grow by values and seeds, but not lose any: {folder / 'sweep.yaml'} says what was swept"
    )


def run_sweep(
    planned: SweepPlan,
    folder: str | Path,
    *,
    jobs: int | None = None,
    ray_address: str | None = None,
    is_retrying: bool = False,
    with_journals: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> SweepOutcome:
    """Run what is missing in the folder. After any interruption, the written rows are complete and a later call continues.

    Args:
        planned: from `plan`, of the same folder.
        folder: of the results.
        jobs: processes; 1 runs everything in this one. Left out, 2, or all CPUs of a Ray cluster.
        ray_address: of a Ray cluster that runs everything instead of processes here.
        is_retrying: whether runs that failed are run again.
        with_journals: whether journals are kept, those of runs that are done already included.
        on_progress: called with the runs that are done and that there are to do.

    Raises:
        InputError: another process writes to the folder, or ray is not there.
        StoreError: the disk is full.
        WorkerError: a worker died.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: at least one")
    store = Store(Path(folder))
    retried = [run.key for run in planned.runs if is_retrying and planned.status(run) == "failed"]
    known = {key: known.status for key, known in planned.known.items() if key not in retried}
    todo = _todo(planned, known, store if with_journals else None)
    with workers(jobs, ray_address if todo else None) as run, store.writing():
        if store.known().keys() != planned.known.keys():
            raise InputError(f"{folder}: another sweep wrote to this folder meanwhile; run the same command again")
        store.write_sweep(planned.sweep.to_dict())
        if retried:
            store.forget(retried)
        start_s, collected = time.monotonic(), _Collected(store, known, {run.key: run for run in planned.runs})
        with shared_bundles(store.folder, planned.bundles, is_needed=jobs != 1 and bool(todo)) as shared:
            task = SweepTask(shared, planned.versions, RESULTS_VERSION, with_journals)
            collected.collect(run(task, todo), len(todo), on_progress)
        seconds = time.monotonic() - start_s
    counts = {status: list(collected.statuses.values()).count(status) for status in ("done", "infeasible", "failed")}
    return SweepOutcome(len(planned.runs) - len(todo), len(todo), seconds, counts, collected.failures)


def sweep(
    spec: SweepSpec | str | Path,
    folder: str | Path,
    *,
    jobs: int | None = None,
    with_journals: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> SweepOutcome:
    """Run a sweep. The same call continues where an earlier one stopped.

    Args:
        spec: the sweep, or its YAML file.
        folder: of the results; `read_results` reads it.
        jobs: processes; 2 where left out.
        with_journals: whether journals are kept.
        on_progress: called with the runs that are done and that there are to do.

    Raises:
        InputError: see `plan` and `run_sweep`.
        StoreError: the disk is full.
        WorkerError: a worker died.
    """
    sweep_spec = spec if isinstance(spec, SweepSpec) else SweepSpec.load(Path(spec))
    planned = plan(sweep_spec, folder)
    return run_sweep(planned, folder, jobs=jobs, with_journals=with_journals, on_progress=on_progress)


def _todo(planned: SweepPlan, known: Mapping[str, str], journals: Store | None) -> list[Run]:
    """Runs without a row; if journals are asked for, also finished runs without a journal."""

    def lacks_journal(run: Run) -> bool:
        if journals is None or known[run.key] != "done":
            return False
        return not (journals.journals / f"{run.spec.digest()}.jsonl.zst").is_file()

    return [run for run in planned.runs if run.key not in known or lacks_journal(run)]


class _Collected:
    """Collects rows and writes them in parts."""

    def __init__(self, store: Store, statuses: dict[str, str], runs: Mapping[str, Run]) -> None:
        self.store, self.statuses, self.runs = store, statuses, runs
        self.failures: list[dict[str, object]] = []
        self._rows: list[dict[str, object]] = []
        self._part: Path | None = None
        self._written_s = time.monotonic()

    def collect(
        self, outcomes: Generator[Row, None, None], total: int, on_progress: Callable[[int, int], None]
    ) -> None:
        with closing(outcomes):
            try:
                for done, (row, journal) in enumerate(outcomes, start=1):
                    self._take(row, journal)
                    on_progress(done, total)
            finally:
                # Keep finished rows also after an interruption or a worker's death.
                self._write()

    def _take(self, row: dict[str, object], journal: bytes | None) -> None:
        if journal is not None:
            self.store.write_journal(str(row["digest"]), journal)
        key = str(row["key"])
        if key in self.statuses:
            return  # it was run for its journal only
        self._rows.append(row)
        self.statuses[key] = str(row["status"])
        if row["status"] == "failed":
            told = {name: row[name] for name in ("key", "policy", "seed", "error")}
            self.failures.append({**told, "settings": dict(self.runs[key].cell.settings)})
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._written_s >= PART_S:
            self._write()

    def _write(self) -> None:
        if self._rows:
            # Ctrl-C may come after the file was written but before the rows are cleared: then the same file is written again.
            self._part = self._part or self.store.next_part()
            self.store.write_part(self._part, self._rows)
            self._rows = []
            self._part = None
        self._written_s = time.monotonic()
