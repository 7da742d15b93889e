"""Writing a bundle. No other module knows the layout of its files.

Imports the standard library, sim.model.errors and traces.bundles.bundle; pandas, pyarrow and yaml inside the functions
that need them. `traces/README.md` describes the files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.bundles.loading import load_bundle
from elastune.traces.formats.yaml_text import dump_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from elastune.traces.bundles.bundle import Bundle

FILES = ("bundle.yaml", "curves.parquet", "configs.csv", "scaling.csv", "trials.csv", "segments.csv")
"""The files of a bundle; a folder that holds others is not replaced."""


def write_files(
    folder: Path, header: Mapping[str, object], curves: pd.DataFrame, others: Mapping[str, pd.DataFrame]
) -> None:
    """Write the files of a bundle; `bundle.yaml` comes last, so a folder that has it is complete.

    Args:
        folder: exists.
        header: what `bundle.yaml` says, in this order.
        curves: the columns of `curves.parquet`.
        others: tables by file name: `configs.csv`, and whichever else there are.
    """
    curves.to_parquet(folder / "curves.parquet", index=False, compression="zstd")
    for name, table in others.items():
        table.to_csv(folder / name, index=False, lineterminator="\n")
    text = dump_yaml(header)
    (folder / "bundle.yaml").write_text(text, encoding="utf-8")


def write_bundle(
    folder: Path,
    header: Mapping[str, object],
    curves: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle as a whole or not at all, and load it.

    It is written beside `folder`, loaded from there as the check, and then takes its name.

    Args:
        folder: of the bundle; its parents are made.
        header: what `bundle.yaml` says.
        curves: the columns of `curves.parquet`.
        others: tables by file name, `configs.csv` among them.
        overwrite: whether a bundle that is already there makes way.

    Raises:
        InputError: something is already there.
        InvalidTraceError: what would be written is no valid bundle; nothing was.
    """
    require_room(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        staging = Path(temporary) / folder.name
        staging.mkdir()
        write_files(staging, header, curves, others)
        try:
            bundle = load_bundle(staging)
        except InvalidTraceError as error:
            if staging not in Path(error.file).parents:
                raise  # a file elsewhere, which bundle.yaml names
            there = folder / Path(error.file).name
            raise InvalidTraceError(there, error.problem, row=error.row, column=error.column) from error
        if folder.exists():
            folder.rename(Path(temporary) / "before")
        staging.rename(folder)
    return bundle


def require_room(folder: Path, *, overwrite: bool) -> None:
    """Check that a bundle may be written there, before any work is done.

    Raises:
        InputError: something is there that may not be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise InputError(f"{folder} is already there: choose another folder, or replace it with --overwrite")
    others = (
        sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else [folder.name]
    )
    if others:
        raise InputError(
            f"{folder} holds more than a bundle ({others[0]}), so it is not replaced: choose another folder"
        )
