"""One run on real workers: start, resume, result, and the doctor that says whether it can work here.

May import `experiments.spec`, `experiments.runs` and `sim.bridge`.
"""
