"""SEER: the most accurate model under a deadline and a budget. Start with README.md in this folder.

`seer` plans to R iterations, `staged` needs no R; `director`, `mechanisms` and `curve_prior` are shared by both.
May import `sim.model` and every room of `policies` but `tuners`.
"""
