"""Any policy as a trial scheduler of Ray Tune. Imports the pure core and ray; the controller is built elsewhere.

Tune adds all trials, and then asks ten times a second or more which one to run. The run begins with the first question, when
trials and cluster are known. A timer is late by one such step at most. Trials are paused when they are added, so that none
starts before the policy says so.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import ray
from ray.tune import PlacementGroupFactory
from ray.tune.schedulers import TrialScheduler
from ray.tune.trainable import FunctionTrainable, Trainable

from elastune.sim.bridge.tune.backend import ERROR, PAUSED, PENDING, TERMINATED, TuneBackend, TuneTrial
from elastune.sim.bridge.tune.resources import bundles_for, gpus_on, ray_resources
from elastune.sim.model.errors import InputError, StalledRunError, TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.sim.model.commands import Command
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import Direction

DIRECTIONS: Mapping[str, Direction] = {"min": "minimize", "max": "maximize"}
"""The direction of a job, by Tune's mode."""


@dataclass(frozen=True)
class TuneExperiment:
    """Known when Tune asks for the first time.

    Attributes:
        trials: added by Tune.
        gpus: of its cluster.
        direction: whether scores are minimised or maximised.
    """

    trials: int
    gpus: int
    direction: Direction


class SteeredRun(Protocol):
    """A controller with its journal."""

    @property
    def is_finished(self) -> bool:
        """Whether the policy has finished the run."""

    @property
    def best(self) -> TrialId | None:
        """The trial that the policy named."""

    def handle(self, event: Event) -> Sequence[Command]:
        """Handle an event; return commands in execution order."""

    def story(self) -> str:
        """The state of the run, for errors."""

    def status(self) -> str:
        """The state of the run, for a progress line."""

    def close(self) -> None:
        """End the run."""


@dataclass(frozen=True)
class BestTrial:
    """The answer of a run.

    Attributes:
        trial_id: Tune's name of the trial.
        config: its hyperparameters.
        metrics: reported with the checkpoint.
        checkpoint: `ray.tune.Checkpoint` of its last durable iteration.
    """

    trial_id: str
    config: Mapping[str, Any]  # whatever the search space holds
    metrics: Mapping[str, Any]  # whatever the trainable reports
    checkpoint: Any  # of Ray's own type


class Trial(TuneTrial, Protocol):
    """The part of `ray.tune.experiment.Trial` that schedulers may use."""

    @property
    def last_result(self) -> Mapping[str, Any]:
        """Its last report; empty before the first."""

    def set_status(self, status: str) -> None:
        """Set the status. Allowed only while Tune adds the trial, because Tune keeps lists by status."""

    def update_resources(self, resources: PlacementGroupFactory) -> None:
        """Run on these resources from now on; not allowed while it runs."""

    def get_trainable_cls(self) -> type | None:
        """The class that trains it; Tune wraps a function in one."""

    def init_local_path(self) -> None:
        """Make its folder."""


class TuneLoop(Protocol):
    """The part of `ray.tune.execution.TuneController` that schedulers may use. Tune itself documents the private names."""

    def _set_trial_status(self, trial: Any, status: str) -> None: ...  # noqa: ANN401  Tune's own class of trials

    def _schedule_trial_save(self, trial: Any, result: dict[str, Any]) -> object: ...  # noqa: ANN401

    def stop_trial(self, trial: Any) -> None:  # noqa: ANN401
        """End it for good."""


