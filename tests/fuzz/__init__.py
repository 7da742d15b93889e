"""Random input of many kinds, in search of tracebacks, hangs and answers that do not add up.

`python -m tests.fuzz --seconds N` runs it. `cases` names the kinds; `specs`, `tables` and `journals` make them from a seed;
`guard` runs each under limits of time and memory.
"""
