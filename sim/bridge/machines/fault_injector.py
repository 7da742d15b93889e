"""Delays and losses added to a real run, drawn from the same random streams as in simulation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from elastune.sim.model.prices import SECONDS_PER_HOUR, SPOT

if TYPE_CHECKING:
    from elastune.sim.model.ids import InstanceId
    from elastune.sim.model.profile import CloudTruth
    from elastune.sim.model.streams import Streams


class MachineFaults(NamedTuple):
    """What is done to a machine, besides what really happens to it.

    Attributes:
        queue_s: from the request to the launch.
        boot_s: from the launch to the boot, at least.
        setup_s: from the boot to readiness, at least.
        lost_after_s: from the launch to the loss; infinite for never.
        reclaimed_at_s: when the provider takes it back; infinite for never.
        notice_s: from the notice to the reclaim.
    """

    queue_s: float = 0.0
    boot_s: float = 0.0
    setup_s: float = 0.0
    lost_after_s: float = math.inf
    reclaimed_at_s: float = math.inf
    notice_s: float = 0.0


class FaultInjector:
    """Draws what happens to machines; without a cloud to draw from, nothing is injected."""

    def __init__(self, cloud: CloudTruth | None = None, streams: Streams | None = None) -> None:
        self._cloud, self._streams = cloud, streams
        self._spot = None
        if cloud is not None and streams is not None and cloud.spot is not None:
            self._spot = cloud.spot.reclaims.begin(streams, cloud.spot.notice_s)

    def draw(self, instance: InstanceId, market: str, now_s: float) -> MachineFaults | None:
        """What happens to a machine that is requested now; None if the spot market has none."""
        cloud, streams = self._cloud, self._streams
        if cloud is None or streams is None:
            return MachineFaults()
        reclaimed_at_s = math.inf
        if market == SPOT and self._spot is not None:
            place = self._spot.place(instance, now_s)
            if place is None:
                return None
            reclaimed_at_s = place
        rate_per_hour = cloud.faults.instance_loss_per_hour
        loss_rng = streams.rng("instance-loss", instance)
        return MachineFaults(
            cloud.startup.queue.draw_s(streams.rng("queue", instance)),
            cloud.startup.init.draw_s(streams.rng("init", instance)),
            cloud.startup.setup.draw_s(streams.rng("setup", instance)),
            float(loss_rng.exponential(SECONDS_PER_HOUR / rate_per_hour)) if rate_per_hour > 0 else math.inf,
            reclaimed_at_s,
            0.0 if cloud.spot is None else cloud.spot.notice_s,
        )

    def machine_gone(self, instance: InstanceId, market: str) -> None:
        """Free the place of the machine on the spot market."""
        if market == SPOT and self._spot is not None:
            self._spot.vacate(instance)
