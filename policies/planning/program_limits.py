"""What partial plans of `policies.planning.program` must be able to keep, and the least that any plan costs. Pure [ours].

Bills are those after machines are given back: what is compared with a limit is lowered by the most that refunds can come to.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.policies.planning.bill import held_usd, start_usd
from elastune.policies.planning.held import tails_from
from elastune.policies.planning.hulls import Hull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.arrays import Floats, Ids
    from elastune.policies.planning.choices import Choices
    from elastune.policies.planning.labels import Labels
    from elastune.policies.planning.plan import Terms

_ALMOST = 1 - 1e-9


class ProgramLimits:
    """T and B, and a limit of price that may be set below B.

    Args:
        per_stage: what each stage may be given.
        terms: profile, prices, limits.
        live_instances: machines held already.

    Attributes:
        least_usd: no plan that ends in time costs less; infinite where none does.
        machine_usd: by stage, (choices,) what each machine costs that is held for it and its barrier.
        release_usd: what giving back the machines that are held already costs.
        tails_s2: by stage, and after the last, what `tails_from` says.
    """

    def __init__(self, per_stage: Sequence[Choices], terms: Terms, live_instances: int) -> None:
        self._terms, self._live = terms, live_instances
        self._start_usd = start_usd(terms)
        self.release_usd = held_usd(terms, live_instances * terms.price_book.release_s)
        usd_per_s, sync_s, stages = held_usd(terms, 1.0), terms.profile.sync_s, range(len(per_stage))
        last = len(per_stage) - 1
        soonest_s = [float(stage.least_end_s.min()) for stage in per_stage]
        self._barriers_s = [max(last - 1 - index, 0) * sync_s for index in stages]
        self._later_s = [sum(soonest_s[index + 1 :]) + self._barriers_s[index] for index in stages]
        self.tails_s2 = tails_from(per_stage)
        self.machine_usd = [
            usd_per_s * (stage.train_s + (0.0 if index == last else sync_s)) - stage.each_refund_usd
            for index, stage in enumerate(per_stage)
        ]
        self._hulls = hulls = [_least_usd(stage, usd_per_s) for stage in per_stage]
        left_s = terms.deadline_s + 1e-6 - last * sync_s - (0.0 if live_instances else terms.profile.startup.mean_s)
        # What a stage costs by itself, if all others cost the least in the time that each choice leaves.
        self._own_usd: list[Floats] = []
        for index, stage in enumerate(per_stage):
            seconds, usd = _together(hulls[:index] + hulls[index + 1 :])
            others_usd = np.interp(left_s - stage.least_end_s, seconds * _ALMOST, usd, left=math.inf)
            self._own_usd.append(stage.usd - stage.most_refund_usd + others_usd + self.release_usd)
        self.least_usd = max(
            float((own_usd + self._held_usd(index, stage.instances)).min())
            for index, (stage, own_usd) in enumerate(zip(per_stage, self._own_usd, strict=True))
        )
        self.set_usd(math.inf)

    def set_usd(self, most_usd: float) -> None:
        """Plans are to cost at most so much, and no more than B. The tolerance leaves the last word to the closed form."""
        self._limit_usd = min(self._terms.budget_usd, most_usd) * (1 + 1e-9) + 1e-9

    @functools.cached_property
    def _later(self) -> list[tuple[Floats, Floats]]:
        """By stage but the last, (seconds, USD): the least that all later stages cost in so long, refunds taken off."""
        return [_together(self._hulls[index:]) for index in range(1, len(self._hulls))]

    @property
    def are_kept_by_some(self) -> bool:
        """Whether any plan may keep them."""
        return self.least_usd <= self._limit_usd and math.isfinite(self.least_usd)

    def most_held(self, index: int) -> Floats:
        """(choices,) on how many machines the limits pay for each choice of a stage; below 0 where on none."""
        if math.isinf(self._limit_usd):
            return np.where(np.isfinite(self._own_usd[index]), math.inf, -1.0)
        left_usd, machine_usd = self._limit_usd - self._own_usd[index], self.machine_usd[index]
        # All of them are there, or some are started.
        there = _paid_for(left_usd, machine_usd)
        started = _paid_for(left_usd + self._live * self._start_usd, machine_usd + self._start_usd)
        return np.where(there < self._live, there, np.maximum(started, self._live)) + 1e-9

    def within(self, labels: Labels, index: int, most_refund_usd: float) -> Labels:
        """Those after a stage from which the limits can still be kept.

        What they are billed in the end is at least what they have been by now, less the most that is given back for the stage,
        and the least of later stages, refunds taken off.
        """
        if math.isinf(self._terms.deadline_s) and math.isinf(self._limit_usd):
            return labels
        end_s = labels.late_s(self.tails_s2[index + 1][0])
        kept = end_s <= self._terms.deadline_s - self._later_s[index] + 1e-6
        if math.isfinite(self._limit_usd):
            least_usd = labels.usd - most_refund_usd
            if index < len(self._hulls) - 1:
                seconds, usd = self._later[index]
                left_s = self._terms.deadline_s - self._barriers_s[index] + 1e-6 - end_s
                least_usd += np.interp(left_s, seconds, usd)
            kept &= least_usd <= self._limit_usd
        return labels if kept.all() else labels.at(np.flatnonzero(kept))

    def _held_usd(self, index: int, held: Ids) -> Floats:
        """(choices,) what so many machines cost for a stage, the start of those that are not there included."""
        usd: Floats = held * self.machine_usd[index] + np.maximum(held - self._live, 0) * self._start_usd
        return usd


def _paid_for(usd: Floats, each_usd: Floats) -> Floats:
    """How many are paid for; any number of those that are free."""
    with np.errstate(divide="ignore", invalid="ignore"):
        count: Floats = usd / each_usd
    count[np.isnan(count)] = math.inf
    count[count == -math.inf] = -1.0
    return count


def _least_usd(stage: Choices, usd_per_s: float) -> Hull:
    """(seconds, USD): in so long, a stage whose machines are there trains for so much at least, refunds taken off."""
    machine_usd = usd_per_s * stage.train_s - stage.each_refund_usd
    return Hull.of(stage.least_end_s, stage.usd + stage.instances * machine_usd - stage.most_refund_usd)


def _together(hulls: Sequence[Hull]) -> tuple[Floats, Floats]:
    """(seconds, USD): the same of all these stages, as `Hull.total` divides the time; nothing of none."""
    seconds, usd = np.array(Hull.total(hulls).points).T if hulls else (np.zeros(1), np.zeros(1))
    return seconds, usd
