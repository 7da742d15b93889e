"""Finding bundles by name, and reading their folders.

Imports the readers of this package, and numpy. Everything is checked here and trusted afterwards.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from elastune.sim.model.errors import InvalidTraceError, unknown
from elastune.traces.bundles.bundle import Bundle
from elastune.traces.bundles.costs import iteration_costs, mean_seconds
from elastune.traces.bundles.curves import Configurations, CurveTables, read_configurations, read_curves
from elastune.traces.bundles.header import (
    BundleHeader,
    evaluate_s_of,
    read_header,
    scaling_in,
    stragglers_of,
    timings_of,
)
from elastune.traces.bundles.replicates import Replicates
from elastune.traces.formats.csv_rows import read_rows

_SHIPPED = Path(__file__).parents[1] / "data" / "bundles"


_FILES = ("bundle.yaml", "configs.csv", "curves.parquet", "scaling.csv")


def bundle_names(search: Sequence[Path] = (), own: Sequence[Path] = ()) -> tuple[str, ...]:
    """Names of the shipped bundles and of those in the folders to search."""
    folders = [folder for root in (*search, _SHIPPED, *own) if root.is_dir() for folder in root.iterdir()]
    return tuple(sorted({folder.name for folder in folders if (folder / "bundle.yaml").is_file()}))


def bundle_folder(name_or_path: str | Path, search: Sequence[Path] = (), own: Sequence[Path] = ()) -> Path:
    """Where the bundle of this name lies, or the folder that was given; see `load_bundle`.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if isinstance(name_or_path, str):
        for root in (*search, _SHIPPED, *own):
            if name_or_path in bundle_names((root,)) and (root / name_or_path).is_dir():
                return root / name_or_path
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise unknown("bundle", str(name_or_path), bundle_names(search, own), "or give a folder with a bundle.yaml")
    return folder


def load_bundle(name_or_path: str | Path, search: Sequence[Path] = (), own: Sequence[Path] = ()) -> Bundle:
    """The bundle of this name or in this folder, checked; read once for the same bytes.

    Args:
        name_or_path: a name, looked up in `search`, then among the shipped ones, then in `own`; or a folder.
        search: folders that hold bundles.
        own: folders that hold bundles, of which none replaces a shipped one.

    Raises:
        InputError: there is none; the message names the nearest.
        InvalidTraceError: a file of it is missing or malformed.
    """
    folder = bundle_folder(name_or_path, search, own)
    header, bundle = _read_bundle(folder, _digest(folder))
    # A named scaling may be in a file elsewhere, of which the digest knows nothing.
    return bundle if header.scaling is None else replace(bundle, scaling=scaling_in(folder, header))


@functools.lru_cache(8)  # reading takes longer than simulating a small run
def _read_bundle(folder: Path, sha256: str) -> tuple[BundleHeader, Bundle]:
    header, notes = read_header(folder / "bundle.yaml")
    configured = read_configurations(folder / "configs.csv")
    if header.trials not in (None, len(configured.labels)):
        problem = f"is {header.trials}, but configs.csv has {len(configured.labels)}"
        raise InvalidTraceError(folder / "bundle.yaml", problem, column="trials")
    curves = read_curves(folder / "curves.parquet", configured.labels, header.max_iterations, tuple(header.measures))
    iteration_s, relative_cost = _costs(folder / "curves.parquet", header, configured, curves)
    replicates, first = Replicates.of(curves), curves.first
    bundle = Bundle(
        name=header.name,
        direction=header.direction,
        score=header.score,
        iteration=header.iteration,
        max_iterations=header.max_iterations,
        scores=curves.scores[first],
        configurations=configured.configurations,
        relative_cost=relative_cost,
        source=header.source,
        licence=header.licence,
        sha256=sha256,
        test_scores=None if curves.test_scores is None else curves.test_scores[first],
        seconds=None if curves.seconds is None else curves.seconds[first],
        iteration_s=iteration_s,
        evaluate_s=evaluate_s_of(folder / "bundle.yaml", header, iteration_s),
        min_gpus=configured.min_gpus if (configured.min_gpus > 1).any() else None,
        timings=timings_of(folder / "bundle.yaml", header),
        stragglers=stragglers_of(header),
        scaling=scaling_in(folder, header),
        checkpoint_bytes=header.checkpoint_bytes,
        data_bytes=header.data_bytes,
        provenance=header.provenance,
        family=header.family,
        schedule=header.schedule,
        notes=notes,
        replicates=replicates,
        measures=header.measures,
        measured={name: values[first] for name, values in curves.measured.items()},
        labels=_labels(folder / "trials.csv", configured.labels),
    )
    return header, bundle


def _labels(path: Path, numbers: np.ndarray) -> tuple[str, ...]:
    """What the recording called each trial: as an importer noted it, else by its number."""
    rows = read_rows(path, ("trial",)) if path.is_file() else []  # a profile notes other things there
    noted = {row.text("trial"): row.text("recorded_as") for row in rows if "recorded_as" in row.cells}
    return tuple(noted.get(str(number), str(number)) for number in numbers.tolist())


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in _FILES:
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            # Name and length keep bytes from moving unnoticed between two files.
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _costs(
    file: Path, header: BundleHeader, configured: Configurations, curves: CurveTables
) -> tuple[float | None, np.ndarray]:
    """Seconds of an iteration at relative cost 1, and the costs; see `traces.bundles.costs`."""
    trials, recorded = len(configured.labels), configured.relative_cost
    if header.iteration_s is not None or curves.seconds is None:
        return header.iteration_s, np.ones(trials) if recorded is None else recorded
    curve = np.repeat(np.arange(len(curves.trial)), curves.seconds.shape[1])
    mean_s = mean_seconds(curves.seconds.ravel(), curve, curves.trial, trials)
    for position in np.flatnonzero(mean_s <= 0):
        raise InvalidTraceError(file, f"is 0 throughout trial {configured.labels[position]}", column="seconds")
    timed = np.bincount(curves.trial, weights=np.isfinite(curves.seconds).sum(axis=1))
    cost = iteration_costs(mean_s, timed, recorded)
    if cost.contradiction is not None:
        at, problem = cost.contradiction
        raise InvalidTraceError(file.parent / "configs.csv", problem, row=at + 1, column="relative_cost")
    return cost.iteration_s, np.ones(trials) if cost.relative is None else cost.relative
