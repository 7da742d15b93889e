"""Where a run's dollars went, as a fold over its journal. Imports sim.journal, sim.model and sim.billing.

Each part is computed from facts of its own, none as what is left over: that their sum is the bill is a check of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.model.actions import FinishRun
from sim.model.commands import ProvisionInstance, StartSegment
from sim.model.events import InstanceGone, InstanceLaunched, InstanceReady, InstanceRefused, SegmentEnded
from sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from sim.journal import Entry
    from sim.model.events import Event
    from sim.model.ids import InstanceId, Placement, SegmentId
    from sim.model.prices import PriceBook

PARTS = ("training", "launch", "checkpoint", "startup", "idle", "rounding")
"""training: iterations, cut ones included; launch: starting and restoring workers; checkpoint: writing checkpoints; startup:
booting machines, where that is billed; idle: ready machines' GPUs that no trial held, release latency included; rounding:
what granularity and minimum charge add to the seconds of use."""


@dataclass(slots=True)
class _Lease:
    """One machine.

    Attributes:
        gpu_usd_per_s: price of one of its GPUs.
        billed_from_s: when its bill began; NaN before.
        ready_at_s: when it could train; NaN before.
        held_gpus: GPUs that gangs hold.
        settled_at_s: until when idle GPUs are counted.
    """

    gpus: int
    gpu_usd_per_s: float
    billed_from_s: float = math.nan
    ready_at_s: float = math.nan
    held_gpus: int = 0
    settled_at_s: float = 0.0


@dataclass(slots=True)
class _Gang:
    placement: Placement
    usd_per_s: float
    started_at_s: float


@dataclass
class Ledger:
    """Takes a run's entries in order; a sink for `sim.controller.Controller`, and for journals that are read back."""

    price_book: PriceBook
    _usd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _leases: dict[InstanceId, _Lease] = field(default_factory=dict)
    _gangs: dict[SegmentId, _Gang] = field(default_factory=dict)
    _is_finished: bool = False

    def usd(self) -> dict[str, float]:
        """Dollars by part, in the order of `PARTS`; complete when the run has ended."""
        return dict(self._usd)

    def __post_init__(self) -> None:
        self._bills_instances = self.price_book.billing.model == "per-instance"

    def write(self, entry: Entry) -> None:
        """Take one entry."""
        event = entry.event
        if entry.status == "stale":
            return
        # Nearly all entries of a long run are these, so they come first.
        if isinstance(event, SegmentEnded):
            self._end(event)
        elif not self._is_finished:
            self._take(event)
        for command in entry.commands:
            if isinstance(command, StartSegment):
                self._start(command, event.at_s)
            elif isinstance(command, ProvisionInstance):
                self._provision(command)
        for action in entry.actions:
            if isinstance(action, FinishRun):
                self._finish(event.at_s)

    def _provision(self, order: ProvisionInstance) -> None:
        price = self.price_book.usd_per_hour(order.instance_type, order.market)
        gpus = self.price_book.type_named(order.instance_type).gpus_per_instance
        self._leases[order.instance] = _Lease(gpus, price / gpus / SECONDS_PER_HOUR)

    def _take(self, event: Event) -> None:
        if isinstance(event, InstanceLaunched):
            if self.price_book.billing.bills_startup:
                self._leases[event.instance].billed_from_s = event.at_s
        elif isinstance(event, InstanceReady):
            lease = self._leases[event.instance]
            lease.ready_at_s = lease.settled_at_s = event.at_s
            if not self.price_book.billing.bills_startup:
                lease.billed_from_s = event.at_s
        elif isinstance(event, InstanceGone | InstanceRefused):
            self._close(self._leases.pop(event.instance), event.at_s)

    # Gangs.

    def _start(self, order: StartSegment, at_s: float) -> None:
        usd_per_s = sum(count * self._leases[number].gpu_usd_per_s for number, count in order.placement)
        self._gangs[order.segment] = _Gang(order.placement, usd_per_s, at_s)
        self._hold(order.placement, 1, at_s)

    def _end(self, event: SegmentEnded) -> None:
        gang, usd = self._gangs.pop(event.segment), self._usd
        usd["training"] += event.train_s * gang.usd_per_s
        usd["launch"] += event.launch_s * gang.usd_per_s
        usd["checkpoint"] += event.checkpoint_s * gang.usd_per_s
        if self._is_finished:
            return
        self._hold(gang.placement, -1, event.at_s)
        if not self._bills_instances:
            self._round(gang.usd_per_s, event.at_s - gang.started_at_s)

    def _hold(self, placement: Placement, sign: int, at_s: float) -> None:
        for number, count in placement:
            lease = self._leases[number]
            self._settle_idle(lease, at_s)
            lease.held_gpus += sign * count

    # Machines.

    def _settle_idle(self, lease: _Lease, at_s: float) -> None:
        idle_gpus = lease.gpus - lease.held_gpus
        if idle_gpus and self._bills_instances and not math.isnan(lease.ready_at_s):
            self._usd["idle"] += idle_gpus * (at_s - lease.settled_at_s) * lease.gpu_usd_per_s
        lease.settled_at_s = at_s

    def _close(self, lease: _Lease, at_s: float) -> None:
        if not self._bills_instances or math.isnan(lease.billed_from_s):
            return
        usd_per_s = lease.gpus * lease.gpu_usd_per_s
        self._settle_idle(lease, at_s)
        up_at_s = at_s if math.isnan(lease.ready_at_s) else lease.ready_at_s
        self._usd["startup"] += (up_at_s - lease.billed_from_s) * usd_per_s
        self._round(usd_per_s, at_s - lease.billed_from_s)

    def _round(self, usd_per_s: float, used_s: float) -> None:
        self._usd["rounding"] += (self.price_book.billing.billed_s(used_s) - used_s) * usd_per_s

    def _finish(self, at_s: float) -> None:
        """Every lease is given back now; gangs are cut, and tell how far they came in facts that are yet to be drained."""
        gone_at_s = at_s + self.price_book.release_s
        for gang in self._gangs.values():
            self._hold(gang.placement, -1, at_s)
            if not self._bills_instances:
                self._usd["idle"] += self.price_book.release_s * gang.usd_per_s
                self._round(gang.usd_per_s, gone_at_s - gang.started_at_s)
        for lease in self._leases.values():
            self._close(lease, gone_at_s)
        self._leases.clear()
        self._is_finished = True
