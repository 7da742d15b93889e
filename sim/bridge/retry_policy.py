"""Trials that break again and again.

Policies start a failed segment anew, as what failed was a machine or a process. What fails by itself, such as a configuration
that needs more memory than there is, would be paid for until the deadline. An error that the training raises will be raised
again; a process that died may have been killed from outside, so that it takes many more of those.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import Outcome, SegmentEnded

if TYPE_CHECKING:
    from elastune.sim.model.commands import StartSegment
    from elastune.sim.model.ids import SegmentId, TrialId

_log = logging.getLogger(__name__)
_FAILS_IN_VAIN = 5
"""Errors in a row, without anything new that is durable."""
_DEATHS_PER_ERROR = 4
"""Of the worker's process. Random kills were seen to hit one trial seven times before it had saved anything."""


class RetryPolicy:
    """How often each trial has failed in vain, in errors; heard of and asked in one thread."""

    def __init__(self) -> None:
        self.raised: set[SegmentId] = set()
        """Segments that ended with an error of the training; put here before their ends are heard, by their own threads."""
        self._durable: dict[TrialId, int] = {}
        self._in_vain: dict[TrialId, float] = {}
        self._counted_out: set[TrialId] = set()
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
            weight = 1 if end.segment in self.raised else 1 / _DEATHS_PER_ERROR
            self._in_vain[trial] = self._in_vain.get(trial, 0) + weight
            if self._in_vain[trial] >= _FAILS_IN_VAIN and trial not in self._got_on_beside:
                raise WorkerError(
                    f"trial {trial} failed again and again at iteration {end.checkpoint_iteration}, and"
                    " no other trial got on meanwhile: see the warnings above for what broke"
                )

    def is_hopeless(self, command: StartSegment) -> bool:
        """Whether the trial is not to be tried again, while others get on; it then counts as diverged."""
        trial = command.trial
        if self._in_vain.get(trial, 0) < _FAILS_IN_VAIN:
            return False
        if trial not in self._counted_out:
            self._counted_out.add(trial)
            _log.warning("trial %d failed again and again, and counts as diverged from now on", trial)
        return True

    def forgive(self, trial: TrialId) -> None:
        """It has got on, or is another trial from now on."""
        self._in_vain.pop(trial, None)
        self._counted_out.discard(trial)
        self._got_on_beside.discard(trial)
