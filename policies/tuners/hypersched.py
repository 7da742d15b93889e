"""HyperSched, on the best fixed cluster: more and more GPUs for the best trials as the deadline comes nearer.

Names are `room.module.name` below `policies`:

    at each result of a trial:                                 tuners.hypersched.HyperSchedPolicy._judge
      its score is the mean of its last five results           tuners.hypersched_rungs.SmoothedLosses.note
      pause it if it misses the cutoff of a rung it passed     tuners.hypersched_rungs.PausingRungs.pauses
      one GPU for each live trial, spare ones by score         tuners.hypersched_rungs.fair_shares
        a trial takes them if it gains 10 % by it              tuners.hypersched.HyperSchedPolicy._is_worth
    when GPUs are free, while enough time is left to start:    tuners.hypersched_rungs.Stopwatch.fair_s
      resume a trial that now meets its cutoff (they move),    tuners.hypersched_rungs.PausingRungs.promote
      else start a new one
    when too little is left: stop all paused, start none       tuners.hypersched.HyperSchedPolicy._stop_exploring
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from elastune.policies.execution.limits import Limits
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import rung_levels
from elastune.policies.sizing.list_scheduling import Load, stopping_load
from elastune.policies.sizing.targets import Truncate, best_cluster_of_targets
from elastune.policies.tuners.hypersched_rungs import PausingRungs, SmoothedLosses, Stopwatch, fair_shares
from elastune.sim.model.actions import Action, PauseTrial, StopTrial
from elastune.sim.model.events import Event, InstanceReady, InstanceRefused, ProgressReported, RunStarted, SegmentEnded
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import TuningJob, loss_of
from elastune.sim.model.protocols import PlannedWork, RunView, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile

REPORTS_BETWEEN_RESIZES = 5
"""The authors' recharge period."""
LEAST_GAIN = 1.1
"""Projected progress after a growth over that without it, in the authors' code."""


def hypersched_fixed(
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,  # noqa: ARG001  draws nothing
    *,
    truncate: Truncate = "never",
) -> HyperSchedPolicy:
    """HyperSched (Liaw et al., SoCC 2019) on the best fixed cluster; see `HyperSchedPolicy`.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: not used.
        truncate: where the cluster may be one on which no trial can reach R; see `policies.sizing.targets`.

    Raises:
        InputError: `truncate` has none of its values.
        InfeasibleJobError: no cluster trains even one configuration to R, or to the lowest target, on one GPU.
    """
    terms = Terms.of(job, profile, price_book)
    cluster = best_cluster_of_targets("hypersched-fixed", job, terms, truncate, _load, grows_gangs=True)
    return HyperSchedPolicy(
        job, profile, price_book, instances=cluster.instances, trials=cluster.trials if job.exact else job.trials
    )


def _load(job: TuningJob, terms: Terms) -> Load:
    """As of ASHA that stops, but the last trial trains on the fastest gang of one machine from its first rung on."""
    load = stopping_load(job, terms)
    gpus = max(size for size in terms.gang_sizes if size <= terms.gpus_per_instance)
    first = rung_levels(job)[0]
    grown_s = terms.segment_s(job.max_iterations - first, gpus, is_first=False) if first < job.max_iterations else 0.0
    return replace(load, chain_s=min(load.chain_s, terms.segment_s(first, 1, is_first=True) + grown_s))


