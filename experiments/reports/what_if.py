"""What a tenth more time or money would change: the same policies on the same seeds, run again in the simulation.

Imports `experiments.comparisons.paired_runs` for the runs and `experiments.statistics` for their differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.experiments.comparisons.paired_runs import on_each_seed
from elastune.experiments.reports.page import Cell, PageSection, PageTable, between, numbers, texts
from elastune.experiments.runs.journals import with_named_policy
from elastune.experiments.runs.simulate import execute
from elastune.experiments.statistics.differences import PairedDifference, mean_interval, paired_difference
from elastune.sim.model.errors import InputError, TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.spec.run import RunSpec

MORE = 0.1
"""By how much the limits are raised."""
_LIMITS = {"deadline_s": "T + 10 %", "budget_usd": "B + 10 %"}
_MEASURES = {"score": "score", "regret": "regret", "cost_usd": "cost, USD", "makespan_s": "makespan, s"}


@dataclass(frozen=True)
class WhatIf:
    """How to simulate limits that are a tenth larger.

    Attributes:
        folder: that the report is of.
        seeds: that they are simulated on; 0 leaves it out.
        jobs: processes.
        named: the code of a policy that does not ship, which may be run: `file.py:Name` or `module:Name`.
        on_progress: called with the runs that are done and that there are.
    """

    folder: Path
    seeds: int
    jobs: int
    named: str | None = None
    on_progress: Callable[[int, int], None] = lambda _done, _total: None

    def section(self, specs: Sequence[RunSpec], seeds: Sequence[int] | None = None) -> list[PageSection]:
        """What T + 10 % or B + 10 % would change; nothing where no seeds are asked for, or there are no limits.

        Args:
            specs: of the policies.
            seeds: those to use, as far as they are asked for; by default from the first spec's on.
        """
        if not self.seeds or not specs:
            return []
        first = specs[0].seed
        chosen = tuple(seeds or range(first, first + self.seeds))[: self.seeds]
        title = "What a tenth more time or money would change"
        try:
            may_run = [self._may_run(spec) for spec in specs]
            table, sentences = what_if(may_run, chosen, jobs=self.jobs, on_progress=self.on_progress)
        except InputError as error:
            return [PageSection(title, [f"It cannot be simulated: {error}."])]
        return [PageSection(title, sentences, [table])] if table is not None else []

    def _may_run(self, spec: RunSpec) -> RunSpec:
        """The spec with the user code that it needs, which the user has named: a folder alone makes no code run.

        Raises:
            InputError: it needs a name, or real workers, or its bundle is not here.
        """
        may_run = with_named_policy(spec, self.named, self.folder) if spec.policy.needs_naming else spec
        may_run.require_simulable()
        may_run.bundle()
        return may_run


def what_if(
    specs: Sequence[RunSpec], seeds: Sequence[int], *, jobs: int, on_progress: Callable[[int, int], None]
) -> tuple[PageTable | None, list[str]]:
    """Run the specs as they are, with T + 10 % and with B + 10 %.

    Args:
        specs: of policies.
        seeds: the same for all.
        jobs: processes.
        on_progress: called with the runs that are done and that there are.

    Returns:
        The table of differences, one row per policy and limit that it has, None where no spec has a limit; and a sentence per
        row about the score.
    """
    variants = [(spec, change, varied) for spec in specs for change, varied in _variants(spec)]
    if all(change is None for _, change, _ in variants):
        return None, []
    tried = on_each_seed(_result, [varied for *_, varied in variants], seeds, jobs=jobs, on_progress=on_progress)
    by_variant = list(zip(*tried.by_seed.values(), strict=True))
    rows: list[tuple[Cell, ...]] = []
    sentences: list[str] = []
    base: Sequence[RunResult | None] = ()
    for (spec, change, _), results in zip(variants, by_variant, strict=True):
        if change is None:
            base = results
            rows.append((spec.policy.label, "as it is", *_means(results), _feasible(results)))
        else:
            rows.append((spec.policy.label, change, *_differences(results, base), _feasible(results)))
            sentences.append(_sentence(spec.policy.label, change, results, base))
    headings = [*texts("policy", "if"), *numbers(*_MEASURES.values(), "runs")]
    note = (
        f"Simulated on the same {len(seeds)} seeds. The first row of a policy has its means, the others their differences"
        " to it, with 95 % intervals."
    )
    return PageTable("A tenth more time or money", headings, rows, note), sentences


def _variants(spec: RunSpec) -> list[tuple[str | None, RunSpec]]:
    found: list[tuple[str | None, RunSpec]] = [(None, spec)]
    for key, told in _LIMITS.items():
        limit = getattr(spec.job, key)
        if limit is not None:
            found.append((told, spec.model_copy(update={"job": spec.job.model_copy(update={key: limit * (1 + MORE)})})))
    return found


def _result(spec: RunSpec) -> RunResult | None:
    """The result; None where the policy has no plan or breaks down, which does not stop the others."""
    try:
        return execute(spec)
    except TuningError:
        return None


def _values(results: Sequence[RunResult | None], name: str) -> list[float]:
    values = (None if one is None else getattr(one, name) for one in results)
    return [math.nan if value is None else float(value) for value in values]


def _means(results: Sequence[RunResult | None]) -> list[Cell]:
    means = (mean_interval(_values(results, name)) for name in _MEASURES)
    return [between(mean.value, mean.low, mean.high) for mean in means]


def _differences(results: Sequence[RunResult | None], base: Sequence[RunResult | None]) -> list[Cell]:
    found = (paired_difference(_values(results, name), _values(base, name)) for name in _MEASURES)
    return [(one.mean, _signed(one)) if one.pairs else None for one in found]


def _signed(difference: PairedDifference) -> str:
    """With its interval; what is left of rounding is zero."""
    mean, low, high = (round(value, 12) + 0.0 for value in (difference.mean, difference.low, difference.high))
    return f"{mean:+.3g} [{low:+.3g}, {high:+.3g}]"


def _feasible(results: Sequence[RunResult | None]) -> int:
    return sum(one is not None for one in results)


def _sentence(policy: str, change: str, results: Sequence[RunResult | None], base: Sequence[RunResult | None]) -> str:
    """What the change does to the score, in words."""
    known = [one for one in (*results, *base) if one is not None]
    direction = known[0].direction if known else "minimize"
    score = paired_difference(_values(results, "score"), _values(base, "score"), direction=direction)
    cost = paired_difference(_values(results, "cost_usd"), _values(base, "cost_usd"))
    if not score.pairs:
        return f"{change}: no run of {policy} to compare."
    is_noise = score.low <= 0 <= score.high
    is_better = (score.mean > 0) == (direction == "maximize")
    told = (
        "changes the score by less than noise" if is_noise else f"makes the score {'better' if is_better else 'worse'}"
    )
    more = f"{abs(cost.mean):.2f} USD {'less' if cost.mean < 0 else 'more'}"
    return f"{change}: {policy} {told} ({_signed(score)}), and spends {more}."
