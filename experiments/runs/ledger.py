"""Where a run's dollars and GPU-seconds went, as a fold over its journal. Imports `sim`, and the tag of the policies' limits.

Each part is computed from events and orders of its own, none as what is left over: that the dollars add up to the bill, and the
GPU-seconds to those between launch and end of all machines, is a check of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elastune.policies.execution.limits import HARD_STOP
from elastune.sim.model.actions import FinishRun
from elastune.sim.model.billing import lease_usd, use_usd
from elastune.sim.model.commands import ProvisionInstance, ReleaseInstance, StartSegment, StartTimer
from elastune.sim.model.events import (
    GoneCause,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    SegmentEnded,
    TimerFired,
)
from elastune.sim.model.price_series import PriceSeries, combined
from elastune.sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.control.journal import Entry
    from elastune.sim.model.commands import Command
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import InstanceId, SegmentId
    from elastune.sim.model.price_series import Price
    from elastune.sim.model.prices import PriceBook

PARTS = (
    "training",
    "rescale",
    "launch",
    "checkpoint",
    "startup",
    "idle_at_barriers",
    "idle",
    "redone",
    "data",
    "head_node",
    "rounding",
)
"""What a bill is split into.

- training: iterations, those that were cut short by the end of the run included.
- rescale, launch: starting the workers of a trial that goes on from a checkpoint, and of a new one.
- checkpoint: writing checkpoints.
- startup: machines that cannot train yet; in dollars as far as that is billed, in GPU-seconds from their launch on.
- idle_at_barriers: GPUs that a gang has given back and none has taken since, while other gangs run or a timer of the policy
  is to fire (any but that of its limits): they wait for the others of their stage, and for the barrier. A machine that the
  controller has given back does not wait. Of the idle GPUs of a machine, those that waited are taken first.
- idle: all other GPUs of ready machines that no gang holds: not used yet, too few for a gang, waiting for machines that
  boot, the release latency. The latency after the end of the run costs dollars and counts no GPU-seconds.
- redone: training of which nothing was durable when its segment broke before the end of the run: iterations after its last
  checkpoint, and the one under way.
- data: ingress of each machine that was launched, and storage for the time of the run.
- head_node: its rent for the time of the run.
- rounding: what granularity and minimum charge add to the price of the seconds used. Under a price series a quantum is charged
  at the price when it begins, which may be less than its seconds' price: then this part may be below zero.