class HyperSchedPolicy:
    """Liaw et al., "HyperSched: Dynamic Resource Reallocation for Model Development on a Deadline" (SoCC 2019), sections 4, 5.

    Rules as in the authors' code: trials pause below a moving cutoff (`policies.tuners.hypersched_rungs`). New or paused
    trials start on one GPU only while the time left is at least min((longest trial - start-up) * eta, R * median
    iteration on one GPU); after that all pending and paused ones are ended. Every live trial gets one GPU, spare ones
    go round-robin by score. A trial shrinks when its share does, and grows where lambda(new) * (time left - start-up) >
    1.1 * lambda(now) * time left, each at most once in five results. Scores are means of the last five results.

    Args:
        instances: machines of the fixed cluster.
        trials: configurations that may be started.

    Deviations:
        The authors' deadline is a time; here it is the limit that deadline and budget give together [ours].
        Before any start-up has been seen, the profile's is used; the authors use -1 s.
        Where nothing pends, the authors resume paused trials that miss the cutoff, only to pause them at their next result;
        here one comes back only when nothing runs and none has reached R, and then it stays [ours].
        Diverged trials pause and do not come back [ours].
        The number of machines is the largest on which ASHA's stopping variant finishes as many configurations as on any
        under the same limits, if its last trial grows; all configurations of the job may be started, as HyperSched itself
        decides when to stop starting [ours].
    """

    def __init__(self, job: TuningJob, profile: Profile, price_book: PriceBook, *, instances: int, trials: int) -> None:
        self._job = job
        self._scaling = profile.scaling
        self._fastest: dict[int, int] = {}
        self._instances = instances
        self._trials = trials
        self._limits = Limits(job, profile, price_book)
        self._rungs = PausingRungs(rung_levels(job)[:-1], job.reduction_factor)
        self._clock = Stopwatch(profile.timings.launch_s)
        self._scores = SmoothedLosses()
        self._live: dict[TrialId, int] = {}
        self._recharge: dict[TrialId, int] = {}
        self._resizing: dict[TrialId, int] = {}
        self._interrupted: deque[TrialId] = deque()
        self._immune: TrialId | None = None
        self._next = 0
        self._is_exploring = True
        self._has_trained = False
        self._is_whole = True
        self._done_at_s: float | None = None

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        limiting = self._limits.on_event(event, view)
        match event:
            case RunStarted():
                instances, scaling = self._limits.scale_to(view, self._instances)
                return scaling if instances else self._limits.stop(view)
            case ProgressReported():
                return limiting if limiting or self._limits.is_stopping else self._judge(event, view)
            case SegmentEnded():
                self._settle(event)
            case InstanceReady() | InstanceRefused():
                pass
            case _:
                return limiting
        if self._limits.is_stopping:
            return limiting
        return (*limiting, *self._fill(view), *self._limits.rearm(view))

    @property
    def work(self) -> PlannedWork:
        """Done when no trial is left to train, if all were started and none ran out of time."""
        return PlannedWork(done_at_s=self._done_at_s)

    def _judge(self, event: ProgressReported, view: RunView) -> Sequence[Action]:
        """Pause, resize, or let the trial go on."""
        trial = event.trial
        if trial not in self._live or view.trial(trial).status is not TrialStatus.RUNNING or trial in self._resizing:
            return ()
        self._clock.note(trial, event.at_s, self._live[trial])
        loss = self._scores.note(trial, event.iteration, loss_of(event.score, self._job.direction))
        if trial != self._immune and self._rungs.pauses(trial, event.iteration, loss):
            del self._live[trial]
            return (PauseTrial(trial),)
        self._recharge[trial] -= 1
        if self._recharge[trial] >= 0:
            return ()
        gpus = self._share(trial, view)
        if not self._is_worth(trial, gpus, view):
            return ()
        self._resizing[trial] = gpus
        return (PauseTrial(trial),)

    def _share(self, trial: TrialId, view: RunView) -> int:
        """GPUs of a live trial if all are shared fairly."""
        if view.ready_gpus <= len(self._live):
            return 1  # whatever its rank
        return fair_shares(self._ranked(), view.ready_gpus, self._most_gpus(view)).get(trial, 1)

    def _is_worth(self, trial: TrialId, gpus: int, view: RunView) -> bool:
        """Whether to give the trial so many GPUs: always if fewer; if more, when they are free and make up for the pause."""
        now = self._live[trial]
        if gpus <= now:
            return gpus < now
        left_s = self._limits.busy_until_s(view) - view.now_s
        if gpus - now > self._unclaimed(view):
            return False
        if math.isinf(left_s):
            return self._scaling.speedup(gpus) > LEAST_GAIN * self._scaling.speedup(now)
        after = self._scaling.speedup(gpus) * (left_s - self._clock.startup_s)
        return after > LEAST_GAIN * self._scaling.speedup(now) * left_s

    def _settle(self, event: SegmentEnded) -> None:
        trial = event.trial
        self._clock.end(trial, event.launch_s)
        if event.checkpoint_iteration >= self._job.max_iterations:
            self._has_trained = True
            self._live.pop(trial, None)
            self._resizing.pop(trial, None)
        elif trial in self._live:
            # To be resized, or broken; both go on from the checkpoint.
            self._interrupted.append(trial)

    def _fill(self, view: RunView) -> Sequence[Action]:
        """Start trials that go on, then paused or new ones; end the run if nothing is left."""
        actions: list[Action] = []
        free = view.free_gpus
        for _ in range(len(self._interrupted)):
            trial = self._interrupted.popleft()
            gpus = min(self._resizing.get(trial, self._live[trial]), free)
            if not gpus:
                self._interrupted.append(trial)
                continue
            self._resizing.pop(trial, None)
            free -= gpus if self._start(trial, gpus, view, actions) else 0
        self._stop_exploring(view, actions)
        for _ in range(free - self._claimed()):
            candidate = self._next_trial(view)
            if candidate is None or not self._start(candidate, 1, view, actions):
                break
        if not self._live and view.free_gpus and not view.running_trials:
            self._done_at_s = view.now_s if self._is_whole else None
            return self._limits.finish(view)
        return actions

    def _start(self, trial: TrialId, gpus: int, view: RunView, actions: list[Action]) -> bool:
        """Start it; if not one iteration fits any more, it is over."""
        action = self._limits.run(view, trial, gpus, self._job.max_iterations)
        if action is None:
            self._live.pop(trial, None)
            self._is_whole = False
            return False
        self._live[trial] = gpus
        self._recharge[trial] = REPORTS_BETWEEN_RESIZES
        self._clock.start(trial, view.now_s)
        actions.append(msgspec.structs.replace(action, report_every=1))
        return True

    def _next_trial(self, view: RunView) -> TrialId | None:
        def is_ready(trial: TrialId) -> bool:
            return view.trial(trial).status is TrialStatus.IDLE

        if self._is_exploring:
            trial = self._rungs.promote(is_ready)
            if trial is not None:
                return trial
            if self._next < self._trials:
                self._next += 1
                return TrialId(self._next - 1)
        if not self._live and not self._has_trained and self._immune is None:
            self._immune = self._rungs.promote(is_ready, whatever_the_cutoff=True)
            return self._immune
        return None

    def _stop_exploring(self, view: RunView, actions: list[Action]) -> None:
        """Stop all paused trials once the time left is too short for more than the live ones."""
        if not self._is_exploring or not self._next:
            return
        left_s = self._limits.busy_until_s(view) - view.now_s
        if left_s >= self._clock.fair_s(self._job.reduction_factor, self._job.max_iterations):
            return
        self._is_exploring = False
        self._is_whole &= self._next >= self._trials
        if not self._live and not self._has_trained:
            return  # the best of them is still needed
        actions += [StopTrial(trial) for trial in self._rungs.clear()]

    def _ranked(self) -> list[TrialId]:
        return sorted(self._live, key=lambda trial: (self._scores.last(trial), trial))

    def _most_gpus(self, view: RunView) -> int:
        """The fastest gang."""
        most = max(1, min(view.ready_gpus, self._scaling.max_gpus))
        if most not in self._fastest:
            self._fastest[most] = max(range(1, most + 1), key=lambda size: (self._scaling.speedup(size), -size))
        return self._fastest[most]

    def _claimed(self) -> int:
        """GPUs that trials between two gangs will take in addition."""
        return sum(max(gpus - self._live.get(trial, 0), 0) for trial, gpus in self._resizing.items())

    def _unclaimed(self, view: RunView) -> int:
        return view.free_gpus - self._claimed()
