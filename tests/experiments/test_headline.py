"""The shipped comparison: what SEER promises holds in every run of it."""

from pathlib import Path

import pytest

from experiments import RunSpec
from experiments.running import World
from sim.journal import MemorySink
from sim.model.events import SegmentEnded

HEADLINE = Path(__file__).parents[2] / "experiments" / "catalog" / "headline.yaml"


@pytest.mark.parametrize("seed", range(20))
def test_seer_keeps_deadline_and_budget_and_its_winner_is_durable(seed):
    world = World.of(RunSpec.load(HEADLINE, ["policy=seer", f"seed={seed}"]))
    sink = MemorySink()
    controller, backend = world.controller(sink), world.backend()
    committed_usd = []
    while not controller.is_closed:
        event = backend.next_event()
        for command in controller.handle(event):
            backend.perform(command)
        controller.state.check_invariants()
        committed_usd.append(controller.state.bill.committed_usd(event.at_s))
    assert max(committed_usd) <= world.job.budget_usd
    assert controller.finished_at_s <= world.job.deadline_s
    written = [
        entry.event.at_s
        for entry in sink.entries
        if isinstance(entry.event, SegmentEnded)
        and entry.event.trial == controller.best
        and entry.event.checkpoint_iteration == controller.state.trials[controller.best].checkpoint_iteration
    ]
    assert written[0] <= world.job.deadline_s
