"""The budget as a time: until when what is held keeps the committed bill within B, and what else may be started [ours].

Imports `sim.model`, the margins of `policies.rules` and the prices that planners count with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.policies.planning.plan import highest_prices
from elastune.policies.rules.margin import MARGIN_S, most_usd
from elastune.sim.model.billing import metered_usd
from elastune.sim.model.events import Event, SegmentEnded
from elastune.sim.model.prices import SECONDS_PER_HOUR, PriceBook
from elastune.sim.model.protocols import RunView, TrialStatus

if TYPE_CHECKING:
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import TuningJob

_STARTS_LATER = (TrialStatus.WAITING, TrialStatus.ENDING)
_JUST_BEGUN_S = 1e-6
"""What is used for so long is billed its minimum and its first quantum."""


def budget_of(job: TuningJob, price_book: PriceBook) -> Budget | None:
    """The budget of a job, by the book's billing rule; None where the job has none."""
    if job.budget_usd is None:
        return None
    kind = Budget if price_book.billing.model == "per-instance" else FunctionBudget
    return kind(job.budget_usd, price_book, job.deadline_s)


class Budget:
    """What B allows where machines are billed.

    Each machine commits its minimum charge and release latency when it is requested, and grows with time; so do head node and
    storage. It also commits the data that it will load.

    A machine that is about to be asked for reserves budget at the highest price until the deadline, because its launch time is
    unknown, and as the dearest machine that it may be. A machine that is held follows its own series of prices.
    """

    def __init__(self, budget_usd: float, price_book: PriceBook, deadline_s: float | None = None) -> None:
        rule = price_book.billing
        self._budget_usd, self._most_usd = budget_usd, most_usd(budget_usd)
        self._machine_usd_per_hour = highest_prices(price_book, deadline_s).dearest_usd_per_hour
        self._standing_usd_per_s = price_book.standing_usd_per_hour / SECONDS_PER_HOUR
        self._ingress_usd = price_book.ingress_usd
        self._bills_queue = rule.bills_queue
        least_s = max(price_book.release_s, _JUST_BEGUN_S)
        self._charge_usd = metered_usd(rule, self._machine_usd_per_hour, least_s) + self._ingress_usd

    def may_add(self, view: RunView, instances: int) -> int:
        """How many of these further machines can be asked for."""
        if self._charge_usd == 0:
            return instances
        left_usd = self._most_usd - view.committed_usd
        if left_usd >= instances * self._charge_usd:
            return instances
        return max(math.floor(left_usd / self._charge_usd), 0)

    def ends_at_s(self, view: RunView, pending_instances: int = 0, latest_s: float = math.inf) -> float:
        """The last time at which the bill is surely within the budget if nothing else is requested; may be infinite.

        Args:
            view: the run.
            pending_instances: machines that are about to be asked for.
            latest_s: how late it is does not matter beyond this time, which is far quicker to find out.
        """
        # Two margins beyond: what is rounded there does not matter either.
        latest_s += 2 * MARGIN_S
        if self._bills_queue:
            # Their bill begins with the request, and nothing is told before they are launched.
            left_usd = self._budget_usd - pending_instances * self._ingress_usd
            added_usd_per_hour = pending_instances * self._machine_usd_per_hour
            return self._until_s(view, left_usd, added_usd_per_hour, latest_s)
        return self._until_s(view, self._budget_usd - pending_instances * self._charge_usd, 0.0, latest_s)

    def _until_s(self, view: RunView, left_usd: float, added_usd_per_hour: float, latest_s: float = math.inf) -> float:
        """One margin before so much is committed, where so much more is billed from now on."""
        rounding_usd = self._most_usd - self._budget_usd
        return view.committed_until_s(left_usd, added_usd_per_hour, latest_s, rounding_usd) - MARGIN_S

    def busy_until_s(self, view: RunView) -> float:
        """When the budget ends if all GPUs are busy from now on; not before now."""
        return max(self.ends_at_s(view), view.now_s)  # idle machines cost as much

    def expected_end_s(self, view: RunView, instances: int) -> float:
        """When the budget is used up if so many machines are kept from now on, without rounding; may be infinite."""
        rate_usd_per_s = instances * self._held_usd_per_s + self._standing_usd_per_s
        left_usd = self._budget_usd - view.committed_usd
        return view.now_s + max(left_usd, 0.0) / rate_usd_per_s if rate_usd_per_s else math.inf

    @property
    def _held_usd_per_s(self) -> float:
        """What one machine costs beside its charge."""
        return self._machine_usd_per_hour / SECONDS_PER_HOUR


class FunctionBudget(Budget):
    """What B allows where functions are billed.

    A machine commits the data that it will load. Each segment commits its minimum charge when it starts, and grows with time.
    A segment is started only if all that run can still be paid for as long as was meant when they started.
    """

    def __init__(self, budget_usd: float, price_book: PriceBook, deadline_s: float | None = None) -> None:
        super().__init__(budget_usd, price_book, deadline_s)
        self._charge_usd = self._ingress_usd
        self._bills_queue = False
        self._gpu_usd_per_hour = self._machine_usd_per_hour / price_book.default_type.gpus_per_instance
        self._gpu_charge_usd = metered_usd(price_book.billing, self._gpu_usd_per_hour, _JUST_BEGUN_S)
        # GPUs of the gangs that the view does not show yet.
        self._pledged_gpus: dict[TrialId, int] = {}
        self._runs_until_s: dict[TrialId, float] = {}

    def pays(self, view: RunView, gpus: int, until_s: float) -> bool:
        """Whether a gang that starts now can be paid until then, and all that run until the time that was meant."""
        until_s = max((until_s, *self._runs_until_s.values()))
        return view.committed_usd_by(until_s + MARGIN_S, self._started_usd_per_hour(gpus)) <= self._most_usd

    def starts(self, trial: TrialId, gpus: int, until_s: float) -> None:
        """A gang is about to start, and is to train until then at least."""
        self._pledged_gpus[trial] = gpus
        self._runs_until_s[trial] = until_s

    def on_event(self, event: Event, view: RunView) -> None:
        """Note what has started or ended; call it once per event, before any action."""
        if isinstance(event, SegmentEnded):
            self._runs_until_s.pop(event.trial, None)
        if self._pledged_gpus:
            waiting = (trial for trial in self._pledged_gpus if view.trial(trial).status in _STARTS_LATER)
            self._pledged_gpus = {trial: self._pledged_gpus[trial] for trial in waiting}

    def ends_at_s(self, view: RunView, pending_instances: int = 0, latest_s: float = math.inf) -> float:
        """See `Budget`; if nothing else starts either."""
        left_usd = self._budget_usd - pending_instances * self._charge_usd
        return self._until_s(view, left_usd, self._started_usd_per_hour(0), latest_s + 2 * MARGIN_S)

    def busy_until_s(self, view: RunView) -> float:
        """See `Budget`; of the GPUs that are free, as many are busy as their charges allow."""
        free = view.free_gpus
        if self._gpu_charge_usd > 0:
            free = min(free, max(math.floor((self._most_usd - view.committed_usd) / self._gpu_charge_usd), 0))
        return max(self._until_s(view, self._budget_usd, free * self._gpu_usd_per_hour), view.now_s)

    def _started_usd_per_hour(self, gpus: int) -> float:
        return (gpus + sum(self._pledged_gpus.values())) * self._gpu_usd_per_hour

    @property
    def _held_usd_per_s(self) -> float:
        return 0.0
