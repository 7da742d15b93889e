"""Bundles: all that was recorded about one workload, read, checked and written.

May import `sim.model`, `traces.formats` and `traces.scaling`.
"""
