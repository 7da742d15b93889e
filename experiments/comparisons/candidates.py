"""The candidates of a recommendation: policies on machines and markets, and sizes of the limit that is left free.

Imports `experiments.comparisons.race` and `reach`, and the worlds of runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.comparisons.comparison import default_policies
from elastune.experiments.comparisons.race import Candidate, Goal, RecordedWorkload, SeedDraws
from elastune.experiments.comparisons.reach import Reach, is_bounded, keep_nearest, leave_out
from elastune.experiments.runs.world import World
from elastune.experiments.spec.offers import believed_within
from elastune.experiments.spec.places import place_of_bundle
from elastune.sim.model.errors import InputError
from elastune.sim.model.price_series import highest
from elastune.sim.model.prices import SECONDS_PER_HOUR
from elastune.traces import Bundle, load_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elastune.experiments.spec.run import RunSpec


def named(spec: RunSpec) -> dict[str, object]:
    """The columns that name a candidate."""
    machine = spec.cloud.price_book(data_bytes=0.0).default_type.name
    limits = {"deadline_s": spec.job.deadline_s, "budget_usd": spec.job.budget_usd}
    return {"policy": spec.policy.label, "instance_type": machine, "market": spec.cloud.market, **limits}


def workloads_of(spec: RunSpec, bundle: Bundle | None, names: Sequence[str]) -> tuple[RecordedWorkload, ...]:
    """What the runs are about: the given bundle, those of these names, or the one that the spec names.

    Raises:
        InputError: a name is given twice, or some scores are minimised and some maximised.
    """
    if bundle is not None or not names:
        found = spec.bundle() if bundle is None else bundle
        return (RecordedWorkload(spec.workload.bundle, found.sha256, bundle),)
    if len(set(names)) < len(names):
        raise InputError(f"--bundle {','.join(names)}: a bundle is given twice; name each once")
    loaded = {name: load_bundle(place_of_bundle(name)) for name in names}
    if len({one.direction for one in loaded.values()}) > 1:
        told = ", ".join(f"{name}: {one.direction}" for name, one in loaded.items())
        raise InputError(f"--bundle: scores of these bundles cannot be averaged ({told}); name those of one direction")
    return tuple(RecordedWorkload(name, one.sha256) for name, one in loaded.items())


def candidates_of(
    offered: Sequence[RunSpec], goal: Goal, draws: SeedDraws, runs: int, *, policies: Sequence[str], levels: int
) -> list[Candidate]:
    """All policies on all machines, with all sizes of the free limit; those for which the goal is out of reach are marked.

    Args:
        offered: the job on each kind of machine.
        goal: what they are judged by.
        draws: what their runs will be about.
        runs: by which they are judged.
        policies: none for all.
        levels: sizes of the free limit.
    """
    candidates: list[Candidate] = []
    for offer in offered:
        worlds = [World.of(*draws.run_of(offer, number)) for number in range(runs)]
        on_offer = [
            Candidate(sized.with_policy(policy))
            for sized in _sized(offer, goal, levels, worlds[: len(draws.workloads)])
            for policy in policies or default_policies(sized)
        ]
        if all(map(is_bounded, worlds[: len(draws.workloads)])):
            leave_out(on_offer, Reach.of(worlds, goal))
        candidates += on_offer
    keep_nearest(candidates)
    return candidates


def offers(specs: Sequence[RunSpec]) -> tuple[list[RunSpec], list[str]]:
    """The specs to choose among, and what to know of them; gangs are believed within a machine where there is a choice."""
    names = [tuple(named(spec).values())[1:3] for spec in specs]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{', '.join(map(str, doubles[0]))} is offered twice: name each machine and market once")
    if len({machine for machine, _ in names}) == 1:
        return list(specs), []
    return believed_within(specs)


def _sized(spec: RunSpec, goal: Goal, levels: int, worlds: Sequence[World]) -> Iterator[RunSpec]:
    """The spec, with several sizes of the limit that the goal leaves free; they ascend."""
    if goal.score is None:
        yield spec
        return
    key = "budget_usd" if goal.budget_usd is None else "deadline_s"
    ranges = [_range(world, goal) for world in worlds]
    least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
    for size in np.geomspace(least, max(most, 2 * least), levels).tolist():
        yield spec.model_copy(update={"job": spec.job.model_copy(update={key: float(f"{size:.3g}")})})


def _range(world: World, goal: Goal) -> tuple[float, float]:
    """From what one trial to the end takes to what all of them do, in USD or seconds, whichever the goal leaves free."""
    profile, book, job = world.profile, world.price_book, world.job
    usd_per_s = highest(book.price()) / SECONDS_PER_HOUR
    one_s = job.max_iterations * profile.iteration_s
    if goal.budget_usd is None:
        one_usd = one_s * usd_per_s / book.default_type.gpus_per_instance
        return one_usd, min(job.trials * one_usd, (goal.deadline_s or math.inf) * book.max_instances * usd_per_s)
    fastest = max(profile.scaling.speedup(gpus) for gpus in range(1, profile.scaling.max_gpus + 1))
    return one_s / fastest, goal.budget_usd / usd_per_s


def different(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best of each policy, machine and market."""
    best: dict[tuple[object, ...], Candidate] = {}
    for one in ranked:
        best.setdefault(tuple(named(one.spec).values())[:3], one)
    return list(best.values())
