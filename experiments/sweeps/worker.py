"""What a worker does with one run of a sweep: in this process, in another one, or on another machine.

Imports the running of a spec and what a row is made of; joblib and pyarrow inside the functions that need them. Workers compute
and return rows, and write nothing.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import signal
import threading
import time
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from elastune.experiments.files import RETRY, StoreError
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.runs.simulate import execute
from elastune.experiments.sweeps.rows import bundle_row, result_row, spec_row
from elastune.sim.model.errors import InfeasibleJobError, TuningError, WorkerError
from elastune.traces import DecreasingScalingWarning, load_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from elastune.experiments.spec.run import RunSpec
    from elastune.experiments.sweeps.grid import Cell
    from elastune.traces import Bundle

Row: TypeAlias = tuple[dict[str, object], bytes | None]
"""The columns that are not null, and the journal, compressed, where it was asked for."""

_ORPHAN_S = 1.0


@dataclass(frozen=True)
class Run:
    """One run of a sweep, and what it is known by."""

    cell: Cell
    spec: RunSpec
    key: str
    data_sha256: str
    bundle_sha256: str


@dataclass(frozen=True)
class Task:
    """What a worker does with a run, wherever it is.

    Attributes:
        shared: by bundle's name, the file that holds it for all workers of this machine; empty where nothing is shared.
        parent_pid: the process that started those on this machine; None on a cluster.
    """

    shared: Mapping[str, str]
    versions: str
    results_version: int
    with_journal: bool
    parent_pid: int | None

    def __call__(self, run: Run) -> Row:
        """The row, and the journal, compressed."""
        if self.parent_pid not in (None, os.getpid()):
            _live_and_die_with(self.parent_pid)
        if self.results_version != RESULTS_VERSION:
            raise WorkerError(
                f"a worker makes results of version {RESULTS_VERSION}, this process of {self.results_version}: install one"
                " elastune on all machines"
            )
        name = run.spec.workload.bundle or ""
        bundle = bundle_of(name, self.shared.get(name), run.bundle_sha256)
        identity = {
            "key": run.key,
            "data_sha256": run.data_sha256,
            "results_version": str(RESULTS_VERSION),
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

    def several(self, runs: Sequence[Run]) -> list[Row]:
        """The rows of these runs."""
        return [self(run) for run in runs]


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
def bundle_of(name: str, shared: str | None, sha256: str) -> Bundle:
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
def shared_bundles(folder: Path, bundles: Mapping[str, Bundle], *, is_needed: bool) -> Iterator[Mapping[str, str]]:
    """Files from which all workers map the bundles, by name, while the block runs; none where none are needed."""
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
                raise StoreError(f"{paths[name]}: cannot be written: {error.strerror or error}; {RETRY}") from error
        yield paths
    finally:
        shutil.rmtree(shared, ignore_errors=True)
