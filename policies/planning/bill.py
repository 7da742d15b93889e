"""What anything costs: the one place where planners turn machines, time, function calls, data and head node into USD. Pure.

A new part of the cost is written here: in `start_usd` if each new machine pays it, in `held_usd` if each second of a machine
does, in `function_usd` if each segment does, in `around_usd` if the run does. `Leases` follows the machines of a plan singly.
Planners add these up and know no price themselves; `policies.planning.spending` names the parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.plan import FINE_QUANTUM_S, Terms
from elastune.sim.model.billing import metered_usd

if TYPE_CHECKING:
    from elastune.policies.planning.arrays import Floats


def held_usd(terms: Terms, machine_s: float) -> float:
    """Price of so many machine-seconds, without minimum and rounding; nothing where functions are billed."""
    return machine_s * terms.usd_per_s if terms.is_per_instance else 0.0


def start_usd(terms: Terms) -> float:
    """Price of one more machine beside the time for which it is held: billed start-up, release and data."""
    book = terms.price_book
    boot_s = terms.profile.startup.billed_mean_s(book.billing)
    return held_usd(terms, boot_s + book.release_s) + terms.ingress_usd


def function_usd(terms: Terms, gpus: int, seconds: float) -> float:
    """Price of a segment where functions are billed, its minimum and rounding included; nothing where machines are."""
    if terms.is_per_instance:
        return 0.0
    return metered_usd(terms.price_book.billing, terms.usd_per_hour * gpus / terms.gpus_per_instance, seconds)


def around_usd(terms: Terms, started: float, makespan_s: float) -> float:
    """Price of what is paid besides machines and functions: the data of so many machines, head node and storage."""
    return started * terms.ingress_usd + makespan_s * terms.standing_usd_per_s


def cluster_usd(terms: Terms, instances: int, busy_s: float, functions_usd: float) -> float:
    """Bill of a constant cluster that is held until its work is done, minimum and rounding included.

    Args:
        terms: profile and prices.
        instances: machines of the cluster.
        busy_s: seconds from when all of them are there.
        functions_usd: price of the segments, where functions are billed.
    """
    machines_usd = instances * lease_usd(terms, busy_s) if terms.is_per_instance else functions_usd
    return machines_usd + around_usd(terms, instances, terms.profile.startup.mean_s + busy_s)


def lease_usd(terms: Terms, busy_s: float) -> float:
    """Bill of one machine that is given back after so many seconds of use, minimum and rounding included."""
    rule = terms.price_book.billing
    paid_s = terms.profile.startup.billed_mean_s(rule) + terms.price_book.release_s + busy_s
    return metered_usd(rule, terms.usd_per_hour, paid_s)


def least_usd(terms: Terms, machines: int, used_machine_s: float, functions_usd: float, least_s: float) -> float:
    """Below the bill of anything that starts so many machines, uses so many machine-seconds and takes so long."""
    rule = terms.price_book.billing
    beside_usd = around_usd(terms, machines, least_s)
    if not terms.is_per_instance:
        return functions_usd + beside_usd
    boot_s = terms.profile.startup.billed_mean_s(rule)
    billed_s = max(used_machine_s + machines * (boot_s + terms.price_book.release_s), machines * rule.minimum_s)
    return held_usd(terms, billed_s) + beside_usd


@dataclass
class _LeaseGroup:
    """Machines that were asked for together.

    Attributes:
        billed_from_s: when their bill began, or where they were held before, when what is charged here began.
        is_from_before: their minimum has been charged, and their age is not known.
    """

    count: int
    billed_from_s: float
    is_from_before: bool = False


class Leases:
    """The machines of a plan, oldest first.

    Attributes:
        started: machines asked for so far.
    """

    def __init__(self, terms: Terms, live_instances: int) -> None:
        self.started = 0
        self._terms = terms
        self._rule = terms.price_book.billing
        self._groups = [_LeaseGroup(live_instances, 0.0, is_from_before=True)] if live_instances else []
        self._held = live_instances
        self._usd: list[float] = []

    def resize(self, instances: int, now_s: float, ahead_s: float) -> float:
        """Hold this many from `now_s` on, asked for `ahead_s` before; returns the seconds that all must wait."""
        startup = self._terms.profile.startup
        if instances > self._held:
            unbilled_s = sum(delay.mean_s for delay in startup.unbilled(self._rule))
            self._groups.append(_LeaseGroup(instances - self._held, now_s - ahead_s + unbilled_s))
            self.started += instances - self._held
            self._held = instances
            return startup.mean_s - ahead_s
        self._give_back(self._held - instances, now_s)
        return 0.0

    def closed_usd(self, now_s: float) -> float:
        """The bill if all are given back then."""
        return math.fsum((*self._usd, *(group.count * self._lease_usd(group, now_s) for group in self._groups)))

    def _give_back(self, instances: int, now_s: float) -> None:
        self._held -= instances
        # Sorting keeps the order of equals: the oldest first.
        for group in sorted(self._groups, key=lambda group: self._paid_until_s(group, now_s)):
            taken = min(group.count, instances)
            instances -= taken
            group.count -= taken
            self._usd.append(taken * self._lease_usd(group, now_s))
        self._groups = [group for group in self._groups if group.count]

    def _paid_until_s(self, group: _LeaseGroup, now_s: float) -> float:
        if group.is_from_before:
            return now_s
        return group.billed_from_s + self._rule.billed_s(now_s - group.billed_from_s)

    def _lease_usd(self, group: _LeaseGroup, now_s: float) -> float:
        used_s = max(now_s - group.billed_from_s, 0.0) + self._terms.price_book.release_s
        if group.is_from_before:
            return used_s * self._terms.usd_per_s
        return metered_usd(self._rule, self._terms.usd_per_hour, used_s)


class Prepaid:
    """What machines cost by their credit, the seconds for which they are paid already; for many plans at once.

    The same bill as that of `Leases`, but for the rounding to a fine quantum. A machine goes on for nothing while its credit
    lasts, and then pays the next quantum, or each second where quanta are fine. So what it will cost falls with its credit,
    and nothing else of its past matters. The machine with the least credit is given back first, as in `Leases`.

    Arrays of credits are (plans, machines) float, each row rising, `NO_MACHINE` at its left end; machines that were held before
    the plan pay each second, and are marked `AS_USED` where quanta are coarse.

    Attributes:
        quantum_s: of the rounding; 0 where it is fine.
        most_s: the most that is paid ahead for one machine.
        release_s: billed after a machine is given back.
        new_credit_s: credit of a new machine when it can train.
        new_usd: what was paid for it by then, data included.
    """

    NO_MACHINE = -2.0
    AS_USED = -1.0

    def __init__(self, terms: Terms) -> None:
        rule = terms.price_book.billing
        self._terms = terms
        self.release_s = terms.price_book.release_s
        self.quantum_s = rule.granularity_s if rule.granularity_s > FINE_QUANTUM_S else 0.0
        age_s = terms.profile.startup.billed_mean_s(rule)
        paid_s = max(age_s, rule.minimum_s)
        paid_s = rule.billed_s(paid_s) if self.quantum_s else paid_s
        self.new_credit_s = paid_s - age_s
        self.new_usd = held_usd(terms, paid_s) + terms.ingress_usd
        self.most_s = max(self.quantum_s, paid_s)

    @property
    def old_credit_s(self) -> float:
        """Credit, or the mark, of a machine that was held before the plan."""
        return self.AS_USED if self.quantum_s else 0.0

    def used(self, credits_s: Floats, seconds: Floats) -> tuple[Floats, Floats]:
        """Credits after so many seconds, (plans,), and what was paid for them, (plans,) USD."""
        each_s = seconds[:, None]
        is_credit = credits_s >= 0
        more_s = np.where(
            is_credit, self.beyond_s(each_s - credits_s), np.where(credits_s == self.AS_USED, each_s, 0.0)
        )
        left_s = np.where(is_credit, np.maximum(credits_s - each_s + more_s, 0.0), credits_s)
        if self.quantum_s:
            left_s.sort(axis=1)
        return left_s, self.usd(more_s.sum(axis=1))

    def release_usd(self, credits_s: Floats) -> Floats:
        """(plans, machines) USD that giving each back costs."""
        more_s = np.where(credits_s >= 0, self.beyond_s(self.release_s - credits_s), self.release_s)
        return self.usd(np.where(credits_s == self.NO_MACHINE, 0.0, more_s))

    def beyond_s(self, short_s: Floats) -> Floats:
        """Seconds that are billed for so many beyond the credit; none for use within it."""
        beyond_s: Floats = np.maximum(short_s, 0.0)
        # The tolerance is that of `BillingRule.billed_s`.
        return np.ceil(beyond_s / self.quantum_s - 1e-9) * self.quantum_s if self.quantum_s else beyond_s

    def most_beyond_s(self, credits_s: Floats) -> Floats:
        """(plans, machines) the most that rounding can add, above each second from now on."""
        return np.where(credits_s >= 0, np.maximum(self.quantum_s - credits_s, 0.0), 0.0)

    def usd(self, machine_s: Floats) -> Floats:
        """Price of machine-seconds."""
        return machine_s * self._terms.usd_per_s
