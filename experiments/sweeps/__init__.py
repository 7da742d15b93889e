"""Sweeps: many runs from one file, the runner that runs them, and the folder that keeps their rows.

May import `experiments.spec` and `experiments.runs`.
"""
