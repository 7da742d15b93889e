"""SEER: the most accurate model under a deadline and a budget. Start with README.md in this folder: its pseudo-code.

`seer` plans towards R iterations, `staged` plans without R. Both find plans with `mechanisms`, compare them with
`sizing.targets` and run them with `director`. `barrier` says which plans T and B still allow. `fill` keeps more survivors where
something is left. `portfolio` plays ASHA where configurations differ much in cost.
May import `sim.model` and every room of `policies` but `explore_finish` and `registry`.
"""
