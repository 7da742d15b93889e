"""What a run came to, as the commands print it: answer, limits, where the money went, and what controlling it took."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.experiments.cli.tables import (
    NONE,
    Column,
    Table,
    number,
    numbers,
    percent,
    print_pairs,
    say,
    seconds,
    usd,
)
from elastune.experiments.formats import configuration, kept

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from elastune.experiments.real.result import RealResult
    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.spec.run import RunSpec


def print_run(spec: RunSpec, result: RunResult, folder: Path, journal: Path) -> None:
    """Print the answer, how it kept the limits, and where the money went."""
    job, sums = spec.job, result.placement
    budget = f"{usd(job.budget_usd)} USD"
    rows = {
        "best trial": NONE
        if result.best_trial is None
        else f"{spec.trial_names()[result.best_trial]}: {configuration(result.best_config or {})}",
        "score": number(result.score),
        "test score": number(result.test_score),
        **_measured(spec, result),
        **_regretted(result),
        "cost": f"{usd(result.cost_usd)} USD, {kept(result.budget_met, budget)}",
        **_unspent(result, job.budget_usd),
        "makespan": f"{seconds(result.makespan_s)} s, {_by_deadline(result, job.deadline_s)}",
        "completed": f"after {seconds(result.completed_at_s)} s" if result.completed else "no, the job was cut",
        **_estimated(result),
        "trials started": result.trials_started,
        "iterations": result.iterations_trained,
        "GPU utilisation": percent(result.gpu_utilisation),
        "placement": f"{sums['spread_segments']:.0f} of {sums['segments']:.0f} segments on more machines than needed,"
        f" {sums['spread_lost_gpu_s']:,.0f} GPU-seconds lost by it; {sums['migrations']:.0f} of {sums['resumed']:.0f}"
        " resumed elsewhere",
    }
    print_pairs(f"{result.policy}, seed {result.seed}", rows)
    print_ledger(result.ledger_usd, result.ledger_gpu_s)
    say(f"results: {folder}\njournal: {journal}")


def _regretted(result: RunResult) -> dict[str, str]:
    """The regret and its parts, where the recording knows them."""
    if result.regret is None:
        return {}
    parts = (result.regret_sampling, result.regret_selection, result.regret_truncation)
    sampling, selection, truncation = map(number, parts)
    return {
        "regret": f"{number(result.regret)} = {sampling} sampling + {selection} selection + {truncation} truncation"
    }


def _measured(spec: RunSpec, result: RunResult) -> dict[str, str]:
    """What an image costs the answer, where that is known, and whether it may."""
    if result.flops is None:
        return {}
    bound = spec.job.bounds.get("flops")
    within = "" if bound is None else f", {kept(result.constraint_met, f'{bound:,.0f}')}"
    return {"FLOPs": f"{result.flops:,.0f} multiply-adds an image{within}"}


def _estimated(result: RunResult) -> dict[str, str]:
    """How sure the policy was of the deadline before the run, and what its plan may lose, where it says so."""
    said = {}
    if result.late_probability:
        said["estimated before"] = f"{percent(result.late_probability)} of such runs end after the deadline"
    if result.plan_left_out:
        said["planning"] = f"not all plans were searched: {result.plan_left_out}"
        if result.plan_search_gap:
            said["planning"] += f"; there may be one that is up to {percent(result.plan_search_gap)} cheaper"
    return said


def _unspent(result: RunResult, budget_usd: float | None) -> dict[str, str]:
    """What is left of the budget, and why, where it is worth a line."""
    if result.unspent_because is None or budget_usd is None:
        return {}
    return {"left of the budget": f"{usd(budget_usd - result.cost_usd)} USD: {result.unspent_because}"}


def _by_deadline(result: RunResult, deadline_s: float | None) -> str:
    """A pre-determined job that was cut has missed its deadline, although the run kept it."""
    if result.deadline_met is False and deadline_s is not None and result.makespan_s <= deadline_s:
        return f"the job was cut; the limit is {seconds(deadline_s)} s"
    return kept(result.deadline_met, f"{seconds(deadline_s)} s")


def print_control(result: RealResult) -> None:
    """What controlling a real run took."""
    control = result.control()
    if not control["events"]:
        return
    deciding, controlling = (
        f"{1000 * (control[f'{part}_median_s'] or 0):.2f} ms median, {1000 * (control[f'{part}_p99_s'] or 0):.2f} ms p99"
        for part in ("decision", "control")
    )
    say(
        f"{control['events']} events: deciding {deciding}; with writing and giving commands {controlling};"
        f" {result.host_s:.0f} s here"
    )


def print_ledger(cost_usd: Mapping[str, float], gpu_s: Mapping[str, float]) -> None:
    """Where dollars and GPU-hours went; parts that are zero in both are left out."""
    total_usd, total_gpu_s = math.fsum(cost_usd.values()), math.fsum(gpu_s.values())
    sums = (Column("USD", footer=usd(total_usd)), *numbers("share"), Column("GPU-hours", footer=_hours(total_gpu_s)))
    table = Table("Where it went", [Column("part", "key", "sum"), *sums])
    for part in cost_usd:
        if cost_usd[part] or gpu_s[part]:
            share = percent(cost_usd[part] / total_usd) if total_usd else NONE
            table.add(part, usd(cost_usd[part]), share, _hours(gpu_s[part]))
    table.print()


def _hours(duration_s: float) -> str:
    return number(duration_s / 3600)
