"""The arithmetic of the papers: which trials go on, and how far. Pure functions.

May import `sim.model` only; every other room of `policies` may import this one.
"""
