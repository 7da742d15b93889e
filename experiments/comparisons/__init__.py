"""Policies side by side on the same seeds, and what each mechanism of a policy is worth.

May import `experiments.runs`, `experiments.sweeps`, `experiments.statistics` and `experiments.figures`.
"""
