"""Why a run left a part of its budget. Imports nothing of experiments but types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.sim.model.billing import metered_usd

if TYPE_CHECKING:
    from collections.abc import Collection

    from elastune.experiments.runs.world import World
    from elastune.sim.model.protocols import TrialView

SPENT_SHARE = 0.95
"""A bill of this share of the budget counts as all of it."""


def unspent_because(
    world: World,
    trials: Collection[TrialView],
    *,
    best_iteration: int | None,
    cost_usd: float,
    makespan_s: float,
    is_done: bool,
    is_fixed: bool,
) -> str | None:
    """Why a part of B was left, in plain words; None where there is no budget, or hardly anything is left of it.

    The first of these that is true: no time for one more iteration, no money for one, and then what the run itself says of its
    work. One more iteration is one of a resumed trial on the fastest gang, or on one machine that starts for it.

    Args:
        world: of the run.
        trials: those that were started.
        best_iteration: last durable iteration of the trial that the run reports; None if it reports none.
        cost_usd: the bill.
        makespan_s: when the run ended.
        is_done: whether the job was done.
        is_fixed: whether the job was fixed before the run.
    """
    job, profile, book = world.job, world.profile, world.price_book
    if job.budget_usd is None or cost_usd >= SPENT_SHARE * job.budget_usd:
        return None
    timings = profile.timings
    around_s = timings.resume_s + timings.checkpoint_s
    fastest = max(profile.scaling.speedup(gpus) for gpus in range(1, profile.scaling.max_gpus + 1))
    if job.deadline_s is not None and job.deadline_s - makespan_s < around_s + profile.iteration_s / fastest:
        return "no time was left for one more iteration"
    one_more_s = profile.startup.mean_s + around_s + profile.iteration_s
    if job.budget_usd - cost_usd < metered_usd(book.billing, book.usd_per_hour(), one_more_s) + book.ingress_usd:
        return "what was left did not pay a machine for one more iteration"
    if not is_done:
        return "the run ended before its work was done"
    if is_fixed:
        return "the job was fixed before the run, and is done"
    if len(trials) == job.trials and all(trial.checkpoint_iteration >= job.max_iterations for trial in trials):
        return "all configurations were trained to R"
    if best_iteration == job.max_iterations:
        return "the configuration that it reports was trained to R, and the policy goes on with no other by then"
    return "all that the policy had planned was done, and it plans no more"
