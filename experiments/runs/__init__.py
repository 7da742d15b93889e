"""One simulated run: its world, its result, and what is read off its journal.

May import `experiments.spec`, `sim`, `policies.registry` and `traces`.
"""
