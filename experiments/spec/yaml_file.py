"""Reading a run spec: YAML files, `--set key=value`, and policies written as `name:param=value`.

Imports experiments.own_code, the names of policies, sim.model.errors; yaml inside the functions that need
it. What the keys mean is `experiments.spec.run`'s business.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elastune.experiments.own_code import absolute, place_in
from elastune.policies.registry import all_entries
from elastune.sim.model.errors import InputError
from elastune.traces.formats.yaml_text import parse_yaml

_MOST_BYTES = 10_000_000
"""Of a file of ours; a device never ends."""
_KINDS = {type(None): "nothing", list: "a list", int: "a number", float: "a number", bool: "true or false"}


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        InputError: the file cannot be read, is too large or no text, is malformed (names the line), or gives a key twice.
    """
    mapping = parse_yaml(_text_of(path), str(path))
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: holds {_KINDS.get(type(mapping), 'a text')}, but must hold keys and values")
    return {str(key): value for key, value in mapping.items()}


def _text_of(path: Path) -> str:
    try:
        # A pipe of the shell's own (`<(...)`) has a writer.
        if path.is_fifo() and not str(path).startswith(("/dev/", "/proc/")):
            warnings.warn(f"{path} is a pipe: it is read once another program has written to it", stacklevel=2)
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise InputError(
            f"{path}: holds more than {_MOST_BYTES // 1_000_000} MB, but must be a YAML file of keys and values"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error


def read_spec(path: Path) -> dict[str, Any]:
    """The keys and values of a run spec; files of the user's own that it names are relative to it.

    Raises:
        InputError: see `read_mapping`.
    """
    return with_own_code(read_mapping(path), path.parent)


def with_own_code(mapping: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The keys and values of a spec; files of the user's own code that it names are relative to the folder."""
    own = {"policy": with_own_files(mapping["policy"], folder)} if "policy" in mapping else {}
    workload = mapping.get("workload")
    if isinstance(workload, dict) and isinstance(workload.get("trainable"), str):
        own["workload"] = workload | {"trainable": absolute(workload["trainable"], folder)}
    return mapping | own


def with_settings(mapping: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The mapping with each `dotted.key=value` put in; values are read as YAML.

    Raises:
        InputError: a setting has no `=` or no value, or goes below something that holds no keys.
    """
    changed = {key: _copied(value) for key, value in mapping.items()}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise InputError(f"--set {setting}: must be key=value, such as job.deadline_s=1800")
        if not text.strip():  # such as the value of a shell variable that is not set
            raise InputError(f"--set {setting}: the value is missing; {key}=null leaves the key out")
        put(changed, key.strip().split("."), parse_yaml(text, f"--set {setting}"), f"--set {setting}")
    return changed


def _copied(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copied(below) for key, below in value.items()}
    return value


def put(mapping: dict[str, Any], path: Sequence[str], value: object, what: str) -> None:
    """Set the key at this path of a mapping; sections that are missing are made.

    Args:
        mapping: changed in place; no section of it may be shared with another.
        path: the dotted key, split.
        value: of the key.
        what: what the message of an error begins with.

    Raises:
        InputError: the path goes below something that holds no keys.
    """
    for depth, key in enumerate(path[:-1], start=1):
        below = mapping.setdefault(key, {})
        if isinstance(below, str) and (long_form := _SHORT_FORMS.get(".".join(path[:depth]))):
            below = mapping[key] = long_form(below)
        if not isinstance(below, dict):
            raise InputError(f"{what}: {'.'.join(path[:depth])} is {below!r}, which holds no keys")
        mapping = below
    mapping[path[-1]] = value


def policy_mapping(text: str) -> dict[str, Any]:
    """A policy written as `name[:param=value[:param=value]]` or `name(param=value, param=value)`, as `{name, params...}`.

    Values are read as YAML. The name may be code of the user's own: `file.py:Name` or `module:Name`.

    Raises:
        InputError: a parameter has no `=`, or is given twice.
    """
    text = text.strip()
    own = place_in(text)
    name = own if own and own.partition(":")[0] not in all_entries() else re.split("[:(]", text, maxsplit=1)[0]
    rest = text[len(name) :].strip()
    if rest.startswith("(") and rest.endswith(")"):
        settings = split_names(rest[1:-1])
    else:
        settings = rest.split(":")[1:]
        if rest[:1] not in ("", ":"):
            raise InputError(f"policy {text!r}: parameters are written as in sha-elastic(gpus_per_trial=4)")
    policy: dict[str, Any] = {"name": name.strip()}
    for setting in settings:
        parameter, equals, value = setting.partition("=")
        if not (parameter.strip() and equals):
            raise InputError(f"policy {text!r}: {setting!r} must be param=value, as in sha-elastic:gpus_per_trial=4")
        if parameter.strip() in policy:
            raise InputError(f"policy {text!r}: {parameter.strip()!r} is given twice")
        policy[parameter.strip()] = parse_yaml(value, f"policy {text!r}")
    return policy


def names_in(text: str | None, what: str) -> list[str]:
    """Names with commas between; none of None.

    Args:
        text: what was given.
        what: gives it, such as `--policies`, for the error.

    Raises:
        InputError: it was given, but holds no name.
    """
    names = [] if text is None else split_names(text)
    if text is not None and not names:
        raise InputError(f"{what} {text!r} holds no name: give names with commas between, or leave it out")
    return names


def split_names(text: str) -> list[str]:
    """The parts between commas that are not empty; commas in brackets, as between parameters, do not count."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def with_own_files(policy: object, folder: Path) -> object:
    """A policy as YAML holds it; a file of the user's own that it names is relative to the folder."""
    if isinstance(policy, str):
        return absolute(policy, folder)
    if isinstance(policy, dict) and isinstance(policy.get("name"), str):
        return policy | {"name": absolute(policy["name"], folder)}
    return policy


_SHORT_FORMS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "policy": policy_mapping,
    "cloud.billing": lambda provider: {"provider": provider},
}
"""Sections that may be one word, and what the word stands for."""
