"""How a rule is given machines: with barriers, without, or by a plan; and how deadline and budget are kept.

May import `sim.model`, `policies.rules` and `policies.planning`.
"""
