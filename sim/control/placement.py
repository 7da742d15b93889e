"""Chooses the instances whose GPUs a gang gets. Pure; imports only `sim.model`.

Placement on: fewest nodes first; on one node the best fit, so that other nodes stay whole and can be released; ties by the
lowest number. The rules off and spread exist to measure what placement is worth.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from elastune.sim.model.ids import InstanceId, Placement

PlacementRule: TypeAlias = Literal["on", "off", "spread"]
"""on: see above.
off: a gang takes the GPUs that have been free for longest on any machine, as in a pool of slots.
spread: worker by worker, each on the machine with the most free GPUs, as cluster schedulers that balance load place pods one
at a time (Kubernetes' NodeResourcesFit scores LeastAllocated by default)."""


class FreePool(Protocol):
    """The GPUs on which something may start, by instance."""

    total: int

    def __contains__(self, instance: InstanceId) -> bool: ...

    def admit(self, instance: InstanceId, free_gpus: int) -> None:
        """Allow gangs on this instance from now on."""

    def withdraw(self, instance: InstanceId) -> None:
        """Place nothing on this instance any more; unknown ones are ignored."""

    def give_back(self, instance: InstanceId, gpus: int) -> None:
        """Free GPUs of an admitted instance."""

    def take(self, gpus: int) -> Placement | None:
        """Take the GPUs of a gang; None where too few are free."""


def free_pool(rule: PlacementRule) -> FreePool:
    """A pool that places by this rule, still empty."""
    return QueuedGpus() if rule == "off" else FreeGpus(is_spreading=rule == "spread")


class FreeGpus:
    """Placement on, or spread; see `FreePool` and `PlacementRule`.

    Attributes:
        total: how many GPUs are free.
    """

    __slots__ = ("_by_count", "_free", "_is_spreading", "total")

    def __init__(self, *, is_spreading: bool = False) -> None:
        self.total = 0
        self._is_spreading = is_spreading
        self._free: dict[InstanceId, int] = {}
        # _by_count[c]: the instances with c free GPUs, sorted; index 0 stays empty.
        self._by_count: list[list[InstanceId]] = [[]]

    def __contains__(self, instance: InstanceId) -> bool:
        return instance in self._free

    def admit(self, instance: InstanceId, free_gpus: int) -> None:
        """Allow gangs on this instance from now on."""
        while len(self._by_count) <= free_gpus:
            self._by_count.append([])
        self._free[instance] = free_gpus
        self.total += free_gpus
        if free_gpus:
            insort(self._by_count[free_gpus], instance)

    def withdraw(self, instance: InstanceId) -> None:
        """Place nothing on this instance any more; unknown ones are ignored."""
        free_gpus = self._free.pop(instance, None)
        if free_gpus:
            self.total -= free_gpus
            self._remove(instance, free_gpus)

    def give_back(self, instance: InstanceId, gpus: int) -> None:
        """Free GPUs of an admitted instance."""
        before = self._free[instance]
        if before:
            self._remove(instance, before)
        after = self._free[instance] = before + gpus
        self.total += gpus
        by_count = self._by_count
        while len(by_count) <= after:
            by_count.append([])
        insort(by_count[after], instance)

    def take(self, gpus: int) -> Placement | None:
        """Take the GPUs of a gang; None where too few are free."""
        if gpus > self.total:
            return None
        if self._is_spreading:
            return self._take_one_by_one(gpus)
        for count in range(gpus, len(self._by_count)):
            if self._by_count[count]:
                return (self._take_from(count, gpus),)
        return self._take_spread(gpus)

    def _take_spread(self, gpus: int) -> Placement:
        """The fewest nodes: the freest ones whole, then the best fit for the rest."""
        placement = []
        while gpus:
            fitting = (count for count in range(gpus, len(self._by_count)) if self._by_count[count])
            count = next(fitting, 0) or max(c for c, instances in enumerate(self._by_count) if instances)
            taken = min(count, gpus)
            placement.append(self._take_from(count, taken))
            gpus -= taken
        return tuple(placement)

    def _take_one_by_one(self, gpus: int) -> Placement:
        """Put each worker where most GPUs are free."""
        taken: dict[InstanceId, int] = {}
        for _ in range(gpus):
            count = max(c for c, instances in enumerate(self._by_count) if instances)
            instance, one = self._take_from(count, 1)
            taken[instance] = taken.get(instance, 0) + one
        return tuple(taken.items())

    def _take_from(self, free_gpus: int, gpus: int) -> tuple[InstanceId, int]:
        """Take them on the first instance with so many free GPUs."""
        instance = self._by_count[free_gpus].pop(0)
        left = free_gpus - gpus
        self._free[instance] = left
        self.total -= gpus
        if left:
            insort(self._by_count[left], instance)
        return instance, gpus

    def _remove(self, instance: InstanceId, free_gpus: int) -> None:
        instances = self._by_count[free_gpus]
        del instances[bisect_left(instances, instance)]


class QueuedGpus:
    """Placement off; see `FreePool` and `PlacementRule`. GPUs queue in the order in which they came free.

    Attributes:
        total: how many GPUs are free.
    """

    __slots__ = ("_admitted", "_queue", "total")

    def __init__(self) -> None:
        self.total = 0
        self._admitted: set[InstanceId] = set()
        # (instance, GPUs that came free together), the longest free first.
        self._queue: deque[tuple[InstanceId, int]] = deque()

    def __contains__(self, instance: InstanceId) -> bool:
        return instance in self._admitted

    def admit(self, instance: InstanceId, free_gpus: int) -> None:
        """Allow gangs on this instance from now on."""
        self._admitted.add(instance)
        if free_gpus:
            self.give_back(instance, free_gpus)

    def withdraw(self, instance: InstanceId) -> None:
        """Place nothing on this instance any more; unknown ones are ignored."""
        self._admitted.discard(instance)
        self._queue = deque(entry for entry in self._queue if entry[0] != instance)
        self.total = sum(gpus for _, gpus in self._queue)

    def give_back(self, instance: InstanceId, gpus: int) -> None:
        """Free GPUs of an admitted instance."""
        self._queue.append((instance, gpus))
        self.total += gpus

    def take(self, gpus: int) -> Placement | None:
        """Take the GPUs of a gang; None where too few are free."""
        if gpus > self.total:
            return None
        self.total -= gpus
        taken: dict[InstanceId, int] = {}
        while gpus:
            instance, free_gpus = self._queue.popleft()
            used = min(gpus, free_gpus)
            taken[instance] = taken.get(instance, 0) + used
            gpus -= used
            if used < free_gpus:
                self._queue.appendleft((instance, free_gpus - used))
        return tuple(taken.items())
