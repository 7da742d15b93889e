"""Which machines are requested: of which type and market, and of which instead if the provider has none [ours].

Imports only `sim.model`. A job has one pool to begin with; others come in by `cloud.fail_over` and by `cloud.market: mixed`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from elastune.sim.model.actions import ScaleTo
from elastune.sim.model.prices import MIXED, ON_DEMAND, SPOT, Pool, PriceBook
from elastune.sim.model.protocols import InstanceStatus, InstanceView, RunView


class Pools:
    """How many machines of each pool are wanted.

    New machines are requested in the first pool each time, because capacity may have come back. Refused ones are replaced from
    the next pool of the book's list, as many as cost no more, at least one if none is held. If fewer machines are wanted, the
    dearest go first.

    In a mixed market, rules with stages train the last `on_demand_rungs` stages on demand and the earlier ones on spot. Rules
    without stages always hold one machine on demand, so that something goes on when all others are taken back.

    Attributes:
        market: of the machines that are requested first.
        instances: machines that are wanted in all.
    """

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._is_one = book.market != MIXED and not book.fail_over
        self._wanted: dict[Pool, int] = {}
        self._refused_usd_per_hour = 0.0
        self._has_base = False
        self.market = book.pool()[1]
        self.instances = 0

    def choose(self, rungs_left: int | None) -> None:
        """From now on, request machines of the market that the book gives a stage; forget earlier refusals.

        Args:
            rungs_left: number of stages left, this one included; None for a rule without stages.
        """
        self.market = self.market_of(rungs_left)
        self._has_base = rungs_left is None and self._book.market == MIXED
        self._refused_usd_per_hour = 0.0

    def market_of(self, rungs_left: int | None) -> str:
        """The market that the book gives a stage; see `choose`."""
        book = self._book
        if book.market != MIXED or rungs_left is None:
            return self.market
        return ON_DEMAND if rungs_left <= book.on_demand_rungs else SPOT

    def held(self, view: RunView) -> int:
        """Machines that count as held: live ones of the pools in use."""
        if self._is_one:
            return live_instances(view)
        live = self._live(view)
        return sum(live[pool] for pool in {*self._order, *self._base(1)})

    def hold(self, view: RunView, instances: int) -> Sequence[ScaleTo]:
        """The actions that hold so many machines in all; machines of a market that is no longer in use are given back."""
        self.instances = instances
        if self._is_one:
            return (ScaleTo(instances),)
        live, base = self._live(view), self._base(instances)
        wanted = {pool: max(live[pool], base.get(pool, 0)) for pool in (*self._order, *base)}
        more = instances - sum(wanted.values())
        if more > 0:
            wanted[self._order[0]] += more
        for pool in sorted(wanted, key=lambda pool: -self._book.usd_per_hour(*pool)):
            fewer = min(wanted[pool] - base.get(pool, 0), max(-more, 0))
            wanted[pool] -= fewer
            more += fewer
        return self._action_for(wanted)

    def fail_over(self, view: RunView, most: int | None) -> tuple[int, Sequence[ScaleTo]]:
        """How many machines the next pool is asked for instead of refused ones, and the actions that do it.

        Args:
            view: the run, which has taken the refusal in.
            most: machines that can be paid for; None without a budget: then as many are requested as were refused.
        """
        if self._is_one:
            return 0, ()
        live, wanted = self._live(view), dict(self._wanted)
        for pool, following in pairwise(self._order):
            missing = wanted.get(pool, 0) - live[pool]
            if missing > 0:
                count = missing if most is None else min(self._as_dear(missing, pool, following, live), most)
                wanted[pool] = live[pool]
                wanted[following] = wanted.get(following, 0) + count
                return count, self._action_for(wanted)
        return 0, ()

    def _as_dear(self, missing: int, pool: Pool, following: Pool, live: Counter[Pool]) -> int:
        """Machines of the following pool for the money of those refused since the last request."""
        each_usd_per_hour = self._book.usd_per_hour(*following)
        self._refused_usd_per_hour += missing * self._book.usd_per_hour(*pool)
        if each_usd_per_hour == 0:
            return missing
        count = min(math.floor(self._refused_usd_per_hour / each_usd_per_hour + 1e-9), missing)
        self._refused_usd_per_hour -= count * each_usd_per_hour
        return count if count or live.total() else 1

    @property
    def has_left_spot(self) -> bool:
        """Whether the market is mixed and the stages on demand have begun."""
        return self._book.market == MIXED and self.market == ON_DEMAND

    @property
    def _order(self) -> list[Pool]:
        first = (self._book.default_type.name, self.market)
        return list(dict.fromkeys((first, *self._book.fail_over)))

    def _base(self, instances: int) -> dict[Pool, int]:
        """Machines that are held on demand in any case."""
        return {(self._book.default_type.name, ON_DEMAND): min(instances, 1)} if self._has_base else {}

    def _live(self, view: RunView) -> Counter[Pool]:
        return Counter((instance.instance_type, instance.market) for instance in live(view))

    def _action_for(self, wanted: dict[Pool, int]) -> Sequence[ScaleTo]:
        """Falling targets come first, so that the quota holds at every moment."""
        before = self._wanted
        self._wanted = {**dict.fromkeys(before, 0), **wanted}
        self.instances = sum(wanted.values())
        changed = [pool for pool, count in self._wanted.items() if count != before.get(pool, 0)]
        changed.sort(key=lambda pool: self._wanted[pool] - before.get(pool, 0))
        return tuple(ScaleTo(self._wanted[pool], *pool) for pool in changed)


def live(view: RunView) -> Iterable[InstanceView]:
    """Machines that are held or requested, without those that are leaving."""
    return (
        instance
        for instance in view.instances.values()
        if instance.status is not InstanceStatus.RELEASING and instance.gone_at_s == math.inf
    )


def live_instances(view: RunView) -> int:
    """How many machines are held or requested, without those that are leaving."""
    return sum(1 for _ in live(view))
