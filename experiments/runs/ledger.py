"""Where a run's dollars and GPU-seconds went, read from its leases and segments. Imports experiments.runs.fold and `sim`.

Each part is computed from rows of its own, none as what is left over. So it is a check of both that the dollars add up to the
bill, and the GPU-seconds to those between launch and end of all machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
from elastune.sim.model.price_series import Price, PriceSeries, combined
from elastune.sim.model.prices import SECONDS_PER_HOUR, PriceBook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.runs.fold import Change, Held, Lease, Segment, Tables
    from elastune.sim.model.ids import InstanceId

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


@dataclass(frozen=True)
class Ledger:
    """A run's bill and GPU-seconds by part, in the order of `PARTS`. Bought time is not held time.

    Attributes:
        usd: dollars.
        gpu_s: GPU-seconds between launch and end of all machines.
    """

    usd: dict[str, float]
    gpu_s: dict[str, float]

    @classmethod
    def of(cls, tables: Tables) -> Ledger:
        """The ledger of these tables; complete where the run has ended."""
        count = LedgerCount(tables.price_book)
        count.read(tables.changes)
        return count.ledger


@dataclass(slots=True, eq=False)
class _Account:
    """What is counted of one lease.

    Attributes:
        gpu_usd_per_s: price of one of its GPUs where it does not change.
        usd: dollars by part; of a machine not yet in the ledger's own, as they may turn out to be free.
        billed_from_s: when its bill began; NaN before.
        ends_at_s: when it is gone, known since it was given back; infinite before.
        held_gpus: GPUs that gangs hold.
        waiting_gpus: GPUs that a gang has given back and none has taken since.
        settled_at_s: until when idle GPUs are counted; NaN before it is ready.
        is_closed: its bill is settled, and nothing about it is counted any more.
    """

    lease: Lease
    gpu_usd_per_s: float | None
    usd: dict[str, float]
    billed_from_s: float = math.nan
    ends_at_s: float = math.inf
    held_gpus: int = 0
    waiting_gpus: int = 0
    settled_at_s: float = math.nan
    is_closed: bool = False

    def use_usd(self, gpus: int, from_s: float, until_s: float) -> float:
        """Price of so many of its GPUs for this time."""
        if self.gpu_usd_per_s is not None:
            return gpus * (until_s - from_s) * self.gpu_usd_per_s
        return gpus / self.lease.gpus * use_usd(self.lease.price, from_s, until_s)

    def bill_from(self, at_s: float) -> None:
        """Its bill begins, if it has not begun."""
        if math.isnan(self.billed_from_s):
            self.billed_from_s = at_s


class LedgerCount:
    """Goes through the changes of a run once; a reader for `experiments.runs.fold.Tables`."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._bills_instances = self._book.billing.model == "per-instance"
        self.usd = dict.fromkeys(PARTS, 0.0)
        self.gpu_s = dict.fromkeys(PARTS, 0.0)
        self._accounts: dict[InstanceId, _Account] = {}
        self._open: dict[InstanceId, _Account] = {}
        self._running: dict[int, Segment] = {}
        self._timers: set[str] = set()
        self._is_at_barrier = False
        self._is_finished = False
        self._finished_s = math.inf
        self._entry, self._now_s = 0, 0.0

    @property
    def ledger(self) -> Ledger:
        """What has been counted."""
        return Ledger(self.usd, self.gpu_s)

    def read(self, changes: Sequence[Change]) -> None:
        """Count the next changes; GPUs wait for a barrier from the end of an entry on."""
        entry, now_s = self._entry, self._now_s
        running, timers = self._running, self._timers
        for number, at_s, what, row in changes:
            if number != entry:
                if (bool(running) or bool(timers)) != self._is_at_barrier:
                    self._turn(now_s)
                entry, now_s = number, at_s
            # Nearly all changes of a long run are these two, so they come first.
            if type(what) is SegmentEnded:
                self._end(row, what)  # type: ignore[arg-type]  # a segment's row
            elif type(what) is StartSegment:
                self._start(row, at_s)  # type: ignore[arg-type]
            elif row is not None:
                self._take(what, row, at_s)  # type: ignore[arg-type]
            elif isinstance(what, FinishRun):
                self._finish(at_s)
            elif isinstance(what, StartTimer):
                timers |= {what.tag} - {HARD_STOP}
            elif isinstance(what, TimerFired):
                timers.discard(what.tag)
        self._entry, self._now_s = entry, now_s

    # Segments.

    def _start(self, segment: Segment, at_s: float) -> None:
        for lease, count in segment.held:
            account = self._accounts[lease.instance]
            if account.settled_at_s != at_s:
                self._settle(account, at_s)
            account.held_gpus += count
            waiting_gpus = account.waiting_gpus - count
            account.waiting_gpus = waiting_gpus if waiting_gpus > 0 else 0  # noqa: FURB136  max() costs a call
        self._running[segment.command.segment] = segment

    def _end(self, segment: Segment, event: SegmentEnded) -> None:
        """Checkpoints within the segment count as if they were written at its end."""
        held, train_s, from_s = segment.held, event.train_s, segment.started_s
        # What the end of the run cuts short is done by nobody again.
        kept_s = train_s if self._is_finished else train_s - event.lost_s
        if event.launch_s > 0:
            part = "launch" if segment.command.restore_from is None else "rescale"
            from_s = self._spend(held, part, from_s, event.launch_s)
        if kept_s > 0:
            from_s = self._spend(held, "training", from_s, kept_s)
        if train_s - kept_s > 0:
            from_s = self._spend(held, "redone", from_s, train_s - kept_s)
        if event.checkpoint_s > 0:
            self._spend(held, "checkpoint", from_s, event.checkpoint_s)
        if not self._is_finished:
            del self._running[segment.command.segment]
            self._free(segment, event.at_s)

    def _spend(self, held: Held, part: str, from_s: float, seconds: float) -> float:
        """A gang does this for so long, or until the run ends, since what comes after is not paid; returns until when."""
        until_s = from_s + seconds
        until_s = until_s if until_s < self._finished_s else self._finished_s  # noqa: FURB136  min() costs a call
        if until_s <= from_s:
            return from_s
        for lease, count in held:
            account = self._accounts[lease.instance]
            spent_gpu_s = count * (until_s - from_s)
            self.gpu_s[part] += spent_gpu_s
            rate = account.gpu_usd_per_s
            account.usd[part] += account.use_usd(count, from_s, until_s) if rate is None else spent_gpu_s * rate
        return until_s

    def _free(self, segment: Segment, at_s: float) -> None:
        """Its GPUs come back."""
        for lease, count in segment.held:
            account = self._accounts[lease.instance]
            self._settle(account, at_s)
            account.held_gpus -= count
            account.waiting_gpus += count
        if not self._bills_instances:
            price = combined((lease.price, count / lease.gpus) for lease, count in segment.held)
            self._round(self.usd, price, segment.started_s, at_s)

    # Leases.

    def _take(self, what: object, lease: Lease, at_s: float) -> None:
        rule = self._book.billing
        if isinstance(what, ProvisionInstance):
            self._provision(lease, at_s)
            return
        account = self._accounts[lease.instance]
        match what:
            case ReleaseInstance():
                self._settle(account, at_s)
                account.waiting_gpus = 0
                account.ends_at_s = at_s + self._book.release_s
            case InstanceLaunched():
                self.usd["data"] += self._book.ingress_usd
                if rule.bills_startup:
                    account.bill_from(at_s)
            case InstanceBooted() if rule.is_setup_billed:
                account.bill_from(at_s)
            case InstanceReady():
                account.settled_at_s = at_s
                account.bill_from(at_s)
            case InstanceRefused():
                del self._open[lease.instance]
            case InstanceGone():
                del self._open[lease.instance]
                used_s = at_s - account.billed_from_s
                is_free = lease.cause is GoneCause.RECLAIMED and used_s < rule.free_if_reclaimed_within_s
                self._close(account, at_s, at_s, is_free=is_free)

    def _provision(self, lease: Lease, at_s: float) -> None:
        price = lease.price
        gpu_usd_per_s = None if isinstance(price, PriceSeries) else price / lease.gpus / SECONDS_PER_HOUR
        usd = dict.fromkeys(PARTS, 0.0) if self._bills_instances else self.usd
        account = self._accounts[lease.instance] = self._open[lease.instance] = _Account(lease, gpu_usd_per_s, usd)
        if self._book.billing.bills_queue:
            account.billed_from_s = at_s

    def _settle(self, account: _Account, at_s: float) -> None:
        """Count the idle GPUs of a ready machine up to now."""
        if account.is_closed or math.isnan(account.settled_at_s):
            return
        from_s, account.settled_at_s = account.settled_at_s, at_s
        idle_gpus = account.lease.gpus - account.held_gpus
        if at_s <= from_s or not idle_gpus:
            return
        waiting_gpus = account.waiting_gpus if self._is_at_barrier else 0
        for part, gpus in (("idle_at_barriers", waiting_gpus), ("idle", idle_gpus - waiting_gpus)):
            self.gpu_s[part] += gpus * (at_s - from_s)
            if self._bills_instances:
                account.usd[part] += account.use_usd(gpus, from_s, at_s)

    def _turn(self, at_s: float) -> None:
        """GPUs wait for a barrier from now on, or do not any more."""
        for account in self._open.values():
            if account.waiting_gpus:
                self._settle(account, at_s)
        self._is_at_barrier = not self._is_at_barrier

    def _close(self, account: _Account, at_s: float, ends_at_s: float, *, is_free: bool = False) -> None:
        """Settle a machine's bill.

        Args:
            account: of the machine.
            at_s: until when its GPUs count.
            ends_at_s: until when it is billed.
            is_free: whether its provider asks nothing for it.
        """
        self._settle(account, at_s)
        account.is_closed = True
        lease = account.lease
        ready_s = account.settled_at_s
        up_at_s = at_s if math.isnan(ready_s) else lease.ready_s
        if not math.isnan(lease.launched_s):
            self.gpu_s["startup"] += lease.gpus * (up_at_s - lease.launched_s)
        if self._bills_instances and not math.isnan(account.billed_from_s):
            account.usd["startup"] += account.use_usd(lease.gpus, account.billed_from_s, up_at_s)
            account.usd["idle"] += account.use_usd(lease.gpus, at_s, ends_at_s)
            self._round(account.usd, lease.price, account.billed_from_s, ends_at_s)
        if self._bills_instances and not is_free:
            for part, usd in account.usd.items():
                self.usd[part] += usd
        # Gangs that were cut by the end of the run tell only later what they did, and it is settled at once.
        account.usd = self.usd

    def _round(self, usd: dict[str, float], price: Price, from_s: float, until_s: float) -> None:
        usd["rounding"] += lease_usd(self._book.billing, price, from_s, until_s) - use_usd(price, from_s, until_s)

    def _finish(self, at_s: float) -> None:
        """Every lease is given back now; gangs are cut, and tell how far they came only after the end."""
        book = self._book
        for segment in self._running.values():
            self._free(segment, at_s)
        for account in self._open.values():
            self._close(account, min(at_s, account.ends_at_s), min(account.ends_at_s, at_s + book.release_s))
        self._is_finished, self._finished_s = True, at_s
        self.usd["data"] += book.storage_usd_per_hour * at_s / SECONDS_PER_HOUR
        self.usd["head_node"] += book.head_node_usd_per_hour * at_s / SECONDS_PER_HOUR
