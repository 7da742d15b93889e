"""Converts the GPUs of a policy to resources of Ray. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from elastune.sim.model.errors import InputError


def ray_resources(resources: Mapping[str, float]) -> dict[str, float]:
    """The resources under Ray's own names.

    Raises:
        InputError: there are none, one is not positive, or one is named twice.
    """
    try:
        named = {
            key.upper() if key.lower() in ("cpu", "gpu") else key: float(amount) for key, amount in resources.items()
        }
    except (AttributeError, TypeError, ValueError, OverflowError):
        named = {}
    if len(named) < len(resources):
        raise InputError(
            f"resources_per_gpu is {resources}, but CPU and cpu are the same, as are GPU and gpu: name one"
        )
    if not named or not all(0 < amount < math.inf for amount in named.values()):
        raise InputError(
            f"resources_per_gpu is {resources}, but must name the resources of one GPU, such as {{'gpu': 1}}"
        )
    return named


def gpus_on(has: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """How many GPUs of the policy a node with these resources has."""
    # The tolerance lets ten GPUs of 0.1 CPUs each fit on one CPU.
    return min(int(has.get(key, 0.0) / amount + 1e-9) for key, amount in resources.items())


def bundles_for(gpus: int, gpus_per_node: int, resources: Mapping[str, float]) -> list[dict[str, float]]:
    """Bundles to request for `gpus` GPUs: one if a node has that many, else whole nodes and a rest."""
    whole, rest = divmod(gpus, gpus_per_node)
    sizes = [gpus_per_node] * whole + ([rest] if rest else [])
    return [{key: amount * size for key, amount in resources.items()} for size in sizes]
