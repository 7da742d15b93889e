"""How large a job a rule can finish within deadline and budget, and planning anew at a barrier.

May import `sim.model`, `policies.rules`, `policies.planning` and `policies.execution`.
"""
