"""Running a plan that was made before the run: stages with barriers, each on its planned allocation [ours].

May import what `policies.execution` may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.policies.execution.director import Director, Shares
from elastune.policies.execution.limits import Limits
from elastune.policies.execution.staged import StagedPolicy
from elastune.policies.rules.halving import Bracket, Stage
from elastune.sim.model.ids import TrialId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Plan
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView


def prefetch_of(plan: Plan, index: int) -> tuple[float, int] | None:
    """Seconds after this stage begins at which the plan requests the machines of the next one, and how many it then holds."""
    after_s = plan.prefetch_after_s[index]
    return None if after_s is None else (after_s, plan.allocations[index + 1].instances)


class OneBracket(Director):
    """One bracket, and no other after it.

    Args:
        stages: of the bracket.
        job: says what is better.
        trials: that it starts with; the first ones of the job where they are left out.
    """

    def __init__(self, stages: Sequence[Stage], job: TuningJob, trials: Sequence[TrialId] = ()) -> None:
        first = [TrialId(number) for number in range(stages[0].trials)]
        self._bracket: Bracket | None = Bracket(stages, list(trials or first), job.direction)

    def next_bracket(self, view: RunView, stop_at_s: float) -> Bracket | None:  # noqa: ARG002  there is one only
        """The bracket, once."""
        bracket, self._bracket = self._bracket, None
        return bracket


class PlannedDirector(OneBracket):
    """One bracket with the first trials of the job; each stage gets what the plan says.

    Args:
        plan: what is followed.
        job: says what is better.
        stages: of the bracket, if it has more than the plan.
        gives_back: give back machines as soon as neither this stage nor the next needs them, not only at the barrier.

    Attributes:
        plan: what is followed now.
        first: index of the stage with which that plan begins.
    """

    def __init__(self, plan: Plan, job: TuningJob, stages: Sequence[Stage] = (), *, gives_back: bool = False) -> None:
        super().__init__(stages or plan.stages, job)
        self.plan = plan
        self.first = 0
        self._gives_back = gives_back

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:  # noqa: ARG002  the plan has decided
        """See `policies.execution.director.Director`."""
        return Shares.of(self.plan.allocations[bracket.index - self.first])

    def prefetch(self, bracket: Bracket) -> tuple[float, int] | None:
        """See `policies.execution.director.Director`."""
        return prefetch_of(self.plan, bracket.index - self.first)

    def kept_instances(self, bracket: Bracket) -> int | None:
        """See `policies.execution.director.Director`."""
        if not self._gives_back:
            return None
        later = self.plan.allocations[bracket.index - self.first + 1 :]
        return later[0].instances if later else 0


def run_plan(
    plan: Plan,
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    *,
    gives_back: bool = False,
    holds: bool = False,
    late: float | None = None,
) -> StagedPolicy:
    """Successive halving that executes a plan, within the limits of the job; see `PlannedDirector` and `StagedPolicy`."""
    director = PlannedDirector(plan, job, gives_back=gives_back)
    return staged(director, Limits(job, profile, price_book), profile, price_book, holds=holds, late=late)


def staged(
    director: Director,
    limits: Limits,
    profile: Profile,
    price_book: PriceBook,
    *,
    holds: bool = False,
    late: float | None = None,
) -> StagedPolicy:
    """The executor of this director on the book's machines."""
    gpus = price_book.default_type.gpus_per_instance
    plan = director.plan if isinstance(director, PlannedDirector) else None
    return StagedPolicy(
        director,
        limits,
        sync_s=profile.sync_s,
        gpus_per_instance=gpus,
        holds=holds,
        late_probability=late,
        search_gap=plan.search_gap if plan else 0.0,
        left_out=plan.left_out if plan else "",
    )
