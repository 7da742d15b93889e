"""Running estimates of seconds per iteration and speed-up from the segments seen: the profile as learned so far [ours]."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.model.events import ProgressReported, SegmentEnded
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.scaling import Scaling


@dataclass(frozen=True)
class CorrectedScaling:
    """A believed scaling whose gain over one GPU is multiplied by `gain`; at least 1 everywhere."""

    believed: Scaling
    gain: float

    @property
    def max_gpus(self) -> int:
        """The largest gang the believed scaling is known for."""
        return self.believed.max_gpus

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; see `sim.model.scaling.Scaling`."""
        return 1.0 + max(self.believed.speedup(gpus, nodes) - 1.0, 0.0) * self.gain


class Observed:
    """Seconds per iteration of each trial, and how well gangs scale.

    A trial's seconds per iteration on one GPU come from its segments on one GPU, or from larger gangs and the scaling learned
    so far. Scaling is learned only from trials that ended a segment on one GPU first and on more later.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._single_s: dict[TrialId, float] = {}
        self._iteration_s: dict[TrialId, float] = {}
        self._gains: list[float] = []
        self._first_report: dict[TrialId, ProgressReported] = {}
        # Last time and iteration seen of each running trial.
        self._seen: dict[TrialId, tuple[float, int]] = {}

    def begun(self, trial: TrialId, at_s: float, iteration: int) -> None:
        """A segment of this trial starts, from its checkpoint at this iteration."""
        timings = self._profile.timings
        self._first_report.pop(trial, None)
        self._seen[trial] = (at_s + (timings.resume_s if iteration else timings.launch_s), iteration)

    def report(self, event: ProgressReported, gpus: int) -> None:
        """Take in a report of a running segment: its seconds per iteration since its first report."""
        first = self._first_report.setdefault(event.trial, event)
        self._seen[event.trial] = (event.at_s, event.iteration)
        if event.iteration > first.iteration:
            seconds = (event.at_s - first.at_s) / (event.iteration - first.iteration)
            self._iteration_s[event.trial] = seconds * self.scaling().speedup(gpus)

    def reaches_s(self, trial: TrialId, iteration: int, gpus: int, believed_s: float) -> float:
        """When a running trial will have completed so many iterations; infinite if it does not run.

        Args:
            trial: which.
            iteration: how many, in all.
            gpus: of its gang.
            believed_s: seconds per iteration on one GPU if its own are not known yet.
        """
        at_s, done = self._seen.get(trial, (math.inf, 0))
        iteration_s = self._iteration_s.get(trial, believed_s)
        return at_s + (iteration - done) * iteration_s / self.scaling().speedup(gpus)

    def iteration_s(self, trial: TrialId) -> float | None:
        """Seconds per iteration of this trial on one GPU; None if it has not been seen."""
        return self._iteration_s.get(trial)

    def segment(self, event: SegmentEnded, gpus: int, iterations: int) -> None:
        """Take in a segment that ended at a safe point, after so many iterations."""
        self._seen.pop(event.trial, None)
        if event.train_s <= 0 or iterations < 1:
            return
        seconds = event.train_s / iterations
        if gpus == 1:
            self._single_s[event.trial] = self._iteration_s[event.trial] = seconds
            return
        believed = self._profile.scaling.speedup(gpus)
        single_s = self._single_s.get(event.trial)
        if single_s is None:
            self._iteration_s[event.trial] = seconds * self.scaling().speedup(gpus)
        elif believed > 1.0:
            self._gains.append(max(single_s / seconds - 1.0, 0.0) / (believed - 1.0))

    def profile(self, trials: Sequence[TrialId], *, of_slowest: bool) -> Profile:
        """The profile as it is for these trials.

        Args:
            trials: the survivors.
            of_slowest: take the seconds of the slowest of them, because the barrier waits for it and it may win; else their
                mean and spread.
        """
        seen_s = [self._iteration_s[trial] for trial in trials if trial in self._iteration_s]
        scaling = self.scaling()
        if not seen_s:
            return replace(self._profile, scaling=scaling)
        iteration_s = max(seen_s) if of_slowest else fmean(seen_s)
        persistent_cv = 0.0 if of_slowest else deviation(seen_s) / iteration_s
        stragglers = replace(self._profile.stragglers, persistent_cv=persistent_cv)
        return replace(self._profile, iteration_s=iteration_s, scaling=scaling, stragglers=stragglers)

    def scaling(self) -> Scaling:
        """The speed-up as learned so far: the believed gain times the mean of the gains seen."""
        if not self._gains:
            return self._profile.scaling
        return CorrectedScaling(self._profile.scaling, fmean(self._gains))


def deviation(values: Sequence[float]) -> float:
    """`statistics.pstdev` of these, to the last bit and in half the time: of whole numbers, which are their multiples."""
    ratios = [value.as_integer_ratio() for value in values]
    # A power of two, by which nothing is rounded.
    scale = max(denominator for _, denominator in ratios)
    return pstdev([numerator * (scale // denominator) for numerator, denominator in ratios]) / scale
