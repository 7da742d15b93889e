"""What a run folder says about itself, and what is believed of one that may come from somebody else.

Imports experiments.files, experiments.spec and sim.model.errors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from elastune.experiments.files import write_text
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.yaml_file import read_mapping
from elastune.sim.model.errors import InputError

Kind: TypeAlias = Literal[
    "fidelity sitting", "simulated run", "real run", "sweep", "comparison", "recommendation", "bundle"
]

KIND_FILE = "kind.txt"
_REAL_FILE = "real.json"
_OTHER_MARKERS = {"parts.sha256": "sweep", "bundle.yaml": "bundle", ".partial": "bundle"}  # what only they hold


def claim_folder(folder: Path, kind: Kind) -> None:
    """Make the folder one of this kind of run; its marker says so.

    Raises:
        InputError: it holds something of another kind.
    """
    require_kind(folder, kind)
    write_text(folder / KIND_FILE, f"{kind}\n")


def require_kind(folder: Path, kind: Kind) -> None:
    """Check that the folder is free for this kind of result.

    Raises:
        InputError: it holds something of another kind.
    """
    found = kind_of(folder)
    if found not in (None, kind):
        raise InputError(
            f"{folder} holds a {found}, but a {kind} needs a folder of its own: choose another folder (-o)"
        )


def require_no_other(folder: Path, kind: Kind, spec: RunSpec) -> None:
    """Check that a folder is free, or holds results of the same spec, which may be replaced.

    Raises:
        InputError: it holds something of another kind, or of another spec; names the keys that differ.
    """
    require_kind(folder, kind)
    path = folder / "spec.yaml"
    if not path.is_file():
        return
    if changes := list(_changes(RunSpec.recorded(read_mapping(path)).to_dict(), spec.to_dict())):
        raise InputError(
            f"{folder} holds the {kind} of another spec: {'; '.join(changes)}. Choose another folder (-o), or remove this one"
        )


def kind_of(folder: Path) -> str | None:
    """Folders without a marker are of an earlier version: real runs had another file of their own."""
    marker = folder / KIND_FILE
    if marker.is_file():
        return marker.read_text(encoding="utf-8", errors="replace").strip()[:40]
    if (folder / _REAL_FILE).exists():
        return "real run"
    for name, kind in _OTHER_MARKERS.items():
        if (folder / name).exists():
            return kind
    return "simulated run" if (folder / "journal.jsonl").exists() else None


def require_inside(folder: Path) -> None:
    """Check that no link in the folder leads out of it, as what is written to the link would change files elsewhere.

    Raises:
        InputError: a link does.
    """
    if not folder.is_dir():
        return
    home = os.path.realpath(folder)
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            link = os.path.join(path, name)  # noqa: PTH118  a folder of many checkpoints is walked at each start
            target = os.path.realpath(link) if os.path.islink(link) else home  # noqa: PTH114
            if target != home and not target.startswith(f"{home}{os.sep}"):
                raise InputError(f"{link} is a link to {target}, outside of the folder: replace it by what it links to")


def require_same_spec(folder: Path, spec: RunSpec) -> None:
    """Check that spec.yaml still is what the run began with; a missing one is written again.

    Raises:
        InputError: a key was changed; names it.
    """
    path = folder / "spec.yaml"
    if not path.is_file():
        spec.save(path)
        return
    now, began = RunSpec.recorded(read_mapping(path)).to_dict(), spec.to_dict()
    changes = list(_changes(began, now))
    if changes:
        raise InputError(
            f"{path} has changed since the run began: {'; '.join(changes)}. A run goes on as it began: put it back, or start a"
            " new run in another folder (-o)"
        )


def _changes(began: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of nested mappings that differ, with both values."""
    for key in sorted({*began, *now}):
        was, is_now = began.get(key), now.get(key)
        if isinstance(was, dict) and isinstance(is_now, dict):
            yield from _changes(was, is_now, f"{prefix}{key}.")
        elif was != is_now:
            yield f"{prefix}{key} was {was!r} and is {is_now!r}"
