"""The same runs on several seeds, through the one runner of `experiments.sweeps.pools`; an interruption keeps what is finished.

Imports `experiments.sweeps`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from elastune.experiments.spec.section import SEED
from elastune.experiments.sweeps.pools import run_all
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.experiments.spec.run import RunSpec

ResultT = TypeVar("ResultT")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while runs were going on.

    Attributes:
        finished: the tables of the seeds on which everything was finished.
        told: how many these are, in words.
    """

    def __init__(self, finished: object, told: str) -> None:
        super().__init__(told)
        self.finished = finished
        self.told = told


@dataclass(frozen=True)
class PairedRuns(Generic[ResultT]):
    """What came out, on the seeds on which every variant is finished.

    Attributes:
        by_seed: what came out of each variant, in the order of the variants.
        interrupted: how many seeds are finished, in words, where Ctrl-C ended the runs; else None.
    """

    by_seed: Mapping[int, Sequence[ResultT]]
    interrupted: str | None


@dataclass(frozen=True)
class _Placed(Generic[ResultT]):
    """The task, with the seed and variant of each result."""

    task: Callable[[RunSpec], ResultT]

    def __call__(self, item: tuple[int, RunSpec]) -> tuple[int, int, ResultT]:
        place, spec = item
        return spec.seed, place, self.task(spec)


def on_each_seed(
    task: Callable[[RunSpec], ResultT],
    variants: Sequence[RunSpec],
    seeds: Sequence[int],
    *,
    jobs: int,
    on_progress: Callable[[int, int], None],
) -> PairedRuns[ResultT]:
    """Run every variant on every seed.

    Args:
        task: what is done with a spec; goes to other processes where there are several jobs.
        variants: specs whose seed is replaced.
        seeds: the same for every variant.
        jobs: processes; 1 runs everything in this one.
        on_progress: called with the runs that are done and that there are.

    Raises:
        InputError: there are no seeds or jobs, a seed is there twice, or one is beyond the range of seeds.
        KeyboardInterrupt: Ctrl-C before any seed is finished.
    """
    if not seeds or jobs < 1 or len(set(seeds)) < len(seeds):
        raise InputError(f"{len(seeds)} seeds and {jobs} jobs: at least one of each, and no seed twice")
    for seed in (min(seeds), max(seeds)):
        if seed not in SEED:
            raise InputError(f"the last of {len(seeds)} seeds is {seed}, but a seed must be a whole number {SEED}")
    items = [(place, variant.with_seed(seed)) for seed in seeds for place, variant in enumerate(variants)]
    found: dict[int, dict[int, ResultT]] = {seed: {} for seed in seeds}
    interrupted = None
    try:
        with closing(run_all(_Placed(task), items, jobs)) as results:
            for done, (seed, place, result) in enumerate(results, start=1):
                found[seed][place] = result
                on_progress(done, len(items))
    except KeyboardInterrupt:
        finished = sum(len(by_place) == len(variants) for by_place in found.values())
        if not finished:
            raise
        interrupted = f"{finished} of {len(seeds)} seeds are finished"
    places = range(len(variants))
    return PairedRuns(
        {seed: [found[seed][place] for place in places] for seed in seeds if len(found[seed]) == len(variants)},
        interrupted,
    )
