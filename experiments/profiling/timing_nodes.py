"""The nodes on which a timing profile measures. May import `sim.bridge`, which imports ray inside functions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from elastune.experiments.profiling.records import GangShape, NodeStart
from elastune.sim.bridge.machines.attached import AttachedNodes, alive_nodes
from elastune.sim.bridge.machines.embedded import EmbeddedNodes
from elastune.sim.bridge.machines.nodes import Node, Nodes, NoNodeError, slots_of
from elastune.sim.model.errors import InputError
from elastune.sim.model.ids import InstanceId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.profiling.timing_plan import TimingPlan


class TimingNodes:
    """The nodes of the current gangs.

    Attributes:
        starts: of all nodes that were started.
    """

    def __init__(self, plan: TimingPlan, nodes: Nodes) -> None:
        self._plan, self._nodes = plan, nodes
        self._held: dict[InstanceId, Node] = {}
        self._size = 0
        self._next = 0
        self.starts: list[NodeStart] = []

    def nodes_for(self, shapes: Sequence[GangShape]) -> list[Node]:
        """Nodes for these gangs, all of which are on equally many.

        Raises:
            InputError: there are no such nodes.
        """
        count, size = shapes[0].nodes, self.size_for(max(shapes))
        if (count, size) != (len(self._held), self._size):
            self.release()
            self._size = size
            for _ in range(count):
                self.acquire(size)
        return list(self._held.values())

    def size_for(self, shape: GangShape) -> int:
        """Slots of a node for this gang: as given in the plan, or the fewest that suffice."""
        least = max(shape.per_node)
        if self._plan.gpus_per_node is not None:
            return self._plan.gpus_per_node
        return least if self._plan.ray_address is None else _size_in_cluster(shape, self._plan.device)

    def acquire(self, size: int) -> None:
        """Lease one more node; time its start if it is started for this profile.

        Raises:
            InputError: there is none.
        """
        number, asked_s, launched_s = InstanceId(self._next), time.monotonic(), list[float]()
        self._next += 1
        try:
            node = self._nodes.acquire(
                number, size, launched=lambda: launched_s.append(time.monotonic()), is_cancelled=lambda: False
            )
        except NoNodeError as error:
            raise InputError(f"--gpus {self._plan.gangs}: {error}") from error
        if self._plan.ray_address is None:  # a node of another cluster may have been there already
            self.starts.append(NodeStart(launched_s[0] - asked_s, time.monotonic() - launched_s[0]))
        self._held[number] = node

    def release(self) -> None:
        """Give all nodes back."""
        for number in list(self._held):
            self._nodes.release(number)
            del self._held[number]

    def close(self) -> None:
        """Close the source of nodes."""
        self._nodes.close()


def nodes_for_plan(plan: TimingPlan) -> Nodes:
    """Connect to the cluster of the plan, or start one."""
    if plan.ray_address is not None:
        return AttachedNodes(plan.ray_address, plan.device)
    return EmbeddedNodes(plan.device)


def _size_in_cluster(shape: GangShape, device: str) -> int:
    """The smallest size of which the cluster has enough nodes.

    Raises:
        InputError: there is none.
    """
    sizes = sorted(slots_of(node["Resources"], device) for node in alive_nodes().values())
    for size in sizes:
        if size >= max(shape.per_node) and sizes.count(size) >= shape.nodes:
            return size
    raise InputError(
        f"a gang of {shape} needs {shape.nodes} nodes with equally many slots, {max(shape.per_node)} or more, but those of the"
        f" cluster have {', '.join(map(str, sizes)) or 'none'}: leave it out, or say what its autoscaler will bring"
        " (--gpus-per-node N)"
    )
