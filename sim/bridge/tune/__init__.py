"""A policy under Ray Tune: its callbacks as events, and commands as what its trials do.

May import `sim.model` and ray.
"""
