"""What partial plans of `policies.planning.aged` must undercut, and what those left out could have come to. Pure [ours].

Bills are those after machines are given back: what is compared with a budget, or with a known plan, is lowered by the most that
refunds can come to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import Prepaid, around_usd, held_usd
from elastune.policies.planning.held import tails_from
from elastune.policies.planning.hulls import Hull
from elastune.policies.planning.labels import TIME_GRAIN_S
from elastune.policies.planning.partials import Partials, accrued_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elastune.policies.planning.arrays import Floats
    from elastune.policies.planning.bound import Bound, Paid
    from elastune.policies.planning.choices import Choices
    from elastune.policies.planning.plan import Allocation, Plan, Terms

_MOST_LEVELS = 64
"""Known plans to which partial plans are compared; more of them are merged, which cuts off less."""


@dataclass(frozen=True)
class AgedPlans:
    """What the search came to.

    Attributes:
        allocations: of plans among which, with those that were known, are all efficient ones, but for what was left out.
        left_out: partial plans that were not followed.
        before_s: (levels,) rising times.
        missed_usd: (levels,) the least price of anything that continues what was left out and ends before each of them.
    """

    allocations: list[list[Allocation]]
    left_out: int
    before_s: Floats
    missed_usd: Floats

    def gap(self, plan: Plan) -> float:
        """By which share of its price a plan may be too dear at most, as something was left out."""
        level = min(int(np.searchsorted(self.before_s, plan.promised_s - TIME_GRAIN_S)), len(self.before_s) - 1)
        return max(1.0 - float(self.missed_usd[level]) / plan.cost_usd, 0.0) if plan.cost_usd else 0.0


class AgedLimits:
    """What a partial plan must be able to undercut: deadline, budget and the known plans.

    Attributes:
        before_s: (levels,) sooner than this, ...
        below_usd: (levels,) ... for less than this: sooner than the first known plan whatever it costs, and so on.
        latest_s: no plan of interest ends later.
        missed_usd: (levels,) the least price of what was left out and ends by then.
    """

    def __init__(
        self,
        per_stage: Sequence[Choices],
        terms: Terms,
        known: Sequence[Plan],
        prepaid: Prepaid,
        quota: int,
    ) -> None:
        efficient = sorted(known, key=lambda plan: (plan.promised_s, plan.cost_usd))
        before_s = np.array([*(plan.promised_s for plan in efficient), math.inf])
        costs_usd = np.minimum.accumulate([math.inf, *(plan.cost_usd for plan in efficient)])
        # Of several levels that are merged, the last time and the first price cut off least.
        step = -(-len(before_s) // _MOST_LEVELS)
        first = np.arange(0, len(before_s), step)
        last = np.minimum(first + step, len(before_s)) - 1
        self._terms, self._prepaid = terms, prepaid
        self._tails_s2 = tails_from(per_stage)
        self.before_s = np.minimum(before_s[last], terms.deadline_s + 1e-6)
        self.below_usd = np.minimum(costs_usd[first], terms.budget_usd * (1 + 1e-9) + 1e-9)
        self.missed_usd = np.full(len(self.before_s), math.inf)
        self._later = [
            Hull.total([_least_machine_s(stage, held_usd(terms, 1.0)) for stage in per_stage[index + 1 :]])
            if index + 1 < len(per_stage)
            else None
            for index in range(len(per_stage))
        ]
        self._barriers_s = [
            max(len(per_stage) - 2 - index, 0) * terms.profile.sync_s for index in range(len(per_stage))
        ]
        self._most_refund_usd = [stage.most_refund_usd for stage in per_stage]
        self._refunds_usd = most_refunds_usd(per_stage, quota)
        self.latest_s = self._latest_s()

    def _latest_s(self) -> float:
        """No plan of interest takes longer than one machine may cost, as there is always one."""
        usd_per_s = held_usd(self._terms, 1.0)
        startup = self._terms.profile.startup
        unbilled_s = startup.mean_s - startup.billed_mean_s(self._terms.price_book.billing)
        with np.errstate(divide="ignore", invalid="ignore"):
            paid_s = (
                (self.below_usd + sum(self._refunds_usd)) / usd_per_s + unbilled_s
                if usd_per_s
                else np.full(len(self.below_usd), math.inf)
            )
        return float(np.minimum(self.before_s, paid_s).max())

    def may_improve(self, partials: Partials, index: int) -> NDArray[np.bool_]:
        """(plans,) whether a plan that goes on from each after this stage may keep the limits and beat all known plans."""
        least_usd = self._least_usd(partials, index)
        return np.asarray((least_usd < self.below_usd).any(axis=1))

    def miss(self, partials: Partials, index: int) -> None:
        """Remember what these could have come to, which are not followed."""
        least_usd = self._least_usd(partials, index)
        self.missed_usd = np.minimum(self.missed_usd, least_usd.min(axis=0, initial=math.inf))

    def _least_usd(self, partials: Partials, index: int) -> Floats:
        """(plans, levels) the least price of what goes on from each and ends by then; infinite where nothing does."""
        end_s = partials.late_s(self._tails_s2[index + 1][0]) + self._barriers_s[index]
        left_s = self.before_s - end_s[:, None]
        later = self._later[index]
        if later is None:
            later_s = np.where(left_s >= 0, 0.0, math.inf)
        else:
            times_s, amounts_s = zip(*later.points, strict=True)
            later_s = np.interp(left_s, times_s, amounts_s, left=math.inf)
        # Each further second of a machine adds its price to this at least; what is paid is paid, whatever of it is still used.
        releases_usd = held_usd(self._terms, self._prepaid.release_s) * partials.held
        standing_usd = around_usd(self._terms, 0, 1.0) * partials.time_s
        used_usd = accrued_usd(partials.paid_usd, partials.credits_s, self._prepaid) + releases_usd + standing_usd
        later_usd = used_usd[:, None] + held_usd(self._terms, 1.0) * later_s
        at_once_usd = self.bill_usd(partials) - sum(self._refunds_usd[index + 1 :])
        refund_usd = self._most_refund_usd[index][partials.picked]
        return np.asarray(np.maximum(later_usd, at_once_usd[:, None]) - refund_usd[:, None])

    def nothing_followed(self, bound: Bound | Paid) -> AgedPlans:
        """What is known where nothing is followed, and what anything else costs at least."""
        return AgedPlans([], 1, self.before_s, np.array([bound.usd(before_s) for before_s in self.before_s.tolist()]))

    def bill_usd(self, partials: Partials) -> Floats:
        """(plans,) the bill if all machines were given back now."""
        standing_usd = around_usd(self._terms, 0, 1.0) * partials.time_s
        return np.asarray(partials.paid_usd + self._prepaid.release_usd(partials.credits_s).sum(axis=1) + standing_usd)


def most_refunds_usd(per_stage: Sequence[Choices], quota: int) -> list[float]:
    """(stages,) the most that up to so many machines need not pay of each stage."""
    refunds_usd = (np.maximum(stage.each_refund_usd, 0.0) * quota + stage.most_refund_usd for stage in per_stage)
    return [float(usd.max()) for usd in refunds_usd]


def _least_machine_s(stage: Choices, usd_per_s: float) -> Hull:
    """Machine-seconds of a stage whose machines are there, refunds taken off, by its seconds (with the least lateness)."""
    machine_s = stage.train_s * stage.instances
    if usd_per_s:
        machine_s = machine_s - (stage.instances * stage.each_refund_usd + stage.most_refund_usd) / usd_per_s
    return Hull.of(stage.least_end_s, machine_s)
