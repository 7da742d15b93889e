"""Real workers: groups of processes that train one segment, and the checkpoints that they write.

May import `sim.model`, ray and torch, and `sim.bridge.machines`.
"""
