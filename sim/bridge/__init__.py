"""The real backend: commands become Ray nodes and groups of workers, and what happens to them becomes events.

`machines` are what is rented, `workers` are what trains, `tune` puts a policy under Ray Tune. May import `sim.model`, ray,
torch, threads and the wall clock; never `sim.control` or `sim.simulated`.
"""
