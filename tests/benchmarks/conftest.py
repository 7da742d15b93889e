"""Benchmarks use the Monte Carlo of the planning tests, and say how fast the core is just now."""

import sys
from pathlib import Path

import pytest
from rows import bare_simpy, median_s

sys.path.append(str(Path(__file__).parents[1] / "planning"))


@pytest.fixture(autouse=True, scope="module")
def _this_core(pytestconfig):
    """What other work on the machine does to every figure."""
    if pytestconfig.getoption("markexpr") == "benchmark":
        us = 1e6 * median_s(lambda: bare_simpy(10_000)) / 10_000
        print(f"\nThis core now: bare SimPy takes {us:.2f} us a segment")  # noqa: T201  it is here to print
