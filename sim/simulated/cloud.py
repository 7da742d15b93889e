"""The simulated provider: machines come up, are lost or taken back, and go. SimPy processes, one per instance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from elastune.sim.model.events import Event, GoneCause, InstanceBooted, InstanceLaunched, InstanceReady, InstanceRefused
from elastune.sim.model.prices import SPOT, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import simpy

    from elastune.sim.model.ids import InstanceId
    from elastune.sim.model.profile import CloudTruth
    from elastune.sim.model.reclaim import SpotPool
    from elastune.sim.simulated.truth import Draws


class _Obstacle(NamedTuple):
    """Why a request cannot be granted now.

    Attributes:
        ends_at_s: when it may be granted even if we give back no machine; infinite for never.
        is_ours: whether it can end when one of our machines goes.
        waits: whether the request may wait for that.
    """

    reason: str
    ends_at_s: float
    is_ours: bool
    waits: bool


class Cloud:
    """Machines on request.

    A request waits while it exceeds the account's quota, and while the provider has no capacity if `truth.waits` says so.
    Otherwise it is refused, as is a request that nothing known can ever satisfy. Waiting requests of a pool are granted in
    order when machines become available.

    Attributes:
        rented: machines that are rented and not being given back.
    """

    def __init__(
        self,
        env: simpy.Environment,
        truth: CloudTruth,
        draws: Draws,
        *,
        tell: Callable[[Event], None],
        on_notice: Callable[[InstanceId, float], None],
        on_gone: Callable[[InstanceId, GoneCause], None],
    ) -> None:
        self._env = env
        self._truth = truth
        self._draws = draws
        self._tell = tell
        self._on_notice = on_notice
        self._on_gone = on_gone
        self._waiting: dict[InstanceId, Pool] = {}
        self._pools: dict[InstanceId, Pool] = {}  # of all machines that are not gone yet
        self._wakes_at_s = math.inf
        self._spot: SpotPool | None = None
        self._notice_s = 0.0
        if truth.spot is not None:
            self._notice_s = truth.spot.notice_s
            self._spot = truth.spot.reclaims.begin(draws.streams, self._notice_s)
        self.rented: set[InstanceId] = set()

    def provision(self, instance: InstanceId, pool: Pool) -> None:
        """Request a machine: it is granted, waits, or is refused."""
        if pool in self._waiting.values():
            self._waiting[instance] = pool
        else:
            self._decide(instance, pool)

    def release(self, instance: InstanceId) -> None:
        """Take a machine back, in whatever state it is."""
        if instance in self._waiting:
            del self._waiting[instance]
            self._on_gone(instance, GoneCause.RELEASED)
        elif instance in self.rented:
            self.rented.discard(instance)
            if self._truth.release_s > 0:
                leaving = self._env.timeout(self._truth.release_s)
                assert leaving.callbacks is not None  # a fresh timeout has not been processed
                leaving.callbacks.append(lambda _: self._leave(instance, GoneCause.RELEASED))
            else:
                self._leave(instance, GoneCause.RELEASED)

    # Capacity.

    def _decide(self, instance: InstanceId, pool: Pool) -> bool:
        """Grant a request, let it wait, or refuse it; returns whether it waits."""
        obstacle = self._obstacle(instance, pool)
        if obstacle is None:
            self._waiting.pop(instance, None)
            self.rented.add(instance)
            self._pools[instance] = pool
            self._env.process(self._life(instance))
            return False
        if obstacle.waits and (obstacle.is_ours or math.isfinite(obstacle.ends_at_s)):
            self._waiting[instance] = pool
            self._wake_up_at(obstacle.ends_at_s)
            return True
        self._waiting.pop(instance, None)
        self._tell(InstanceRefused(self._env.now, instance, obstacle.reason))
        return False

    def _obstacle(self, instance: InstanceId, pool: Pool) -> _Obstacle | None:
        """What prevents one more machine of this pool; None where nothing does, and a spot machine then has its place."""
        now_s, truth = self._env.now, self._truth
        if truth.quota is not None and len(self._pools) >= (quota := truth.quota.at(now_s)):
            reason = f"the quota is {quota} instances"
            return _Obstacle(reason, truth.quota.rises_at_s(now_s), bool(self._pools) and quota > 0, waits=True)
        capacity = truth.capacity.get(pool)
        if capacity is not None:
            held, there = sum(held == pool for held in self._pools.values()), capacity.at(now_s)
            if held >= there:
                reason = f"no capacity: all {there} instances are rented" if there else "no capacity now"
                return _Obstacle(reason, capacity.rises_at_s(now_s), held > 0 and there > 0, truth.waits)
        if pool[1] != SPOT or self._spot is None:
            return None
        gone_at_s = self._spot.place(instance, now_s)
        if gone_at_s is None:
            is_ours = any(market == SPOT for _, market in self._pools.values())
            return _Obstacle("no spot capacity now", self._spot.frees_at_s(now_s), is_ours, truth.waits)
        if math.isfinite(gone_at_s):
            self._env.process(self._end(instance, gone_at_s))
        return None

    def _grant_waiting(self) -> None:
        blocked: set[Pool] = set()
        for instance, pool in list(self._waiting.items()):
            if pool not in blocked and self._decide(instance, pool):
                blocked.add(pool)

    def _wake_up_at(self, at_s: float) -> None:
        if at_s >= self._wakes_at_s:
            return
        self._wakes_at_s = at_s
        waking = self._env.timeout(at_s - self._env.now)
        assert waking.callbacks is not None  # a fresh timeout has not been processed
        waking.callbacks.append(lambda _: self._wake_up(at_s))

    def _wake_up(self, at_s: float) -> None:
        if self._wakes_at_s == at_s:
            self._wakes_at_s = math.inf
        self._grant_waiting()

    # The lives of machines.

    def _life(self, instance: InstanceId) -> Generator[simpy.Event, None, None]:
        """Queue, boot, be set up, serve, and perhaps be lost; ends early when it is released."""
        env = self._env
        yield env.timeout(self._draws.queue_s(instance))
        if instance not in self.rented:
            return
        self._tell(InstanceLaunched(env.now, instance))
        left_s = self._draws.instance_lives_s(instance)
        for phase_s, event in self._phases(instance):
            if phase_s > left_s:
                break
            yield env.timeout(phase_s)
            if instance not in self.rented:
                return
            self._tell(event(env.now, instance))
            left_s -= phase_s
        if left_s < math.inf:
            yield env.timeout(left_s)
            self._take(instance, GoneCause.LOST)

    def _phases(self, instance: InstanceId) -> list[tuple[float, type[InstanceBooted | InstanceReady]]]:
        """Seconds of each phase from launch to readiness, and the event at its end."""
        init_s = self._draws.init_s(instance)
        if self._truth.startup.setup.mean_s == 0:
            return [(init_s, InstanceReady)]
        return [(init_s, InstanceBooted), (self._draws.setup_s(instance), InstanceReady)]

    def _end(self, instance: InstanceId, gone_at_s: float) -> Generator[simpy.Event, None, None]:
        """Give notice for a spot machine, and take it back."""
        env = self._env
        if self._notice_s > 0:
            yield env.timeout(max(gone_at_s - self._notice_s - env.now, 0.0))
            if instance not in self.rented:
                return
            self._on_notice(instance, gone_at_s)
        yield env.timeout(max(gone_at_s - env.now, 0.0))
        self._take(instance, GoneCause.RECLAIMED)

    def _take(self, instance: InstanceId, cause: GoneCause) -> None:
        """Take the machine, unless it is already being given back."""
        if instance in self.rented:
            self.rented.discard(instance)
            self._leave(instance, cause)

    def _leave(self, instance: InstanceId, cause: GoneCause) -> None:
        pool = self._pools.pop(instance)
        if pool[1] == SPOT and self._spot is not None:
            self._spot.vacate(instance)
        self._on_gone(instance, cause)
        if self._waiting:
            self._grant_waiting()
