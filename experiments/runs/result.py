"""What comes out of a run, and how it is read off the controller that has finished it.

Imports experiments.runs, and `sim` for types.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from elastune.experiments.runs.ledger import Ledger
from elastune.experiments.runs.placements import placement_account
from elastune.experiments.runs.regret import Regret, regret_of
from elastune.experiments.runs.trajectory import Recording, segments_table, trajectory_table
from elastune.experiments.runs.world import World, most_gpus
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from elastune.experiments.runs.fold import Tables
    from elastune.sim.control.controller import Controller
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import Direction
    from elastune.sim.model.protocols import Configuration


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What came out of a run. What does not apply is None: nothing durable was trained, or there is no such limit.

    Attributes:
        policy: with its parameters, as the command line takes it.
        best_trial: position in the seed's draw.
        best_config: its hyperparameters.
        best_iteration: its last durable iteration.
        best_is_complete: whether that is R.
        score: of the best trial at that iteration, without noise that was put on top; None also where it diverged.
        test_score: at the same iteration, where the bundle has one.
        regret: see `experiments.runs.regret.Regret`; the sum of the three parts.
        cost_usd: the bill.
        deadline_met: whether the makespan is within the deadline.
        budget_met: whether the bill is within the budget.
        iterations_trained: redone ones included.
        gpu_utilisation: GPU-seconds of training over GPU-seconds from launch to end of all machines.
        ledger_usd: the bill by part; see `experiments.runs.ledger.PARTS`.
        ledger_gpu_s: GPU-seconds between launch and end of all machines, by the same parts.
        placement: how often, how long and at what loss gangs were spread or moved; see `experiments.runs.placements.PARTS`.
        provenance: where iteration_s, scaling, timings and stragglers are from.
        digest: of the spec.
        direction: whether scores are minimised or maximised.
    """

    policy: str
    seed: int
    best_trial: int | None
    best_config: Configuration | None
    best_iteration: int | None
    best_is_complete: bool | None
    score: float | None
    test_score: float | None
    regret: float | None
    regret_sampling: float | None
    regret_selection: float | None
    regret_truncation: float | None
    cost_usd: float
    makespan_s: float
    deadline_met: bool | None
    budget_met: bool | None
    trials_started: int
    iterations_trained: int
    gpu_utilisation: float | None
    ledger_usd: Mapping[str, float]
    ledger_gpu_s: Mapping[str, float]
    placement: Mapping[str, float]
    provenance: Mapping[str, str]
    digest: str
    direction: Direction
    recording: Recording | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, object]:
        """What `elastune run --json` prints."""
        hidden = ("direction", "recording")
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        tables = ("ledger_usd", "ledger_gpu_s", "placement", "provenance")
        return fields | {name: dict(getattr(self, name)) for name in tables}

    def trajectory(self) -> pd.DataFrame:
        """Money, machines and best score over time; see `experiments.runs.trajectory.trajectory_table`.

        Raises:
            InputError: the run was not asked to record it.
        """
        return trajectory_table(self._recorded())

    def segments(self) -> pd.DataFrame:
        """What trained when, and where; see `experiments.runs.trajectory.segments_table`.

        Raises:
            InputError: the run was not asked to record it.
        """
        return segments_table(self._recorded())

    def _recorded(self) -> Recording:
        if self.recording is None:
            raise InputError("this run recorded no trajectory: call execute(spec, record_trajectory=True)")
        return self.recording


@dataclass(frozen=True)
class Answer:
    """What a run has to say of the trial it named.

    Attributes:
        configuration: its hyperparameters.
        score: at its last durable iteration; None where it diverged.
        test_score: at the same iteration, where there is one.
        is_of_draw: whether its configuration is that of the seed's draw, so that it has a regret.
    """

    configuration: Configuration
    score: float | None
    test_score: float | None
    is_of_draw: bool = True


def recorded_answer(world: World, controller: Controller) -> Answer | None:
    """The answer of a simulated run: what the bundle has recorded of it."""
    trial = controller.best
    if trial is None:
        return None
    row = world.bundle.draw(world.job.trials, world.spec.seed)[trial]
    iteration = controller.state.trials[trial].checkpoint_iteration
    tests = world.bundle.drawn_test_scores(world.job.trials, world.spec.seed, iteration)
    return Answer(
        world.bundle.configurations[row],
        _finite(world.recorded_scores.item(trial, iteration - 1)),
        None if tests is None else _finite(tests.item(trial)),
    )


def result_of(
    world: World,
    controller: Controller,
    tables: Tables,
    answer: Answer | None,
    recording: Recording | None = None,
) -> RunResult:
    """The result of a run that the controller has finished, and whose journal was folded into these tables."""
    ledger = Ledger.of(tables)
    state, job = controller.state, world.job
    best = controller.best
    regret = None
    if best is not None and answer is not None and answer.is_of_draw:
        regret = _regret(world, list(state.started), best, answer.score)
    best_iteration = None if best is None else state.trials[best].checkpoint_iteration
    totals = state.totals
    cost_usd, makespan_s = state.bill.spent_usd(controller.finished_at_s), controller.finished_at_s
    return RunResult(
        policy=world.spec.policy.label,
        seed=world.spec.seed,
        best_trial=best,
        best_config=None if answer is None else dict(answer.configuration),
        best_iteration=best_iteration,
        best_is_complete=None if best_iteration is None else best_iteration == job.max_iterations,
        score=None if answer is None else answer.score,
        test_score=None if answer is None else answer.test_score,
        regret=None if regret is None else regret.total,
        regret_sampling=None if regret is None else regret.sampling,
        regret_selection=None if regret is None else regret.selection,
        regret_truncation=None if regret is None else regret.truncation,
        cost_usd=cost_usd,
        makespan_s=makespan_s,
        deadline_met=None if job.deadline_s is None else makespan_s <= job.deadline_s,
        budget_met=None if job.budget_usd is None else cost_usd <= job.budget_usd * (1 + 1e-12),
        trials_started=len(state.started),
        iterations_trained=totals.iterations_trained,
        gpu_utilisation=totals.trained_gpu_s / totals.leased_gpu_s if totals.leased_gpu_s else None,
        ledger_usd=ledger.usd,
        ledger_gpu_s=ledger.gpu_s,
        placement=placement_account(tables, world.truth.scaling, most_gpus(world.price_book)),
        provenance=world.provenance,
        digest=world.spec.digest(),
        direction=job.direction,
        recording=recording,
    )


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def _regret(world: World, started: list[TrialId], best: TrialId, score: float | None) -> Regret | None:
    return regret_of(
        world.recorded_scores[:, world.job.max_iterations - 1],
        cast("Sequence[int]", started),
        best,
        score,
        direction=world.job.direction,
        bundle_finals=world.bundle.scores[:, -1],
    )
