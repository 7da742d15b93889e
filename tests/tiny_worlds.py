"""Builders of tiny worlds, and histories written down in one line per event."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import MemorySink
from elastune.sim.control.runner import run
from elastune.sim.control.sequence import JournalCheck
from elastune.sim.model.capacity import Steps
from elastune.sim.model.events import (
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    ProgressReported,
    ReclaimNoticed,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)
from elastune.sim.model.job import TuningJob
from elastune.sim.model.price_series import combined
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import (
    CloudTruth,
    Contention,
    Delay,
    Faults,
    GroundTruth,
    Profile,
    SlowNodes,
    Startup,
    Stragglers,
    Timings,
)
from elastune.sim.model.scaling import LinearScaling
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend

SCORES = [
    [0.90, 0.80, 0.70, 0.60],
    [0.50, 0.45, 0.40, 0.35],
    [0.70, 0.30, 0.20, 0.10],
    [0.60, 0.50, 0.50, 0.50],
]
"""Losses of four trials: the second is best at first, the third in the end."""


class Script:
    """A policy that answers each event with what was written down for it, once.

    Keys: `start`, `launched 0`, `booted 0`, `ready 0`, `refused 0`, `noticed 0`, `gone 0` (instance), `report 0@2` (trial,
    iteration),
    `sampled 0`, `ended 0` (trial), `timer tag`.
    """

    def __init__(self, answers):
        self.answers = dict(answers)
        self.views = []

    def on_event(self, event, view):
        answer = self.answers.pop(key_of(event), ())
        return answer(view) if callable(answer) else answer


MACHINES = {
    InstanceLaunched: "launched",
    InstanceBooted: "booted",
    InstanceReady: "ready",
    InstanceRefused: "refused",
    ReclaimNoticed: "noticed",
    InstanceGone: "gone",
}


def key_of(event):
    match event:
        case RunStarted():
            return "start"
        case ProgressReported():
            return f"report {event.trial}@{event.iteration}"
        case SegmentEnded():
            return f"ended {event.trial}"
        case TimerFired():
            return f"timer {event.tag}"
        case TrialSampled():
            return f"sampled {event.trial}"
        case _:
            return f"{MACHINES[type(event)]} {event.instance}"


def told(event):
    """`time event`, everything that varies in it included."""
    match event:
        case SegmentEnded():
            durable = f"{event.iteration}/{event.checkpoint_iteration}"
            seconds = f"{event.launch_s:g}+{event.train_s:g}+{event.checkpoint_s:g}"
            score = "" if event.score is None else f" score {event.score:g}"
            return f"{event.at_s:g} {event.outcome} t{event.trial} s{event.segment} at {durable}{score} in {seconds}"
        case ProgressReported():
            return f"{event.at_s:g} report t{event.trial} s{event.segment} at {event.iteration} score {event.score:g}"
        case InstanceGone():
            return f"{event.at_s:g} {event.cause} i{event.instance}"
        case InstanceRefused():
            return f"{event.at_s:g} refused i{event.instance}"
        case ReclaimNoticed():
            return f"{event.at_s:g} noticed i{event.instance} until {event.gone_at_s:g}"
        case _:
            return f"{event.at_s:g} {key_of(event)}"


def ordered(command):
    """A command in a few letters: +i0, -i0, s0: t0 0..3 on i0x1, end s0, timer."""
    match type(command).__name__:
        case "ProvisionInstance":
            return f"+i{command.instance}"
        case "ReleaseInstance":
            return f"-i{command.instance}"
        case "StartSegment":
            gangs = " ".join(f"i{instance}x{gpus}" for instance, gpus in command.placement)
            return (
                f"s{command.segment}: t{command.trial} {command.from_iteration}..{command.until_iteration} on {gangs}"
            )
        case "EndSegment":
            return f"end s{command.segment}"
        case _:
            return f"{command.tag} at {command.at_s:g}"


def line(entry):
    status = "" if entry.status == "handled" else f"({entry.status}) "
    commands = ", ".join(ordered(command) for command in entry.commands)
    return f"{status}{told(entry.event)}" + (f" -> {commands}" if commands else "")


class ScriptedStreams(Streams):
    """Streams whose faults come when the test says: seconds after the start of a segment, or after a launch."""

    def __init__(self, failures=None, losses=None):
        super().__init__(0)
        object.__setattr__(self, "scripted", {"segment-failure": failures or {}, "instance-loss": losses or {}})

    def rng(self, purpose, *entity):
        if purpose not in self.scripted:
            return super().rng(purpose, *entity)
        after_s = self.scripted[purpose].get(entity if len(entity) > 1 else entity[0], 1e12)
        return SimpleNamespace(exponential=lambda _: after_s)


def build_world(**given):
    """A literal world: 1 USD per machine and second, billed as used, iterations of 10 s, machines of 4 GPUs at once.

    Score of trial t after iteration k, unless given: t + k / 100, to be minimised; trial 0 is the best everywhere. What is no
    field of `_Given` is said of the job.
    """
    names = {one.name for one in fields(_Given)}
    world = _Given(**{name: given.pop(name) for name in names & given.keys()})
    curves = world.curves()
    job = {"min_iterations": 1, "max_iterations": curves.shape[1], **given}
    return SimpleNamespace(
        job=TuningJob(trials=len(curves), **job),
        truth=world.truth(),
        cloud=world.cloud(),
        profile=world.profile(),
        book=world.book(),
        streams=ScriptedStreams(world.failures, world.losses),
        placement=world.placement,
    )


@dataclass
class _Given:
    """What a test says of its world beside the job."""

    trials: int = 2
    iterations: int = 9
    scores: list | None = None
    tau: float = 10.0
    timings: tuple = (0.0, 0.0, 0.0)
    startup: tuple = (0.0, 0.0)
    gpus: int = 4
    usd_per_hour: float = 3600.0
    billing: BillingRule = field(default_factory=lambda: BillingRule(granularity_s=0.0, minimum_s=0.0))
    quota: int = 8
    release_s: float = 0.0
    scaling: object = field(default_factory=LinearScaling)
    stragglers: Stragglers = field(default_factory=Stragglers)
    sync_s: float = 0.0
    capacity: dict | int | None = None
    quota_ramp: object = None
    waits: bool = False
    spot: object = None
    market: str = "on-demand"
    fail_over: tuple = ()
    mtbf_s: float = math.inf
    failures: dict | None = None
    losses: dict | None = None
    believed_tau: float | None = None
    believed_scaling: object = None
    placement: str = "on"
    slow_nodes: SlowNodes = field(default_factory=SlowNodes)
    contention: Contention = field(default_factory=Contention)
    min_gpus: list | None = None

    def curves(self):
        rows = [[t + k / 100 for k in range(1, self.iterations + 1)] for t in range(self.trials)]
        return np.array(rows if self.scores is None else self.scores, dtype=float)

    def truth(self):
        curves = self.curves()
        least = np.array(self.min_gpus) if self.min_gpus else None
        tau = np.full(len(curves), self.tau)
        return GroundTruth(curves, tau, self.scaling, Timings(*self.timings), self.stragglers, least)

    def cloud(self):
        capacity = {} if self.capacity is None else self.capacity
        if isinstance(capacity, int):
            capacity = {("m", "on-demand"): Steps.constant(capacity)}
        return CloudTruth(
            Startup(*map(Delay, self.startup)),
            Faults(1.0 if self.losses else 0.0, 1.0 if self.failures else 0.0),
            capacity,
            self.release_s,
            self.quota_ramp,
            self.waits,
            self.spot,
            slow_nodes=self.slow_nodes,
            contention=self.contention,
        )

    def profile(self):
        return Profile(
            self.believed_tau or self.tau,
            self.believed_scaling or self.scaling,
            Timings(*self.timings),
            Startup(*map(Delay, self.startup)),
            self.stragglers,
            self.sync_s,
            mtbf_s=self.mtbf_s,
        )

    def book(self):
        prices = {"on-demand": self.usd_per_hour, "spot": combined([(self.usd_per_hour, 1 / 4)])}
        machines = (InstanceType("m", self.gpus, prices),)
        return PriceBook(
            machines, self.billing, self.quota, self.release_s, market=self.market, fail_over=self.fail_over
        )


class Story:
    """A finished run and its history."""

    def __init__(self, controller, entries):
        self.controller, self.entries = controller, entries
        self.state = controller.state
        self.makespan_s = controller.finished_at_s
        self.best = controller.best
        self.bill_usd = controller.state.bill.spent_usd(controller.finished_at_s)

    @property
    def log(self):
        return [line(entry) for entry in self.entries]


def check_each_event(controller):
    """Let the state be checked after every event."""
    handle = controller.handle

    def checked(event):
        commands = handle(event)
        controller.state.check_invariants()
        return commands

    controller.handle = checked
    return controller


def play_world(policy, world, streams=None):
    """Run a policy, or a dictionary of answers, to its end."""
    if isinstance(policy, dict):
        policy = Script(policy)
    sink = MemorySink()
    controller = Controller(policy, world.job, world.book, name="script", sink=sink, placement=world.placement)
    check_each_event(controller)
    run(controller, SimulatedBackend(world.truth, world.cloud, streams or world.streams))
    check = JournalCheck(Path("played"), world.job.trials, world.book)
    for entry in sink.entries:
        check.take(entry)
    check.end()
    return Story(controller, sink.entries)
