"""Where named things lie: the run specs that ship, bundles, and folders of data that does not ship.

Imports the standard library, sim.model.errors, and what reads YAML and bundles.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from elastune.experiments.spec.yaml_file import read_spec
from elastune.sim.model.errors import InputError, unknown
from elastune.traces.bundles.loading import bundle_folder, bundle_names
from elastune.traces.formats.yaml_text import parse_yaml

CATALOG = Path(__file__).parents[1] / "catalog"
DATA_VARIABLE = "ELASTUNE_DATA"
"""Folders of data that does not ship, with colons between (semicolons on Windows)."""
OWN_BUNDLES = Path("results/bundles")
"""Where the command line puts bundles that it makes, in the current folder."""


@cache
def spec_names() -> tuple[str, ...]:
    """Names of the run specs that ship, such as `headline`."""
    return tuple(sorted(file.stem for file in CATALOG.glob("*.yaml") if "\njob:" in file.read_text(encoding="utf-8")))


def spec_file(name_or_path: str | Path) -> Path:
    """The file of a run spec: the one at this path, or else the shipped one of this name.

    Raises:
        InputError: there is neither; the message names the nearest.
    """
    path = Path(name_or_path)
    is_name = path.name == str(name_or_path) and not path.suffix
    if path.is_file() or not is_name:
        return path
    if path.name in spec_names():
        return CATALOG / f"{path.name}.yaml"
    raise unknown("run spec", path.name, spec_names(), "or give a YAML file")


_PATH_KEYS = (
    "workload.bundle",
    "workload.scaling",
    "workload.profile.scaling",
    "workload.straggler_cv.tail",
    "cloud.prices",
    "cloud.spot.trace",
)
"""Keys of a spec that may hold the path of a file or folder."""


def read_run_spec(path: Path) -> dict[str, Any]:
    """The keys and values of a spec's YAML file, whose relative paths are relative to that file.

    What is not there may be in the current folder: a run folder's own spec.yaml holds paths as they were given.

    Raises:
        InputError: see `read_spec`.
    """
    mapping = read_spec(path)
    make_beside(mapping, path.parent)
    return mapping


def make_beside(mapping: dict[str, Any], folder: Path) -> None:
    """Change the relative paths of a spec that was read from a file in this folder; see `read_run_spec`."""
    for key in _PATH_KEYS:
        *above, last = key.split(".")
        section: object = mapping
        for name in above:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            continue
        given = section.get(last)
        if isinstance(given, str):
            section[last] = _beside(folder, given)
        elif isinstance(given, list):  # several bundles, as `recommend` takes them
            section[last] = [_beside(folder, one) if isinstance(one, str) else one for one in given]


def _beside(folder: Path, given: str) -> str:
    """The path of what lies there beside the file; a name, and what lies elsewhere, as it is given."""
    if folder == Path():
        return given
    is_name = Path(given).name == given and not Path(given).suffix and given in known_bundles()
    found = folder / given
    is_there = found.is_file() or (found / "bundle.yaml").is_file()
    return str(found) if is_there and not is_name else given


def known_bundles() -> tuple[str, ...]:
    """Names of the bundles that `place_of_bundle` finds."""
    return bundle_names(data_folders(), [OWN_BUNDLES])


def place_of_bundle(name: str) -> Path:
    """The folder of a bundle: by name in the data folders, among those that ship, or in `OWN_BUNDLES`; else by path.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    return bundle_folder(name, data_folders(), [OWN_BUNDLES])


def name_in_specs(folder: Path) -> str:
    """How a spec names the bundle in this folder: by its name where that finds it, else by its path."""
    is_found = folder.name in known_bundles() and place_of_bundle(folder.name).resolve() == folder.resolve()
    return folder.name if is_found else str(folder)


def data_folders(given: Path | None = None) -> tuple[Path, ...]:
    """Where to look for data that does not ship.

    Args:
        given: on the command line; then only there.

    Returns:
        The folder that was given, else those of the environment variable `ELASTUNE_DATA`, else those of the configuration file
        (`data: [...]` in `elastune/config.yaml`, which lies in `$XDG_CONFIG_HOME` or `~/.config`).

    Raises:
        InputError: the configuration file is malformed.
    """
    if given is not None:
        return (given,)
    if variable := os.environ.get(DATA_VARIABLE):
        return tuple(Path(text).expanduser() for text in variable.split(os.pathsep) if text)
    return _configured()


def find_data(relative: str | Path, folders: Sequence[Path]) -> Path | None:
    """The first of these folders' file or folder of this relative path; None where none has it."""
    return next((found for folder in folders if (found := folder / relative).exists()), None)


def _configured() -> tuple[Path, ...]:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    file = Path(base).expanduser() / "elastune" / "config.yaml"
    if not file.is_file():
        return ()
    mapping = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    if mapping is None:
        return ()
    if not isinstance(mapping, dict):
        raise InputError(f"{file}: holds {mapping!r}, but must hold keys and values, such as data: [FOLDER]")
    for key in mapping:
        if key != "data":
            raise InputError(f"{file}: unknown key {key!r}; known: data")
    folders = mapping.get("data") or []
    if isinstance(folders, str):
        folders = [folders]
    if not (isinstance(folders, list) and all(isinstance(folder, str) for folder in folders)):
        raise InputError(f"{file}: data is {folders!r}, but must be a list of folders")
    return tuple(file.parent / Path(folder).expanduser() for folder in folders)
