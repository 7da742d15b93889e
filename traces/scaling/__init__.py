"""Speed-ups of groups of GPUs: named, inline or from a table, and laws fitted to them.

May import `sim.model` and `traces.formats`; numpy, and scipy while a law is fitted.
"""
