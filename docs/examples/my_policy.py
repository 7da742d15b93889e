# ruff: noqa: ANN001, ANN201, ANN204, D102
"""A policy of one's own: one machine, every configuration for one iteration, then always the best for one more."""

from elastune.policies.execution.limits import Limits
from elastune.sim.model.actions import FinishRun
from elastune.sim.model.events import InstanceReady, RunStarted, SegmentEnded
from elastune.sim.model.job import loss_of


class MyPolicy:
    """Sees events and a read-only view, and answers with actions; `Limits` keeps deadline and budget."""

    def __init__(self, job, profile, price_book, rng):  # noqa: ARG002  draws nothing
        self.job, self.limits = job, Limits(job, profile, price_book)

    def on_event(self, event, view):
        limiting = self.limits.on_event(event, view)
        if isinstance(event, RunStarted):
            return self.limits.scale_to(view, 1)[1]
        if self.limits.is_stopping or not isinstance(event, InstanceReady | SegmentEnded):
            return limiting
        trials = [(number, view.trial(number)) for number in range(self.job.trials)]
        idle = [(n, t) for n, t in trials if t.status == "idle" and t.checkpoint_iteration < self.job.max_iterations]
        idle.sort(key=lambda pair: (pair[1].iteration > 0, loss_of(pair[1].score, self.job.direction)))
        actions = [self.limits.run(view, n, 1, t.checkpoint_iteration + 1) for n, t in idle[: view.free_gpus]]
        started = [each for each in actions if each is not None]  # None: it would not be durable by the limit
        if not started and not view.running_trials and view.free_gpus:
            return [FinishRun(self.limits.best(view))]
        return [*limiting, *started]
