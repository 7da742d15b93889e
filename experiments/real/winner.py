"""The winner of a real run as files: those of its checkpoint, and its configuration. Imports runs and sim.bridge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from elastune.experiments.files import write_text
from elastune.experiments.own_training import unpack
from elastune.experiments.runs.journals import spec_of
from elastune.experiments.runs.run_folder import kind_of
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.model.errors import InputError
from elastune.sim.model.ids import TrialId


def unpack_winner(folder: Path, out: Path) -> list[Path]:
    """Copy the winner's checkpoint into a folder, and its hyperparameters as `config.json`; runs none of its code.

    Args:
        folder: of a real run.
        out: a new or empty folder.

    Returns:
        The files written.

    Raises:
        InputError: the folder is of another kind, the run has not ended, has no winner, or its checkpoint is gone or damaged;
            or `out` is not empty.
    """
    kind = kind_of(folder)
    if kind != "real run":
        made_by = "a checkpoint is of a real run: name a folder that elastune run --on ray wrote"
        raise InputError(f"{folder}: {f'holds a {kind}' if kind else 'holds no results'}; {made_by}")
    result, options = (_read(folder / name) for name in ("result.json", "real.json"))
    best, iteration = result.get("best_trial"), result.get("best_iteration")
    if not isinstance(best, int) or not isinstance(iteration, int):
        raise InputError(f"{folder}: the run has no winner")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: name a new folder (-o)")
    store = CheckpointStore(str(options.get("checkpoints") or (folder / "checkpoints").resolve()))
    saved = store.latest(TrialId(best), at_most=iteration)
    if saved is None:
        raise InputError(f"{store.url}: the checkpoint of trial {best} is gone or damaged")
    out.mkdir(parents=True, exist_ok=True)
    with store.restore(saved) as path:
        if spec_of(folder / "journal.jsonl").workload.trainable is not None:
            unpack(path, out)
        else:
            shutil.copyfile(path, out / "checkpoint.pt")
    write_text(out / "config.json", json.dumps(result.get("best_config"), indent=2) + "\n")
    return sorted(file for file in out.rglob("*") if file.is_file())


def _read(path: Path) -> dict[str, object]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: a real run that has ended has this file; it cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not isinstance(told, dict):
        raise InputError(f"{path}: does not hold keys and values")
    return told
