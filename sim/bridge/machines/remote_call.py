"""Runs a function once on a slot of a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from elastune.sim.bridge.machines.nodes import CPU, Node
from elastune.sim.model.errors import WorkerError

_Found = TypeVar("_Found")


def run_on(
    node: Node, device: str, function: Callable[..., _Found], *arguments: object, within_s: float = 60.0
) -> _Found:
    """Run a function on a node and return its result.

    Args:
        node: where it runs.
        device: what a slot is; with `cuda` the function sees one GPU.
        function: the node must be able to import it.
        arguments: of the function; Ray pickles them.
        within_s: time limit, including the start of a process.

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
