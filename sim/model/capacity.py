"""How many machines are available over time. Imports only the standard library and sim.model.errors."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from elastune.sim.model.errors import InputError


@dataclass(frozen=True)
class Steps:
    """A number of instances that changes at certain times; the last one holds for ever.

    Attributes:
        at_s: seconds since the start of the run, rising from 0.
        counts: instances from each of these times on.
    """

    at_s: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.at_s or len(self.at_s) != len(self.counts):
            raise InputError("must hold at least one pair [seconds, instances]")
        if self.at_s[0] != 0:
            raise InputError(f"begins at {self.at_s[0]:g} s, but must say how many instances there are at 0 s")
        for before_s, at_s in pairwise(self.at_s):
            if not (math.isfinite(at_s) and at_s > before_s):
                raise InputError(f"goes from {before_s:g} s to {at_s:g} s, but its times must rise")
        for count in self.counts:
            if count < 0:
                raise InputError(f"names {count} instances, but there cannot be fewer than 0")

    @classmethod
    def constant(cls, count: int) -> Steps:
        """The same number at all times."""
        return cls((0.0,), (count,))

    def at(self, now_s: float) -> int:
        """The number at this time."""
        return self.counts[bisect_right(self.at_s, now_s) - 1]

    def rises_at_s(self, now_s: float) -> float:
        """When the number next rises above the present one; infinite for never."""
        now = bisect_right(self.at_s, now_s) - 1
        later = zip(self.at_s[now + 1 :], self.counts[now + 1 :], strict=True)
        return next((at_s for at_s, count in later if count > self.counts[now]), math.inf)
