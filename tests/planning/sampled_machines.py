"""The machines of many sampled courses of one plan: when they are ready, and what they are billed. Imports numpy [ours]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.plan import FINE_QUANTUM_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elastune.policies.planning.plan import Terms
    from elastune.sim.model.prices import BillingRule
    from elastune.sim.model.profile import Delay

    Floats = NDArray[np.floating]


class Machines:
    """All machines that are held, in columns of equal ones; every column has a count per sample.

    Attributes:
        held: how many, in every sample.
        started: how many were asked for in all.
        samples: how many courses are followed.
        usd: (samples,) the bill of those given back.
    """

    def __init__(self, terms: Terms, samples: int, rng: np.random.Generator) -> None:
        self.held = 0
        self.started = 0
        self.usd = np.zeros(samples)
        self._terms = terms
        self._rng = rng
        self.samples = samples
        self._billed_from_s = np.empty((samples, 0))
        self._counts = np.empty((samples, 0))
        self._ready_s: Floats = np.empty((samples, 0))

    def ask(self, instances: int, at_s: Floats) -> None:
        """Ask for so many more at these times, (samples,)."""
        startup, rule = self._terms.profile.startup, self._terms.price_book.billing
        phases = (startup.queue, startup.init, startup.setup)
        unbilled = len(startup.unbilled(rule))
        ready_s = billed_from_s = at_s[:, None]
        for number, delay in enumerate(phases, start=1):
            ready_s = ready_s + self._draw_s(delay, instances)
            if number == unbilled:
                billed_from_s = ready_s
        columns = billed_from_s.shape[1]
        self._billed_from_s = np.concatenate((self._billed_from_s, billed_from_s), axis=1)
        each = np.full((self.samples, columns), instances / columns)
        self._counts = np.concatenate((self._counts, each), axis=1)
        booting_s = np.broadcast_to(ready_s, (self.samples, instances))
        self._ready_s = np.sort(np.concatenate((self._ready_s, booting_s), axis=1), axis=1)
        self.held += instances
        self.started += instances

    def _draw_s(self, delay: Delay, instances: int) -> Floats:
        """(samples, machines) waiting times, or (samples, 1) where they are all the same."""
        if delay.cv == 0 or delay.mean_s == 0:
            return np.full((self.samples, 1), delay.mean_s)
        variance = math.log1p(delay.cv**2)
        # Single precision is finer than any number of samples could tell, and twice as fast.
        drawn_s: Floats = self._rng.standard_normal((self.samples, instances), np.float32)
        drawn_s *= np.float32(math.sqrt(variance))
        np.exp(drawn_s, out=drawn_s)
        drawn_s *= np.float32(delay.mean_s * math.exp(-variance / 2))
        return drawn_s

    def offsets_s(self, now_s: Floats) -> tuple[int, Floats]:
        """Machines ready now, and for the others how long they still take.

        Returns:
            How many are ready in every sample; (samples, others) float seconds, soonest first.
        """
        left_s = np.maximum(self._ready_s - now_s[:, None], 0.0)
        is_late = left_s.any(axis=0)
        self._ready_s = self._ready_s[:, is_late]
        late_s: Floats = left_s[:, is_late]
        return self.held - late_s.shape[1], late_s

    def give_back(self, instances: int, now_s: Floats) -> None:
        """Give so many back at these times, (samples,), those that are not ready, then those with the least paid time left.

        Which of several that still boot is kept when a cluster shrinks is not followed.
        """
        self.held -= instances
        self._ready_s = self._ready_s[:, : max(self._ready_s.shape[1] - instances, 0)]
        rule, release_s = self._terms.price_book.billing, self._terms.price_book.release_s
        ages_s = np.maximum(now_s[:, None] - self._billed_from_s, 0.0)
        # What is given back before its bill begins costs nothing.
        is_billed = now_s[:, None] >= self._billed_from_s
        usd = np.where(is_billed, billed_s(rule, ages_s + release_s) * self._terms.usd_per_s, 0.0)
        if self.held == 0:
            self.usd += (self._counts * usd).sum(axis=1)
            self._counts = np.zeros_like(self._counts)
            return
        if self._counts.shape[1] == 1:
            self._counts -= instances
            self.usd += instances * usd[:, 0]
            return
        order = self._order(ages_s, is_billed)
        counts = self._counts if order is None else np.take_along_axis(self._counts, order, axis=1)
        before = np.cumsum(counts, axis=1) - counts
        taken = np.clip(instances - before, 0.0, counts)
        if order is not None:
            inverse = np.argsort(order, axis=1, kind="stable")
            taken = np.take_along_axis(taken, inverse, axis=1)
        self._counts = self._counts - taken
        self.usd += (taken * usd).sum(axis=1)
        kept = self._counts.any(axis=0)
        self._counts, self._billed_from_s = self._counts[:, kept], self._billed_from_s[:, kept]

    def _order(self, ages_s: Floats, is_billed: NDArray[np.bool_]) -> NDArray[np.intp] | None:
        """(samples, columns) which go first; None for the oldest, where that is as cheap or nearly so."""
        rule = self._terms.price_book.billing
        startup = self._terms.profile.startup
        is_spread = any(delay.cv > 0 for delay in startup.unbilled(rule))
        is_linear = rule.granularity_s <= (FINE_QUANTUM_S if is_spread else 0.0)
        if is_linear and bool((ages_s >= rule.minimum_s).all() and is_billed.all()):
            return None
        # Rounded, because the remainders of equally old machines are sums of floats in different orders.
        left_s = np.where(is_billed, np.round(billed_s(rule, ages_s) - ages_s, 6), -1.0)
        return np.argsort(left_s, axis=1, kind="stable")


def billed_s(rule: BillingRule, used_s: Floats) -> Floats:
    """Seconds billed for these seconds of use; see `sim.model.prices.BillingRule.billed_s`."""
    least_s = np.maximum(used_s, rule.minimum_s)
    if rule.granularity_s > 0:
        least_s = np.ceil(least_s / rule.granularity_s - 1e-9) * rule.granularity_s
    return least_s
