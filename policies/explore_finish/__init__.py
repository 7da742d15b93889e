"""A policy of our own: try many configurations without barriers, then train the best few on large gangs. Start with README.md.

`phases` says how time and money are shared, `finals` who trains on how many GPUs at the end; both are pure. `policy` runs them.
May import `sim.model` and every room of `policies` but `seer` and `registry`.
"""
