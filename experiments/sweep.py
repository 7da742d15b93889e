"""Running a sweep: what is missing in its folder is run, in parallel, and nothing that was run is lost.

Imports the other modules of `experiments`; joblib inside the functions that need it, ray in `_register_ray` only.

Workers compute and return rows; this process alone writes, whole parts at a time (`experiments.store`). So a sweep that is
killed loses at most the seconds since the last part, and goes on with the runs whose keys are in no part.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import shutil
import signal
import threading
import time
import traceback
import warnings
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.running import World, execute
from experiments.store import Store, StoreError
from experiments.sweep_keys import code_sha256, data_sha256, run_key
from experiments.sweep_rows import bundle_row, result_row, spec_row
from sim.model.errors import InfeasibleJobError, InputError, TuningError, WorkerError
from traces import DecreasingScalingWarning, load_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from experiments.spec import RunSpec
    from experiments.store import Known
    from experiments.sweep_spec import Cell, SweepSpec
    from traces import Bundle

PART_ROWS = 512
PART_S = 5.0
"""A part is written after so many rows or seconds, whichever comes first: what a kill can cost, against the number of files."""
_RAY_BATCH_PER_SLOT = 8
_ORPHAN_S = 1.0


@dataclass(frozen=True)
class Run:
    """One run of a sweep, and what it is known by."""

    cell: Cell
    spec: RunSpec
    key: str
    data_sha256: str
    bundle_sha256: str


@dataclass(frozen=True, eq=False)
class Plan:
    """A sweep beside what its folder holds.

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
        """What the folder says of a run, or None."""
        known = self.known.get(run.key)
        return None if known is None else known.status

    def missing(self, *, is_retrying: bool = False) -> list[Run]:
        """What is to be run: what is not there, and on request what failed."""
        redone = (None, "failed") if is_retrying else (None,)
        return [run for run in self.runs if self.status(run) in redone]


@dataclass(frozen=True)
class Outcome:
    """What a sweep did.

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


def plan(sweep: SweepSpec, folder: str | Path) -> Plan:
    """Check every cell of a sweep, and look up what its folder holds. Nothing is written.

    Raises:
        InputError: a cell is no run or does not fit its bundle, or the folder holds results of another sweep or version.
    """
    code, store = code_sha256(), Store(Path(folder))
    known = store.known()
    bundles: dict[str, Bundle] = {}
    runs: list[Run] = []
    versions = ""
    with warnings.catch_warnings():
        warnings.simplefilter("once", DecreasingScalingWarning)
        for cell in sweep.cells():
            world = _world(cell, bundles)
            versions = versions or json.dumps(world.header().versions, sort_keys=True)
            data = data_sha256(cell.spec, world.bundle)
            for seed in sweep.seeds:
                spec = cell.spec.with_seed(seed)
                runs.append(Run(cell, spec, run_key(spec, data, code), data, world.bundle.sha256))
    planned = Plan(sweep, runs, known, bundles, versions)
    _require_same_sweep(store.folder, planned, code)
    return planned


def _world(cell: Cell, bundles: dict[str, Bundle]) -> World:
    """The cell's world on its first seed, which is where spec and bundle are seen to fit."""
    name = cell.spec.workload.bundle or ""
    try:
        cell.spec.require_simulable()
        if name not in bundles:
            bundles[name] = cell.spec.bundle()
        return World.of(cell.spec, bundles[name])
    except InputError as error:
        raise InputError(f"cell {cell.label}: {error}") from error


def _require_same_sweep(folder: Path, planned: Plan, code: str) -> None:
    """Every row of the folder is a run of the sweep; the sweep may be larger, as one with more seeds."""
    keys = {run.key for run in planned.runs}
    foreign = [known for key, known in planned.known.items() if key not in keys]
    if not foreign:
        return
    told = f"{folder}: {len(foreign)} of its {len(planned.known)} rows are"
    if any(known.code_sha256 != code for known in foreign):
        raise InputError(f"{told} from another version of the code; they are kept: sweep into another folder (-o)")
    raise InputError(
        f"{told} of another sweep or of data that changed; they are kept: sweep into another folder (-o). A sweep may"
        f" grow by values and seeds, but not lose any: {folder / 'sweep.yaml'} says what was swept"
    )


