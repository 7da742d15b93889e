"""Which plans T and B still allow at a barrier; it searches only where nothing cheaper answers [ours]."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from elastune.policies.planning.bound import is_out_of_reach
from elastune.policies.sizing.replanning import AtBarrier, terms_left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.execution.observed import Observed
    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.rules.halving import Stage
    from elastune.policies.seer.mechanisms import Mechanisms
    from elastune.sim.model.ids import TrialId


class StagesLeft(NamedTuple):
    """What is left to train.

    Attributes:
        stages: the stage that begins and those after it.
        of_slowest: plan as if all trials were as slow as the slowest one; else with their mean and spread (`Observed.profile`).
    """

    stages: tuple[Stage, ...]
    of_slowest: bool


class Barrier:
    """A barrier that is reached, or the next one, before its machines are requested.

    Args:
        trials: those that may go on, best first by the last rung that has ended.
        at: how the run stands.
        observed: what was learned of the trials.
        terms: what was known before the run.
        mechanisms: how plans are made.
    """

    def __init__(
        self, trials: Sequence[TrialId], at: AtBarrier, observed: Observed, terms: Terms, mechanisms: Mechanisms
    ) -> None:
        self.trials, self.at = trials, at
        self._observed, self._terms, self._mechanisms = observed, terms, mechanisms
        self._known: dict[tuple[int, bool], Terms] = {}
        self._refused: dict[StagesLeft, bool] = {}
        self._plans: dict[StagesLeft, Plan | None] = {}
        self._latest: tuple[Allocation, ...] = ()

    def terms(self, count: int, *, of_slowest: bool) -> Terms:
        """The terms that are left if the best `count` trials go on, with what was learned of them."""
        key = count, of_slowest
        if key not in self._known:
            profile = self._observed.profile(self.trials[:count], of_slowest=of_slowest)
            self._known[key] = terms_left(self._terms, profile, self.at)
        return self._known[key]

    @property
    def more_is_never_faster(self) -> bool:
        """Whether the slowest of more trials is never faster than the slowest of fewer."""
        # `Observed.profile` takes the slowest trial that was seen. Before the best one was seen, the profile's own seconds
        # stand in for it, and they may be slower.
        return self._observed.iteration_s(self.trials[0]) is not None

    def is_refused(self, left: StagesLeft) -> bool:
        """Whether a bound proves that no plan for it keeps T and B; False: unknown."""
        if left not in self._refused:
            terms, live = self._terms_of(left), self.at.live_instances
            self._refused[left] = is_out_of_reach(left.stages, terms, live_instances=live, is_resumed=True)
        return self._refused[left]

    def allows(self, left: StagesLeft) -> bool:
        """Whether some plan for it keeps T and B. The plan found last may prove it; otherwise a search does."""
        if left not in self._plans and not self.is_refused(left):
            terms, live = self._terms_of(left), self.at.live_instances
            if self._mechanisms.is_shown_by(self._latest, left.stages, terms, live_instances=live, is_resumed=True):
                return True
        return self.plan(left) is not None

    def plan(self, left: StagesLeft) -> Plan | None:
        """The plan for it; None where no plan keeps T and B."""
        if left not in self._plans:
            self._plans[left] = plan = None if self.is_refused(left) else self._searched(left)
            if plan is not None:
                self._latest = plan.allocations
        return self._plans[left]

    def _searched(self, left: StagesLeft) -> Plan | None:
        live = self.at.live_instances
        return self._mechanisms.search(left.stages, self._terms_of(left), live_instances=live, is_resumed=True)

    def _terms_of(self, left: StagesLeft) -> Terms:
        return self.terms(left.stages[0].trials, of_slowest=left.of_slowest)
