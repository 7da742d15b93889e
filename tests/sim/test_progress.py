"""A run that gains nothing any more ends with an error that says why."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from elastune import RunSpec, execute
from elastune.sim.control import progress
from elastune.sim.control.journal import JournalWriter
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo, SetTimer
from elastune.sim.model.errors import InvalidActionError, StalledRunError
from elastune.sim.model.events import InstanceReady, Outcome, RunStarted, SegmentEnded

HOPELESS = {
    "lifetimes below an iteration": (
        {"market": "spot", "spot": {"lifetime": {"mean_s": 600, "shape": 5}, "notice_s": 0}},
        1800,
        r"0 refused requests\) and \d+ events; an iteration takes more than \d{3,4}\.\d s of training",
    ),
    "segments that always fail": (
        {"faults": {"segment_failure_per_hour": 1}},
        86400,
        r"2001 broken segments, 0 lost machines, 0 refused requests\)",
    ),
    "machines taken back while they boot": (
        {
            "market": "spot",
            "startup": {"init_s": 3600},
            "spot": {"lifetime": {"mean_s": 60, "shape": 5}, "notice_s": 0},
        },
        10,
        r"\(0 broken segments, 2001 lost machines, 0 refused requests\)",
    ),
    "machines given back on notice before they train": (
        {
            "market": "spot",
            "startup": {"init_s": 30},
            "spot": {"lifetime": {"mean_s": 10, "shape": 5}, "notice_s": 30},
        },
        10,
        r"\(0 broken segments, 2001 lost machines, 0 refused requests\)",
    ),
}
MACHINE = {"name": "m", "price_usd_per_hour": 3, "spot_price_usd_per_hour": 1, "gpus_per_instance": 1}


def spec(policy, cloud, iteration_s, **job):
    return RunSpec.of(
        job={"trials": 2, "max_iterations": 2, **job},
        workload={"bundle": "digits-mlp", "scaling": "linear", "iteration_s": iteration_s},
        cloud={"instance_type": MACHINE, "rescale_s": 1, **cloud},
        policy=policy,
    )


@pytest.mark.parametrize("policy", ["sha-fixed", "asha-fixed"])
@pytest.mark.parametrize("kind", HOPELESS)
def test_a_run_without_limits_that_can_gain_nothing_ends_and_says_why(kind, policy):
    cloud, iteration_s, why = HOPELESS[kind]
    told = []
    for _ in range(2):
        with pytest.raises(
            StalledRunError, match=r"no progress is possible at .*: nothing durable was gained"
        ) as error:
            execute(spec(policy, cloud, iteration_s))
        told.append(str(error.value))
    assert told[0] == told[1], "the same run stalls at the same event"
    assert error.match(why), told[0]
    assert error.match("set a deadline, checkpoint more often")


def test_a_deadline_ends_such_a_run_as_before():
    cloud, iteration_s, _ = HOPELESS["lifetimes below an iteration"]
    result = execute(spec("sha-fixed", cloud, iteration_s, deadline_s=7200))
    assert result.best_trial is None
    assert 3600 < result.makespan_s <= 7200


class Persistent:
    """Starts trial 0 again until it has completed."""

    def on_event(self, event, _):
        if isinstance(event, InstanceReady):
            return [RunTrial(0, 1, 9)]
        if isinstance(event, SegmentEnded):
            return [FinishRun(0) if event.outcome is Outcome.COMPLETED else RunTrial(0, 1, 9)]
        return [ScaleTo(1)] if isinstance(event, RunStarted) else []


@pytest.mark.parametrize(("gains_after_s", "completes"), [(15.0, True), (5.0, False)])
def test_a_rare_gain_starts_the_count_anew(play, world, monkeypatch, gains_after_s, completes):
    """Sixty segments break within their first iteration of 10 s, each twentieth perhaps one iteration later."""
    monkeypatch.setattr(progress, "MOST_LOSSES", 25)
    failures = {(0, nth): gains_after_s if nth % 20 == 0 else 5.0 for nth in range(60)}
    tiny = world(trials=1, failures=failures, checkpoint_every=1)
    if completes:
        story = play(Persistent(), tiny)
        assert sum(" failed " in line for line in story.log) == 60
    else:
        with pytest.raises(StalledRunError, match=r"26 broken segments.*more than 5\.0 s of training"):
            play(Persistent(), tiny)


class Polling:
    """Asks for a timer again and again."""

    def __init__(self, gap_s):
        self.gap_s = gap_s

    def on_event(self, _, view):
        return [SetTimer("poll", view.now_s + self.gap_s)]


def test_timers_for_ever_end(play, world, monkeypatch):
    monkeypatch.setattr(progress, "MOST_EVENTS", 500)
    with pytest.raises(StalledRunError, match=r"no progress is possible at 500\.0 s: .* and 501 events"):
        play(Polling(1.0), world())


def test_a_timer_that_never_fires_is_refused(simulate):
    with pytest.raises(
        InvalidActionError, match=r"SetTimer\(.*at_s=inf\) at 0\.0 s: a timer must fire at a finite time"
    ):
        simulate({"start": [SetTimer("t", math.inf)]})


def test_requests_refused_for_ever_end(play, world, monkeypatch):
    class Stubborn:
        def on_event(self, *_):
            return [ScaleTo(0), ScaleTo(1)]

    monkeypatch.setattr(progress, "MOST_LOSSES", 50)
    with pytest.raises(StalledRunError, match=r"0 lost machines, 51 refused requests"):
        play(Stubborn(), world(capacity=0))


def test_numbers_of_numpy_are_written_as_numbers(simulate):
    actions = {
        "start": [ScaleTo(np.int64(1)), RunTrial(np.int64(0), np.int32(1), np.int64(2))],
        "ended 0": [FinishRun(np.int64(0))],
    }
    entries = simulate(actions).entries
    stream = io.BytesIO()
    for entry in entries:
        JournalWriter(stream).write(entry)
    assert b'"actions":[{"type":"ScaleTo","instances":1},{"type":"RunTrial","trial":0,"gpus":1' in stream.getvalue()
