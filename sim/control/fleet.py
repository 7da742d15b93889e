"""Decides which machines to request and to release, so that the fleet meets ScaleTo's targets. Pure, like the controller."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.sim.model.commands import Command, ProvisionInstance, ReleaseInstance
from elastune.sim.model.ids import InstanceId
from elastune.sim.model.protocols import InstanceStatus

if TYPE_CHECKING:
    from elastune.sim.control.state import InstanceState, RunState


_ACTIVE = (InstanceStatus.REQUESTED, InstanceStatus.LAUNCHED, InstanceStatus.READY)


class Fleet:
    """Requests and releases machines, as known to the state. Commands are appended to the given list."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._provisioned = 0

    def reconcile(self, key: tuple[str, str], commands: list[Command]) -> None:
        """Bring the machines of one type and market to its target."""
        state = self._state
        missing = state.targets[key] - state.active[key]
        if missing > 0:
            draining = [(n, i) for n, i in sorted(state.draining.items()) if i.pool == key and i.gone_at_s == math.inf]
            for number, instance in draining[:missing]:
                state.reactivate(number, instance)
            for _ in range(min(missing - len(draining), state.price_book.max_instances - len(state.instances))):
                self._provision(key, commands)
        elif missing < 0:
            held = [(n, i) for n, i in state.instances.items() if i.pool == key and i.status in _ACTIVE]
            for number, instance in sorted(held, key=lambda pair: self._shrink_order(*pair))[:-missing]:
                if instance.free_gpus == instance.gpus:
                    self.release(number, instance, commands)
                else:
                    state.drain(number, instance)

    def _provision(self, key: tuple[str, str], commands: list[Command]) -> None:
        number = InstanceId(self._provisioned)
        self._provisioned += 1
        self._state.instance_requested(number, self._state.price_book.type_named(key[0]), key[1])
        commands.append(ProvisionInstance(number, *key))

    def _shrink_order(self, number: InstanceId, instance: InstanceState) -> tuple[int, int, float, int]:
        """Requests first (the latest first), then booting, idle (least paid time left first) and busy machines."""
        state = self._state
        if instance.status is InstanceStatus.REQUESTED:
            return (0, 0, 0.0, -number)
        paid_until_s = state.bill.paid_until_s(number, state.now_s) if state.bills_instances else 0.0
        is_booting = instance.status is InstanceStatus.LAUNCHED
        return (1 if is_booting else 2, instance.gpus - instance.free_gpus, paid_until_s, number)

    def release_drained(self, commands: list[Command]) -> None:
        """Give back idle machines that drain."""
        state = self._state
        free_s = state.price_book.billing.free_if_reclaimed_within_s
        for number, instance in sorted(state.draining.items()):
            is_idle = instance.free_gpus == instance.gpus
            # No release for a machine that its provider takes at this moment, or that costs nothing if the provider takes it.
            is_taken = instance.gone_at_s <= state.now_s or instance.gone_at_s - instance.launched_at_s < free_s
            if is_idle and not is_taken:
                self.release(number, instance, commands)

    def release(self, number: InstanceId, instance: InstanceState, commands: list[Command]) -> None:
        """Give one machine back, or cancel its request."""
        self._state.instance_released(number, instance)
        commands.append(ReleaseInstance(number))
