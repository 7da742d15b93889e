"""Builders of tiny worlds, and histories written down in one line per fact."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from sim.controller import Controller
from sim.journal import MemorySink
from sim.model.capacity import Steps
from sim.model.events import (
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
from sim.model.job import TuningJob
from sim.model.price_series import combined
from sim.model.prices import BillingRule, InstanceType, PriceBook
from sim.model.profile import (
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
from sim.model.scaling import LinearScaling
from sim.runner import run
from sim.simulated import SimulatedBackend
from sim.streams import Streams


class Script:
    """A policy that answers each fact with what was written down for it, once.

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
    """`time fact`, everything that varies in it included."""
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
    """An order in a few letters: +i0, -i0, s0: t0 0..3 on i0x1, end s0, timer."""
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
    orders = ", ".join(ordered(command) for command in entry.commands)
    return f"{status}{told(entry.event)}" + (f" -> {orders}" if orders else "")


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


def build_world(
    *,
    trials=2,
    iterations=9,
    scores=None,
    tau=10.0,
    timings=(0.0, 0.0, 0.0),
    startup=(0.0, 0.0),
    gpus=4,
    usd_per_hour=3600.0,
    billing=None,
    quota=8,
    release_s=0.0,
    scaling=None,
    stragglers=None,
    sync_s=0.0,
    capacity=None,
    quota_ramp=None,
    waits=False,
    spot=None,
    market="on-demand",
    fail_over=(),
    mtbf_s=math.inf,
    failures=None,
    losses=None,
    believed_tau=None,
    believed_scaling=None,
    placement="on",
    slow_nodes=None,
    contention=None,
    min_gpus=None,
    **job,
):
    """A literal world: 1 USD per machine and second, billed as used, iterations of 10 s, machines of 4 GPUs at once.

    Score of trial t after iteration k, unless given: t + k / 100, to be minimised; trial 0 is the best everywhere.
    """
    if scores is None:
        scores = [[t + k / 100 for k in range(1, iterations + 1)] for t in range(trials)]
    curves = np.array(scores, dtype=float)
    job = {"min_iterations": 1, "max_iterations": curves.shape[1], **job}
    scaling = scaling or LinearScaling()
    startup = Startup(*map(Delay, startup))
    stragglers = stragglers or Stragglers()
    faults = Faults(1.0 if losses else 0.0, 1.0 if failures else 0.0)
    if isinstance(capacity, int):
        capacity = {("m", "on-demand"): Steps.constant(capacity)}
    return SimpleNamespace(
        job=TuningJob(trials=len(curves), **job),
        truth=GroundTruth(
            curves,
            np.full(len(curves), tau),
            scaling,
            Timings(*timings),
            stragglers,
            np.array(min_gpus) if min_gpus else None,
        ),
        cloud=CloudTruth(
            startup,
            faults,
            capacity or {},
            release_s,
            quota_ramp,
            waits,
            spot,
            slow_nodes=slow_nodes or SlowNodes(),
            contention=contention or Contention(),
        ),
        profile=Profile(
            believed_tau or tau,
            believed_scaling or scaling,
            Timings(*timings),
            startup,
            stragglers,
            sync_s,
            mtbf_s=mtbf_s,
        ),
        book=PriceBook(
            (InstanceType("m", gpus, {"on-demand": usd_per_hour, "spot": combined([(usd_per_hour, 1 / 4)])}),),
            billing or BillingRule(granularity_s=0.0, minimum_s=0.0),
            quota,
            release_s,
            market=market,
            fail_over=fail_over,
        ),
        streams=ScriptedStreams(failures, losses),
        placement=placement,
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


def check_each_fact(controller):
    """Let the state be checked after every fact."""
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
    check_each_fact(controller)
    run(controller, SimulatedBackend(world.truth, world.cloud, streams or world.streams))
    return Story(controller, sink.entries)
