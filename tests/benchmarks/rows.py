"""How benchmarks measure and print: processor time, medians, each row beside its target."""

# ruff: noqa: T201  it is here to print

from __future__ import annotations

import resource
import statistics
import time

import numpy as np
import simpy


def cpu_s(work):
    """Processor seconds of one call."""
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def children_s():
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def median_s(work, repeats=5):
    """Processor seconds of a call, the median after one that warms up."""
    work()
    return statistics.median(cpu_s(work) for _ in range(repeats))


def show(what, measured, target, unit, *, is_least=False):
    """Print a row, and whether it meets its target.

    Args:
        what: was measured.
        measured: number.
        target: number; the most it may be, or the least.
        unit: of both.
        is_least: the target is the least.
    """
    is_met = measured >= target if is_least else measured <= target
    bound = "at least" if is_least else "at most"
    print(f"\n  {what}: {measured:,.4g} {unit} ({bound} {target:,g}: {'met' if is_met else 'MISSED'})")


def bare_simpy(segments, workers=8):
    """As many segments, one SimPy process and one timeout each, so many at a time, and nothing else."""
    seconds_each = np.random.default_rng(0).uniform(60.0, 600.0, segments).tolist()
    env = simpy.Environment()
    left = iter(seconds_each)

    def segment(duration_s):
        yield env.timeout(duration_s)
        following = next(left, None)
        if following is not None:
            env.process(segment(following))

    for _ in range(workers):
        env.process(segment(next(left)))
    env.run()
