"""DeepMoE as a workload: networks whose channels are experts, what they cost per image, and how they are trained.

`network` is the paper's architecture, `cost` counts and skips, `training` has the two stages, `workload` the search space.
May import `sim.model` and the other modules of `traces.workloads`; torch everywhere but in `workload`.
"""
