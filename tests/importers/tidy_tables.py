"""Tidy tables as texts."""

from __future__ import annotations

# Two trials of three epochs that differ in cost: 1 s and 3 s each, 2 s on the mean.
TIDY = """\
trial,iteration,score,seconds,lr,optimizer
0,1,0.9,1,0.1,sgd
0,2,0.8,1,0.1,sgd
0,3,0.7,1,0.1,sgd
1,1,0.6,3,0.2,adam
1,2,0.5,3,0.2,adam
1,3,0.4,3,0.2,adam
"""


def rows(*cells):
    """A table of trial, iteration and score."""
    return "trial,iteration,score\n" + "".join(",".join(map(str, row)) + "\n" for row in cells)
