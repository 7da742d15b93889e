"""How large a job a rule can finish within T and B, how far its winner is trained, and planning anew at a barrier.

`targets` weighs more configurations against longer training, by the expected score of `curve_prior`.
May import `sim.model`, `policies.rules`, `policies.planning` and `policies.execution`.
"""
