"""Chooses what to run: the policy, machine and market, and the size of the free limit, that serve a goal best.

Imports `experiments.comparisons.race`, which finds it, and `experiments.statistics` for what is said of the best few. These are
run anew on seeds that did not choose them, because the best of many is better on its own seeds than elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.experiments.comparisons.candidates import candidates_of, different, named, offers, workloads_of
from elastune.experiments.comparisons.comparison import no_plan
from elastune.experiments.comparisons.race import (
    FIRST_SEEDS,
    SURE,
    Candidate,
    CandidateRun,
    Goal,
    Runs,
    SeedDraws,
    race,
)
from elastune.experiments.spec.offers import at_prices
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.yaml_file import with_settings
from elastune.experiments.statistics.differences import PairedDifference, mean_interval, paired_difference
from elastune.experiments.sweeps.pools import workers
from elastune.sim.model.errors import InfeasibleJobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from elastune.experiments.statistics.bootstrap import Interval
    from elastune.traces import Bundle

FINALISTS = 4
_MEASURES = ("score", "cost_usd", "makespan_s")
WRONG = 0.2
"""By how much seconds, scaling and prices are put wrong."""
SLACK = 0.9
"""A limit of which no run of the best used more than this share is said to be slack."""


@dataclass(frozen=True)
class OnBundle:
    """How one of the best few does on one of several bundles; means with 95 % intervals, and the share that kept the goal."""

    bundle: str
    kept: float
    score: Interval
    cost_usd: Interval
    makespan_s: Interval

    def to_json(self) -> dict[str, object]:
        """Plain numbers; what is not finite is None."""
        return {"bundle": self.bundle, "kept": self.kept, **_intervals(self)}


def _intervals(one: OnBundle | Standing) -> dict[str, list[float | None]]:
    return {name: _finite(astuple(getattr(one, name))) for name in _MEASURES}


@dataclass(frozen=True)
class Standing:
    """One of the best few, on seeds that did not choose it.

    Attributes:
        spec: what to run.
        runs: of this spec.
        kept: share of them that kept the goal.
        kept_low: lower end of its 95 % interval (Clopper and Pearson).
        score: mean with its 95 % interval.
        cost_usd: the same.
        makespan_s: the same.
        to_best: its measure less that of the best, on the same seeds; None for the best itself.
        on_bundles: the same runs by bundle; empty where there is one bundle.
    """

    spec: RunSpec
    runs: int
    kept: float
    kept_low: float
    score: Interval
    cost_usd: Interval
    makespan_s: Interval
    to_best: PairedDifference | None
    on_bundles: tuple[OnBundle, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain numbers; what is not finite is None."""
        difference = None if self.to_best is None else _finite(astuple(self.to_best)[:3])
        shares = {"runs": self.runs, "kept": self.kept, "kept_low": self.kept_low}
        on = {"on_bundles": [one.to_json() for one in self.on_bundles]} if self.on_bundles else {}
        return {**named(self.spec), **shares, **_intervals(self), "to_best": difference, **on}


