"""Numbers far from any real cloud are refused where they are given, or computed with."""

from __future__ import annotations

import math

import pytest

from elastune.sim.control.state import InstanceState
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import GoneCause, InstanceGone, InstanceLaunched, InstanceReady, RunStarted
from elastune.sim.model.prices import InstanceType
from elastune.sim.model.profile import Delay, SlowNodes, Stragglers
from elastune.sim.model.reclaim import Lifetimes
from elastune.sim.model.streams import Streams


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Stragglers(1e300), r"persistent_cv is 1e\+300, but must be between 0 and 1e\+06"),
        (lambda: Stragglers(0.0, 1e300), r"per_iteration_cv is 1e\+300"),
        (lambda: Stragglers(0.0, math.nan), r"per_iteration_cv is nan"),
        (lambda: SlowNodes(cv=1e300), r"slow_nodes\.cv is 1e\+300"),
        (lambda: Delay(1.0, 1e300), r"^cv is 1e\+300"),
        (lambda: Lifetimes(60.0, shape=1e-9), r"lifetime\.shape is 1e-09, but must be at least 0\.01"),
        (lambda: InstanceType("m", 10**12, {"on-demand": 1.0}), r"gpus_per_instance is 1000000000000, .* 1 and 1000"),
    ],
)
def test_what_cannot_be_computed_with_is_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_the_most_that_is_allowed_can_be_drawn():
    rng = Streams(0).rng("any")
    assert Delay(1.0, 1e6).draw_s(rng) >= 0
    factors = Stragglers(1e6, 1e6).tail.draw(rng, 1e6, (4, 4))
    assert (factors >= 0).all()
    assert math.isfinite(Lifetimes(60.0, shape=0.01).begin(Streams(0), 0.0).place(0, 0.0))


@pytest.mark.parametrize("every", [9, 10**30])
def test_an_interval_of_checkpoints_beyond_the_end_is_none(simulate, every):
    answers = {"start": [ScaleTo(1), RunTrial(0, 1, 9)], "ended 0": [FinishRun(0)]}
    assert simulate(answers, checkpoint_every=every).makespan_s == simulate(answers).makespan_s == 90.0


def test_a_loss_in_a_large_fleet_reads_only_what_it_concerns(controlled, monkeypatch):
    """The machines are counted per pool, so the one that is lost is replaced without a look at the others."""
    run = controlled({"start": [ScaleTo(200)]}, quota=200)
    run.controller.handle = type(run.controller).handle.__get__(run.controller)  # without the check of the whole state
    run.controller.handle(RunStarted(0.0))
    for number in range(200):
        run.controller.handle(InstanceLaunched(1.0, number))
        run.controller.handle(InstanceReady(2.0, number))
    looks = []
    pool = InstanceState.pool.fget
    monkeypatch.setattr(InstanceState, "pool", property(lambda one: looks.append(one) or pool(one)))
    commands = run.controller.handle(InstanceGone(3.0, 7, GoneCause.LOST))
    assert [(type(one).__name__, one.instance) for one in commands] == [("ProvisionInstance", 200)]
    assert len(looks) < 10
