"""SHA: synchronous successive halving on allocations that are fixed before the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.limits import Limits
from policies.staged import StagedPolicy

if TYPE_CHECKING:
    from policies.halving import Bracket
    from policies.planning.plan import Allocation, Plan
    from sim.model.events import SegmentEnded
    from sim.model.job import TuningJob
    from sim.model.prices import PriceBook
    from sim.model.profile import Profile
    from sim.model.protocols import RunView


def prefetch_of(plan: Plan, index: int) -> tuple[float, int] | None:
    """When, after the begin of this stage, the plan asks for the machines of the next one, and how many it holds then."""
    after_s = plan.prefetch_after_s[index]
    return None if after_s is None else (after_s, plan.allocations[index + 1].instances)


class PlannedAllocator:
    """Gives each stage what a plan made before the run says."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def allocate(self, bracket: Bracket, view: RunView) -> Allocation:  # noqa: ARG002  the plan has decided already
        """See `policies.staged.Allocator`."""
        return self._plan.allocations[bracket.index]

    def prefetch(self, bracket: Bracket) -> tuple[float, int] | None:
        """See `policies.staged.Allocator`."""
        return prefetch_of(self._plan, bracket.index)

    def observe(self, event: SegmentEnded, gpus: int, iterations: int) -> None:
        """Learns nothing: the plan stands."""


def run_plan(
    plan: Plan,
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    *,
    holds: bool = False,
) -> StagedPolicy:
    """Successive halving that executes a plan, within the limits of the job."""
    limits = Limits(job, profile, price_book)
    return StagedPolicy(job, profile, plan.stages, PlannedAllocator(plan), limits, holds=holds)
