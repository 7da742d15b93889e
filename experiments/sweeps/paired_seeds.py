"""The same runs on several seeds, one seed after the other or several at a time. Imports traces; joblib where it is needed."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, TypeVar

from elastune.traces import DecreasingScalingWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ResultT = TypeVar("ResultT")


def of_each_seed(of_seed: Callable[[int], ResultT], seeds: Sequence[int], jobs: int) -> Iterator[ResultT]:
    """What comes of each seed, in the order of the seeds, as it is done.

    Of falling speed-ups nobody is warned: the caller was, when it resolved the spec.

    Args:
        of_seed: what is done with a seed; goes to other processes where there are several jobs.
        seeds: which.
        jobs: processes; 1 runs everything in this one.
    """
    quiet = functools.partial(_quietly, of_seed)
    if jobs == 1 or len(seeds) == 1:
        yield from map(quiet, seeds)
        return
    import joblib

    parallel = joblib.Parallel(n_jobs=min(jobs, len(seeds)), return_as="generator")
    yield from parallel(joblib.delayed(quiet)(seed) for seed in seeds)


def _quietly(of_seed: Callable[[int], ResultT], seed: int) -> ResultT:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DecreasingScalingWarning)
        return of_seed(seed)
