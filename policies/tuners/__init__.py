"""The other policies: RubberBand and its baseline, successive halving and its kin, naive elastic versions, and the oracle.

One module per rule, its fixed, naive and elastic forms included.
May import `sim.model` and every room of `policies` but `seer`, `explore_finish` and `registry`.
"""
