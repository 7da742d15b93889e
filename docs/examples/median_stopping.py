# ruff: noqa: ANN001, ANN201, ANN204, D102
"""Median stopping (Golovin et al., KDD 2017): stop a trial that is worse than the median of the others' averages."""

import math
from statistics import fmean, median

import msgspec

from elastune.policies.execution.limits import Limits
from elastune.sim.model.actions import FinishRun, StopTrial
from elastune.sim.model.events import InstanceReady, ProgressReported, RunStarted, SegmentEnded
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import loss_of
from elastune.sim.model.protocols import TrialStatus


class MedianStopping:
    """Every configuration on one GPU, in the order of the draw, until the rule stops it or it has trained to R.

    Args:
        machines: how many are held; fewer where the budget does not allow them
        grace: iterations that every configuration may train
        least: others that must have come as far before one is judged
    """

    def __init__(self, job, profile, price_book, rng, machines=2, grace=1, least=3):  # noqa: ARG002  draws nothing
        self.job, self.limits = job, Limits(job, profile, price_book)
        self.machines, self.grace, self.least = machines, grace, least
        self.losses = [
            {} for _ in range(job.trials)
        ]  # by trial, then iteration: after a failure an iteration comes twice

    def on_event(self, event, view):
        limiting = self.limits.on_event(event, view)  # first of all: deadline and budget
        match event:
            case RunStarted():
                return self.limits.scale_to(view, self.machines)[1]
            case ProgressReported() if not limiting and not self.limits.is_stopping:
                self.note(event)
                return [StopTrial(event.trial)] if self.is_hopeless(event.trial, event.iteration) else []
            case SegmentEnded() if event.iteration:
                self.note(event)
        if self.limits.is_stopping or not isinstance(event, InstanceReady | SegmentEnded):
            return limiting
        started = [self.train(view, trial) for trial in self.waiting(view)[: view.free_gpus]]
        started = [action for action in started if action is not None]  # None: nothing durable by the limit
        if not started and not view.running_trials and view.free_gpus:
            return [FinishRun(self.limits.best(view))]
        return [*limiting, *started, *self.limits.rearm(view)]

    def note(self, event):
        self.losses[event.trial][event.iteration] = loss_of(
            event.score, self.job.direction
        )  # less is better, NaN is worst

    def is_hopeless(self, trial, iteration):
        if iteration < self.grace:
            return False
        others = [losses for other, losses in enumerate(self.losses) if other != trial and iteration in losses]
        averages = [fmean(loss for i, loss in losses.items() if i <= iteration) for losses in others]
        return len(averages) >= self.least and min(self.losses[trial].values(), default=math.inf) > median(averages)

    def waiting(self, view):
        """Those that were cut short first, then new ones."""
        trials = [(view.trial(TrialId(number)), TrialId(number)) for number in range(self.job.trials)]
        idle = [(state, trial) for state, trial in trials if state.status is TrialStatus.IDLE]
        return sorted(
            (trial for state, trial in idle if state.checkpoint_iteration < self.job.max_iterations),
            key=lambda trial: not self.losses[trial],
        )

    def train(self, view, trial):
        action = self.limits.run(view, trial, 1, self.job.max_iterations)
        return action and msgspec.structs.replace(action, report_every=1)  # hear of every iteration
