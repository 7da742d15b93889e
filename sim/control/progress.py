"""Detects a run that makes no progress any more. Pure; imports only `sim.model`.

It counts events, not seconds, so equal runs stop at the same event on any machine.
"""

from __future__ import annotations

from elastune.sim.model.events import GoneCause, Outcome, SegmentEnded

MOST_LOSSES = 2_000
"""Broken segments, lost machines and refused requests in a row without a gain. A trial whose iteration takes seven times as
long as its machines live on average finishes one in 1,100 tries."""
MOST_EVENTS = 200_000
"""Events in a row without a gain. A policy that asks for a timer each second waits for a machine for two days."""


class Progress:
    """Counts what has happened since the run last gained something.

    A gain is a further durable iteration of any trial, or, for events alone, an iteration that its trial had never reached.

    Attributes:
        events: handled events since the last gain.
        broken_segments: segments that broke since the last durable gain.
        lost_machines: machines that were lost or taken back since then.
        refusals: requests that were refused since then.
        longest_s: the longest training that ended before its first iteration did, in seconds.
    """

    __slots__ = ("broken_segments", "events", "longest_s", "lost_machines", "refusals")

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count everything anew."""
        self.events = self.broken_segments = self.lost_machines = self.refusals = 0
        self.longest_s = 0.0

    @property
    def losses(self) -> int:
        """All losses since the last durable gain."""
        return self.broken_segments + self.lost_machines + self.refusals

    @property
    def is_stalled(self) -> bool:
        """Whether the run will make no more progress."""
        # Asked at each event: `losses` would be a call more.
        return self.events > MOST_EVENTS or self.broken_segments + self.lost_machines + self.refusals > MOST_LOSSES

    def segment_ended(self, event: SegmentEnded, from_iteration: int) -> None:
        """Count the end of a segment that began at `from_iteration`."""
        if event.checkpoint_iteration > from_iteration:
            self.restart()
        elif event.outcome is Outcome.FAILED or event.outcome is Outcome.INSTANCE_GONE:
            self.broken_segments += 1
            if event.iteration == from_iteration:
                self.longest_s = max(self.longest_s, event.train_s)

    def instance_gone(self, cause: GoneCause, *, was_noticed: bool = False) -> None:
        """Count the end of a machine; one that is given back because it is to be reclaimed is lost, too."""
        if cause is not GoneCause.RELEASED or was_noticed:
            self.lost_machines += 1

    def story(self) -> str:
        """What was lost, and how long an iteration must be, for errors."""
        least = f"; an iteration takes more than {self.longest_s:.1f} s of training" if self.longest_s else ""
        return (
            f"nothing durable was gained in the last {self.losses} losses ({self.broken_segments} broken segments,"
            f" {self.lost_machines} lost machines, {self.refusals} refused requests) and {self.events} events{least}"
        )
