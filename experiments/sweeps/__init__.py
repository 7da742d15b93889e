"""Many runs from one file: the grid, who runs it, and where the rows lie.

May import `experiments.spec` and `experiments.runs`.
"""
