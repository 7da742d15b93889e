"""Where the machines of a real run come from; `embedded` and `attached` are the two kinds of `Nodes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from elastune.sim.model.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from elastune.sim.model.ids import InstanceId

CPU = "cpu"


class NoNodeError(TuningError):
    """There is no machine to be had, or nobody wants it any more; becomes InstanceRefused or InstanceGone."""


@dataclass(frozen=True)
class Node:
    """A machine that is ours.

    Attributes:
        node_id: Ray's name of it.
        host: its address, at which the workers of a gang find each other.
        gpus: slots it has; CPU slots where there are no GPUs.
    """

    node_id: str
    host: str
    gpus: int


class Nodes(Protocol):
    """Machines on request; called from several threads, one per machine."""

    def acquire(
        self, instance: InstanceId, gpus: int, *, launched: Callable[[], None], is_cancelled: Callable[[], bool]
    ) -> Node:
        """A machine with so many slots, ready to train; waits for it, and calls `launched` when queueing is over.

        Raises:
            NoNodeError: there is none.
        """

    def release(self, instance: InstanceId) -> None:
        """Give it back; nothing happens where it is gone already."""

    def dead(self) -> Collection[InstanceId]:
        """Those of ours that are not there any more, as far as can be known at once."""

    def adopt(self, leased: Mapping[InstanceId, Node]) -> Mapping[InstanceId, Node]:
        """Take over the machines of a driver that died; returns those that are still there."""

    def close(self) -> None:
        """Give everything back, and end what was started."""


def bundle(device: str) -> dict[str, float]:
    """What one slot takes of a Ray node."""
    return {"CPU": 1.0} if device == CPU else {"CPU": 1.0, "GPU": 1.0}


def slots_of(resources: Mapping[str, float], device: str) -> int:
    """How many slots a node with these resources has."""
    return int(resources.get("CPU" if device == CPU else "GPU", 0))
