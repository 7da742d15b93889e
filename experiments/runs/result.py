"""What comes out of a run, and how it is read off the controller that has finished it.

Imports experiments.runs, and `sim` for types.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from elastune.experiments.formats import NONE, number, percent, seconds, usd
from elastune.experiments.runs.regret import Regret, regret_of
from elastune.experiments.runs.trajectory import Recording, segments_table, trajectory_table
from elastune.experiments.runs.unspent import unspent_because
from elastune.policies.rules.margin import most_usd
from elastune.sim.model.errors import InputError
from elastune.traces.bundles.constraints import is_kept
from elastune.traces.formats.html_table import pairs_html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from elastune.experiments.runs.accounts import Accounts, DurableIterations
    from elastune.experiments.runs.world import World
    from elastune.experiments.spec.run import RunSpec
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
        best_is_complete: whether that is R. Exactly one of this and the next two is true, if there is a best trial.
        best_was_earlier: whether it is less than R although some trial was trained to R, whose score is no better.
        best_stopped_short: whether it is less than R, and no trial was trained to R.
        some_is_complete: whether some trial was trained to R.
        score: of the best trial at that iteration, without noise that was put on top; None also where it diverged.
        test_score: at the same iteration, where the bundle has one.
        flops: multiply-adds of an image at the same iteration, where the bundle measures them.
        constraint_met: whether all bounds of `job.constraint` are kept; where not, score and test score are those of its rule.
        regret: see `experiments.runs.regret.Regret`; the sum of the three parts.
        cost_usd: the bill.
        completed: whether the job was done; see `completed_at_s_of`.
        completed_at_s: when.
        deadline_met: whether the makespan is within the deadline, and the job done where it is pre-determined.
        budget_met: whether the bill is within the budget.
        late_probability: that the plan misses the deadline, as its policy estimated before the run; None without an estimate.
        plan_search_gap: share of its price that the plan made before the run may lose by what its search counted and did not
            follow; 0 for nothing, None where the policy tells nothing of its work.
        plan_left_out: what that search did not weigh, in words; None for nothing.
        unspent_because: why a part of the budget was left; see `experiments.runs.unspent`.
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
    best_was_earlier: bool | None
    best_stopped_short: bool | None
    some_is_complete: bool
    score: float | None
    test_score: float | None
    flops: float | None
    constraint_met: bool | None
    regret: float | None
    regret_sampling: float | None
    regret_selection: float | None
    regret_truncation: float | None
    cost_usd: float
    makespan_s: float
    completed: bool
    completed_at_s: float | None
    deadline_met: bool | None
    budget_met: bool | None
    late_probability: float | None
    plan_search_gap: float | None
    plan_left_out: str | None
    unspent_because: str | None
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

    def __repr__(self) -> str:
        """On one line; the fields have the rest."""
        return (
            f"<RunResult {self.policy}, seed {self.seed}: score {number(self.score)}, {usd(self.cost_usd)} USD,"
            f" {seconds(self.makespan_s)} s>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        shown = {
            "best trial": NONE if self.best_trial is None else self.best_trial,
            "score": number(self.score),
            "regret": number(self.regret),
            "cost, USD": usd(self.cost_usd),
            "makespan, s": seconds(self.makespan_s),
            "within T": NONE if self.deadline_met is None else self.deadline_met,
            "within B": NONE if self.budget_met is None else self.budget_met,
            "GPUs in training": percent(self.gpu_utilisation),
        }
        table = pairs_html(f"{self.policy}, seed {self.seed}", shown)
        if self.recording is None or not any(lease.launched_s >= 0 for lease in self.recording.tables.leases):
            return table
        from elastune.experiments.figures.style import picture_html

        return table + picture_html(self.plot_gantt())

    def plot_gantt(self, *, color: Literal["rung", "trial"] = "rung", deadline_s: float | None = None) -> Figure:
        """The run's machines and the trials on them over time; see `experiments.figures.gantt`.

        Args:
            color: what colours a segment: the rung that it trains to, or the trial.
            deadline_s: where a line is drawn.

        Returns:
            A figure of matplotlib.

        Raises:
            InputError: the run was not asked to record its trajectory, or it rented no machine.

        Example:
            >>> from elastune import RunSpec, execute
            >>> result = execute(RunSpec.load("tight"), record_trajectory=True)
            >>> result.plot_gantt(deadline_s=900).axes[0].get_xlabel()
            'time (min)'
        """
        from elastune.experiments.figures.gantt import gantt
        from elastune.experiments.runs.timeline import leases_table, segments_by_gpu

        tables = self._recorded().tables
        return gantt(
            segments_by_gpu(tables),
            leases_table(tables),
            color=color,
            deadline_s=deadline_s,
            best_trial=self.best_trial,
        )

    def to_json(self) -> dict[str, object]:
        """What `elastune run --json` prints; FLOPs and the constraint only where there are such."""
        unmeasured = (name for name in ("flops", "constraint_met") if getattr(self, name) is None)
        hidden = ("direction", "recording", *unmeasured)
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
        measured: by name, what was measured beside the score at the same iteration.
        is_of_draw: whether its configuration is that of the seed's draw, so that it has a regret.
    """

    configuration: Configuration
    score: float | None
    test_score: float | None
    measured: Mapping[str, float] = field(default_factory=dict)
    is_of_draw: bool = True


