from __future__ import annotations

import re

import msgspec
import pytest

from elastune.experiments.contracts import policies as contract
from elastune.experiments.contracts.policies import (
    Case,
    Finding,
    check_policy,
    keeps_the_budget,
    keeps_the_deadline,
    plain_world,
    worlds,
)
from elastune.policies.registry import POLICIES, factory
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo, SetTimer
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.events import GoneCause, InstanceGone, Outcome, RunStarted, SegmentEnded, TimerFired

VARIANTS = [
    *((name, {}) for name in POLICIES),
    ("sha-elastic", {"gpus_per_trial": 2}),
    ("hyperband-elastic", {"gpus_per_trial": 2}),
    ("rubberband", {"steps": "next"}),
    ("rubberband", {"replan": True}),
    ("seer", {"replan": False}),
    ("seer", {"reserve": False, "resize_rule": "always"}),
    ("seer", {"elastic": False}),
    ("seer", {"parallelism": "ranked"}),
    ("explore-finish", {"rounds": 1, "widens": False}),
    ("explore-finish", {"rounds": 3, "time_share": 0.2}),
    ("explore-finish", {"time_share": 1.0}),
]
# Those whose infeasible worlds are worked out below; what joins the registry later may say so where a world allows it.
VARIANTS_BY_HAND = [
    (name, parameters)
    for name, parameters in VARIANTS
    if name in {"seer", "rubberband", "sha-fixed", "sha-fixed-naive", "asha-fixed", "asha-fixed-naive", "sha-elastic"}
]
NAIVE = {
    "tight budget",
    "deadline only",
    "budget only",
    "three times slower than believed, on a tight budget",
    "failing functions, by the minute, on a tight budget",
    "lost machines, slow to be replaced, on a tight budget",
}
ONE_GPU_EACH = {"tight deadline", "tight budget", "tight deadline and budget"}
INFEASIBLE = {
    # floor(B / (cT)) is no machine at all, or T or B is missing.
    "sha-fixed-naive": NAIVE,
    "asha-fixed-naive": NAIVE,
    # At one GPU R = 9 takes 60 + 3 x (10 + 5) + 9 x 60 = 645 s; 1.5 USD pay a machine of 4 GPUs for 450 s.
    "asha-fixed": ONE_GPU_EACH,
    "sha-elastic": ONE_GPU_EACH,
}
WORLDS = {world.name: world for world in worlds()}


@pytest.mark.many(fast=31)
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=str)
def test_the_policies_of_the_registry_keep_every_promise_in_every_world(name, parameters, world):
    findings = check_policy(name, factory(name, parameters), where=[world])
    assert [finding for finding in findings if finding.status == "broken"] == []
    if (name, parameters) in VARIANTS_BY_HAND:
        infeasible = {finding.world for finding in findings if finding.status == "infeasible"}
        assert infeasible == ({world.name} & INFEASIBLE.get(name, set()) if not parameters else set())


def test_the_rough_worlds_are_rough():
    """Otherwise the promises above would be cheap."""
    outcomes, causes = set(), set()
    for name in ("failing segments", "lost instances", "lost machines, slow to be replaced, on a tight budget"):
        for event in events_of(name):
            outcomes |= {event.outcome} if isinstance(event, SegmentEnded) else set()
            causes |= {event.cause} if isinstance(event, InstanceGone) else set()
    for name in ("spot machines, two minutes' notice", "spot machines go in waves, without notice"):
        causes |= {event.cause for event in events_of(name) if isinstance(event, InstanceGone)}
    assert "ReclaimNoticed" in {type(event).__name__ for event in events_of("spot machines, two minutes' notice")}
    refused = {type(event).__name__ for event in events_of("no capacity beyond two small machines")}
    refused &= {type(event).__name__ for event in events_of("no more spot capacity, on demand instead")}
    assert {Outcome.FAILED, Outcome.INSTANCE_GONE, Outcome.COMPLETED} <= outcomes
    assert {GoneCause.LOST, GoneCause.RECLAIMED} <= causes
    assert "InstanceRefused" in refused


def events_of(world):
    return [entry.event for entry in Case("sha-fixed", factory("sha-fixed"), WORLDS[world]).watched.entries]


# Each promise is seen to be broken by a policy that breaks it.


class OneTrial:
    """Trains trial 0 to R on one machine and finishes: keeps every promise in the plain world."""

    def __init__(self, **changes):
        self.changes = changes

    def on_event(self, event, view):
        if isinstance(event, RunStarted):
            return [ScaleTo(1), RunTrial(0, 1, view.job.max_iterations)]
        return [FinishRun(0)] if isinstance(event, SegmentEnded) else []


