"""The budget as a time: until when the machines held keep the committed bill within B, and what else may be started [ours].

Imports only `sim.model`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elastune.policies.planning.plan import highest_prices
from elastune.policies.rules.margin import MARGIN_S
from elastune.sim.model.prices import SECONDS_PER_HOUR
from elastune.sim.model.protocols import TrialStatus

if TYPE_CHECKING:
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.protocols import RunView


class Budget:
    """What B allows, by the book's billing rule.

    Per-instance billing: each machine commits its minimum charge and release latency when it is requested, and grows with time.
    Per-function billing: each segment commits its minimum charge when it starts. Later segments are unknown, so all GPUs count
    as busy. In both, a machine commits the data that it will load, and head node and storage grow with time.

    A machine that is about to be asked for reserves budget at the highest price until the deadline, because its launch time is
    unknown, and as the dearest machine that it may be. A machine that is held follows its own series of prices.
    """

    def __init__(self, budget_usd: float, price_book: PriceBook, deadline_s: float | None = None) -> None:
        self._budget_usd = budget_usd
        rule = price_book.billing
        self._per_instance = rule.model == "per-instance"
        self._machine_usd_per_hour = highest_prices(price_book, deadline_s).dearest_usd_per_hour
        self._gpu_usd_per_s = self._machine_usd_per_hour / price_book.default_type.gpus_per_instance / SECONDS_PER_HOUR
        self._machine_usd_per_s = self._machine_usd_per_hour / SECONDS_PER_HOUR
        self._standing_usd_per_s = price_book.standing_usd_per_hour / SECONDS_PER_HOUR
        # The least that anything costs once it is billed at all; just above 0 s, where a quantum begins.
        release_s = price_book.release_s if self._per_instance else 0.0
        least_s = rule.billed_s(max(release_s, 1e-6))
        self._gpu_charge_usd = self._gpu_usd_per_s * least_s
        machine_usd = self._gpu_charge_usd * price_book.default_type.gpus_per_instance if self._per_instance else 0.0
        self._charge_usd = machine_usd + price_book.ingress_usd
        self._quantum_usd = self._gpu_usd_per_s * max(rule.granularity_s, least_s)
        self._bills_queue = rule.bills_queue
        self._step_usd = self._machine_usd_per_s * rule.granularity_s
        self._pledged: dict[TrialId, float] = {}

    def may_add(self, view: RunView, instances: int) -> int:
        """How many of these further machines can be asked for."""
        if self._charge_usd == 0:
            return instances
        left_usd = self._budget_usd - view.committed_usd
        if left_usd >= instances * self._charge_usd:
            return instances
        return max(math.floor(left_usd / self._charge_usd), 0)

    def may_start(self, view: RunView, trial: TrialId, gpus: int) -> bool:
        """Whether a segment can be started. The charges of segments that have not started yet count as well."""
        if self._per_instance:
            return True
        charge_usd = gpus * self._gpu_charge_usd
        if view.committed_usd + self._pledged_usd + charge_usd > self._budget_usd:
            return False
        self._pledged[trial] = charge_usd
        return True

    def settle_pledges(self, view: RunView) -> None:
        """Forget the charges of segments that have started since; call it once per event, before any action."""
        waiting = TrialStatus.WAITING
        self._pledged = {trial: usd for trial, usd in self._pledged.items() if view.trial(trial).status is waiting}

    def ends_at_s(self, view: RunView, pending_instances: int) -> float:
        """The last time at which the bill is surely within the budget if nothing else is requested; may be infinite.

        Args:
            view: the run.
            pending_instances: machines that are about to be asked for.
        """
        pending_usd = pending_instances * self._charge_usd
        if self._per_instance:
            if pending_instances and self._bills_queue:
                # Their bill begins with the request, and nothing is told before they are launched.
                step_usd = pending_instances * self._step_usd
                added_usd_per_hour = pending_instances * self._machine_usd_per_hour
                left_usd = self._budget_usd - pending_usd - step_usd
                return view.committed_until_s(left_usd, added_usd_per_hour) - MARGIN_S
            return view.committed_until_s(self._budget_usd - pending_usd) - MARGIN_S
        gpus = view.ready_gpus
        left_usd = self._budget_usd - view.committed_usd - self._pledged_usd - gpus * self._quantum_usd - pending_usd
        rate_usd_per_s = gpus * self._gpu_usd_per_s + self._standing_usd_per_s
        return view.now_s + max(left_usd, 0.0) / rate_usd_per_s if rate_usd_per_s else math.inf

    def expected_end_s(self, view: RunView, instances: int) -> float:
        """When the budget is used up if so many machines are kept from now on, without rounding; may be infinite."""
        machines_usd_per_s = instances * self._machine_usd_per_s if self._per_instance else 0.0
        rate_usd_per_s = machines_usd_per_s + self._standing_usd_per_s
        left_usd = self._budget_usd - view.committed_usd
        return view.now_s + max(left_usd, 0.0) / rate_usd_per_s if rate_usd_per_s else math.inf

    @property
    def _pledged_usd(self) -> float:
        return math.fsum(self._pledged.values())