def run_sweep(
    planned: Plan,
    folder: str | Path,
    *,
    jobs: int | None = None,
    ray_address: str | None = None,
    is_retrying: bool = False,
    with_journals: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Outcome:
    """Run what is missing in the folder. Whenever it ends, by whatever, what was written is whole and the rest can go on.

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
    with store.writing():
        retried = [run.key for run in planned.runs if is_retrying and planned.status(run) == "failed"]
        known = {key: known.status for key, known in planned.known.items() if key not in retried}
        if store.known().keys() != planned.known.keys():
            raise InputError(f"{folder}: another sweep wrote to this folder meanwhile; run the same command again")
        store.write_sweep(planned.sweep.to_dict())
        if retried:
            store.forget(retried)
        todo = _todo(planned, known, store if with_journals else None)
        start_s, collected = time.monotonic(), _Collected(store, known, {run.key: run for run in planned.runs})
        with _shared(store.folder, planned.bundles, is_needed=jobs != 1 and bool(todo)) as shared:
            parent_pid = os.getpid() if ray_address is None else None
            task = _Task(shared, planned.versions, code_sha256(), with_journals, parent_pid)
            outcomes = _outcomes(task, todo, jobs, ray_address)
            collected.collect(outcomes, len(todo), on_progress)
        seconds = time.monotonic() - start_s
    counts = {status: list(collected.statuses.values()).count(status) for status in ("done", "infeasible", "failed")}
    return Outcome(len(planned.runs) - len(todo), len(todo), seconds, counts, collected.failures)


def _todo(planned: Plan, known: Mapping[str, str], journals: Store | None) -> list[Run]:
    """Runs without a row, and where journals are asked for, those that are done without one."""

    def lacks_journal(run: Run) -> bool:
        if journals is None or known[run.key] != "done":
            return False
        return not (journals.journals / f"{run.spec.digest()}.jsonl.zst").is_file()

    return [run for run in planned.runs if run.key not in known or lacks_journal(run)]


class _Collected:
    """Takes rows as they come and writes them in parts."""

    def __init__(self, store: Store, statuses: dict[str, str], runs: Mapping[str, Run]) -> None:
        self.store, self.statuses, self.runs = store, statuses, runs
        self.failures: list[dict[str, object]] = []
        self._rows: list[dict[str, object]] = []
        self._written_s = time.monotonic()

    def collect(
        self, outcomes: Generator[_Row, None, None], total: int, on_progress: Callable[[int, int], None]
    ) -> None:
        with closing(outcomes):
            try:
                for done, (row, journal) in enumerate(outcomes, start=1):
                    self._take(row, journal)
                    on_progress(done, total)
            finally:
                # Also when interrupted or when a worker died: what is finished is kept.
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
        self.store.append(self._rows)
        self._rows, self._written_s = [], time.monotonic()


_Row = tuple[dict[str, object], bytes | None]


def _outcomes(
    task: _Task, todo: Sequence[Run], jobs: int | None, ray_address: str | None
) -> Generator[_Row, None, None]:
    """The rows, in any order, as they are done."""
    try:
        if ray_address is not None:
            yield from _on_ray(task, todo, jobs, ray_address)
        elif jobs == 1 or len(todo) < 2:
            yield from map(task, todo)
        else:
            yield from _in_processes(task, todo, jobs or 2)
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process died, as when memory runs out; what was finished is kept: run the same command again, with"
            f" fewer --jobs if it was memory ({str(error).splitlines()[0]})"
        ) from error


def _in_processes(task: _Task, todo: Sequence[Run], jobs: int) -> Iterator[_Row]:
    import joblib

    parallel = joblib.Parallel(n_jobs=min(jobs, len(todo)), return_as="generator_unordered")
    with closing(parallel(joblib.delayed(task)(run) for run in todo)) as rows:
        yield from rows


def _on_ray(task: _Task, todo: Sequence[Run], jobs: int | None, address: str) -> Iterator[_Row]:
    """In batches, because joblib on Ray hands out whole lists only; a batch is large enough to keep all slots busy."""
    import joblib

    slots = _register_ray(address)
    with joblib.parallel_config(backend="ray", n_jobs=jobs or -1), joblib.Parallel() as parallel:
        for batch in _batched(todo, (jobs or slots) * _RAY_BATCH_PER_SLOT):
            yield from parallel(joblib.delayed(task)(run) for run in batch)


def _register_ray(address: str) -> int:
    """Make joblib know the Ray cluster at this address; returns its CPUs.

    Raises:
        InputError: ray is not installed, or there is no cluster.
    """
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise InputError(f"--ray {address}: ray is not installed: pip install ray, or leave --ray out") from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"--ray {address}: no Ray cluster answers there: {error}") from error
    register_ray()
    return int(ray.cluster_resources().get("CPU", 1))


def _batched(runs: Sequence[Run], size: int) -> Iterator[list[Run]]:
    remaining = iter(runs)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


@dataclass(frozen=True)
class _Task:
    """What a worker does with a run, wherever it is.

    Attributes:
        shared: by bundle's name, the file that holds it for all workers of this machine; empty where nothing is shared.
        parent_pid: the process that started those on this machine; None on a cluster.
    """

    shared: Mapping[str, str]
    versions: str
    code_sha256: str
    with_journal: bool
    parent_pid: int | None

    def __call__(self, run: Run) -> _Row:
        """The row, and the journal, compressed."""
        if self.parent_pid not in (None, os.getpid()):
            _live_and_die_with(self.parent_pid)
        if code_sha256() != self.code_sha256:
            raise WorkerError("a worker has other code than this process: install one version on all machines")
        name = run.spec.workload.bundle or ""
        bundle = _bundle_of(name, self.shared.get(name), run.bundle_sha256)
        identity = {
            "key": run.key,
            "data_sha256": run.data_sha256,
            "code_sha256": self.code_sha256,
            "versions": self.versions,
        }
        stream = io.BytesIO() if self.with_journal else None
        row = {
            **identity,
            "seed": run.spec.seed,
            **spec_row(run.spec),
            **bundle_row(bundle),
            **_result(run, bundle, stream),
        }
        return row, None if stream is None or not stream.getbuffer().nbytes else _compressed(stream.getvalue())


def _result(run: Run, bundle: Bundle, journal: io.BytesIO | None) -> dict[str, object]:
    """Status, and what came out or went wrong: nothing that a policy does stops a sweep."""
    with warnings.catch_warnings():
        # The caller was warned when the sweep was planned.
        warnings.simplefilter("ignore", DecreasingScalingWarning)
        try:
            return {"status": "done", **result_row(execute(run.spec, bundle=bundle, journal=journal))}
        except InfeasibleJobError as error:
            return {"status": "infeasible", "error": str(error)}
        except TuningError as error:
            return {"status": "failed", "error": str(error)}
        except Exception as error:  # whatever a policy of the user's own may raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}, line {last.lineno}"
            return {"status": "failed", "error": f"{type(error).__name__}: {error} ({place})"}


def _compressed(journal: bytes) -> bytes:
    import pyarrow as pa

    compressed: bytes = pa.compress(journal, codec="zstd", asbytes=True)
    return compressed


@functools.cache
def _live_and_die_with(parent_pid: int | None) -> None:
    """This process leaves Ctrl-C to the one that writes, and ends soon after that one is killed.

    Workers of a killed process would wait for more work for minutes, and hold their memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_ORPHAN_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@functools.cache
def _bundle_of(name: str, shared: str | None, sha256: str) -> Bundle:
    """Once per process: mapped from the shared file where there is one, so that workers of one machine share its memory."""
    import joblib

    if shared is not None and Path(shared).is_file():
        bundle: Bundle = joblib.load(shared, mmap_mode="r")
        # As plain arrays over the same mapping: numpy's own class for mapped ones is slow to index.
        arrays = {key: np.asarray(value) for key, value in vars(bundle).items() if isinstance(value, np.memmap)}
        return replace(bundle, **arrays)  # type: ignore[arg-type]  # each under its own name
    bundle = load_bundle(name)
    if bundle.sha256 != sha256:
        raise WorkerError(f"bundle {name} is another one where the worker runs than where the sweep was started")
    return bundle


@contextmanager
def _shared(folder: Path, bundles: Mapping[str, Bundle], *, is_needed: bool) -> Iterator[Mapping[str, str]]:
    """Files from which all workers map the bundles, while the block runs."""
    if not is_needed:
        yield {}
        return
    import joblib

    shared = folder / ".shared"
    shutil.rmtree(shared, ignore_errors=True)  # of a sweep that was killed
    shared.mkdir()
    try:
        paths = {name: str((shared / f"{bundle.sha256}.joblib").resolve()) for name, bundle in bundles.items()}
        for name, bundle in bundles.items():
            try:
                joblib.dump(bundle, paths[name])
            except OSError as error:
                raise StoreError(f"{paths[name]}: cannot be written: {error.strerror or error}") from error
        yield paths
    finally:
        shutil.rmtree(shared, ignore_errors=True)
