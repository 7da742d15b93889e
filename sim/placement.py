"""Which instances give the GPUs of a gang. Pure; imports only `sim.model`.

Fewest nodes first; on one node the best fit, so that other nodes stay whole and can be released; ties by the lowest number.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.model.ids import InstanceId, Placement


class FreeGpus:
    """The GPUs on which something may start, by instance.

    Attributes:
        total: how many there are.
    """

    __slots__ = ("_by_count", "_free", "total")

    def __init__(self) -> None:
        self.total = 0
        self._free: dict[InstanceId, int] = {}
        # _by_count[c]: the instances with c free GPUs, sorted; index 0 stays empty.
        self._by_count: list[list[InstanceId]] = [[]]

    def __contains__(self, instance: InstanceId) -> bool:
        return instance in self._free

    def admit(self, instance: InstanceId, free_gpus: int) -> None:
        """From now on gangs may be placed on this instance."""
        while len(self._by_count) <= free_gpus:
            self._by_count.append([])
        self._free[instance] = free_gpus
        self.total += free_gpus
        if free_gpus:
            insort(self._by_count[free_gpus], instance)

    def withdraw(self, instance: InstanceId) -> None:
        """Nothing is placed on this instance any more; unknown ones are ignored."""
        free_gpus = self._free.pop(instance, None)
        if free_gpus:
            self.total -= free_gpus
            self._remove(instance, free_gpus)

    def give_back(self, instance: InstanceId, gpus: int) -> None:
        """GPUs of an admitted instance are free again."""
        before = self._free[instance]
        if before:
            self._remove(instance, before)
        self._free[instance] = before + gpus
        self.total += gpus
        while len(self._by_count) <= before + gpus:
            self._by_count.append([])
        insort(self._by_count[before + gpus], instance)

    def take(self, gpus: int) -> Placement | None:
        """GPUs for a gang, now held; None where there are not enough."""
        if gpus > self.total:
            return None
        for count in range(gpus, len(self._by_count)):
            if self._by_count[count]:
                return (self._take_from(self._by_count[count][0], count, gpus),)
        return self._take_spread(gpus)

    def _take_spread(self, gpus: int) -> Placement:
        """The fewest nodes: the freest ones whole, then the best fit for the rest."""
        placement = []
        while gpus:
            fitting = (count for count in range(gpus, len(self._by_count)) if self._by_count[count])
            count = next(fitting, 0) or max(c for c, instances in enumerate(self._by_count) if instances)
            taken = min(count, gpus)
            placement.append(self._take_from(self._by_count[count][0], count, taken))
            gpus -= taken
        return tuple(placement)

    def _take_from(self, instance: InstanceId, free_gpus: int, gpus: int) -> tuple[InstanceId, int]:
        self._remove(instance, free_gpus)
        left = free_gpus - gpus
        self._free[instance] = left
        self.total -= gpus
        if left:
            insort(self._by_count[left], instance)
        return instance, gpus

    def _remove(self, instance: InstanceId, free_gpus: int) -> None:
        instances = self._by_count[free_gpus]
        del instances[bisect_left(instances, instance)]
