"""Trials that break again and again.

Policies start a failed segment anew, as what failed was a machine or a process. What fails by itself, such as a configuration
that needs more memory than there is, would be paid for until the deadline.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sim.model.errors import WorkerError
from sim.model.events import Outcome, SegmentEnded

if TYPE_CHECKING:
    from sim.model.commands import StartSegment
    from sim.model.ids import TrialId

_log = logging.getLogger(__name__)
_FAILS_IN_VAIN = 5
"""In a row, without anything new that is durable. Workers that are killed at random hardly ever hit one trial so often."""


class Setbacks:
    """How often each trial has failed in vain; heard of and asked in one thread."""

    def __init__(self) -> None:
        self._durable: dict[TrialId, int] = {}
        self._in_vain: dict[TrialId, int] = {}
        self._got_on_beside: set[TrialId] = set()

    def hear(self, end: SegmentEnded) -> None:
        """Count it.

        Raises:
            WorkerError: the trial has failed too often, and no other trial got on meanwhile: it is not the trial's fault.
        """
        trial = end.trial
        if end.outcome is Outcome.COMPLETED or end.checkpoint_iteration > self._durable.get(trial, 0):
            self._durable[trial] = end.checkpoint_iteration
            self.forgive(trial)
            self._got_on_beside.update(self._in_vain)
        elif end.outcome is Outcome.FAILED:
            self._in_vain[trial] = self._in_vain.get(trial, 0) + 1
            if self._in_vain[trial] >= _FAILS_IN_VAIN and trial not in self._got_on_beside:
                raise WorkerError(
                    f"trial {trial} failed {self._in_vain[trial]} times in a row at iteration {end.checkpoint_iteration}, and"
                    " no other trial got on meanwhile: see the warnings above for what broke"
                )

    def is_hopeless(self, order: StartSegment) -> bool:
        """Whether the trial is not to be tried again, while others get on; it then counts as diverged."""
        failed = self._in_vain.get(order.trial, 0)
        if failed == _FAILS_IN_VAIN:
            self._in_vain[order.trial] += 1  # said once
            _log.warning("trial %d failed %d times in a row, and counts as diverged from now on", order.trial, failed)
        return failed >= _FAILS_IN_VAIN

    def forgive(self, trial: TrialId) -> None:
        """It has got on, or is another trial from now on."""
        self._in_vain.pop(trial, None)
        self._got_on_beside.discard(trial)
