"""Leases x prices x billing rule -> USD, as a fold over events. Imports only `sim.model`.

The controller, the reading of a journal and the planners use the same arithmetic. What is metered depends on the model: the
life of each instance (per-instance), or each segment's GPUs (per-function).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from elastune.sim.model.price_series import Price, PriceSeries, highest, last_change_s, price_at
from elastune.sim.model.prices import SECONDS_PER_HOUR, BillingRule, PriceBook

_SAME = 1e-9
"""Quanta that begin this share of a quantum before a change of price are charged the new one: floats do not meet exactly."""


def metered_usd(rule: BillingRule, usd_per_hour: float, used_s: float) -> float:
    """Price of `used_s` seconds of one metered thing, its minimum and rounding included."""
    return rule.billed_s(used_s) * usd_per_hour / SECONDS_PER_HOUR


def lease_usd(rule: BillingRule, price: Price, started_at_s: float, ended_at_s: float) -> float:
    """Bill of one metered thing.

    Under a price series each quantum is charged at the price that holds when it begins; without granularity the series is
    integrated. The minimum charge counts as use that continues after the end.
    """
    if not isinstance(price, PriceSeries):
        return metered_usd(rule, price, ended_at_s - started_at_s)
    end_s = started_at_s + rule.billed_s(ended_at_s - started_at_s)
    quantum_s = rule.granularity_s
    if quantum_s == 0:
        return use_usd(price, started_at_s, end_s)

    def quanta_before(at_s: float) -> int:
        return math.ceil((at_s - started_at_s) / quantum_s - _SAME)

    usd = 0.0
    for start_s, until_s, usd_per_hour in price.pieces(started_at_s):
        if start_s >= end_s:
            break
        begun = quanta_before(min(until_s, end_s)) - quanta_before(max(start_s, started_at_s))
        usd += begun * quantum_s * usd_per_hour
    return usd / SECONDS_PER_HOUR


def use_usd(price: Price, from_s: float, until_s: float) -> float:
    """Price of exactly this interval, without minimum and rounding."""
    if not isinstance(price, PriceSeries):
        return (until_s - from_s) * price / SECONDS_PER_HOUR
    usd = 0.0
    for start_s, end_s, usd_per_hour in price.pieces(from_s):
        if start_s >= until_s:
            break
        usd += (min(end_s, until_s) - max(start_s, from_s)) * usd_per_hour
    return usd / SECONDS_PER_HOUR


@dataclass(slots=True)
class Meter:
    """One thing that is billed by time.

    Attributes:
        started_at_s: when billing began; None while it is only requested.
        ends_at_s: when billing ends; None until it is given back.
    """

    price: Price
    started_at_s: float | None = None
    ends_at_s: float | None = None


class ExactSum:
    """A sum that is told its terms one by one, and rounds only its total, as `math.fsum` does: their order does not matter.

    It keeps floats of which no two overlap, few whatever the number of terms (Shewchuk, 1997).
    """

    def __init__(self) -> None:
        self._parts: list[float] = []

    def add(self, term: float) -> None:
        """One term more."""
        kept = 0
        for part in self._parts:
            larger, smaller = (term, part) if abs(term) >= abs(part) else (part, term)
            term = larger + smaller
            lost = smaller - (term - larger)
            if lost:
                self._parts[kept] = lost
                kept += 1
        self._parts[kept:] = [term]

    def total(self) -> float:
        """The sum of all terms, rounded once."""
        return math.fsum(self._parts)


class Bill:
    """The bill of one run, kept while it runs.

    Call `requested` to `gone` for machines, and `ask`, `start` and `stop` for segments under per-function billing, in the order
    in which things happened. A fold over the journal then gives the same floats.
    """

    def __init__(
        self,
        rule: BillingRule,
        release_s: float = 0.0,
        *,
        ingress_usd: float = 0.0,
        standing_usd_per_hour: float = 0.0,
        priced_until_s: float = math.inf,
    ) -> None:
        self._rule = rule
        self._priced_until_s = priced_until_s
        self._bills_instances = rule.model == "per-instance"
        self._release_s = release_s
        self._ingress_usd = ingress_usd
        self._standing_usd_per_s = standing_usd_per_hour / SECONDS_PER_HOUR
        self._live: dict[int, Meter] = {}
        # What has no end yet, by price and beginning: machines that came together cost the same, and there may be thousands.
        self._rising: Counter[tuple[Price, float | None]] = Counter()
        self._ending: set[int] = set()
        self._queued: set[int] = set()
        self._launches = 0
        self._closed_usd = ExactSum()

    @classmethod
    def of(cls, book: PriceBook, deadline_s: float | None = None) -> Bill:
        """An empty bill under these terms; a function call has no machine to release.

        Args:
            book: the terms.
            deadline_s: when all machines are given back at the latest; None for never.
        """
        release_s = book.release_s if book.billing.model == "per-instance" else 0.0
        paid_until_s = book.paid_until_s(deadline_s)
        return cls(
            book.billing,
            release_s,
            ingress_usd=book.ingress_usd,
            standing_usd_per_hour=book.standing_usd_per_hour,
            priced_until_s=math.inf if paid_until_s is None else paid_until_s,
        )

    def __contains__(self, key: int) -> bool:
        return key in self._live

    # Events about machines.

    def requested(self, instance: int, price: Price, at_s: float) -> None:
        """A machine is requested; its minimum cost is committed from now on."""
        self._queued.add(instance)
        if self._bills_instances:
            self.ask(instance, price)
            if self._rule.bills_queue:
                self.start(instance, at_s)

    def launched(self, instance: int, at_s: float) -> None:
        """The machine boots and loads its data."""
        self._queued.discard(instance)
        self._launches += 1
        if self._rule.bills_startup:
            self._begin(instance, at_s)

    def booted(self, instance: int, at_s: float) -> None:
        """The machine is being set up."""
        if self._rule.is_setup_billed:
            self._begin(instance, at_s)

    def ready(self, instance: int, at_s: float) -> None:
        """The machine can train."""
        self._begin(instance, at_s)

    def released(self, instance: int, at_s: float) -> None:
        """The machine is given back."""
        if self._bills_instances:
            self.give_back(instance, at_s)

    def refused(self, instance: int) -> None:
        """The request is void and nothing is billed, even where queueing has a price."""
        self._queued.discard(instance)
        if self._bills_instances:
            self._taken(instance)

    def gone(self, instance: int, at_s: float, *, is_reclaimed: bool = False) -> None:
        """The lease is over. It is free, except for its data, where the provider took the machine back early enough."""
        self._queued.discard(instance)
        if self._bills_instances:
            started_at_s = self._live[instance].started_at_s
            within_s = self._rule.free_if_reclaimed_within_s
            if is_reclaimed and started_at_s is not None and at_s - started_at_s < within_s:
                self._taken(instance)
            else:
                self.stop(instance, at_s)

    def _begin(self, instance: int, at_s: float) -> None:
        if self._bills_instances and self._live[instance].started_at_s is None:
            self.start(instance, at_s)

    # Anything that is metered: a machine or a segment.

    def ask(self, key: int, price: Price) -> None:
        """Request it; its minimum charge is committed from now on."""
        self._live[key] = Meter(price)
        self._rising[price, None] += 1

    def start(self, key: int, at_s: float) -> None:
        """Begin to bill it."""
        meter = self._live[key]
        if meter.ends_at_s is None:
            self._falls(meter)
            self._rising[meter.price, at_s] += 1
        meter.started_at_s = at_s

    def give_back(self, key: int, at_s: float) -> None:
        """Give it back; it is billed until the release latency is over."""
        meter = self._live[key]
        if meter.ends_at_s is None:
            self._falls(meter)
            self._ending.add(key)
        meter.ends_at_s = at_s + self._release_s

    def stop(self, key: int, at_s: float) -> None:
        """Close its lease; it costs nothing if its billing never began."""
        meter = self._taken(key)
        if meter.started_at_s is not None:
            self._closed_usd.add(lease_usd(self._rule, meter.price, meter.started_at_s, at_s))

    def _taken(self, key: int) -> Meter:
        """The meter, which is live no more."""
        meter = self._live.pop(key)
        if meter.ends_at_s is None:
            self._falls(meter)
        self._ending.discard(key)
        return meter

    def _falls(self, meter: Meter) -> None:
        """It is no longer one of those that have no end."""
        key = (meter.price, meter.started_at_s)
        self._rising[key] -= 1
        if not self._rising[key]:
            del self._rising[key]

    def stop_all(self, at_s: float) -> None:
        """Give back everything now; leases close after the release latency."""
        self._queued.clear()
        for key, meter in list(self._live.items()):
            self.stop(key, at_s + self._release_s if meter.ends_at_s is None else meter.ends_at_s)

    # Sums.

    def spent_usd(self, now_s: float) -> float:
        """The bill if every lease closed now."""
        live = ((m.price, m.started_at_s) for m in self._live.values() if m.started_at_s is not None)
        return math.fsum(
            (
                self._closed_usd.total(),
                self._launches * self._ingress_usd,
                now_s * self._standing_usd_per_s,
                *(lease_usd(self._rule, price, started_at_s, now_s) for price, started_at_s in live),
            )
        )

    def committed_usd(self, now_s: float) -> float:
        """The bill if everything were given back now.

        It includes requests, minimum charges, quanta, release latency and the data that requested machines will load. A
        requested instance reserves budget at the highest price until the deadline, because its launch time is unknown.
        """
        return self._commitment(now_s)(now_s)

    def committed_usd_by(self, later_s: float, now_s: float, added_usd_per_hour: float = 0.0) -> float:
        """`committed_usd` at a later time if nothing ends before, and so much more is billed from now on."""
        return self._commitment(now_s, added_usd_per_hour)(later_s)

    def committed_until_s(
        self,
        budget_usd: float,
        now_s: float,
        added_usd_per_hour: float = 0.0,
        latest_s: float = math.inf,
        rounding_usd: float = 0.0,
    ) -> float:
        """Latest time at which `committed_usd` is within the budget; `now_s` where it already is above it.

        Args:
            budget_usd: the budget.
            now_s: the time.
            added_usd_per_hour: price of what is about to be requested or started, and is billed from now on.
            latest_s: later times do not matter and are this one, which saves the search where the budget lasts until then.
            rounding_usd: how far the bill may be above the budget because floats are rounded.
        """
        # A requested machine may launch at this moment, and is billed from then on.
        usd_at = self._commitment(now_s, added_usd_per_hour)
        left_usd = budget_usd - usd_at(now_s)
        if left_usd < -rounding_usd:
            return now_s
        most_usd = budget_usd + rounding_usd
        if latest_s < math.inf and usd_at(max(latest_s, now_s)) <= most_usd:
            return max(latest_s, now_s)
        beyond_s = self._beyond_s(left_usd, now_s, added_usd_per_hour, usd_at)
        if math.isinf(beyond_s):
            return math.inf
        within_s = now_s
        # To a microsecond, or to the resolution of floats where the budget lasts very long.
        while beyond_s - within_s > max(1e-6, 1e-12 * beyond_s):
            middle_s = (within_s + beyond_s) / 2
            if usd_at(middle_s) <= most_usd:
                within_s = middle_s
            else:
                beyond_s = middle_s
        return within_s

    def paid_until_s(self, key: int, now_s: float) -> float:
        """Until when the lease would be paid if it were given back now."""
        started_at_s = self._live[key].started_at_s
        if started_at_s is None:
            return now_s
        return started_at_s + self._rule.billed_s(now_s - started_at_s)

    def _beyond_s(
        self, left_usd: float, now_s: float, added_usd_per_hour: float, usd_at: Callable[[float], float]
    ) -> float:
        """A time by which at least `left_usd` more is committed; infinite where that never happens."""
        settled_s = max((now_s, *(last_change_s(price) for price, _ in self._rising)))
        rates = chain.from_iterable([price_at(price, settled_s)] * count for (price, _), count in self._rising.items())
        rate_usd_per_s = (math.fsum(rates) + added_usd_per_hour) / SECONDS_PER_HOUR + self._standing_usd_per_s
        if rate_usd_per_s <= 0 or math.isinf(left_usd / rate_usd_per_s):
            # The bill does not rise for ever, but it may still rise before the last change of a price.
            last_s = settled_s + self._rule.granularity_s
            return last_s if usd_at(last_s) - usd_at(now_s) > left_usd else math.inf
        # The bill is a staircase below a line: its steps are at most one quantum (or the minimum) long.
        return settled_s + left_usd / rate_usd_per_s + self._rule.granularity_s + self._rule.minimum_s + 1.0

    def _commitment(self, asked_at_s: float, added_usd_per_hour: float = 0.0) -> Callable[[float], float]:
        """`committed_usd` as a function of time while nothing happens; requested machines count as launched at `asked_at_s`."""
        fixed_usd = [self._closed_usd.total(), (self._launches + len(self._queued)) * self._ingress_usd]
        rising: Counter[tuple[Price, float]] = Counter()
        if added_usd_per_hour:
            rising[added_usd_per_hour, asked_at_s] = 1
        for (price, started_at_s), count in self._rising.items():
            if started_at_s is None:
                rising[highest(price, asked_at_s, self._priced_until_s), asked_at_s] += count
            else:
                rising[price, started_at_s] += count
        ending = (self._live[key] for key in self._ending)
        fixed_usd.extend(
            lease_usd(self._rule, meter.price, meter.started_at_s, meter.ends_at_s)
            for meter in ending
            if meter.started_at_s is not None and meter.ends_at_s is not None
        )

        def usd_at(now_s: float) -> float:
            until_s = now_s + self._release_s
            # Machines that came together cost the same. fsum takes each of them, because a product is rounded differently.
            charged = [[lease_usd(self._rule, price, at_s, until_s)] * count for (price, at_s), count in rising.items()]
            return math.fsum((*fixed_usd, now_s * self._standing_usd_per_s, *chain.from_iterable(charged)))

        return usd_at
