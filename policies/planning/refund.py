"""What machines need not pay that are given back within a stage, when the last of their gangs has ended. Pure [ours].

Gangs that share machines leave them together, as a group. Groups end in the order of their places, by `planning.spread`; those
that the next stage does not hold are given back when they end. Worked out for many allocations at once. Imports numpy.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elastune.policies.planning.spread import Places, normals_of_slowest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.arrays import Floats, Ids
    from elastune.policies.planning.plan import Allocation


class Refund(NamedTuple):
    """What allocations need not pay of their stage, in machines times the mean training time of one trial.

    Attributes:
        of_each: (allocations,) for each machine that is held, as the stage ends sooner than the closed form of the mean; below
            zero if later.
        released: (allocations, machines + 1) for none, one, two, ... machines that nobody needs afterwards: those that end
            first. For more machines, as for the last.
    """

    of_each: Floats
    released: Floats


class _Ends(NamedTuple):
    """How groups of gangs leave machines.

    Attributes:
        places: in which they end.
        machines_each: (allocations,) that a group shares.
        left: (allocations, machines + 1) twice, where among them to find how many groups have left so many machines.
        before: (allocations,) mean number of trials of a gang before its last one.
    """

    places: Places
    machines_each: Ids
    left: tuple[Ids, Ids]
    before: Floats


class EndingGroups:
    """The groups of gangs of some allocations, which end one after the other.

    Args:
        allocations: with trials; spare machines make no difference.
    """

    def __init__(self, allocations: Sequence[Allocation]) -> None:
        self._allocations = allocations
        self._gangs, self._waves = self._each("gangs"), self._each("waves")

    def _each(self, of: str) -> Ids:
        return np.array([getattr(one, of) for one in self._allocations], np.int64)

    @functools.cached_property
    def _normals(self) -> NDArray[np.floating]:
        return normals_of_slowest(self._gangs)

    @functools.cached_property
    def _ends(self) -> _Ends:
        # Only where machines are given back: quantiles of many groups take long.
        size, whole, needed = (
            self._each("gpus_per_trial"),
            self._each("gpus_per_instance"),
            self._each("needed_instances"),
        )
        # Gangs that share machines leave them together: 2 of 2 GPUs on one of 4, 4 of 5 GPUs on five of 4.
        shared = np.gcd(size, whole)
        gangs_each, machines_each = np.minimum(whole // shared, self._gangs), size // shared
        groups = -(-needed // machines_each)
        machines = np.arange(int(needed.max(initial=0)) + 1)
        group_of = np.minimum(machines // machines_each[:, None], groups[:, None] - 1)
        left = np.arange(len(groups))[:, None], group_of
        return _Ends(Places(groups, gangs_each), machines_each, left, self._each("trials") / self._gangs - 1.0)

    def stretch(self, variance: float) -> Floats:
        """(allocations,) see `estimate.expected_stretch`; by the variance of the logarithm of a trial's time."""
        of_wave = variance / self._waves
        stretched = np.exp(self._normals * np.sqrt(of_wave) - of_wave / 2)
        return np.where(self._gangs > 1, np.maximum(stretched, 1.0), 1.0)

    def refund(self, variance: float, stretch: Floats) -> Refund:
        """What the allocations need not pay; `stretch` is theirs for the same variance."""
        places, machines_each, left, before = self._ends
        slowest, earlier = places.ends(variance)
        end = np.maximum(before + slowest, self._waves)
        sooner = np.maximum((end - before)[:, None] - earlier, 0.0)
        of_groups = np.zeros((len(end), sooner.shape[1] + 1))
        np.cumsum(sooner, axis=1, out=of_groups[:, 1:])
        of_groups *= machines_each[:, None]
        return Refund(self._waves * stretch - end, of_groups[left])


def refund_of(allocation: Allocation, variance: float) -> Refund:
    """Of one allocation, by the variance of the logarithm of a trial's time."""
    return _refund_of(replace(allocation, spare_instances=0, is_prefetched=False), variance)


@functools.lru_cache(4096)
def _refund_of(allocation: Allocation, variance: float) -> Refund:
    groups = _ending_groups(allocation)
    return groups.refund(variance, groups.stretch(variance))


@functools.lru_cache(4096)
def _ending_groups(allocation: Allocation) -> EndingGroups:
    return EndingGroups([allocation])
