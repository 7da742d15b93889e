"""When to give up a trial that fails again and again.

Policies restart a failed segment, because usually a machine or a process has died. A trial that fails by itself, for example
because it needs too much memory, would cost money until the deadline. An error that the training raises will come again. A
process that died may have been killed from outside, so a death counts less. Where several trials fail one after another and
nothing else gets on, the cause is none of them, and the run ends.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import Outcome, SegmentEnded

if TYPE_CHECKING:
    from elastune.sim.model.commands import StartSegment
    from elastune.sim.model.ids import SegmentId, TrialId
    from elastune.sim.model.protocols import Configuration

_log = logging.getLogger(__name__)
_FAILS_IN_VAIN = 5
"""Errors in a row without a new checkpoint."""
_DEATHS_PER_ERROR = 4
"""Deaths of the process that count as one error. Random kills hit one trial seven times before its first checkpoint."""
_TRIALS_IN_VAIN = 3
"""Trials whose training raised that many errors, with no other getting on, which end the run: a broken disk breaks all."""


class RetryPolicy:
    """Counts the failures of each trial since its last checkpoint. Used by one thread."""

    def __init__(self) -> None:
        self.raised: dict[SegmentId, str] = {}
        """What the training of a segment raised; the segments' own threads put it here before their ends are told."""
        self._durable: dict[TrialId, int] = {}
        self._in_vain: dict[TrialId, float] = {}
        self._counted_out: set[TrialId] = set()
        self._got_on_beside: set[TrialId] = set()
        self._alone_in_vain: set[TrialId] = set()  # since anybody got on
        self._untrained: set[SegmentId] = set()

    def hear(self, end: SegmentEnded, configuration: Configuration) -> None:
        """Count the end of a segment.

        Raises:
            WorkerError: this trial, or several of them by errors of the training, have failed too often, and no other trial got
                on meanwhile, so the trial is not the cause.
        """
        trial = end.trial
        if end.segment in self._untrained:
            return
        if end.outcome is Outcome.COMPLETED or end.checkpoint_iteration > self._durable.get(trial, 0):
            self._durable[trial] = end.checkpoint_iteration
            self.forgive(trial)
            self._got_on_beside.update(self._in_vain)
            self._alone_in_vain.clear()
        elif end.outcome is Outcome.FAILED:
            weight = 1 if end.segment in self.raised else 1 / _DEATHS_PER_ERROR
            self._in_vain[trial] = self._in_vain.get(trial, 0) + weight
            if self._in_vain[trial] >= _FAILS_IN_VAIN and trial not in self._got_on_beside:
                self._require_others(end, configuration)

    def _require_others(self, end: SegmentEnded, configuration: Configuration) -> None:
        what = self.raised.get(end.segment)
        self._alone_in_vain.add(end.trial)
        if what is None:
            raise WorkerError(
                f"trial {end.trial} failed again and again at iteration {end.checkpoint_iteration}, and"
                " no other trial got on meanwhile: see the warnings above for what broke"
            )
        if len(self._alone_in_vain) >= _TRIALS_IN_VAIN:
            named = ", ".join(f"{name}={value}" for name, value in configuration.items())
            raise WorkerError(
                f"trials {', '.join(map(str, sorted(self._alone_in_vain)))} failed again and again, and no other trial got on"
                f" meanwhile. Trial {end.trial} ({named}) at iteration {end.checkpoint_iteration}: {what}. If that is for the"
                " code to mend, start anew in another folder (-o): a resumed run takes only the code that it began with"
            )

    def is_hopeless(self, command: StartSegment) -> bool:
        """Whether to give the trial up so that others get on; it then counts as diverged, and so does the segment."""
        trial = command.trial
        if self._in_vain.get(trial, 0) < _FAILS_IN_VAIN:
            return False
        if trial not in self._counted_out:
            self._counted_out.add(trial)
            _log.warning("trial %d failed again and again, and counts as diverged from now on", trial)
        self._untrained.add(command.segment)
        return True

    def forgive(self, trial: TrialId) -> None:
        """Forget its failures: it has got on, or has become a clone of another trial."""
        self._in_vain.pop(trial, None)
        self._counted_out.discard(trial)
        self._got_on_beside.discard(trial)
