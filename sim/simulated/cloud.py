"""The simulated provider: machines come up, are lost, and go. SimPy processes, one per instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.model.events import GoneCause, InstanceBooted, InstanceLaunched, InstanceReady, InstanceRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import simpy

    from sim.model.events import Event
    from sim.model.ids import InstanceId
    from sim.model.profile import CloudTruth
    from sim.simulated.truth import Draws


class Cloud:
    """Machines on request.

    Attributes:
        rented: those that are rented and not on their way out.
    """

    def __init__(
        self,
        env: simpy.Environment,
        truth: CloudTruth,
        draws: Draws,
        *,
        tell: Callable[[Event], None],
        on_gone: Callable[[InstanceId, GoneCause], None],
    ) -> None:
        self._env = env
        self._truth = truth
        self._draws = draws
        self._tell = tell
        self._on_gone = on_gone
        self.rented: set[InstanceId] = set()

    def provision(self, instance: InstanceId) -> None:
        """Rent a machine; refuses where the provider has none left."""
        capacity = self._truth.capacity_instances
        if capacity is not None and len(self.rented) >= capacity:
            self._tell(InstanceRefused(self._env.now, instance, f"no capacity: all {capacity} instances are rented"))
            return
        self.rented.add(instance)
        self._env.process(self._life(instance))

    def release(self, instance: InstanceId) -> None:
        """Take a machine back, whatever state it is in."""
        if instance not in self.rented:
            return
        self.rented.discard(instance)
        if self._truth.release_s > 0:
            leaving = self._env.timeout(self._truth.release_s)
            assert leaving.callbacks is not None  # a fresh timeout has not been processed
            leaving.callbacks.append(lambda _: self._on_gone(instance, GoneCause.RELEASED))
        else:
            self._on_gone(instance, GoneCause.RELEASED)

    def _life(self, instance: InstanceId) -> Generator[simpy.Event, None, None]:
        """Queue, boot, be set up, serve, and perhaps be lost; ends early where it is released."""
        env = self._env
        yield env.timeout(self._draws.queue_s(instance))
        if instance not in self.rented:
            return
        self._tell(InstanceLaunched(env.now, instance))
        left_s = self._draws.instance_lives_s(instance)
        for phase_s, fact in self._phases(instance):
            if phase_s > left_s:
                break
            yield env.timeout(phase_s)
            if instance not in self.rented:
                return
            self._tell(fact(env.now, instance))
            left_s -= phase_s
        if left_s < float("inf"):
            yield env.timeout(left_s)
            if instance in self.rented:
                self.rented.discard(instance)
                self._on_gone(instance, GoneCause.LOST)

    def _phases(self, instance: InstanceId) -> list[tuple[float, type[InstanceBooted | InstanceReady]]]:
        """Seconds of each phase from launch to readiness, and what is told at its end."""
        init_s = self._draws.init_s(instance)
        if self._truth.startup.setup.mean_s == 0:
            return [(init_s, InstanceReady)]
        return [(init_s, InstanceBooted), (self._draws.setup_s(instance), InstanceReady)]
