"""Makes a small copy of a sitting, to send or commit: it keeps only what reports need."""

from __future__ import annotations

import shutil
from pathlib import Path

from elastune.experiments.fidelity.analysis import checked_runs
from elastune.experiments.fidelity.sitting import CURVES_OF, Sitting, profile_in
from elastune.sim.model.errors import InputError
from elastune.traces import bundle_folder
from elastune.traces.bundles.writer import FILES

_KEPT = ("prediction.json", "began.json", "ended.json")


def pack(folder: Path, out: Path) -> int:
    """Write a small copy of a sitting; runs that have not ended are left out.

    Args:
        folder: of the sitting.
        out: of the copy; must not exist.

    Returns:
        The bytes of the copy.

    Raises:
        InputError: the folder holds no sitting, a run of it cannot be checked, or the copy is there already.
    """
    if out.exists():
        raise InputError(f"{out} is there already: name another folder (-o)")
    checked_runs([folder])  # only runs that can be checked are packed
    sitting = Sitting.load(folder)
    out.mkdir(parents=True)
    for name in ("fidelity.json", "kind.txt"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    for bundle in {unit.bundle for unit in sitting.units()}:
        _pack_bundle(bundle, out / "bundles" / bundle.name)
        calibration = bundle.with_name(f"{bundle.name}.json")
        if calibration.is_file():
            shutil.copyfile(calibration, out / "bundles" / calibration.name)
    for unit in sitting.units():
        if unit.is_done:
            target = out / "runs" / unit.name
            (target / "run").mkdir(parents=True)
            for name in _KEPT:
                shutil.copyfile(unit.folder / name, target / name)
            _compress(unit.journal, target / "run" / "journal.jsonl.zst")
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _compress(journal: Path, target: Path) -> None:
    if journal.suffix == ".zst":
        shutil.copyfile(journal, target)
        return
    import pyarrow as pa

    with pa.output_stream(str(target), compression="zstd") as stream:
        stream.write(journal.read_bytes())


def _pack_bundle(source: Path, target: Path) -> None:
    """The bundle, without the files that equal those of a shipped one of its name."""
    target.mkdir(parents=True)
    bundle, _ = profile_in(source)
    try:
        shipped = bundle_folder(bundle.name)
    except InputError:
        shipped = source.with_name("none")
    left_out = False
    for name in FILES:
        path = source / name
        if path.is_file():
            if (shipped / name).is_file() and (shipped / name).read_bytes() == path.read_bytes():
                left_out = True
            else:
                shutil.copyfile(path, target / name)
    if left_out or (source / CURVES_OF).is_file():
        (target / CURVES_OF).write_text(f"{bundle.name}\n", encoding="utf-8")