A machine that was reclaimed early enough to be free costs nothing: none of its dollars appear, but its GPU-seconds do. Where
functions are billed, only what gangs do and rounding cost dollars; GPU-seconds are the machines' all the same.
"""


@dataclass(slots=True)
class _Lease:
    """One machine.

    Attributes:
        gpu_usd_per_s: price of one of its GPUs where it does not change.
        launched_at_s: NaN before.
        billed_from_s: when its bill began; NaN before.
        ready_at_s: when it could train; NaN before.
        ends_at_s: when it is gone, known since it was given back; infinite before.
        held_gpus: GPUs that gangs hold.
        waiting_gpus: GPUs that a gang has given back and none has taken since.
        settled_at_s: until when idle GPUs are counted.
        usd: dollars by part, not yet in the ledger's own, as they may turn out to be free.
        is_closed: its bill is settled, and nothing about it is counted any more.
    """

    gpus: int
    price: Price
    gpu_usd_per_s: float | None
    launched_at_s: float = math.nan
    billed_from_s: float = math.nan
    ready_at_s: float = math.nan
    ends_at_s: float = math.inf
    held_gpus: int = 0
    waiting_gpus: int = 0
    settled_at_s: float = 0.0
    is_closed: bool = False
    usd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def use_usd(self, gpus: int, from_s: float, until_s: float) -> float:
        """Price of so many of its GPUs for this time."""
        if self.gpu_usd_per_s is not None:
            return gpus * (until_s - from_s) * self.gpu_usd_per_s
        return gpus / self.gpus * use_usd(self.price, from_s, until_s)


@dataclass(slots=True)
class _Gang:
    order: StartSegment
    placed: Sequence[tuple[_Lease, int]]
    started_at_s: float


@dataclass
class Ledger:
    """Takes a run's entries in order; a sink for `sim.control.controller.Controller`, and for journals that are read back."""

    price_book: PriceBook
    _usd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _gpu_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _leases: dict[InstanceId, _Lease] = field(default_factory=dict)
    _gangs: dict[SegmentId, _Gang] = field(default_factory=dict)
    _timers: set[str] = field(default_factory=set)
    _is_at_barrier: bool = False
    _finished_at_s: float = math.inf

    def __post_init__(self) -> None:
        self._bills_instances = self.price_book.billing.model == "per-instance"

    def usd(self) -> dict[str, float]:
        """Dollars by part, in the order of `PARTS`; complete when the run has ended."""
        return dict(self._usd)

    def gpu_s(self) -> dict[str, float]:
        """GPU-seconds by part, in the order of `PARTS`; complete when the run has ended. Bought time is not held time."""
        return dict(self._gpu_s)

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended."""
        return self._finished_at_s < math.inf

    def write(self, entry: Entry) -> None:
        """Take one entry."""
        event = entry.event
        if entry.status == "stale":
            return
        # Nearly all entries of a long run are these, so they come first.
        if isinstance(event, SegmentEnded):
            self._end(event)
        elif entry.status == "handled":
            self._take(event)
        for command in entry.commands:
            if type(command) is StartSegment:
                self._start(command, event.at_s)
            else:
                self._order(command, event.at_s)
        for action in entry.actions:
            if isinstance(action, FinishRun):
                self._finish(event.at_s)
        if (bool(self._gangs) or bool(self._timers)) != self._is_at_barrier:
            self._turn(event.at_s)

    def _order(self, command: Command, at_s: float) -> None:
        if isinstance(command, ProvisionInstance):
            self._provision(command, at_s)
        elif isinstance(command, ReleaseInstance):
            self._give_back(self._leases[command.instance], at_s)
        elif isinstance(command, StartTimer) and command.tag != HARD_STOP:
            self._timers.add(command.tag)

    # Gangs.

    def _start(self, order: StartSegment, at_s: float) -> None:
        placed = [(self._leases[number], count) for number, count in order.placement]
        for lease, count in placed:
            self._settle(lease, at_s)
            lease.held_gpus += count
            lease.waiting_gpus -= min(count, lease.waiting_gpus)
        self._gangs[order.segment] = _Gang(order, placed, at_s)

    def _end(self, event: SegmentEnded) -> None:
        gang = self._gangs.pop(event.segment)
        gpu_s, usd = self._gpu_s, self._usd
        for part, from_s, until_s in self._spent(gang, event):
            for lease, count in gang.placed:
                spent_gpu_s = count * (until_s - from_s)
                gpu_s[part] += spent_gpu_s
                rate = lease.gpu_usd_per_s
                spent_usd = lease.use_usd(count, from_s, until_s) if rate is None else spent_gpu_s * rate
                if self._bills_instances:
                    lease.usd[part] += spent_usd
                else:
                    usd[part] += spent_usd
        if self._finished_at_s < math.inf:
            return
        self._free(gang, event.at_s)

    def _spent(self, gang: _Gang, event: SegmentEnded) -> list[tuple[str, float, float]]:
        """(part, from, until) of a segment, in order; checkpoints within it count as if they were written at its end."""
        order, train_s, finished_at_s = gang.order, event.train_s, self._finished_at_s
        # What the end of the run cuts short is done by nobody again.
        kept_s = train_s - event.lost_s if finished_at_s == math.inf else train_s
        from_s = gang.started_at_s
        spent = []
        for part, seconds in (
            ("launch" if order.restore_from is None else "rescale", event.launch_s),
            ("training", kept_s),
            ("redone", train_s - kept_s),
            ("checkpoint", event.checkpoint_s),
        ):
            if seconds > 0:
                # What a worker did after the run had ended is not paid for any more.
                until_s = from_s + seconds
                until_s = until_s if until_s < finished_at_s else finished_at_s  # noqa: FURB136  min() costs a call
                if until_s > from_s:
                    spent.append((part, from_s, until_s))
                    from_s = until_s
        return spent

    def _free(self, gang: _Gang, at_s: float) -> None:
        """Its GPUs come back."""
        for lease, count in gang.placed:
            self._settle(lease, at_s)
            lease.held_gpus -= count
            lease.waiting_gpus += count
        if not self._bills_instances:
            price = combined((lease.price, count / lease.gpus) for lease, count in gang.placed)
            self._round(self._usd, price, gang.started_at_s, at_s)

    # Machines.

    def _provision(self, order: ProvisionInstance, at_s: float) -> None:
        book = self.price_book
        price = book.price(order.instance_type, order.market)
        gpus = book.type_named(order.instance_type).gpus_per_instance
        gpu_usd_per_s = None if isinstance(price, PriceSeries) else price / gpus / SECONDS_PER_HOUR
        lease = _Lease(gpus, price, gpu_usd_per_s)
        if book.billing.bills_queue:
            lease.billed_from_s = at_s
        self._leases[order.instance] = lease

    def _take(self, event: Event) -> None:
        rule = self.price_book.billing
        match event:
            case InstanceLaunched(at_s, instance):
                lease = self._leases[instance]
                lease.launched_at_s = at_s
                self._usd["data"] += self.price_book.ingress_usd
                if rule.bills_startup:
                    self._bill_from(lease, at_s)
            case InstanceBooted(at_s, instance) if rule.is_setup_billed:
                self._bill_from(self._leases[instance], at_s)
            case InstanceReady(at_s, instance):
                lease = self._leases[instance]
                lease.ready_at_s = lease.settled_at_s = at_s
                self._bill_from(lease, at_s)
            case InstanceRefused():
                del self._leases[event.instance]
            case InstanceGone():
                lease = self._leases.pop(event.instance)
                used_s = event.at_s - lease.billed_from_s
                is_free = event.cause is GoneCause.RECLAIMED and used_s < rule.free_if_reclaimed_within_s
                self._close(lease, event.at_s, event.at_s, is_free=is_free)
            case TimerFired(tag=tag):
                self._timers.discard(tag)
            case _:
                pass

    @staticmethod
    def _bill_from(lease: _Lease, at_s: float) -> None:
        if math.isnan(lease.billed_from_s):
            lease.billed_from_s = at_s

    def _give_back(self, lease: _Lease, at_s: float) -> None:
        self._settle(lease, at_s)
        lease.waiting_gpus = 0
        lease.ends_at_s = at_s + self.price_book.release_s

    def _settle(self, lease: _Lease, at_s: float) -> None:
        """Count the idle GPUs of a ready machine up to now."""
        if lease.is_closed or math.isnan(lease.ready_at_s):
            return
        from_s, lease.settled_at_s = lease.settled_at_s, at_s
        idle_gpus = lease.gpus - lease.held_gpus
        if at_s <= from_s or not idle_gpus:
            return
        waiting_gpus = lease.waiting_gpus if self._is_at_barrier else 0
        for part, gpus in (("idle_at_barriers", waiting_gpus), ("idle", idle_gpus - waiting_gpus)):
            self._gpu_s[part] += gpus * (at_s - from_s)
            if self._bills_instances:
                lease.usd[part] += lease.use_usd(gpus, from_s, at_s)

    def _turn(self, at_s: float) -> None:
        """From now on GPUs wait for a barrier, or do no longer."""
        for lease in self._leases.values():
            if lease.waiting_gpus:
                self._settle(lease, at_s)
        self._is_at_barrier = not self._is_at_barrier

    def _close(self, lease: _Lease, at_s: float, ends_at_s: float, *, is_free: bool = False) -> None:
        """Settle a machine's bill.

        Args:
            lease: the machine.
            at_s: until when its GPUs count.
            ends_at_s: until when it is billed.
            is_free: whether its provider asks nothing for it.
        """
        self._settle(lease, at_s)
        lease.is_closed = True
        up_at_s = at_s if math.isnan(lease.ready_at_s) else lease.ready_at_s
        if not math.isnan(lease.launched_at_s):
            self._gpu_s["startup"] += lease.gpus * (up_at_s - lease.launched_at_s)
        if self._bills_instances and not math.isnan(lease.billed_from_s):
            lease.usd["startup"] += lease.use_usd(lease.gpus, lease.billed_from_s, up_at_s)
            lease.usd["idle"] += lease.use_usd(lease.gpus, at_s, ends_at_s)
            self._round(lease.usd, lease.price, lease.billed_from_s, ends_at_s)
        if not is_free:
            for part, usd in lease.usd.items():
                self._usd[part] += usd
        # Gangs that were cut by the end of the run tell only later what they did, and it is settled at once.
        lease.usd = self._usd

    def _round(self, usd: dict[str, float], price: Price, from_s: float, until_s: float) -> None:
        usd["rounding"] += lease_usd(self.price_book.billing, price, from_s, until_s) - use_usd(price, from_s, until_s)

    def _finish(self, at_s: float) -> None:
        """Every lease is given back now; gangs are cut, and tell how far they came in facts that are yet to be drained."""
        book = self.price_book
        for gang in self._gangs.values():
            self._free(gang, at_s)
        for lease in self._leases.values():
            self._close(lease, min(at_s, lease.ends_at_s), min(lease.ends_at_s, at_s + book.release_s))
        self._leases.clear()
        self._finished_at_s = at_s
        self._usd["data"] += book.storage_usd_per_hour * at_s / SECONDS_PER_HOUR
        self._usd["head_node"] += book.head_node_usd_per_hour * at_s / SECONDS_PER_HOUR
