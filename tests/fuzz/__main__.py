"""`python -m tests.fuzz --seconds N [--seed S] [--kind KIND]`; exit code 1 where a case failed."""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from tests.fuzz.cases import CASES
from tests.fuzz.guard import Worker


def parsed(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Try random input on everything.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow (default 0)")
    parser.add_argument("--kind", choices=sorted(CASES), help="one kind of case only")
    parser.add_argument("--cases", type=int, help="stop after so many cases")
    return parser.parse_args(arguments)


def main(options):
    """Run cases until the time is over; print each failure with the command that repeats it."""
    kinds = itertools.cycle([options.kind] if options.kind else sorted(CASES))
    end_s, worker, failed, done = time.monotonic() + options.seconds, Worker(), 0, 0
    for seed, kind in zip(itertools.count(options.seed), kinds, strict=False):
        if time.monotonic() > end_s or done == options.cases:
            break
        problem = worker.failure_of(kind, seed)
        done += 1
        if problem is not None:
            failed += 1
            again = f"python -m tests.fuzz --kind {kind} --seed {seed} --cases 1"
            sys.stdout.write(f"FAILED {kind}, seed {seed}: {again}\n{problem}\n")
            sys.stdout.flush()
    worker.close()
    sys.stdout.write(f"{done} cases from seed {options.seed}, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(parsed()))
