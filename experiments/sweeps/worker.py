"""How sweeps, comparisons and ablations do one run, in this process, another process or on another machine.

Imports the running of a spec and what a row is made of; joblib and pyarrow inside the functions that need them. Workers compute
and return rows, and write nothing.
"""

from __future__ import annotations

import functools
import io
import shutil
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

from elastune.experiments.files import RETRY, StoreError
from elastune.experiments.own_code import raised_in_own_code
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.runs.simulate import execute
from elastune.experiments.spec.places import place_of_bundle
from elastune.experiments.sweeps.rows import bundle_row, result_row, spec_row
from elastune.sim.model.errors import InfeasibleJobError, TuningError, WorkerError
from elastune.traces import Bundle, load_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.spec.run import RunSpec
    from elastune.experiments.sweeps.grid import Cell

Row: TypeAlias = tuple[dict[str, object], bytes | None]
"""The columns that are not null, and the journal, compressed, where it was asked for."""


@dataclass(frozen=True)
class Run:
    """One run of a sweep, and what it is known by."""

    cell: Cell
    spec: RunSpec
    key: str
    data_sha256: str
    bundle_sha256: str


@dataclass(frozen=True)
class SweepTask:
    """The task of a worker: one run of a sweep.

    Attributes:
        shared: by bundle's name, the file that holds it for all workers of this machine; empty where nothing is shared.
    """

    shared: Mapping[str, str]
    versions: str
    results_version: int
    with_journal: bool

    def __call__(self, run: Run) -> Row:
        """The row, and the journal, compressed."""
        if self.results_version != RESULTS_VERSION:
            raise WorkerError(
                f"a worker makes results of version {RESULTS_VERSION}, this process of {self.results_version}: install one"
                " elastune on all machines"
            )
        name = run.spec.workload.bundle or ""
        bundle = bundle_of(name, self.shared.get(name), run.bundle_sha256)
        stream = io.BytesIO() if self.with_journal else None
        row, _ = row_of(run.spec, bundle, journal=stream)
        identity = {"key": run.key, "data_sha256": run.data_sha256, "versions": self.versions}
        return identity | row, _compressed(stream.getvalue()) if stream is not None and stream.tell() else None


def row_of(
    spec: RunSpec, bundle: Bundle, *, journal: BinaryIO | None = None, record_trajectory: bool = False
) -> tuple[dict[str, Any], RunResult | None]:
    """Do a run. Returns its row, which holds the error if there is no result, and its result."""
    status, error, result = outcome_of(spec, bundle, journal=journal, record_trajectory=record_trajectory)
    row: dict[str, Any] = {
        "seed": spec.seed,
        "results_version": str(RESULTS_VERSION),
        **spec_row(spec),
        **bundle_row(bundle),
        "status": status,
    }
    return row | ({"error": str(error)} if result is None else result_row(result)), result


def outcome_of(
    spec: RunSpec, bundle: Bundle, *, journal: BinaryIO | None = None, record_trajectory: bool = False
) -> tuple[str, str | InfeasibleJobError, RunResult | None]:
    """Do a run. Returns its status, its error, which is empty for what is done, and its result.

    An error in a policy's code becomes a failed run and does not stop other runs. That of a policy without a plan is kept as it
    was raised, since it knows the cheapest plan there is.
    """
    try:
        return "done", "", execute(spec, bundle=bundle, journal=journal, record_trajectory=record_trajectory)
    except InfeasibleJobError as error:
        return "infeasible", error, None
    except TuningError as error:
        return "failed", str(error), None
    except Exception as error:  # whatever a policy of the user's own may raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = raised_in_own_code(error) or f" ({Path(last.filename).name}, line {last.lineno})"
        return "failed", f"{type(error).__name__}: {error}{place}", None


def _compressed(journal: bytes) -> bytes:
    import pyarrow as pa

    compressed: bytes = pa.compress(journal, codec="zstd", asbytes=True)
    return compressed


@functools.cache
def bundle_of(name: str, shared: str | None, sha256: str) -> Bundle:
    """Load a bundle once per process. Workers of one machine map a shared file, so that they share its memory."""
    import joblib

    if shared is not None and Path(shared).is_file():
        bundle: Bundle = joblib.load(shared, mmap_mode="r")
        # Plain arrays over the same memory, because indexing a numpy.memmap is slow.
        arrays = {key: np.asarray(value) for key, value in vars(bundle).items() if isinstance(value, np.memmap)}
        return replace(bundle, **arrays)  # type: ignore[arg-type]  # each under its own name
    bundle = load_bundle(place_of_bundle(name))
    if bundle.sha256 != sha256:
        raise WorkerError(f"bundle {name} is not the same on the worker's machine as on the one that started the sweep")
    return bundle


@contextmanager
def shared_bundles(folder: Path, bundles: Mapping[str, Bundle], *, is_needed: bool) -> Iterator[Mapping[str, str]]:
    """Write the bundles to files that workers map, while the block runs; yields the files by bundle name."""
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
