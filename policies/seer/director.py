"""How SEER runs its plan: planning anew at barriers, the reserve for the best trial, more GPUs within a rung [ours].

Both readings of SEER run their plans with it. They differ in the `Replanner`. `policies.execution.staged` calls the methods
of `SeerDirector` at the moments that they are named for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from elastune.policies.execution.budget import Budget
from elastune.policies.execution.director import Shares
from elastune.policies.execution.limits import live_instances
from elastune.policies.execution.observed import Observed
from elastune.policies.execution.planned import PlannedDirector
from elastune.policies.rules.margin import MARGIN_S, PLAN_MARGIN_S, plan_ends_by_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Allocation, Plan, Terms
    from elastune.policies.rules.halving import Bracket, Stage
    from elastune.policies.seer.mechanisms import Mechanisms
    from elastune.sim.model.events import ProgressReported, SegmentEnded
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.protocols import RunView

REPORTS_PER_RUNG = 8
"""How often a segment reports; each report is an event."""
LEAST_GAIN = 1.1
"""A larger gang must raise projected progress by this factor (HyperSched's rule, SoCC 2019, section 4)."""


class Replanner(Protocol):
    """Makes a plan for what is left, at a barrier."""

    def replanned(self, bracket: Bracket, view: RunView, observed: Observed) -> Plan:
        """The plan for the stage that begins and those after it; may have fewer trials than survived."""

    def next_instances(self, bracket: Bracket, view: RunView, observed: Observed, instances: int) -> int:  # noqa: ARG002
        """How many of these machines, which are about to be requested, the next stage would use by what is known now."""
        return instances


class SeerDirector(PlannedDirector):
    """Follows a plan, and replaces it by a new one at each barrier if `replan` says so; see `policies.seer.mechanisms`.

    Args:
        plan: made before the run.
        terms: what was known before the run.
        job: the tuning job.
        mechanisms: which of them are switched on.
        replanner: makes the new plans.
        stages: those of the plan, and one more if the winner may go on beyond it; the plan's alone if empty.
    """

    def __init__(
        self,
        plan: Plan,
        terms: Terms,
        job: TuningJob,
        mechanisms: Mechanisms,
        replanner: Replanner,
        stages: Sequence[Stage] = (),
    ) -> None:
        super().__init__(plan, job, stages, gives_back=mechanisms.elastic)
        self._job = job
        self._terms = terms
        self._mechanisms = mechanisms
        self._replanner = replanner
        self._observed = Observed(terms.profile)
        self._deadline_s = plan_ends_by_s(job)
        self._stage_ends_s = math.inf
        self._target_iteration = plan.stages[-1].until_iteration

    def target_iteration(self, bracket: Bracket) -> int:  # noqa: ARG002  the bracket may go on beyond the plan
        """The end of the plan. The stage beyond it is extra, so the job is done without it."""
        return self._target_iteration

    def planned_trials(self, bracket: Bracket) -> int:
        """Those of the plan: with `fill`, the bracket is open to all survivors. What goes on beyond the plan is extra."""
        ahead = bracket.index - self.first
        return self.plan.stages[ahead].trials if ahead < len(self.plan.stages) else 0

    def shares(self, bracket: Bracket, view: RunView, stop_at_s: float) -> Shares:  # noqa: ARG002  T and B are in the terms
        """What the rung that begins gets; at a barrier, by a new plan for what is left."""
        is_beyond_plan = bracket.index - self.first >= len(self.plan.stages)
        if (self._mechanisms.replan and bracket.index > 0) or is_beyond_plan:
            self.plan, self.first = self._replanner.replanned(bracket, view, self._observed), bracket.index
        if not is_beyond_plan:
            self._target_iteration = self.plan.stages[-1].until_iteration
        ahead = bracket.index - self.first
        self._stage_ends_s = self._deadline_s - math.fsum(self.plan.stage_s[ahead + 1 :])
        allocation = self.plan.allocations[ahead]
        if self._mechanisms.parallelism == "uniform" or bracket.index == 0 or allocation.waves > 1:
            return Shares.of(allocation)
        left_s = self._stage_ends_s - view.now_s
        slowest_s = max(self._observed.iteration_s(t) or self._terms.profile.iteration_s for t in bracket.trials)
        return ranked_shares(allocation, bracket.stage.iterations, slowest_s, left_s, self._terms)

    def prefetched(self, bracket: Bracket, instances: int, view: RunView) -> int:
        """Only machines that the next plan would use: the barrier would give others back as soon as they are there."""
        if not self._mechanisms.replan:
            return instances
        return self._replanner.next_instances(bracket, view, self._observed, instances)

    def report_every(self, bracket: Bracket) -> int:
        """How often trials report: only if a report may lead to a larger gang or move the cut."""
        watches = self._reserves or (self._mechanisms.resize_rule != "never" and math.isfinite(self._deadline_s))
        return max(bracket.stage.iterations // REPORTS_PER_RUNG, 1) if watches else 0

    def begun(self, trial: TrialId, gpus: int, view: RunView) -> None:  # noqa: ARG002
        """See `policies.execution.director.Director`."""
        self._observed.begun(trial, view.now_s, view.trial(trial).checkpoint_iteration)

    def observe(self, event: SegmentEnded, gpus: int, iterations: int) -> None:
        """See `policies.execution.director.Director`."""
        self._observed.segment(event, gpus, iterations)

    def observe_report(self, event: ProgressReported, gpus: int) -> None:
        """See `policies.execution.director.Director`."""
        self._observed.report(event, gpus)

    def cut_at_s(self, bracket: Bracket, view: RunView) -> float | None:
        """When the rung is cut: the latest time to end it so that the best trial can still finish by T within B.

        None where `reserve` is off, in the last rung, for a trial that is alone, and while no trial is known to be best.
        None as well if the best so far cannot be trained to its end even if the rung ended now: one that is so slow is not
        worth the others. If every trial that still trains will have ended by then, at the pace it has reported, nothing has
        to be cut.
        """
        leader = bracket.leader()
        if not self._reserves or bracket.is_last or len(bracket.trials) == 1 or leader is None:
            return None
        until = bracket.stage.until_iteration
        terms = replace(self._terms, profile=self._observed.profile([leader], of_slowest=True))
        live, left = live_instances(view), self.plan.stages[-1].until_iteration - until
        last_s = max(self._finishes_until_s(size, left, live, terms, view) for size in terms.gang_sizes)
        last_s -= terms.profile.sync_s
        if last_s < view.now_s - MARGIN_S:
            return None
        profile = self._observed.profile(bracket.trials, of_slowest=True)
        ends_s = max((self._ends_s(t, until, profile.iteration_s, view) for t in bracket.pending), default=0.0)
        # A trial that is cut first ends the iteration under way and saves it.
        gpus = self.plan.allocations[bracket.index - self.first].gpus_per_trial
        ending_s = profile.iteration_s / terms.speedup(gpus) + profile.timings.checkpoint_s
        cut_s = last_s - ending_s
        if view.now_s < cut_s - MARGIN_S or ends_s > max(last_s, view.now_s + ending_s):
            return cut_s
        # All end in time, or as soon as if they were cut.
        return max(last_s, ends_s) + PLAN_MARGIN_S

    def _ends_s(self, trial: TrialId, until: int, believed_s: float, view: RunView) -> float:
        """When a trial will have reached the end of the rung and saved it; infinite if it waits or is overdue."""
        gpus = view.trial(trial).gpus
        if not gpus:
            return math.inf
        ends_s = self._observed.reaches_s(trial, until, gpus, believed_s) + self._terms.profile.timings.checkpoint_s
        return ends_s if ends_s > view.now_s - MARGIN_S else math.inf

    @property
    def _reserves(self) -> bool:
        return self._mechanisms.reserve and (self._job.deadline_s is not None or self._job.budget_usd is not None)

    def _finishes_until_s(self, gpus: int, iterations: int, live: int, terms: Terms, view: RunView) -> float:
        """The latest time at which one trial can start on this gang and still finish by T, with the money left at that time."""
        machines = -(-gpus // terms.gpus_per_instance)
        added = max(machines - live, 0)
        train_s = terms.segment_s(iterations, gpus, is_first=False) + (terms.profile.startup.mean_s if added else 0.0)
        until_s = self._deadline_s - train_s
        if self._job.budget_usd is None:
            return until_s
        gpu_usd_per_s = terms.usd_per_s / terms.gpus_per_instance
        billed_gpus = machines * terms.gpus_per_instance if terms.is_per_instance else gpus
        left_usd = self._job.budget_usd - (billed_gpus * gpu_usd_per_s + terms.standing_usd_per_s) * train_s
        return min(until_s, Budget(left_usd, terms.price_book).ends_at_s(view, added))

    def resized(self, bracket: Bracket, trial: TrialId, most_gpus: int, view: RunView) -> int:
        """The gang of a trial that would end too late for the rungs to come; its own gang if it is in time.

        The smallest larger gang with which it ends in time, else the largest that is worth a rescale.
        """
        now = view.trial(trial).gpus
        iteration_s = self._observed.iteration_s(trial)
        if self._mechanisms.resize_rule == "never" or math.isinf(self._deadline_s) or iteration_s is None:
            return now
        until = bracket.stage.until_iteration
        ends_s = self._ends_s(trial, until, iteration_s, view)
        if ends_s <= self._stage_ends_s or math.isinf(ends_s):
            return now
        scaling, timings = self._observed.scaling(), self._terms.profile.timings
        # The trial first ends the iteration under way.
        later = until - view.trial(trial).iteration - 1
        paused_s = ends_s - timings.checkpoint_s - later * iteration_s / scaling.speedup(now)

        def would_end_s(gpus: int) -> float:
            return paused_s + timings.rescale_s + later * iteration_s / scaling.speedup(gpus) + timings.checkpoint_s

        left_s = max(self._stage_ends_s, ends_s) - view.now_s
        least = scaling.speedup(now) * left_s * (LEAST_GAIN if self._mechanisms.resize_rule == "gain" else 1.0)
        worth = [
            gpus
            for gpus in self._terms.gang_sizes
            if now < gpus <= most_gpus
            and scaling.speedup(gpus) * (left_s - timings.rescale_s) > least
            and would_end_s(gpus) < ends_s
        ]
        in_time = [gpus for gpus in worth if would_end_s(gpus) <= self._stage_ends_s]
        return min(in_time, default=max(worth, default=now))


def ranked_shares(allocation: Allocation, iterations: int, iteration_s: float, left_s: float, terms: Terms) -> Shares:
    """Larger gangs for better trials, on the machines of this allocation.

    The worse half of the trials get the next smaller gang if they still end in time on it. The GPUs that this frees, and those
    that whole machines leave over, raise gangs by one size each, the best trial's first.

    Args:
        allocation: uniform, all trials at once.
        iterations: of the rung.
        iteration_s: seconds per iteration of the slowest trial on one GPU.
        left_s: until when the rung must have ended.
        terms: for the scaling and the sizes that can be placed.
    """
    size, trials = allocation.gpus_per_trial, allocation.trials
    gangs = [size] * trials
    smaller = max((other for other in terms.gang_sizes if other < size), default=size)
    profile = terms.profile
    slow_s = profile.timings.rescale_s + iterations * iteration_s / profile.scaling.speedup(smaller)
    if slow_s <= left_s:
        worse = trials // 2
        gangs[trials - worse :] = [smaller] * worse
    spare = allocation.instances * allocation.gpus_per_instance - sum(gangs)
    for rank, now in enumerate(gangs):
        larger = next((other for other in terms.gang_sizes if other > now), None)
        if larger is not None and larger - now <= spare:
            gangs[rank] = larger
            spare -= larger - now
    return Shares(allocation.instances, tuple(gangs))
