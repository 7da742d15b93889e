"""Real machines: nodes of an embedded or of a running Ray cluster, each followed from request to end.

May import `sim.model` and ray.
"""
