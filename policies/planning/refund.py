"""What machines need not pay that are given back within a stage, when the last of their gangs has ended. Pure [ours].

Gangs that share machines leave them together, as a group. Groups end in the order of their places, by `planning.spread`; those
that the next stage does not hold are given back when they end. Worked out for many allocations at once. Imports numpy.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elastune.policies.planning.spread import Places, normals_of_slowest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.plan import Allocation

    Floats = NDArray[np.float64]


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


class EndingGroups:
    """The groups of gangs of some allocations, which end one after the other.

    Args:
        allocations: with trials; spare machines make no difference.
    """

    def __init__(self, allocations: Sequence[Allocation]) -> None:
        def each(of: str) -> NDArray[np.int64]:
            return np.array([getattr(one, of) for one in allocations], np.int64)

        size, whole, needed = each("gpus_per_trial"), each("gpus_per_instance"), each("needed_instances")
        self._gangs, self._waves = each("gangs"), each("waves")
        # Gangs that share machines leave them together: 2 of 2 GPUs on one of 4, 4 of 5 GPUs on five of 4.
        shared = np.gcd(size, whole)
        gangs_each, self._machines_each = np.minimum(whole // shared, self._gangs), size // shared
        groups = -(-needed // self._machines_each)
        self._places = Places(groups, gangs_each)
        # Trials of a gang before its last one, on average.
        self._before = each("trials") / self._gangs - 1.0
        machines = np.arange(int(needed.max(initial=0)) + 1)
        self._group_of = np.minimum(machines // self._machines_each[:, None], groups[:, None] - 1)

    def stretch(self, variance: float) -> Floats:
        """(allocations,) see `estimate.expected_stretch`; by the variance of the logarithm of a trial's time."""
        of_wave = variance / self._waves
        stretched = np.exp(normals_of_slowest(self._gangs) * np.sqrt(of_wave) - of_wave / 2)
        return np.where(self._gangs > 1, np.maximum(stretched, 1.0), 1.0)

    def refund(self, variance: float) -> Refund:
        """What the allocations need not pay."""
        slowest, earlier = self._places.ends(variance)
        end = np.maximum(self._before + slowest, self._waves)
        sooner = np.maximum((end - self._before)[:, None] - earlier, 0.0)
        of_groups = np.concatenate((np.zeros((len(end), 1)), np.cumsum(sooner, axis=1)), axis=1)
        of_groups *= self._machines_each[:, None]
        return Refund(self._waves * self.stretch(variance) - end, np.take_along_axis(of_groups, self._group_of, axis=1))


@functools.lru_cache(4096)
def ending_groups(allocation: Allocation) -> EndingGroups:
    """Of one allocation."""
    return EndingGroups([allocation])
