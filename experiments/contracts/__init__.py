"""What every policy and every backend promises, as checks that anybody can run on their own.

May import `sim` and `policies.registry`; `elastune check-policy` and the tests call the same code.
"""
