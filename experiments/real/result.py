"""What comes out of a real run: the same as of a simulated one, and what controlling it took."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.experiments.files import write_text
from elastune.experiments.runs.result import Answer, RunResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elastune.experiments.runs.world import World
    from elastune.sim.bridge.workers.checkpoint import CheckpointStore
    from elastune.sim.control.controller import Controller


@dataclass(frozen=True)
class RealResult:
    """The result of a real run.

    Attributes:
        run: what every run has.
        folder: where it lies.
        control_s: (events,) seconds of this process per event, from the event to the last order: deciding, writing, ordering.
            Those of this driver only, where a run went on.
        decision_s: (events,) the first part of it, until the controller had decided.
        host_s: seconds this driver took.
    """

    run: RunResult
    folder: Path
    control_s: Sequence[float]
    decision_s: Sequence[float]
    host_s: float

    def to_json(self) -> dict[str, object]:
        """What `elastune run --on ray --json` prints."""
        return self.run.to_json() | {"real": self.control()}

    def control(self) -> dict[str, float | int | None]:
        """Events and what they took."""
        import numpy as np

        told: dict[str, float | int | None] = {"events": len(self.control_s)}
        for part, seconds in (("decision", self.decision_s), ("control", self.control_s)):
            median_s, p99_s = np.quantile(seconds, [0.5, 0.99]).tolist() if len(seconds) else (None, None)
            told |= {f"{part}_median_s": median_s, f"{part}_p99_s": p99_s}
        return told | {"host_s": self.host_s}

    def write(self) -> Path:
        """Write result.json; returns its path. One that is there stays where this driver had nothing left to do."""
        path = self.folder / "result.json"
        if path.is_file() and not self.control_s:
            return path
        write_text(path, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")
        return path


def real_answer(world: World, controller: Controller, store: CheckpointStore) -> Answer | None:
    """The answer of a real run: what its workers measured at the latest durable checkpoint of the trial that the run names."""
    number = controller.best
    if number is None:
        return None
    trial = controller.state.trials[number]
    saved = store.latest(number, at_most=trial.checkpoint_iteration)
    assert trial.configuration is not None  # a real backend tells it before the trial's first segment
    return Answer(
        trial.configuration,
        trial.checkpoint_score if saved is None else saved.score,
        None if saved is None else saved.test_score,
        is_of_draw=world.spec.workload.configurations in (None, "bundle"),
    )
