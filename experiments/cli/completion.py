"""Which names the shell completes. Imports the standard library; what knows the names only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TypeAlias

Complete: TypeAlias = "Callable[[str], list[str]]"


def begins(names: Callable[[], Iterable[str]]) -> Complete:
    """What completes one of these names."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def names_at(place: str) -> Complete:
    """What completes one of the names that are known elsewhere.

    Args:
        place: below `elastune`: a module and what holds or gives them, as `traces:scaling_names`.
    """
    return begins(lambda: _known(place))


def _known(place: str) -> Iterable[str]:
    module, _, name = place.partition(":")
    known = getattr(import_module(f"elastune.{module}"), name)
    names: Iterable[str] = known() if callable(known) else known
    return names


def listed(complete: Complete) -> Complete:
    """What completes the last of several names with commas between."""

    def completed(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in complete(last)]

    return completed


complete_policy = names_at("experiments.known_policies:policy_names")
complete_policies = listed(complete_policy)
complete_bundle = names_at("experiments.spec.places:known_bundles")
complete_workload = names_at("traces.workloads:WORKLOAD_NAMES")
complete_machine = names_at("traces:instance_type_names")
complete_scaling = names_at("traces:scaling_names")
complete_claim = names_at("experiments.claims:load_claims")
complete_setting = begins(lambda: (f"{key}=" for key in ("seed", *_known("experiments.sweeps.rows:spec_columns"))))
complete_column = listed(names_at("experiments.sweeps.rows:columns"))
complete_drawable = names_at("experiments.claims.folder_figures:DRAWABLE")
complete_measure = listed(names_at("experiments.sweeps.rows:measures"))
