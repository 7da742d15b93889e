"""The names of policies: of the registry, and of installed packages. Imports no policy: shells ask for names and wait."""

from __future__ import annotations

from elastune.experiments.own_code import installed
from elastune.policies.registry import all_entries

ENTRY_POINTS = "elastune.policies"
"""The group in which an installed package registers its policies."""


def policy_names() -> list[str]:
    """Names of the registry, and of installed packages."""
    return [*all_entries(), *installed_policies()]


def installed_policies() -> dict[str, str]:
    """`module:Class` of the policies that installed packages register, by name; ours keep their names."""
    return {name: place for name, place in installed(ENTRY_POINTS).items() if name not in all_entries()}
