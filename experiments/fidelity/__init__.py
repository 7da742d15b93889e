"""Simulation and reality checked against each other: predictions before real runs, and what became of them.

May import `experiments.real`, `experiments.profiling`, `experiments.runs`, `experiments.spec`, and `sim`.
"""
