"""Planning anew at a barrier: what is left of time and money, and what to do where that is not enough [ours]. Pure."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from elastune.policies.execution.limits import live_instances
from elastune.policies.planning.greedy import greedy_plan
from elastune.policies.rules.margin import most_usd, plan_ends_by_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.policies.planning.plan import Plan, Terms
    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import RunView


class AtBarrier(NamedTuple):
    """How a run stands when the rest of it is planned: now, or at a barrier to come.

    Attributes:
        job: the tuning job.
        now_s: the time.
        committed_usd: as in `RunView`, at that time.
        live_instances: machines held or requested at that time.
    """

    job: TuningJob
    now_s: float
    committed_usd: float
    live_instances: int

    @classmethod
    def of(cls, view: RunView) -> AtBarrier:
        """Now."""
        return cls(view.job, view.now_s, view.committed_usd, live_instances(view))

    @classmethod
    def ahead(cls, view: RunView, at_s: float, instances: int, usd_per_hour: float) -> AtBarrier:
        """Later, if so many machines at this price are held until then; those that are not held yet are requested now."""
        added = max(instances - live_instances(view), 0)
        return cls(view.job, at_s, view.committed_usd_by(at_s, added * usd_per_hour), instances)


def terms_left(terms: Terms, profile: Profile, at: AtBarrier | RunView) -> Terms:
    """These terms with the time and the money that are left, and the profile as learned so far."""
    job = at.job
    deadline_s = plan_ends_by_s(job) - at.now_s
    budget_usd = math.inf if job.budget_usd is None else most_usd(job.budget_usd) - at.committed_usd
    return replace(terms, profile=profile, deadline_s=deadline_s, budget_usd=budget_usd)


def fastest_or_cheapest(stages: Sequence[Stage], terms: Terms, live_instances: int) -> Plan:
    """The last resort where no plan keeps T and B: the fastest plan of resumed stages if B pays for it, else the cheapest.

    Nothing between the two is tried. Even the cheapest may cost more than what is left; `Limits` ends the run in time.
    """
    # A deadline without a budget asks for the fastest plan, a budget without a deadline for the cheapest.
    hurried = replace(terms, deadline_s=sys.float_info.max, budget_usd=math.inf)
    fastest = greedy_plan(stages, hurried, live_instances=live_instances, is_resumed=True)
    cheapest = greedy_plan(stages, replace(terms, deadline_s=math.inf), live_instances=live_instances, is_resumed=True)
    assert fastest is not None  # nothing is late for that deadline
    assert cheapest is not None
    return fastest if fastest.cost_usd <= most_usd(terms.budget_usd) else cheapest