class TuneScheduler(TrialScheduler):
    """Passes Tune's callbacks to a controller as events, and its commands to Tune.

    Attributes:
        run: made by `build`; None before Tune asks for the first trial.

    Args:
        build: makes the run for what Tune has.
        time_attr: key of the iterations completed in results; Tune counts `training_iteration`, the trainable counts
            any other, which shows whether it continues from its checkpoint.
        metric: key of the score in results; None if `TuneConfig` has it.
        mode: `min` or `max`; None if `TuneConfig` has it.
        resources_per_gpu: what a GPU stands for, such as `{"cpu": 1}`, or `{"gpu": 1, "cpu": 4}`.
    """

    _supports_buffered_results = False

    def __init__(
        self,
        build: Callable[[TuneExperiment], SteeredRun],
        *,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        resources_per_gpu: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # ray's
        self.run: SteeredRun | None = None
        self._build = build
        self._time_attr = time_attr
        self._metric = metric
        self._mode = _known_mode(mode)
        self._resources = ray_resources({"cpu": 1} if resources_per_gpu is None else resources_per_gpu)
        self._trials: list[Trial] = []
        self._known: set[str] = set()
        self._backend: TuneBackend | None = None
        self._gpus_per_node = 1
        self._problem: TuningError | None = None

    @property
    def best(self) -> BestTrial | None:
        """The answer of the policy; None if the run is not finished or has no durable trial."""
        if self.run is None or self.run.best is None:
            return None
        trial = self._trials[self.run.best]
        saved = trial.latest_checkpoint_result
        assert saved is not None, "only a trial that is durable is an answer"
        return BestTrial(trial.trial_id, trial.config, saved.metrics, saved.checkpoint)

    # What Tune calls before it begins.

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        """Take metric and mode of `TuneConfig`; False if they contradict the scheduler's own. See `TrialScheduler`.

        Raises:
            InputError: metric or mode is missing, Tune has a limit that belongs in the job, or this is a second run.
        """
        if self.run is not None:
            raise InputError("this scheduler has had its run: make a new one for each Tuner")
        for given, known in ((metric, self._metric), (mode, self._mode)):
            if given is not None and known not in (None, given):
                return False
        self._metric = metric or self._metric
        self._mode = _known_mode(mode) or self._mode
        for name, value in (("metric", self._metric), ("mode", self._mode)):
            if value is None:
                raise InputError(f"{name} is missing: give it to the scheduler or to tune.TuneConfig")
        if spec.get("num_samples") == sys.maxsize:
            raise InputError("num_samples is -1, but a job has a number of trials: say how many may be tried")
        if spec.get("time_budget_s"):
            raise InputError("time_budget_s ends a run behind the policy's back: give the deadline as job.deadline_s")
        return True

    def on_trial_add(self, tune_controller: TuneLoop, trial: Trial) -> None:
        """See `TrialScheduler`."""
        if trial.trial_id in self._known:
            # It has failed. Tune would restart it at once, but the policy decides when.
            tune_controller._set_trial_status(trial, PAUSED)  # noqa: SLF001  see TuneLoop
            return
        self._trials.append(trial)
        self._known.add(trial.trial_id)
        if trial.status != PENDING or trial.last_result.get(self._time_attr):
            self._note(
                InputError(
                    f"trial {trial.trial_id} has been trained before: a restored experiment cannot continue, because"
                    " deadline and budget are those of one run; start a new Tuner"
                )
            )
            return
        if self._backend is not None:
            self._note(
                InputError(
                    f"Tune adds a trial after the run has begun with {len(self._trials) - 1}: leave out max_concurrent_trials"
                    " and limiters of concurrency, the policy decides how many run"
                )
            )
            return
        trial.set_status(PAUSED)
        self._require_checkpoints(trial)

    def _require_checkpoints(self, trial: Trial) -> None:
        trainable = trial.get_trainable_cls()
        if trainable is None or issubclass(trainable, FunctionTrainable):
            return
        for method in ("save_checkpoint", "load_checkpoint"):
            if getattr(trainable, method) is getattr(Trainable, method):
                self._note(
                    InputError(
                        f"{trainable.__name__} does not have {method}, but policies pause trials and resume them later"
                    )
                )
                return

    # What Tune calls while it runs.

    def on_trial_result(self, tune_controller: TuneLoop, trial: Trial, result: dict[str, Any]) -> str:
        """See `TrialScheduler`."""
        backend = self._backend
        if backend is None or self._is_over:
            return str(TrialScheduler.CONTINUE)
        self._guarded(lambda: backend.result(trial, result))
        if backend.is_to_pause(trial):
            return str(TrialScheduler.PAUSE)
        if backend.is_to_save(trial) and not result.get("should_checkpoint"):
            tune_controller._schedule_trial_save(trial, result)  # noqa: SLF001
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: TuneLoop, trial: Trial, result: dict[str, Any]) -> None:  # noqa: ARG002  Tune's
        """See `TrialScheduler`."""
        backend = self._backend
        if backend is not None and not self._is_over:
            self._guarded(lambda: backend.ended(trial, result))

    def on_trial_error(self, tune_controller: TuneLoop, trial: Trial) -> None:  # noqa: ARG002  Tune's
        """See `TrialScheduler`."""
        backend = self._backend
        if backend is not None and not self._is_over:
            self._guarded(lambda: backend.failed(trial))

    def on_trial_remove(self, tune_controller: TuneLoop, trial: Trial) -> None:
        """See `TrialScheduler`; nothing to do."""

    def choose_trial_to_run(self, tune_controller: TuneLoop) -> None:
        """Tell the policy what has happened, and give Tune the trials to run; see `TrialScheduler`.

        Raises:
            TuningError: the run cannot continue.
        """
        try:
            self._step(tune_controller)
        except BaseException:
            if self.run is not None:
                self.run.close()
            raise

    def debug_string(self) -> str:
        """See `TrialScheduler`."""
        return "elastune: not begun" if self.run is None else f"elastune: {self.run.status()}"

    def save(self, checkpoint_path: str) -> None:
        """See `TrialScheduler`; saves nothing, because experiments are not restored."""

    def restore(self, checkpoint_path: str) -> None:
        """See `TrialScheduler`; restored trials are refused when they are added."""

    # The run.

    @property
    def _is_over(self) -> bool:
        return self._problem is not None or (self.run is not None and self.run.is_finished)

    def _note(self, problem: TuningError) -> None:
        """Keep an error for the next step, where Tune passes errors on unchanged."""
        self._problem = self._problem or problem

    def _guarded(self, take: Callable[[], None]) -> None:
        """Take what Tune told and let the policy decide; errors wait for the next step."""
        try:
            take()
            self._decide()
        except TuningError as error:
            self._note(error)

    def _step(self, tune_controller: TuneLoop) -> None:
        if self._problem is not None:
            raise self._problem
        if self._backend is None:
            self._begin(tune_controller)
        run, backend = self.run, self._backend
        assert run is not None
        assert backend is not None
        if not run.is_finished:
            backend.look()
            self._decide()
        if run.is_finished:
            self._stop_all(tune_controller)
        elif backend.is_idle:
            raise StalledRunError(run.story())
        else:
            self._start(tune_controller, backend)

    def _begin(self, tune_controller: TuneLoop) -> None:
        if getattr(getattr(tune_controller, "_tune_controller", None), "_reuse_actors", False):
            raise InputError(
                "reuse_actors is true, but trials change their number of GPUs: leave it out of tune.TuneConfig"
            )
        assert self._metric is not None
        assert self._mode is not None
        nodes = [gpus_on(node["Resources"], self._resources) for node in _nodes() if node["Alive"]]
        self._gpus_per_node = max(nodes, default=0)
        if not self._gpus_per_node:
            raise InputError(
                f"no node of the Ray cluster has {self._resources}, which a GPU stands for (resources_per_gpu)"
            )
        self.run = self._build(TuneExperiment(len(self._trials), sum(nodes), DIRECTIONS[self._mode]))
        began_s = time.monotonic()
        self._backend = TuneBackend(
            self._trials,
            metric=self._metric,
            time_attr=self._time_attr,
            clock=lambda: time.monotonic() - began_s,
        )

    def _decide(self) -> None:
        """Let the controller handle what has happened, and perform its commands."""
        assert self.run is not None
        assert self._backend is not None
        while (event := self._backend.next_event()) is not None:
            for command in self.run.handle(event):
                self._backend.perform(command)

    def _start(self, tune_controller: TuneLoop, backend: TuneBackend) -> None:
        for segment in backend.to_start:
            trial = self._trials[segment.command.trial]
            trial.update_resources(
                PlacementGroupFactory(bundles_for(segment.gpus, self._gpus_per_node, self._resources))
            )
            # Tune starts all that are pending; returning a trial would start one at each step.
            tune_controller._set_trial_status(trial, PENDING)  # noqa: SLF001
        backend.to_start.clear()

    def _stop_all(self, tune_controller: TuneLoop) -> None:
        """Stop all trials, which ends Tune's loop."""
        assert self.run is not None
        for trial in self._trials:
            if trial.status not in (TERMINATED, ERROR):
                trial.init_local_path()  # Tune's results need it even if the trial never ran
                tune_controller.stop_trial(trial)
        self.run.close()


def _nodes() -> list[dict[str, Any]]:
    """Ray's nodes; the values have several types."""
    return cast("list[dict[str, Any]]", ray.nodes())  # type: ignore[no-untyped-call]  # ray's


def _known_mode(mode: str | None) -> str | None:
    if mode is not None and mode not in DIRECTIONS:
        raise InputError(f"mode is {mode!r}, but must be min or max")
    return mode
