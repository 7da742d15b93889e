"""The run spec: one YAML file that decides a run, checked before anything starts.

May import `sim.model`, `traces` and `policies.registry`; every other room of `experiments` may import this one.
"""