class Impossible(OneTrial):
    def on_event(self, event, view):  # noqa: ARG002
        return [RunTrial(0, 1, 1)]


class Endless(OneTrial):
    def on_event(self, event, view):
        return [SetTimer("again", view.now_s + 1.0)] if isinstance(event, (RunStarted, TimerFired)) else []


class Crashing(OneTrial):
    def on_event(self, event, view):  # noqa: ARG002
        raise ZeroDivisionError("crashed")


class Meddling(OneTrial):
    def on_event(self, event, view):
        if isinstance(event, SegmentEnded):
            view.trial(3).score = 0.0
        return super().on_event(event, view)


class Remembering(OneTrial):
    runs = 0

    def __init__(self):
        Remembering.runs += 1
        self.nth = Remembering.runs

    def on_event(self, event, view):
        actions = super().on_event(event, view)
        return [*actions, SetTimer("x", view.now_s + 1e4 + self.nth)] if isinstance(event, RunStarted) else actions


class Late(OneTrial):
    def on_event(self, event, view):
        if isinstance(event, SegmentEnded):
            return [SetTimer("late", 4000.0)]
        return [FinishRun(0)] if isinstance(event, TimerFired) else super().on_event(event, view)


class Spender(OneTrial):
    def on_event(self, event, view):
        actions = super().on_event(event, view)
        return (
            [ScaleTo(8), *actions[1:], SetTimer("until", 3000.0)]
            if isinstance(event, RunStarted)
            else ([FinishRun(0)] if isinstance(event, TimerFired) else [])
        )


class Forgetful(OneTrial):
    def on_event(self, event, view):
        return [FinishRun(None)] if isinstance(event, SegmentEnded) else super().on_event(event, view)


class Idle:
    def on_event(self, _event, _view):
        return [FinishRun(None)]


def broken(policy, **keywords):
    findings = check_policy("bad", lambda *_: policy(), where=[plain_world()], **keywords)
    return {finding.promise: finding.problem for finding in findings if finding.status == "broken"}


def test_a_policy_that_keeps_every_promise_has_no_broken_one():
    assert broken(OneTrial) == {}


@pytest.mark.parametrize(
    ("policy", "promise", "problem"),
    [
        (
            Impossible,
            "actions_are_possible",
            r"bad actions only for what is possible, world 'plain', at 0\.000 s: .*RunTrial",
        ),
        (Endless, "finishes", r"at 499\.000 s: StalledRunError: the run has not ended after 500 events"),
        (Crashing, "finishes", r"at 0\.000 s: ZeroDivisionError: crashed"),
        (
            Meddling,
            "leaves_the_view_alone",
            r"only reads its view, world 'plain', at 615\.000 s: on_event has changed trial 3",
        ),
        (Remembering, "is_deterministic", r"is deterministic, world 'plain', at 0\.000 s: a second run .* differs"),
        (Remembering, "replays", r"entry 1 at 0\.000 s does not replay"),
        (Late, "keeps_the_deadline", r"at 4000\.000 s: the deadline was 3600 s"),
        (Spender, "keeps_the_budget", r"at 3000\.000 s: 79\.\d+ USD are committed, the budget is 20 USD"),
        (
            Idle,
            "answers_durably",
            r"at 0\.000 s: the policy ended the run without an answer, and nothing was ever trained",
        ),
        (Forgetful, "answers_durably", r"FinishRun names no trial, though 1 have a durable checkpoint"),
    ],
)
def test_a_broken_promise_is_found_with_its_world_and_time(monkeypatch, policy, promise, problem):
    monkeypatch.setattr(contract, "MOST_EVENTS", 500)
    found = broken(policy, promises=[getattr(contract, promise)])
    assert re.search(problem, found[promise]), found


def test_promises_can_be_left_out():
    assert broken(Spender, promises=[keeps_the_deadline]) == {}
    assert set(broken(Spender, promises=[keeps_the_deadline, keeps_the_budget])) == {"keeps_the_budget"}


def test_saying_that_the_plain_job_is_infeasible_is_a_broken_promise():
    def refuses(*_):
        raise InfeasibleJobError("too hard")

    [finding] = check_policy("bad", refuses, where=[plain_world()])
    assert finding == Finding("is feasible", "plain", "broken", "too hard", "too hard")
    [finding] = check_policy("bad", refuses, where=[WORLDS["tight budget"]])
    assert finding.status == "infeasible"


def test_a_run_without_a_budget_keeps_it():
    world = plain_world()
    free = type(world)(**{**vars(world), "job": msgspec.structs.replace(world.job, budget_usd=None)})
    keeps_the_budget(Case("spender", lambda *_: Spender(), free))
