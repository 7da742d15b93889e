"""Makes a small copy of a sitting, to send or commit: it keeps only what reports need."""

from __future__ import annotations

import shutil
from pathlib import Path

from elastune.experiments.fidelity.analysis import checked_runs
from elastune.experiments.fidelity.sitting import Sitting
from elastune.experiments.profiling.work_folder import copy_bundle
from elastune.sim.model.errors import InputError

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
        copy_bundle(bundle, out / "bundles" / bundle.name)
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
