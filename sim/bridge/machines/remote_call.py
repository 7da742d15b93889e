"""Run a function once on a slot of a node, to look at the node or to try something there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from elastune.sim.bridge.machines.nodes import CPU
from elastune.sim.model.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from elastune.sim.bridge.machines.nodes import Node

_Found = TypeVar("_Found")


def run_on(
    node: Node, device: str, function: Callable[..., _Found], *arguments: object, within_s: float = 60.0
) -> _Found:
    """Run a function on a node and return its result.

    Args:
        node: where it runs.
        device: what a slot is; with `cuda` it sees one GPU.
        function: a function that the node can import.
        arguments: of the function; Ray must be able to pickle them.
        within_s: how long it may take; this includes the start of a new process.

    Raises:
        WorkerError: the function raised, or did not answer in time.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(function).options(
        num_cpus=1,
        num_gpus=0 if device == CPU else 1,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
    )
    reference = task.remote(*arguments)
    try:
        found: _Found = ray.get(reference, timeout=within_s)
    except GetTimeoutError as error:
        ray.cancel(reference, force=True)
        raise WorkerError(f"node {node.host} did not answer within {within_s:g} s") from error
    except RayError as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkerError(f"node {node.host}: {told[-1]}") from error
    return found
