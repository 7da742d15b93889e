"""What every policy of the registry did in every world of the contract when it was last looked at.

Numbers that change are not wrong, but somebody has to look: `ELASTUNE_UPDATE_GOLDEN=1 pytest tests/golden` writes them anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from elastune.experiments.contracts.policies import record, worlds
from elastune.policies.registry import POLICIES, factory
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InfeasibleJobError

GOLDEN = Path(__file__).with_name("runs.json")
FIELDS = ("makespan_s", "bill_usd", "winner", "winner_iterations", "segments")


def measured(name):
    """A row per world; None where the policy cannot do the job."""
    rows = {}
    for world in worlds():
        try:
            recording = record(name, factory(name), world)
        except InfeasibleJobError:
            rows[world.name] = None
            continue
        controller = recording.controller
        makespan_s = controller.finished_at_s
        segments = sum(isinstance(order, StartSegment) for entry in recording.entries for order in entry.commands)
        winner = controller.best
        rows[world.name] = [
            round(makespan_s, 6),
            round(controller.state.bill.spent_usd(makespan_s), 9),
            winner,
            None if winner is None else controller.state.trials[winner].checkpoint_iteration,
            segments,
        ]
    return rows


@pytest.mark.parametrize("name", POLICIES)
def test_runs_are_as_they_were(name):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    rows = measured(name)
    if os.environ.get("ELASTUNE_UPDATE_GOLDEN"):
        golden[name] = rows
        lines = [
            f"  {json.dumps(policy)}: {{\n"
            + ",\n".join(f"    {json.dumps(world)}: {json.dumps(row)}" for world, row in golden[policy].items())
            + "\n  }"
            for policy in sorted(golden)
        ]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert rows.keys() == golden.get(name, {}).keys(), "worlds or policies have changed: see the top of this file"
    for world, row in rows.items():
        expected = golden[name][world]
        # Times and bills may differ in the last digits between versions of numpy and the C library.
        assert row == (expected and pytest.approx(expected, rel=1e-6)), dict(zip(FIELDS, expected or (), strict=False))
