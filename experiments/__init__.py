"""Running, comparing and showing: the composition root, and the only package that imports all others.

One room per question, from the top down (import-linter holds the order):

    cli                     the commands
    claims, reports         the papers' claims as experiments; a page to send
    fidelity                how far simulation and reality are apart
    comparisons             policies side by side
    profiling               what is measured on real workers
    sweeps, plans, real     many runs and their tables; planning; one run on real workers
    runs                    one simulated run
    figures                 tables become pictures
    spec, contracts         what decides a run; what policies and backends promise
    statistics              what many numbers say
"""
