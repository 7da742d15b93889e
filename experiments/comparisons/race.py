"""Which of many specs serves a goal best, with few runs: seeds are paired, and most specs are given up after a few.

Every candidate runs on the same first seeds. Then the better part is run on twice as many, and so on, until the best few have
all of them (successive halving, over policies and machines). A candidate is given up where so few of its runs keep the goal
that 95 % are out of the question. One that was behind comes back as soon as those before it are given up.

Imports `experiments.sweeps` for the runs; scipy inside the functions that need it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Literal, TypeAlias

from elastune.experiments.sweeps.worker import bundle_of, outcome_of
from elastune.policies.rules.margin import most_usd
from elastune.sim.model.errors import InputError
from elastune.sim.model.job import Direction, loss_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elastune.experiments.spec.run import RunSpec
    from elastune.experiments.sweeps.pools import Runner
    from elastune.sim.model.errors import InfeasibleJobError
    from elastune.traces import Bundle

SURE = 0.95
"""The share of runs that must keep the goal."""
FIRST_SEEDS = 4
"""On which every candidate is run."""
FEWEST_PLACES = 8
"""How many candidates are run on all seeds at least."""
TOLERANCE = 1 + 1e-9
"""Over a deadline, for sums of floats."""

Measure: TypeAlias = Literal["score", "cost_usd", "makespan_s"]


@dataclass(frozen=True)
class CandidateRun:
    """The numbers of a run that decide; the score is None where there is no answer, or it diverged."""

    score: float | None
    cost_usd: float
    makespan_s: float


@dataclass(frozen=True)
class Goal:
    """Two of deadline, budget and score to reach; the third is optimised.

    Raises:
        InputError: there are not exactly two.
    """

    direction: Direction
    deadline_s: float | None = None
    budget_usd: float | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        given = {"job.deadline_s": self.deadline_s, "job.budget_usd": self.budget_usd, "--score": self.score}
        named = [name for name, value in given.items() if value is not None]
        if len(named) == 3:
            raise InputError(
                f"{', '.join(named)} are all given, but one of them must be what is sought: leave one out, as with"
                " --set job.budget_usd=null"
            )
        if len(named) < 2:
            raise InputError(
                f"{' and '.join(named) or 'no limit'} given, but two of {', '.join(given)} are needed: the third is sought"
            )

    @property
    def measure(self) -> Measure:
        """The measure that is optimised."""
        if self.score is None:
            return "score"
        return "cost_usd" if self.budget_usd is None else "makespan_s"

    def loss(self, outcome: CandidateRun) -> float:
        """The loss of a run: less is better; infinite where it has no score."""
        value: float | None = getattr(outcome, self.measure)
        return loss_of(value, self.direction) if self.measure == "score" else float(value or 0.0)

    @property
    def most_loss(self) -> float:
        """The loss of the score that is to be reached; infinite where there is none."""
        return math.inf if self.score is None else loss_of(self.score, self.direction)

    def is_kept_by(self, outcome: CandidateRun) -> bool:
        """Whether a run has an answer, and keeps both of what was given."""
        loss = loss_of(outcome.score, self.direction)
        return (
            math.isfinite(loss)
            and loss <= self.most_loss
            and outcome.makespan_s <= (self.deadline_s or math.inf) * TOLERANCE
            and outcome.cost_usd <= most_usd(self.budget_usd or math.inf)
        )


@dataclass(eq=False)
class Candidate:
    """A spec, and how it has done so far.

    Attributes:
        outcomes: of the seeds from the first on.
        status: `infeasible` where its policy finds no plan, `failed` where a run broke down; else `done`.
        error: what it said then; that of a policy without a plan as it was raised.
    """

    spec: RunSpec
    outcomes: list[CandidateRun] = field(default_factory=list)
    status: str = "done"
    error: str | InfeasibleJobError = ""

    def kept(self, goal: Goal) -> int:
        """How many of its runs keep the goal."""
        return sum(map(goal.is_kept_by, self.outcomes))

    def mean_loss(self, goal: Goal) -> float:
        """Over the runs that have one."""
        losses = [loss for outcome in self.outcomes if math.isfinite(loss := goal.loss(outcome))]
        return fmean(losses) if losses else math.inf

    def rank(self, goal: Goal) -> tuple[float, float, float]:
        """What candidates are sorted by: the mean loss; of equals, the cheaper, then the sooner."""
        runs = self.outcomes or [CandidateRun(None, math.inf, math.inf)]
        return self.mean_loss(goal), fmean(run.cost_usd for run in runs), fmean(run.makespan_s for run in runs)

    def may_win(self, goal: Goal, seeds: int) -> bool:
        """Whether 95 % are kept; or still may be, where not all seeds are run."""
        if self.status != "done":
            return False
        runs, kept = len(self.outcomes), self.kept(goal)
        return kept >= SURE * runs if runs >= seeds else most_share(kept, runs) >= SURE


def most_share(kept: int, runs: int) -> float:
    """The largest share of all runs that is compatible with so many, at 95 % (Clopper and Pearson)."""
    from scipy.special import bdtri

    return 1.0 if kept == runs else float(bdtri(kept, runs, 0.05))


def race(
    candidates: Sequence[Candidate],
    goal: Goal,
    extend: Callable[[Sequence[Candidate], int], None],
    runs: int,
    *,
    first_runs: int = FIRST_SEEDS,
) -> list[Candidate]:
    """Run the candidates as many times as it takes to tell the best few; these come first, best first.

    Args:
        candidates: each with no outcomes yet.
        goal: what they are judged by.
        extend: runs candidates until each has so many outcomes.
        runs: that the best few are run on.
        first_runs: that every candidate is run on; `runs` makes it an exhaustive search.
    """

    def ranked() -> list[Candidate]:
        able = [candidate for candidate in candidates if candidate.may_win(goal, runs)]
        return sorted(able, key=lambda candidate: candidate.rank(goal))

    in_race = sum(candidate.status == "done" for candidate in candidates)
    level = min(first_runs, runs)
    extend(candidates, level)
    while level < runs:
        level = min(2 * level, runs)
        places = max(FEWEST_PLACES, in_race * first_runs // level)
        while short := [one for one in ranked()[:places] if len(one.outcomes) < level]:
            extend(short, level)
    return ranked()


@dataclass(frozen=True)
class RecordedWorkload:
    """The recorded workload that a run is about.

    Attributes:
        bundle: what a spec calls it.
        sha256: of it.
        given: used instead of what the spec names.
    """

    bundle: str | None
    sha256: str
    given: Bundle | None = None

    def loaded(self) -> Bundle:
        """The bundle, loaded once per process."""
        return self.given or bundle_of(self.bundle or "", None, self.sha256)


@dataclass(frozen=True)
class SeedDraws:
    """What the runs of a candidate are about, by their number: every seed on each workload in turn.

    Attributes:
        first_seed: of every candidate.
    """

    workloads: tuple[RecordedWorkload, ...]
    first_seed: int

    def run_of(self, spec: RunSpec, number: int) -> tuple[RunSpec, Bundle]:
        """The spec and the bundle of one run."""
        seed, place = divmod(number, len(self.workloads))
        workload = self.workloads[place]
        named = spec.workload.model_copy(update={"bundle": workload.bundle})
        return spec.with_seed(self.first_seed + seed).model_copy(update={"workload": named}), workload.loaded()


@dataclass(frozen=True)
class _Task:
    """Does some runs of a spec; ends at the first that gives no result, which is told."""

    draws: SeedDraws

    def __call__(
        self, item: tuple[int, RunSpec, range]
    ) -> tuple[int, list[CandidateRun], str, str | InfeasibleJobError]:
        place, spec, numbers = item
        outcomes: list[CandidateRun] = []
        for number in numbers:
            status, error, result = outcome_of(*self.draws.run_of(spec, number))
            if result is None:
                return place, outcomes, status, error
            outcomes.append(CandidateRun(result.score, result.cost_usd, result.makespan_s))
        return place, outcomes, "done", ""


@dataclass
class Runs:
    """Runs candidates on the same draws, side by side.

    Attributes:
        run: applies the task to candidates, in several processes perhaps.
        draws: what the runs are about.
        on_progress: called with the runs that are done and that are known to be needed.
        done: runs that are done.
        needed: runs that are known to be needed.
    """

    run: Runner
    draws: SeedDraws
    on_progress: Callable[[int, int], None] = lambda _done, _total: None
    done: int = 0
    needed: int = 0

    def extend(self, candidates: Sequence[Candidate], count: int) -> None:
        """Run each of them until it has so many outcomes; one without a result ends there."""
        items = [
            (place, one.spec, range(len(one.outcomes), count))
            for place, one in enumerate(candidates)
            if one.status == "done" and len(one.outcomes) < count
        ]
        self.needed += sum(len(numbers) for *_, numbers in items)
        for place, outcomes, status, error in self.run(_Task(self.draws), items):
            candidate = candidates[place]
            candidate.outcomes.extend(outcomes)
            candidate.status, candidate.error = status, error
            self.done += len(outcomes)
            self.on_progress(self.done, self.needed)
