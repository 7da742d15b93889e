"""Backends that know clones: one on top of the simulated world, and a tiny one whose scores follow from the configurations."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

import msgspec

from elastune.experiments.contracts.worlds import ContractWorld
from elastune.sim.model.commands import (
    EndSegment,
    ProvisionInstance,
    ReleaseInstance,
    StartSegment,
    StartTimer,
)
from elastune.sim.model.events import (
    GoneCause,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    Outcome,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)


class Sampling:
    """A backend in front of the simulated one: tells what trials train with, and trains clones on the curve of their number."""

    def __init__(self, backend, configuration_of):
        self.backend, self.configuration_of = backend, configuration_of
        self.sampled, self.events, self.now_s = set(), deque(), 0.0
        self.close = backend.close

    def perform(self, order):
        if isinstance(order, StartSegment):
            if order.trial not in self.sampled and order.configuration is None:
                self.events.append(TrialSampled(self.now_s, order.trial, self.configuration_of(order.trial)))
            self.sampled.add(order.trial)
            own = order.trial if order.from_iteration else None
            order = msgspec.structs.replace(order, configuration=None, restore_from=own)
        self.backend.perform(order)

    def next_event(self):
        if self.events:
            return self.events.popleft()
        event = self.backend.next_event()
        self.now_s = self.now_s if event is None else event.at_s
        return event


class SampledWorld(ContractWorld):
    """A world of the contract, in which configurations are told and trials can be cloned."""

    def backend(self):
        return Sampling(super().backend(), lambda trial: {"rate": (trial + 1) / 100, "depth": 2})


def sampled(world):
    """The same world, with configurations."""
    return SampledWorld(**vars(world))


@dataclass
class Learning:
    """A score that grows by `rate` in each iteration of 10 s; launch 2 s, resume 3 s, checkpoint 1 s; machines come at once.

    Attributes:
        rates: of the trials that are no clones.
        saved: score by trial and iteration; a checkpoint that is not there cannot be restored.
    """

    rates: list
    saved: dict = field(default_factory=dict)
    _queue: list = field(default_factory=lambda: [(0.0, -1, RunStarted(0.0))])
    _order: object = field(default_factory=itertools.count)
    _now_s: float = 0.0

    def tell(self, after_s, build):
        at_s = self._now_s + after_s
        heapq.heappush(self._queue, (at_s, next(self._order), build(at_s)))

    def perform(self, order):
        match order:
            case ProvisionInstance():
                self.tell(0.0, lambda at_s: InstanceLaunched(at_s, order.instance))
                self.tell(0.0, lambda at_s: InstanceReady(at_s, order.instance))
            case ReleaseInstance():
                self.tell(0.0, lambda at_s: InstanceGone(at_s, order.instance, GoneCause.RELEASED))
            case StartTimer():
                self.tell(order.at_s - self._now_s, lambda at_s: TimerFired(at_s, order.tag))
            case EndSegment():
                raise AssertionError("nothing is ended here before its time")
            case StartSegment():
                self.train(order)

    def train(self, order):
        configuration = order.configuration
        if configuration is None:
            configuration = {"rate": self.rates[order.trial]}
            self.tell(0.0, lambda at_s: TrialSampled(at_s, order.trial, configuration))
        score = self.saved[order.restore_from, order.from_iteration] if order.from_iteration else 0.0
        score += configuration["rate"] * (order.until_iteration - order.from_iteration)
        self.saved[order.trial, order.until_iteration] = score
        launch_s, train_s = (
            (3.0 if order.from_iteration else 2.0),
            10.0 * (order.until_iteration - order.from_iteration),
        )
        until = order.until_iteration
        self.tell(
            launch_s + train_s + 1.0,
            lambda at_s: SegmentEnded(
                at_s, order.trial, order.segment, until, until, score, Outcome.COMPLETED, launch_s, train_s, 1.0
            ),
        )

    def next_event(self):
        if not self._queue:
            return None
        self._now_s, _, event = heapq.heappop(self._queue)
        return event

    def close(self):
        self._queue.clear()
