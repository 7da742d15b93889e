"""Machines leased one by one from a running Ray cluster, whose autoscaler is asked for more.

The autoscaler cannot be told which node to end: it ends any idle node, and whatever node appears serves the request.

A lease excludes all other drivers: it is a placement group that holds most of the resource `node:ADDRESS`, of which each node
has 1. Ray ends the lease with its driver, so the nodes of a dead driver can be leased again.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from elastune.sim.bridge.machines.connection import connect
from elastune.sim.bridge.machines.nodes import CPU, Node, NoNodeError, bundle, slots_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ray.util.placement_group import PlacementGroup

    from elastune.sim.model.ids import InstanceId

_POLL_S = 0.25
_SHARE = 0.51
"""Of a node's own resource: two leases do not fit, but tasks that others pin to the node with a hundredth of it do."""
_LEASED_WITHIN_S = 1.0
_TAKEN_OVER_WITHIN_S = 30.0
"""Time for Ray to notice that the previous driver has died."""


class AttachedNodes:
    """Nodes of a cluster at an address. See `Nodes`.

    Args:
        address: of the cluster, as `ray.init` takes it.
        device: what a slot is.
        patience_s: how long to wait for a node before the request is refused; an autoscaler takes minutes.

    Raises:
        InputError: no cluster answers there.
    """

    def __init__(self, address: str, device: str = CPU, *, patience_s: float = 600.0) -> None:
        connect(address)
        self._address, self._device, self._patience_s = address, device, patience_s
        self._lock = threading.Lock()
        self._leased: dict[InstanceId, tuple[Node, PlacementGroup]] = {}
        self._wanted: dict[InstanceId, int] = {}
        self._is_closed = False

    def acquire(
        self, instance: InstanceId, gpus: int, *, launched: Callable[[], None], is_cancelled: Callable[[], bool]
    ) -> Node:
        """Lease a free node that has exactly `gpus` slots. See `Nodes`."""
        self._ask(instance, gpus)
        give_up_s = time.monotonic() + self._patience_s
        while not is_cancelled():
            if (node := self._lease_one(instance, gpus)) is not None:
                launched()
                return node
            if time.monotonic() > give_up_s:
                self._ask(instance, 0)
                raise NoNodeError(f"no free node with {gpus} slots at {self._address} within {self._patience_s:g} s")
            time.sleep(_POLL_S)
        self._ask(instance, 0)
        raise NoNodeError("cancelled")

    def _lease_one(self, instance: InstanceId, gpus: int) -> Node | None:
        """Lease a free node with exactly `gpus` slots; None if there is none."""
        for node_id, found in alive_nodes().items():
            if slots_of(found["Resources"], self._device) == gpus:
                node = Node(node_id, found["NodeManagerAddress"], gpus)
                if self._lease(instance, node, _LEASED_WITHIN_S):
                    return node
        return None

    def _lease(self, instance: InstanceId, node: Node, within_s: float) -> bool:
        """Lease this node, unless it is leased already, by this driver or another."""
        with self._lock:
            if any(leased.node_id == node.node_id for leased, _ in self._leased.values()):
                return False
        lease = lease_of(node, within_s)
        if lease is None:
            return False
        with self._lock:
            self._leased[instance] = node, lease
        return True

    def _ask(self, instance: InstanceId, gpus: int) -> None:
        """Tell the autoscaler about all wanted machines, including those we have. Without an autoscaler nothing happens."""
        with self._lock:
            if gpus and not self._is_closed:
                self._wanted[instance] = gpus
            else:
                self._wanted.pop(instance, None)
            self._say_wanted()

    def _say_wanted(self) -> None:
        from ray.autoscaler.sdk import request_resources

        slot = bundle(self._device)
        request_resources(bundles=[{kind: n * count for kind, n in slot.items()} for count in self._wanted.values()])

    def release(self, instance: InstanceId) -> None:
        """Free the node for others, or for the autoscaler to end. See `Nodes`."""
        with self._lock:
            _, lease = self._leased.pop(instance, (None, None))
        if lease is not None:
            end_lease(lease)
        self._ask(instance, 0)

    def dead(self) -> list[InstanceId]:
        """Those that Ray's health checks have found dead. See `Nodes`."""
        with self._lock:
            leased = dict(self._leased)
        alive = alive_nodes() if leased else {}
        return [instance for instance, (node, _) in leased.items() if node.node_id not in alive]

    def adopt(self, leased: Mapping[InstanceId, Node]) -> Mapping[InstanceId, Node]:
        """Lease again those that are alive and that no other driver has leased. See `Nodes`."""
        alive = alive_nodes()
        found = {
            instance: node
            for instance, node in leased.items()
            if node.node_id in alive and self._lease(instance, node, _TAKEN_OVER_WITHIN_S)
        }
        with self._lock:
            self._wanted.update({instance: node.gpus for instance, node in found.items()})
            self._say_wanted()  # replaces what the dead driver asked for
        return found

    def close(self) -> None:
        """Give all nodes back; the cluster stays."""
        import ray

        try:
            with self._lock:
                self._is_closed = True
                for _, lease in self._leased.values():
                    end_lease(lease)
                self._leased.clear()
                self._wanted.clear()
                self._say_wanted()  # a request would last for ever, even for a machine that has not come yet
        finally:
            ray.shutdown()


def lease_of(node: Node, within_s: float) -> PlacementGroup | None:
    """Lease a node exclusively; None if another driver has it."""
    from ray.util.placement_group import placement_group

    lease: PlacementGroup = placement_group(
        [{f"node:{node.host}": _SHARE}], bundle_label_selector=[{"ray.io/node-id": node.node_id}]
    )
    if lease.wait(within_s):
        return lease
    end_lease(lease)
    return None


def end_lease(lease: PlacementGroup) -> None:
    """Let others lease the node."""
    from ray.util.placement_group import remove_placement_group

    remove_placement_group(lease)


def alive_nodes() -> dict[str, dict[str, Any]]:
    """What Ray says of the nodes that are alive, by its name of them."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # as Ray ships it
    return {node["NodeID"]: node for node in nodes if node["Alive"]}
