"""What policies see of a run: `StateView`, the read-only face of `RunState`."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from elastune.sim.control.state import RunState
    from elastune.sim.model.ids import InstanceId, TrialId
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.protocols import InstanceView, TrialView


class StateView:
    """The read-only face of a `RunState`; see `sim.model.protocols.RunView`."""

    __slots__ = ("_state",)

    def __init__(self, state: RunState) -> None:
        self._state = state

    @property
    def now_s(self) -> float:
        return self._state.now_s

    @property
    def job(self) -> TuningJob:
        return self._state.job

    @property
    def free_gpus(self) -> int:
        state = self._state
        return max(state.free.total - state.waiting_gpus, 0) if state.waiting else state.free.total

    @property
    def ready_gpus(self) -> int:
        return self._state.ready_gpus

    @property
    def target_instances(self) -> int:
        return sum(self._state.targets.values())

    @property
    def instances(self) -> Mapping[InstanceId, InstanceView]:
        return MappingProxyType(self._state.instances)

    @property
    def running_trials(self) -> int:
        return self._state.running_trials

    @property
    def spent_usd(self) -> float:
        return self._state.bill.spent_usd(self._state.now_s)

    @property
    def committed_usd(self) -> float:
        return self._state.bill.committed_usd(self._state.now_s)

    def committed_usd_by(self, later_s: float, added_usd_per_hour: float = 0.0) -> float:
        return self._state.bill.committed_usd_by(later_s, self._state.now_s, added_usd_per_hour)

    def committed_until_s(
        self, budget_usd: float, added_usd_per_hour: float = 0.0, latest_s: float = math.inf, rounding_usd: float = 0.0
    ) -> float:
        now_s = self._state.now_s
        return self._state.bill.committed_until_s(budget_usd, now_s, added_usd_per_hour, latest_s, rounding_usd)

    def trial(self, trial: TrialId) -> TrialView:
        return self._state.trials[trial]

    def started_trials(self) -> Iterable[TrialId]:
        return self._state.started.keys()
