"""SEER: the most accurate model under a deadline and a budget. Start with README.md in this folder: its pseudo-code.

`seer` plans to R iterations, `staged` plans without R. Both find and compare plans with `mechanisms` and run them with
`director`. `curve_prior` is the expected score. May import `sim.model` and every room of `policies` but `tuners`.
"""
