"""The real backend: commands become Ray nodes and groups of workers, and what happens to them becomes events.

`machines` holds what is rented, `workers` holds what trains, and `tune` runs a policy under Ray Tune. May import
`sim.model`, ray, torch, threads and the wall clock; never `sim.control` or `sim.simulated`.
"""
