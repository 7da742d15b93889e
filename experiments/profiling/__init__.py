"""Profiles: curves of configurations that are really trained, and timings of real groups of workers.

May import `experiments.spec`, `experiments.runs`, `experiments.real` and `traces`.
"""
