"""The simulated world: SimPy plays provider and workers. The only place that imports simpy."""

from elastune.sim.simulated.backend import SimulatedBackend

__all__ = ["SimulatedBackend"]
