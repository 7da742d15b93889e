"""The interface to the machines of a real run; `embedded` and `attached` implement it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from elastune.sim.model.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from elastune.sim.model.ids import InstanceId

CPU = "cpu"


class NoNodeError(TuningError):
    """No machine is available, or the request was cancelled; becomes InstanceRefused or InstanceGone."""


@dataclass(frozen=True)
class Node:
    """A machine that is leased.

    Attributes:
        node_id: Ray's name for it.
        host: its address, at which the members of a worker group meet.
        gpus: its slots; CPU slots if there are no GPUs.
    """

    node_id: str
    host: str
    gpus: int


class Nodes(Protocol):
    """Machines on request; called from several threads, one per machine."""

    def acquire(
        self, instance: InstanceId, gpus: int, *, launched: Callable[[], None], is_cancelled: Callable[[], bool]
    ) -> Node:
        """Wait for a machine with `gpus` slots; calls `launched` when queueing is over.

        Raises:
            NoNodeError: there is none, or `is_cancelled` became true.
        """

    def release(self, instance: InstanceId) -> None:
        """Give it back; does nothing if it is gone already."""

    def dead(self) -> Collection[InstanceId]:
        """Leased machines that are known to have died."""

    def adopt(self, leased: Mapping[InstanceId, Node]) -> Mapping[InstanceId, Node]:
        """Take over the machines of a dead driver; returns those that still live."""

    def close(self) -> None:
        """Give everything back and end what was started."""


def bundle(device: str) -> dict[str, float]:
    """What one slot takes of a Ray node."""
    return {"CPU": 1.0} if device == CPU else {"CPU": 1.0, "GPU": 1.0}


def slots_of(resources: Mapping[str, float], device: str) -> int:
    """How many slots a node with these resources has."""
    return int(resources.get("CPU" if device == CPU else "GPU", 0))