@dataclass(frozen=True)
class WhenWrong:
    """What happens to the best where something is other than believed.

    Attributes:
        what: is wrong.
        kept: share of the runs of the best that keep the goal then.
        value: mean of the measure of the best then.
        better: the finalist that should have been chosen, if another.
        loss: by how much that is better, in the unit of the measure; 0 where it is the best itself.
    """

    what: str
    kept: float
    value: float
    better: dict[str, object] | None
    loss: float

    def to_json(self) -> dict[str, object]:
        """Plain numbers; what is not finite is None."""
        return {**vars(self), "value": _finite([self.value])[0], "loss": _finite([self.loss])[0]}


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The answer.

    Attributes:
        goal: what was asked.
        standings: the best few, the recommended one first; each another policy, machine or market. Empty where no candidate
            may keep the goal in 95 runs of 100.
        is_sure: whether the first kept the goal in 95 % of its runs.
        when_wrong: of the first.
        candidates: policy, instance_type, market, deadline_s, budget_usd, status, error, runs, kept, and means of score,
            cost_usd, makespan_s: all candidates, as far as each was run.
        notes: what to know before it is used.
    """

    goal: Goal
    standings: tuple[Standing, ...]
    is_sure: bool
    when_wrong: tuple[WhenWrong, ...]
    candidates: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def best(self) -> Standing | None:
        """What to run."""
        return self.standings[0] if self.standings else None

    def best_row(self) -> pd.Series | None:
        """The row of `candidates` of what to run."""
        if self.best is None:
            return None
        known = named(self.best.spec).items()
        rows = self.candidates.astype(object).where(self.candidates.notna(), None).to_dict("records")
        return self.candidates.iloc[
            next(n for n, row in enumerate(rows) if all(row[name] == value for name, value in known))
        ]

    def nearest(self) -> pd.DataFrame:
        """The candidates that kept the goal most often, the best size of each policy on each machine; of equals the cheaper."""
        table = self.candidates[self.candidates["runs"] > 0]
        table = table.assign(share=table["kept"] / table["runs"]).sort_values(
            ["share", "cost_usd"], ascending=[False, True], ignore_index=True
        )
        return table.drop_duplicates(["policy", "instance_type", "market"], ignore_index=True)

    def front(self) -> pd.DataFrame:
        """The candidates of which no other is cheaper, sooner and better at once, by the means of their runs."""
        table = self.candidates.dropna(subset=["score", "cost_usd", "makespan_s"])
        sign = 1 if self.goal.direction == "minimize" else -1
        values = np.column_stack((table["cost_usd"], table["makespan_s"], sign * table["score"]))
        is_beaten = [bool(((values <= one).all(axis=1) & (values < one).any(axis=1)).any()) for one in values]
        return table[~np.asarray(is_beaten, dtype=bool)].sort_values("cost_usd", ignore_index=True)

    def to_json(self) -> dict[str, object]:
        """What `elastune recommend --json` prints."""
        from elastune.experiments.sweeps.summary import json_records

        return {
            "goal": vars(self.goal) | {"seeks": self.goal.measure},
            "is_sure": self.is_sure,
            "standings": [standing.to_json() for standing in self.standings],
            "when_wrong": [wrong.to_json() for wrong in self.when_wrong],
            "front": json_records(self.front()),
            "candidates": len(self.candidates),
            "runs": int(self.candidates["runs"].sum()),
            "notes": list(self.notes),
            "spec": None if self.best is None else self.best.spec.to_dict(),
        }


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def recommend(  # noqa: PLR0913  all but the spec have a default
    spec: RunSpec,
    *,
    others: Sequence[RunSpec] = (),
    policies: Sequence[str] = (),
    score: float | None = None,
    levels: int = 8,
    seeds: int = 64,
    first_seeds: int = FIRST_SEEDS,
    jobs: int = 2,
    bundle: Bundle | None = None,
    bundles: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Recommendation:
    """The best of the candidates for two of deadline, budget and score.

    With a score to reach, deadline or budget is left out of the spec. Policies spend what they are given, so several sizes
    of the limit that is left out are tried.

    Args:
        spec: the job on one kind of machine; its policy does not matter.
        others: the same job on other machines or markets.
        policies: names, each with its parameters if any; none for all.
        score: to be reached.
        levels: how many sizes of a limit that was left out.
        seeds: that the best few are run on to choose among them; as many new ones judge them.
        first_seeds: that every candidate is run on; `seeds` makes it an exhaustive search.
        jobs: processes.
        bundle: used instead of the one that the spec names.
        bundles: names of those that the answer is to serve, on the mean over them; none for the one that the spec names.
        on_progress: called with the runs that are done and that are known to be needed.

    Raises:
        InputError: not exactly two of deadline, budget and score are given, or no policy can run the job at all.
    """
    workloads = workloads_of(spec, bundle, bundles)
    goal = Goal(workloads[0].loaded().direction, spec.job.deadline_s, spec.job.budget_usd, score)
    offered, known = offers((spec, *others))
    draws, count = SeedDraws(workloads, spec.seed), seeds * len(workloads)
    candidates = candidates_of(offered, goal, draws, count, policies=policies, levels=levels)
    with workers(jobs) as run:
        runs = Runs(run, draws, on_progress)
        ranked = race(candidates, goal, runs.extend, count, first_runs=first_seeds * len(workloads))
        _require_one_that_runs(candidates)
        judged = replace(runs, draws=replace(draws, first_seed=spec.seed + seeds))
        finalists = [Candidate(one.spec) for one in different(ranked)][:FINALISTS]
        judged.extend(finalists, count)
        # Stable: those that keep the goal stay in the order in which they were chosen.
        finalists.sort(key=lambda one: 0.0 if one.may_win(goal, count) else 1.0 - one.kept(goal) / count)
        half = max(seeds // 2, 1) * len(workloads)
        wrong = tuple(_when_wrong(finalists, goal, judged, half)) if finalists else ()
    names = [workload.loaded().name for workload in workloads]
    standings = tuple(_standing(one, finalists[0], goal, names) for one in finalists)
    is_sure = bool(finalists) and finalists[0].may_win(goal, count)
    notes = (*dict.fromkeys((*known, *offered[0].notes())), *_findings(finalists[:1], standings, goal))
    return Recommendation(goal, standings, is_sure, wrong, _table(candidates, goal), notes)


def _require_one_that_runs(candidates: Sequence[Candidate]) -> None:
    if all(one.status == "infeasible" for one in candidates):
        errors = ((one.spec.policy.label, one.error) for one in reversed(candidates))
        raise no_plan({label: error for label, error in errors if isinstance(error, InfeasibleJobError)})


def _standing(one: Candidate, best: Candidate, goal: Goal, bundles: Sequence[str]) -> Standing:
    from scipy.stats import binomtest

    kept, runs = one.kept(goal), len(one.outcomes)
    values = _values(one.outcomes)
    against = [_number(getattr(run, goal.measure)) for run in best.outcomes]
    direction = goal.direction if goal.measure == "score" else "minimize"
    difference = None if one is best else paired_difference(values[goal.measure], against, direction=direction)
    low = float(binomtest(kept, runs).proportion_ci(method="exact").low)
    score, cost_usd, makespan_s = (mean_interval(values[name]) for name in _MEASURES)
    apart = ((name, one.outcomes[place :: len(bundles)]) for place, name in enumerate(bundles))
    on = tuple(_on_bundle(name, outcomes, goal) for name, outcomes in apart) if len(bundles) > 1 else ()
    return Standing(one.spec, runs, kept / runs, low, score, cost_usd, makespan_s, difference, on)


def _on_bundle(name: str, outcomes: Sequence[CandidateRun], goal: Goal) -> OnBundle:
    values = _values(outcomes)
    kept = sum(map(goal.is_kept_by, outcomes)) / len(outcomes)
    return OnBundle(name, kept, *(mean_interval(values[measure]) for measure in _MEASURES))


def _values(outcomes: Sequence[CandidateRun]) -> dict[str, list[float]]:
    return {name: [_number(getattr(run, name)) for run in outcomes] for name in _MEASURES}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _when_wrong(finalists: Sequence[Candidate], goal: Goal, runs: Runs, count: int) -> Iterator[WhenWrong]:
    """How the finalists do where something is other than believed; first, on the same seeds, where nothing is."""
    as_believed = [replace(one, outcomes=one.outcomes[:count]) for one in finalists]
    yield _told_when("all is as believed", as_believed, finalists, goal)
    for what, change in _WORLDS.items():
        changed = [Candidate(change(one.spec)) for one in finalists]
        runs.extend(changed, count)
        yield _told_when(what, changed, finalists, goal)


def _told_when(what: str, changed: Sequence[Candidate], finalists: Sequence[Candidate], goal: Goal) -> WhenWrong:
    """How the first does in a world, and which other of the finalists should have been chosen for it."""
    sign = -1 if goal.measure == "score" and goal.direction == "maximize" else 1
    first = changed[0]
    if not first.outcomes:
        return WhenWrong(what, 0.0, math.nan, None, math.nan)
    able = [one for one in changed if one.may_win(goal, len(one.outcomes))]
    best = min(able or [first], key=lambda one: one.mean_loss(goal))
    is_other = best is not first and best.mean_loss(goal) < first.mean_loss(goal)
    is_kept = first.may_win(goal, len(first.outcomes))
    return WhenWrong(
        what,
        first.kept(goal) / len(first.outcomes),
        sign * first.mean_loss(goal),
        named(finalists[changed.index(best)].spec) if best is not first and (is_other or not is_kept) else None,
        first.mean_loss(goal) - best.mean_loss(goal) if is_other else 0.0,
    )


def _believing(key: str, error: float) -> Callable[[RunSpec], RunSpec]:
    """Changes what policies believe; beliefs of a scaling of its own give way to the true one, with the error."""

    def changed(spec: RunSpec) -> RunSpec:
        settings = [f"workload.profile.{key}={error}", "workload.profile.scaling=null"]
        return RunSpec.of(**with_settings(spec.to_dict(), settings))

    return changed


def _priced(factor: float) -> Callable[[RunSpec], RunSpec]:
    return lambda spec: at_prices(spec, factor)


_WORLDS: dict[str, Callable[[RunSpec], RunSpec]] = {
    "iterations take longer than believed": _believing("iteration_s_error", 1 / (1 + WRONG) - 1),
    "iterations take less than believed": _believing("iteration_s_error", 1 / (1 - WRONG) - 1),
    "gangs are slower than believed": _believing("scaling_error", 1 / (1 - WRONG) - 1),
    "gangs are faster than believed": _believing("scaling_error", 1 / (1 + WRONG) - 1),
    "prices are higher": _priced(1 + WRONG),
    "prices are lower": _priced(1 - WRONG),
}
"""By `WRONG` each. Truth is what the spec says, and beliefs are wrong; prices are known, and other than in the spec."""


def _findings(best: Sequence[Candidate], standings: Sequence[Standing], goal: Goal) -> Iterator[str]:
    """Notes on the numbers."""
    if not best:
        return
    if not best[0].may_win(goal, len(best[0].outcomes)):
        yield (
            f"on new seeds the best keeps the goal in {100 * standings[0].kept:.0f} % of the runs, which is less than"
            f" {100 * SURE:.0f} %: give it more, or ask for less"
        )
    limits = (("budget", goal.budget_usd, "cost_usd", "USD"), ("deadline", goal.deadline_s, "makespan_s", "s"))
    for name, limit, measure, unit in limits:
        most = max(getattr(run, measure) for run in best[0].outcomes)
        if limit is not None and most <= SLACK * limit:
            yield f"the {name} is slack: of {limit:,.4g} {unit} no run of the best used more than {most:,.4g}"
    alike = [one for one in standings[1:] if one.to_best is not None and one.to_best.low <= 0 <= one.to_best.high]
    if alike:
        names = ", ".join(_told(one.spec) for one in alike)
        yield f"on {standings[0].runs} seeds the difference to {names} may be noise"


def _told(spec: RunSpec) -> str:
    policy, machine, market = list(named(spec).values())[:3]
    return f"{policy} on {machine}" + ("" if market == "on-demand" else f" ({market})")


def _table(candidates: Sequence[Candidate], goal: Goal) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for one in candidates:
        means = {
            name: float(np.nanmean(numbers)) if np.isfinite(numbers).any() else math.nan
            for name, numbers in _values(one.outcomes).items()
        }
        counts = {"runs": len(one.outcomes), "kept": one.kept(goal)}
        rows.append({**named(one.spec), "status": one.status, "error": str(one.error), **counts, **means})
    return pd.DataFrame(rows)
