"""What many numbers say: intervals, paired differences, significance. No verdicts, and no rows of results.

May import `sim.model` and numpy; scipy inside functions.
"""