def recorded_answer(world: World, controller: Controller) -> Answer | None:
    """The answer of a simulated run: what the bundle has recorded of it."""
    trial = controller.best
    if trial is None:
        return None
    bundle, seed = world.bundle, world.spec.seed
    row = bundle.draw(world.job.trials, seed).item(trial)
    iteration = controller.state.trials[trial].checkpoint_iteration
    test_score, measured = bundle.recorded_beside(row, seed, iteration)
    return Answer(
        bundle.configurations[row],
        _finite(world.recorded_scores.item(trial, iteration - 1)),
        _finite(test_score),
        measured,
    )


def result_of(
    world: World,
    controller: Controller,
    accounts: Accounts,
    answer: Answer | None,
    recording: Recording | None = None,
) -> RunResult:
    """The result of a run that the controller has finished, and whose changes these accounts have read."""
    ledger = accounts.ledger.ledger
    state, job, work = controller.state, world.job, controller.work
    best = controller.best
    regret = None
    if best is not None and answer is not None and answer.is_of_draw:
        regret = _regret(world, list(state.started), best, answer.score)
    best_iteration = None if best is None else state.trials[best].checkpoint_iteration
    some_is_complete = any(state.trials[trial].checkpoint_iteration >= job.max_iterations for trial in state.started)
    is_short = None if best_iteration is None else best_iteration < job.max_iterations
    is_fixed = is_predetermined(world.spec)
    completed_at_s = completed_at_s_of(controller, accounts.durable, is_predetermined=is_fixed)
    is_cut = completed_at_s is None and is_fixed
    totals = state.totals
    cost_usd, makespan_s = state.bill.spent_usd(controller.finished_at_s), controller.finished_at_s
    return RunResult(
        policy=world.spec.policy.label,
        seed=world.spec.seed,
        best_trial=best,
        best_config=None if answer is None else dict(answer.configuration),
        best_iteration=best_iteration,
        best_is_complete=None if is_short is None else not is_short,
        best_was_earlier=None if is_short is None else is_short and some_is_complete,
        best_stopped_short=None if is_short is None else is_short and not some_is_complete,
        some_is_complete=some_is_complete,
        score=None if answer is None else answer.score,
        test_score=None if answer is None else answer.test_score,
        flops=None if answer is None else _finite(answer.measured.get("flops")),
        constraint_met=None if answer is None else is_kept(world.bundle.bounds, answer.measured),
        regret=None if regret is None else regret.total,
        regret_sampling=None if regret is None else regret.sampling,
        regret_selection=None if regret is None else regret.selection,
        regret_truncation=None if regret is None else regret.truncation,
        cost_usd=cost_usd,
        makespan_s=makespan_s,
        completed=completed_at_s is not None,
        completed_at_s=completed_at_s,
        deadline_met=None if job.deadline_s is None else makespan_s <= job.deadline_s and not is_cut,
        budget_met=None if job.budget_usd is None else cost_usd <= most_usd(job.budget_usd),
        late_probability=None if work is None else work.late_probability,
        plan_search_gap=None if work is None else work.search_gap,
        plan_left_out=None if work is None else work.left_out or None,
        unspent_because=unspent_because(
            world,
            [state.trials[trial] for trial in state.started],
            best_iteration=best_iteration,
            cost_usd=cost_usd,
            makespan_s=makespan_s,
            is_done=completed_at_s is not None,
            is_fixed=is_fixed,
        ),
        trials_started=len(state.started),
        iterations_trained=totals.iterations_trained,
        gpu_utilisation=totals.trained_gpu_s / totals.leased_gpu_s if totals.leased_gpu_s else None,
        ledger_usd=ledger.usd,
        ledger_gpu_s=ledger.gpu_s,
        placement=accounts.placement.account,
        provenance=world.provenance,
        digest=world.spec.digest(),
        direction=job.direction,
        recording=recording,
    )


def is_predetermined(spec: RunSpec) -> bool:
    """Whether the job is fixed before the run, so that it is done only with every stage: by its spec, or by its policy."""
    return bool(spec.job.exact) or spec.job.stages is not None or spec.policy.entry.is_predetermined


def completed_at_s_of(controller: Controller, durable: DurableIterations, *, is_predetermined: bool) -> float | None:
    """When the job was done; None where the run ended before.

    It is done when every stage was trained as planned, all its trials to its end. A job that is not pre-determined is done as
    soon as the trial that the run names is durable at its target: R, or less where the policy aims lower. Of a policy that
    does not say what it had planned, the second alone can be known.

    Args:
        controller: of a run that has ended.
        durable: what of it was durable when.
        is_predetermined: whether the job is fixed before the run.
    """
    work = controller.work
    if work is not None and is_predetermined:
        return work.done_at_s
    target = None if work is None else work.target_iteration
    answered_at_s = durable.first_at_s(controller.best, target or controller.state.job.max_iterations)
    known = (answered_at_s, None if work is None else work.done_at_s)
    return min((at_s for at_s in known if at_s is not None), default=None)


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
