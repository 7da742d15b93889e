"""Planning before a run: plans side by side, the frontier, fitted scaling laws.

May import `experiments.spec`, `experiments.runs`, `policies.planning` and `traces`.
"""
