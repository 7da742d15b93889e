"""What many runs say: intervals, paired differences, significance. No verdicts.

May import `experiments.sweeps` and numpy; pandas and scipy inside functions.
"""
