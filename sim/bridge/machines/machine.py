"""One machine of a real run, followed by a thread from its request to its end."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.sim.bridge.machines.nodes import Node, Nodes, NoNodeError
from elastune.sim.model.events import Event, GoneCause, InstanceBooted, InstanceLaunched, InstanceReady, InstanceRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from elastune.sim.bridge.machines.clock import Clock
    from elastune.sim.bridge.machines.fault_injector import MachineFaults
    from elastune.sim.model.ids import InstanceId

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MachineListener:
    """Callbacks of a machine, called in its thread.

    Attributes:
        tell: takes a function from the time to an event, and tells that event.
        ready: called with the node before InstanceReady is told.
        noticed: called when the provider announces a reclaim.
        gone: called at the end with the cause, or with None if the request was refused; tells the end.
        broken: called if the thread itself breaks down.
    """

    tell: Callable[[Callable[[float], Event]], None]
    ready: Callable[[InstanceId, Node], None]
    noticed: Callable[[InstanceId, float], None]
    gone: Callable[[InstanceId, GoneCause | None], None]
    broken: Callable[[BaseException], None]


class Machine:
    """A machine from its request to its end.

    Args:
        instance: its number.
        gpus: its slots.
        faults: injected delays and losses; None if there is no such machine to rent.
        nodes: provide the machine.
        clock: of the run.
        listener: told of all that happens to it.

    Attributes:
        node: the Ray node once the machine is ready.
    """

    def __init__(
        self,
        instance: InstanceId,
        gpus: int,
        faults: MachineFaults | None,
        *,
        nodes: Nodes,
        clock: Clock,
        listener: MachineListener,
    ) -> None:
        self.node: Node | None = None
        self._instance, self._gpus, self._faults = instance, gpus, faults
        self._nodes, self._clock, self._listener = nodes, clock, listener
        self._over = threading.Event()
        self._cause = GoneCause.RELEASED
        self._is_cancelled = False
        self._is_launched, self._launched_at_s = False, 0.0
        self._thread = threading.Thread(target=self._run, name=f"instance-{instance}", daemon=True)

    @property
    def is_settled(self) -> bool:
        """Whether it is ready and will stay ready: no loss and no reclaim is injected."""
        faults = self._faults
        lasts = faults is not None and math.isinf(faults.lost_after_s) and math.isinf(faults.reclaimed_at_s)
        return lasts and self.node is not None and not self._over.is_set()

    def start(self, node: Node | None = None) -> None:
        """Bring it up; a node that we have already is only followed."""
        self.node = node
        self._thread.start()

    def release(self) -> None:
        """Give it back in any state."""
        self._end(GoneCause.RELEASED)

    def die(self) -> None:
        """Note that it was found dead."""
        self._end(GoneCause.LOST)

    def cancel(self) -> None:
        """End its thread without an event, because the run is over."""
        self._is_cancelled = True
        self._over.set()

    def _end(self, cause: GoneCause) -> None:
        if not self._over.is_set():
            self._cause = cause
            self._over.set()

    # The thread.

    def _run(self) -> None:
        try:
            cause = self._live()
            if not self._is_cancelled:
                self._listener.gone(self._instance, cause)
        except Exception as error:
            if not self._is_cancelled:
                self._listener.broken(error)

    def _live(self) -> GoneCause | None:
        """Queue, boot, be set up and serve; return the cause of the end, or None if the request was refused."""
        faults = self._faults
        if faults is None:
            if self.node is not None:
                return GoneCause.RECLAIMED  # a machine that was taken over has lost its place on the market
            self._refuse("no spot capacity now")
            return None
        if self.node is None:
            try:
                node = self._come_up(faults)
            except NoNodeError as error:
                if self._over.is_set():
                    return self._cause
                if self._is_launched:
                    # After InstanceLaunched a request cannot be refused any more.
                    _log.warning("instance %d was lost while it started: %s", self._instance, error)
                    return GoneCause.LOST
                self._refuse(str(error))
                return None
            if node is None:
                return self._cause
        else:
            # The chance of a loss does not depend on the age.
            self._is_launched, self._launched_at_s = True, self._clock.now_s()
        self._serve(faults)
        return self._cause

    def _refuse(self, reason: str) -> None:
        instance = self._instance
        self._listener.tell(lambda at_s: InstanceRefused(at_s, instance, reason))

    def _come_up(self, faults: MachineFaults) -> Node | None:
        """The node, ready; None if it has ended before."""
        instance, over = self._instance, self._over
        if self._wait_until(self._clock.now_s() + faults.queue_s):
            return None
        node = self._nodes.acquire(instance, self._gpus, launched=self._launched, is_cancelled=over.is_set)
        if self._wait_until(self._launched_at_s + faults.boot_s):
            return None
        if faults.setup_s > 0:
            self._listener.tell(lambda at_s: InstanceBooted(at_s, instance))
            if self._wait_until(self._launched_at_s + faults.boot_s + faults.setup_s):
                return None
        if over.is_set():
            return None
        self.node = node
        self._listener.ready(instance, node)
        self._listener.tell(lambda at_s: InstanceReady(at_s, instance))
        return node

    def _launched(self) -> None:
        def event_at(at_s: float) -> Event:
            self._is_launched, self._launched_at_s = True, at_s
            return InstanceLaunched(at_s, self._instance)

        self._listener.tell(event_at)

    def _serve(self, faults: MachineFaults) -> None:
        """Serve until it is released, lost or reclaimed."""
        if faults.notice_s > 0 and faults.reclaimed_at_s < math.inf:
            if self._wait_until(faults.reclaimed_at_s - faults.notice_s):
                return
            self._listener.noticed(self._instance, faults.reclaimed_at_s)
        self._wait_until(math.inf)

    def _wait_until(self, at_s: float) -> bool:
        """Wait until a time of the run; return whether the machine has ended before, by itself or by injection."""
        ends_at_s, cause = self._injected_end()
        if not self._wait(min(at_s, ends_at_s)) and ends_at_s <= at_s:
            self._end(cause)
        return self._over.is_set()

    def _injected_end(self) -> tuple[float, GoneCause]:
        assert self._faults is not None  # else it is refused at once
        lost_at_s = self._launched_at_s + self._faults.lost_after_s if self._is_launched else math.inf
        reclaimed_at_s = self._faults.reclaimed_at_s
        return (lost_at_s, GoneCause.LOST) if lost_at_s < reclaimed_at_s else (reclaimed_at_s, GoneCause.RECLAIMED)

    def _wait(self, until_s: float) -> bool:
        return self._clock.wait(until_s - self._clock.now_s(), self._over)
