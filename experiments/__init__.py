"""Running, comparing and showing: the composition root, and the only package that imports all others.

One room per question, from the top down (import-linter holds the order):

    cli                                    the commands
    claims                                 the papers' claims as experiments
    comparisons, figures                   policies side by side, pictures
    statistics, profiling                  what many runs say; what is measured on real workers
    sweeps, plans, real                    many runs; planning; one run on real workers
    runs                                   one simulated run
    spec, contracts                        what decides a run; what policies and backends promise
"""
