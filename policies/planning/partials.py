"""Partial plans whose machines are followed by what is paid for them, as arrays, and which of them others beat. Pure [ours].

Two partial plans that hold as many machines go on alike. The later one is beaten if it has paid as much as the other and the
most that the other's machines may have to pay in addition, whatever follows. Where machines are paired, one with less credit
than its partner pays at most for the difference, rounded up to quanta. That stays so while time passes and while both give back
their machines with the least credit: who is left over by that is paired with a partner of no less credit. So any pairing will
do, and both are tried that are cheap to make: in the order of credits, and shifted by one or two. Without a pairing, rounding
adds to each machine at most what its credit lacks of a quantum.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.labels import TIME_GRAIN_S, Range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.arrays import Floats, Ids
    from elastune.policies.planning.bill import Prepaid


_BLOCK = 128
_PAIRS = 4096
"""Pairs of partial plans whose credits are compared at a time."""
_SHIFTS = (0, 1, 2)


@dataclass(frozen=True)
class Partials:
    """Partial plans.

    Attributes:
        time_s: (plans,) expected end, by which machines are billed.
        shift_s: (plans,) expected end beyond that, where percentiles count; see `policies.planning.lateness.Lateness`.
        tail_s2: (plans,) square of the tail.
        paid_usd: (plans,) paid so far.
        credits_s: (plans, quota) see `policies.planning.bill.Prepaid`.
        held: (plans,) machines.
        lead_s: (plans,) how early the next stage's machines can be asked for.
        parents: (plans,) position of the partial plan that each continues.
        picked: (plans,) which choice was taken last.
        growth: (plans,) `growth_class` of the machines that it waits for.
    """

    time_s: Floats
    shift_s: Floats
    tail_s2: Floats
    paid_usd: Floats
    credits_s: Floats
    held: Ids
    lead_s: Floats
    parents: Ids
    picked: Ids
    growth: Ids

    def __len__(self) -> int:
        return len(self.time_s)

    @classmethod
    def start(cls, prepaid: Prepaid, live_instances: int, quota: int) -> Partials:
        """The one before the first stage."""
        credits_s = np.full((1, quota), prepaid.NO_MACHINE)
        credits_s[:, quota - live_instances :] = prepaid.old_credit_s
        zero, none = np.zeros(1), np.zeros(1, np.int64)
        return cls(zero, zero, zero, zero, credits_s, np.full(1, live_instances), zero, none, none, none)

    def at(self, positions: Ids | NDArray[np.bool_]) -> Partials:
        """Those at these positions."""
        return Partials(*[getattr(self, name)[positions] for name in _COLUMNS])

    @classmethod
    def joined(cls, parts: Sequence[Partials]) -> Partials:
        """All of all parts, in their order."""
        return cls(*[np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS])

    def late_s(self, added_tail_s2: float) -> Floats:
        """(plans,) their end, or its 95th percentile if so much were added to their tails."""
        return self.time_s + self.shift_s + np.sqrt(self.tail_s2 + added_tail_s2)


_COLUMNS = tuple(field.name for field in fields(Partials))


def accrued_usd(paid_usd: Floats, credits_s: Floats, prepaid: Prepaid) -> Floats:
    """(plans,) paid so far, less what is paid ahead: each further second of a machine adds its price at least.

    Args:
        paid_usd: (plans,) see `Partials`.
        credits_s: (plans, machines) see `Partials`.
        prepaid: what machines cost.
    """
    return paid_usd - prepaid.usd(np.maximum(credits_s, 0.0).sum(axis=1))


@dataclass
class Work:
    """Of how many machines credits may still be compared; counted, so that the same search does the same on any machine."""

    machines: int

    def takes(self, machines: int) -> bool:
        """Whether there is as much left, which is then used."""
        self.machines -= machines
        return self.machines >= 0


def undominated(partials: Partials, prepaid: Prepaid, later_tail_s2: Range, latest_s: float, work: Work) -> Ids:
    """Positions of those that no other beats, by their late end. All hold as many machines and have the same lead.

    Args:
        partials: to choose from.
        prepaid: what machines cost.
        later_tail_s2: the least and the most that later stages may add to tails; see `policies.planning.labels.efficient`.
        latest_s: no plan of interest ends later, so that nobody needs more credit than until then.
        work: where it is used up, only what is compared without pairing machines is beaten.
    """
    if len(partials) < 2:
        return np.arange(len(partials))
    return _Contest(partials, prepaid, later_tail_s2, latest_s, work).winners()


class _Contest:
    """Who beats whom; each is compared with those that are sooner, or as soon and cheaper."""

    def __init__(self, partials: Partials, prepaid: Prepaid, later_tail_s2: Range, latest_s: float, work: Work) -> None:
        self._work = work
        late_s = partials.late_s(later_tail_s2[0])
        self._order = order = np.lexsort((partials.paid_usd, np.rint(late_s / TIME_GRAIN_S)))
        self._prepaid = prepaid
        self._shifts = _SHIFTS if prepaid.quantum_s else _SHIFTS[:1]
        self._time_s, self._latest_s = partials.time_s[order], partials.late_s(later_tail_s2[1])[order]
        self._paid_usd, credits_s = partials.paid_usd[order], partials.credits_s[order]
        self._credits_s = credits_s[:, credits_s.shape[1] - int(partials.held[0]) :]
        self._accrued_usd = accrued_usd(self._paid_usd, credits_s, prepaid)
        self._unpaired_usd = self._paid_usd + prepaid.usd(prepaid.most_beyond_s(self._credits_s).sum(axis=1))
        self._rounding_usd = 1e-10 * np.abs(self._paid_usd) + 1e-12
        # More credit than lasts to the end of all plans is worth no more.
        ahead_s = np.maximum(latest_s - self._time_s, 0.0) + prepaid.release_s
        self._useful_s = np.minimum(self._credits_s, ahead_s[:, None])

    def winners(self) -> Ids:
        """Positions of those that nobody beats."""
        kept = np.empty(0, np.int64)
        for first in range(0, len(self._order), _BLOCK):
            block = np.arange(first, min(first + _BLOCK, len(self._order)))
            block = block[~self._beaten(kept, block)]
            block = block[~self._beaten(block, block)]
            kept = np.concatenate((kept, block))
        return self._order[kept]

    def _beaten(self, rivals: Ids, block: Ids) -> NDArray[np.bool_]:
        """(block,) whether some rival before it beats it."""
        if not len(rivals) or not len(block):
            return np.zeros(len(block), bool)
        most_usd = (self._accrued_usd + self._rounding_usd)[block]
        may = rivals[:, None] < block
        may &= self._latest_s[rivals][:, None] <= self._latest_s[block] + TIME_GRAIN_S
        may &= self._time_s[rivals][:, None] <= self._time_s[block] + TIME_GRAIN_S
        may &= self._paid_usd[rivals][:, None] <= (self._paid_usd + self._rounding_usd)[block]
        may &= self._accrued_usd[rivals][:, None] <= most_usd
        is_beaten = np.asarray((may & (self._unpaired_usd[rivals][:, None] <= most_usd)).any(axis=0))
        may[:, is_beaten] = False
        pairs = np.argwhere(may)
        for first in range(0, len(pairs), _PAIRS):
            some = pairs[first : first + _PAIRS]
            some = some[~is_beaten[some[:, 1]]]
            if not self._work.takes(len(some) * self._credits_s.shape[1] * len(self._shifts)):
                break
            is_beaten[some[self._pays_no_more(rivals[some[:, 0]], block[some[:, 1]]), 1]] = True
        return is_beaten

    def _pays_no_more(self, rivals: Ids, others: Ids) -> NDArray[np.bool_]:
        """(pairs,) whether the rival costs no more than the other whatever follows, by some pairing of their machines."""
        mine_s, theirs_s = self._credits_s[rivals], self._useful_s[others]
        left_usd = (self._paid_usd + self._rounding_usd)[others] - self._paid_usd[rivals]
        pays = np.zeros(len(rivals), bool)
        for shift in self._shifts:
            paired_s = np.roll(theirs_s, shift, axis=1)
            more_s = self._prepaid.beyond_s(paired_s - mine_s)
            # Those that pay each second are like each other only.
            more_s = np.where((mine_s < 0) == (paired_s < 0), more_s, self._prepaid.most_s)
            pays |= self._prepaid.usd(more_s.sum(axis=1)) <= left_usd
        return pays
