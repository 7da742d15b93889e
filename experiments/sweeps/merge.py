"""Folders of sweeps put together: each run once, and rows of several versions of results side by side.

Imports the store of sweeps and sim.model.errors; pyarrow inside the functions that need it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastune.experiments.spec.yaml_file import read_mapping
from elastune.experiments.sweeps.rows import columns, table_of
from elastune.experiments.sweeps.store import Store
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa


@dataclass(frozen=True)
class Merged:
    """Summary of a merge of folders.

    Attributes:
        rows: of the new folder.
        doubles: rows that were left out, because another says the same.
        versions: by version of results, how many rows; those of most rows first.
        journals_left_out: of runs that several versions computed, since a journal is found by the run alone.
    """

    rows: int
    doubles: int
    versions: Mapping[str, int]
    journals_left_out: int


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Put the rows of several folders into a new one.

    A run that failed in one folder and not in another counts as the other says. Rows of several versions of results are
    all there; no table or figure pools them.

    Raises:
        InputError: the new folder is not empty, a folder is no results folder, or two say different things of one run.
        StoreError: the disk is full.
    """
    import pyarrow as pa

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already; merge into a new folder")
    stores = [Store(folder) for folder in folders]
    together = pa.concat_tables([store.read_all() for store in stores])
    merged = _without_doubles(together)
    target = Store(out)
    with target.writing():
        target.append_table(merged)
        document = _merged_sweep(stores)
        if document is not None:
            target.write_sweep(document)
        left_out = _copy_journals(stores, target, merged)
    counts = Counter(merged["results_version"].to_pylist())
    versions = dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))
    return Merged(merged.num_rows, together.num_rows - merged.num_rows, versions, left_out)


def _copy_journals(stores: Sequence[Store], target: Store, merged: pa.Table) -> int:
    """Copy journals of runs with one version of results; returns how many other runs had journals."""
    rows = Counter(merged["digest"].to_pylist())
    left_out = set()
    for store in stores:
        for journal in sorted(store.journals.glob("*.zst")):
            digest = journal.name.partition(".")[0]
            if rows[digest] > 1:
                left_out.add(digest)
            else:
                target.write_journal(digest, journal.read_bytes())
    return len(left_out)


def _without_doubles(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    is_double = pa.array(table["key"].to_pandas().duplicated(keep=False))
    single = table.filter(pa.compute.invert(is_double))
    kept: dict[str, dict[str, object]] = {}
    for row in table.filter(is_double).to_pylist():
        kept[row["key"]] = _agreed(kept[row["key"]], row) if row["key"] in kept else row
    return pa.concat_tables([single, table_of(list(kept.values()))]).sort_by("key")


def _agreed(one: dict[str, object], other: dict[str, object]) -> dict[str, object]:
    if other["status"] == "failed":
        return one
    if one["status"] == "failed":
        return other
    # Versions may differ between machines; what came out may not.
    differing = [name for name in columns() if one[name] != other[name] and name != "versions"]
    if differing:
        name = differing[0]
        raise InputError(
            f"run {str(one['key'])[:12]} ({one['policy']}, seed {one['seed']}) is there twice and differs in"
            f" {', '.join(differing)}: {name} is {one[name]!r} and {other[name]!r}; versions {one['versions']} and"
            f" {other['versions']}"
        )
    return one


def _merged_sweep(stores: Sequence[Store]) -> dict[str, Any] | None:
    """The common sweep of the folders; None if they differ in more than their seeds."""
    files = [store.folder / "sweep.yaml" for store in stores]
    if not all(file.is_file() for file in files):
        return None
    first, *others = documents = [read_mapping(file) for file in files]
    if any({**document, "seeds": first["seeds"]} != first for document in others):
        return None
    return {**first, "seeds": sorted({seed for document in documents for seed in document["seeds"]})}
