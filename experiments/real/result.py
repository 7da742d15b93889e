"""The result of a real run: that of a simulated run, and the seconds that control took."""

from __future__ import annotations

import json
import shlex
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
        run: the result that every run has.
        folder: of the run.
        control_s: (events,) seconds from each event to its last command. A resumed run has those of the last driver only.
        decision_s: (events,) the part of them until the controller had decided.
        host_s: seconds of this driver.
        checkpoint: of the winner, by its path or URL; None where there is none.
    """

    run: RunResult
    folder: Path
    control_s: Sequence[float]
    decision_s: Sequence[float]
    host_s: float
    checkpoint: str | None = None

    def to_json(self) -> dict[str, object]:
        """As `elastune run --on ray --json` prints it."""
        given = None if self.checkpoint is None else {"path": self.checkpoint, "command": self.checkpoint_command}
        return self.run.to_json() | {"checkpoint": given, "real": self.control()}

    @property
    def checkpoint_command(self) -> str:
        """What puts the winner's files and configuration into a folder."""
        return f"elastune checkpoint {shlex.quote(str(self.folder))} -o best"

    def control(self) -> dict[str, float | int | None]:
        """The number of events, and quantiles of their seconds."""
        import numpy as np

        told: dict[str, float | int | None] = {"events": len(self.control_s)}
        for part, seconds in (("decision", self.decision_s), ("control", self.control_s)):
            median_s, p99_s = np.quantile(seconds, [0.5, 0.99]).tolist() if len(seconds) else (None, None)
            told |= {f"{part}_median_s": median_s, f"{part}_p99_s": p99_s}
        return told | {"host_s": self.host_s}

    def write(self) -> Path:
        """Write result.json and return its path. An existing one stays if this driver had nothing left to do."""
        path = self.folder / "result.json"
        if path.is_file() and not self.control_s:
            return path
        write_text(path, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")
        return path


def winner_checkpoint(controller: Controller, store: CheckpointStore) -> str | None:
    """Where the latest whole checkpoint of the winner is."""
    if controller.best is None:
        return None
    at_most = controller.state.trials[controller.best].checkpoint_iteration
    saved = store.latest(controller.best, at_most=at_most)
    return None if saved is None else store.place_of(saved)


def real_answer(world: World, controller: Controller, store: CheckpointStore) -> Answer | None:
    """The answer of a real run, measured at the latest durable checkpoint of the trial that the policy named."""
    number = controller.best
    if number is None:
        return None
    trial = controller.state.trials[number]
    saved = store.latest(number, at_most=trial.checkpoint_iteration)
    assert trial.configuration is not None  # told before the trial's first segment
    return Answer(
        trial.configuration,
        trial.checkpoint_score if saved is None else saved.score,
        None if saved is None else saved.test_score,
        {} if saved is None else saved.measures,
        is_of_draw=world.spec.workload.configurations in (None, "bundle"),
    )
