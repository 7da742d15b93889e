"""Leases x prices x billing rule -> USD, as a fold over facts. Imports only `sim.model`.

The controller, the reading of a journal and the planners use the same arithmetic. What is metered depends on the model: the
life of each instance (per-instance), or each segment's GPUs (per-function).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.model.prices import SECONDS_PER_HOUR, BillingRule


def metered_usd(rule: BillingRule, usd_per_hour: float, used_s: float) -> float:
    """Price of `used_s` seconds of one metered thing, its minimum and rounding included."""
    return rule.billed_s(used_s) * usd_per_hour / SECONDS_PER_HOUR


@dataclass(slots=True)
class Meter:
    """One thing that is billed by time.

    Attributes:
        started_at_s: when billing began; None while it is only asked for.
        ends_at_s: when billing ends, known since it was given back; None before.
    """

    usd_per_hour: float
    started_at_s: float | None = None
    ends_at_s: float | None = None


class Bill:
    """The bill of one run, kept while it runs.

    `ask`, `start` and `stop` are called in the order of the facts, so that a fold over the journal gives the same floats.
    """

    def __init__(self, rule: BillingRule, release_s: float = 0.0) -> None:
        self._rule = rule
        self._release_s = release_s
        self._live: dict[int, Meter] = {}
        self._closed_usd: list[float] = []
        self._closed_sum_usd = 0.0

    def __contains__(self, key: int) -> bool:
        return key in self._live

    def ask(self, key: int, usd_per_hour: float) -> None:
        """Something is asked for; its minimum charge is committed from now on."""
        self._live[key] = Meter(usd_per_hour)

    def start(self, key: int, at_s: float) -> None:
        """Its billing begins."""
        self._live[key].started_at_s = at_s

    def give_back(self, key: int, at_s: float) -> None:
        """It is given back; it is billed until the release latency is over."""
        self._live[key].ends_at_s = at_s + self._release_s

    def stop(self, key: int, at_s: float) -> None:
        """It is gone; without a start it costs nothing."""
        meter = self._live.pop(key)
        if meter.started_at_s is not None:
            self._closed_usd.append(metered_usd(self._rule, meter.usd_per_hour, at_s - meter.started_at_s))
            # fsum over all of them, not a running sum: the bill must not depend on the order of the closings.
            self._closed_sum_usd = -1.0

    def stop_all(self, at_s: float) -> None:
        """Everything is given back now and gone after the release latency."""
        for key, meter in list(self._live.items()):
            self.stop(key, at_s + self._release_s if meter.ends_at_s is None else meter.ends_at_s)

    def spent_usd(self, now_s: float) -> float:
        """The bill if everything that is billed now were gone now."""
        live = (meter for meter in self._live.values() if meter.started_at_s is not None)
        return math.fsum(
            (
                self._settled_usd(),
                *(metered_usd(self._rule, m.usd_per_hour, now_s - (m.started_at_s or 0.0)) for m in live),
            )
        )

    def committed_usd(self, now_s: float) -> float:
        """The bill if everything were given back now: requests, minimum charges, quanta and release latency included."""
        return self._committed_usd(now_s, asked_start_s=now_s)

    def committed_until_s(self, budget_usd: float, now_s: float) -> float:
        """The last time at which `committed_usd` is within the budget; `now_s` where it already is not."""
        rising = (meter.usd_per_hour for meter in self._live.values() if meter.ends_at_s is None)
        rate_usd_per_s = math.fsum(rising) / SECONDS_PER_HOUR
        left_usd = budget_usd - self.committed_usd(now_s)
        if left_usd < 0:
            return now_s
        if rate_usd_per_s <= 0 or math.isinf(left_usd / rate_usd_per_s):
            return math.inf
        # The bill is a staircase below a line: its steps are at most one quantum (or the minimum) long.
        within_s, beyond_s = (
            now_s,
            now_s + left_usd / rate_usd_per_s + self._rule.granularity_s + self._rule.minimum_s + 1.0,
        )
        # To a microsecond, or as fine as floats are where the budget lasts for ages.
        while beyond_s - within_s > max(1e-6, 1e-12 * beyond_s):
            middle_s = (within_s + beyond_s) / 2
            # What is only asked for may launch this very moment, and be billed from then on.
            if self._committed_usd(middle_s, asked_start_s=now_s) <= budget_usd:
                within_s = middle_s
            else:
                beyond_s = middle_s
        return within_s

    def paid_until_s(self, key: int, now_s: float) -> float:
        """Until when the lease is paid for if it were given back now."""
        started_at_s = self._live[key].started_at_s
        if started_at_s is None:
            return now_s
        return started_at_s + self._rule.billed_s(now_s - started_at_s)

    def _settled_usd(self) -> float:
        if self._closed_sum_usd < 0:
            self._closed_sum_usd = math.fsum(self._closed_usd)
        return self._closed_sum_usd

    def _committed_usd(self, now_s: float, asked_start_s: float) -> float:
        until_s = now_s + self._release_s
        return math.fsum(
            (self._settled_usd(), *(self._meter_usd(m, until_s, asked_start_s) for m in self._live.values()))
        )

    def _meter_usd(self, meter: Meter, until_s: float, asked_start_s: float) -> float:
        started_at_s, ends_at_s = meter.started_at_s, meter.ends_at_s
        if ends_at_s is not None:
            return (
                0.0 if started_at_s is None else metered_usd(self._rule, meter.usd_per_hour, ends_at_s - started_at_s)
            )
        used_s = until_s - (asked_start_s if started_at_s is None else started_at_s)
        return metered_usd(self._rule, meter.usd_per_hour, used_s)
