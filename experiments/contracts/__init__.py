"""Promises of every policy and every backend, as checks that anybody can run on their own code.

May import `sim` and `policies.registry`; `elastune check-policy` and the tests call the same code.
"""
