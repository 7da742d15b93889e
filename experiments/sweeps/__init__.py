"""Sweeps: many runs from one file, the runner that runs them, the folder that keeps their rows, and the tables made of them.

May import `experiments.spec`, `experiments.runs` and `experiments.statistics`.
"""
