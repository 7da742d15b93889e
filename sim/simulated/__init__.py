"""The simulated world: SimPy stands in for provider and workers.

May import `sim.model`; the only room that imports simpy.
"""

from elastune.sim.simulated.backend import SimulatedBackend

__all__ = ["SimulatedBackend"]
