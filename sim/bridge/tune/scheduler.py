"""Any policy as a trial scheduler of Ray Tune. Stands on the pure core and ray; the controller is built elsewhere.

Tune adds all trials and then asks at each of its steps, ten times a second or more, which to run. So the run begins at the
first question, when trials and cluster are known, and timers are as late as a step at most. No trial starts before the
policy has said so: they are paused as they are added.
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
from elastune.sim.bridge.tune.resources import gang_bundles, gpus_on, ray_resources
from elastune.sim.model.errors import InputError, StalledRunError, TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.sim.model.commands import Command
    from elastune.sim.model.events import Event
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import Direction

DIRECTIONS: Mapping[str, Direction] = {"min": "minimize", "max": "maximize"}
"""What Tune calls a mode, in the words of a job."""


@dataclass(frozen=True)
class TuneExperiment:
    """What is known when Tune asks for the first time.

    Attributes:
        trials: that Tune has added.
        gpus: that its cluster has.
        direction: whether scores are minimised or maximised.
    """

    trials: int
    gpus: int
    direction: Direction


class SteeredRun(Protocol):
    """A controller at work, and what goes with it."""

    @property
    def is_finished(self) -> bool:
        """Whether the policy has finished the run."""

    @property
    def best(self) -> TrialId | None:
        """The trial that it named."""

    def handle(self, event: Event) -> Sequence[Command]:
        """Decide on one event."""

    def story(self) -> str:
        """Where the run stands, for errors: nothing can happen any more."""

    def status(self) -> str:
        """Where the run stands, for whoever watches it."""

    def close(self) -> None:
        """Nothing follows any more."""


@dataclass(frozen=True)
class BestTrial:
    """What a run was for.

    Attributes:
        trial_id: Tune's name of the trial.
        config: its hyperparameters.
        metrics: what it reported with the checkpoint.
        checkpoint: `ray.tune.Checkpoint` of its last durable iteration.
    """

    trial_id: str
    config: Mapping[str, Any]  # whatever the search space holds
    metrics: Mapping[str, Any]  # whatever the trainable reports
    checkpoint: Any  # of Ray's own type


class Trial(TuneTrial, Protocol):
    """What schedulers may do to `ray.tune.experiment.Trial`."""

    @property
    def last_result(self) -> Mapping[str, Any]:
        """What it reported last; empty before."""

    def set_status(self, status: str) -> None:
        """Take the status; only while Tune is adding the trial, as it keeps lists by status."""

    def update_resources(self, resources: PlacementGroupFactory) -> None:
        """Run on these from now on; not while it is running."""

    def get_trainable_cls(self) -> type | None:
        """The class that trains it; a function is wrapped in one."""

    def init_local_path(self) -> None:
        """Make its folder."""


class TuneLoop(Protocol):
    """What schedulers may do to `ray.tune.execution.TuneController`; the underscores are Tune's, which lists them for that."""

    def _set_trial_status(self, trial: Any, status: str) -> None: ...  # noqa: ANN401  Tune's own class of trials

    def _schedule_trial_save(self, trial: Any, result: dict[str, Any]) -> object: ...  # noqa: ANN401

    def stop_trial(self, trial: Any) -> None:  # noqa: ANN401
        """End it for good."""


class TuneScheduler(TrialScheduler):
    """Hands Tune's callbacks to a controller as events, and its orders to Tune.

    Attributes:
        run: what `build` has made; None before the first trial is asked for.

    Args:
        build: makes the run of what was found.
        time_attr: key of the iterations completed in results; `training_iteration` is counted by Tune, any other by the
            trainable, so that one which does not go on from its checkpoint is noticed.
        metric: key of the score in results; None where `TuneConfig` says it.
        mode: `min` or `max`; None where `TuneConfig` says it.
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
        """The answer of the policy; None where nothing durable was trained, or the run has not been finished."""
        if self.run is None or self.run.best is None:
            return None
        trial = self._trials[self.run.best]
        saved = trial.latest_checkpoint_result
        assert saved is not None, "only a trial that is durable is an answer"
        return BestTrial(trial.trial_id, trial.config, saved.metrics, saved.checkpoint)

    # What Tune calls before it begins.

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        """Take metric and mode of `TuneConfig`; False where they contradict those given before. See `TrialScheduler`.

        Raises:
            InputError: neither says one of them, Tune is given a limit that the policy should have, or this is a second run.
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
            # It has failed, Tune would start it again at once, and the policy is to say when.
            tune_controller._set_trial_status(trial, PAUSED)  # noqa: SLF001  see TuneLoop
            return
        self._trials.append(trial)
        self._known.add(trial.trial_id)
        if trial.status != PENDING or trial.last_result.get(self._time_attr):
            self._note(
                InputError(
                    f"trial {trial.trial_id} has been trained before: a restored experiment cannot go on under a policy, whose"
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
                        f"{trainable.__name__} does not have {method}, but policies pause trials and go on from checkpoints"
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
        """See `TrialScheduler`; only trials that the policy has not ended are told of."""

    def choose_trial_to_run(self, tune_controller: TuneLoop) -> None:
        """Let the policy know what has happened, and give Tune what it is to run; see `TrialScheduler`.

        Raises:
            TuningError: the run cannot go on.
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
        """See `TrialScheduler`; nothing is kept, as experiments are not restored."""

    def restore(self, checkpoint_path: str) -> None:
        """See `TrialScheduler`; what is restored is refused when its trials are added."""

    # The run.

    @property
    def _is_over(self) -> bool:
        return self._problem is not None or (self.run is not None and self.run.is_finished)

    def _note(self, problem: TuningError) -> None:
        """To be raised where Tune lets errors through as they are: at the next step."""
        self._problem = self._problem or problem

    def _guarded(self, take: Callable[[], None]) -> None:
        """Take what Tune has told and let the policy decide; errors wait for the next step."""
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
            raise InputError("reuse_actors is true, but gangs change their size: leave it out of tune.TuneConfig")
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
        """Let the controller handle what has happened, and carry out what it orders."""
        assert self.run is not None
        assert self._backend is not None
        while (event := self._backend.next_event()) is not None:
            for command in self.run.handle(event):
                self._backend.perform(command)

    def _start(self, tune_controller: TuneLoop, backend: TuneBackend) -> None:
        for segment in backend.to_start:
            trial = self._trials[segment.order.trial]
            trial.update_resources(
                PlacementGroupFactory(gang_bundles(segment.gpus, self._gpus_per_node, self._resources))
            )
            # Tune starts all that are pending; returning a trial would start one at each step.
            tune_controller._set_trial_status(trial, PENDING)  # noqa: SLF001
        backend.to_start.clear()

    def _stop_all(self, tune_controller: TuneLoop) -> None:
        """The run is finished: Tune's loop ends when no trial is left."""
        assert self.run is not None
        for trial in self._trials:
            if trial.status not in (TERMINATED, ERROR):
                trial.init_local_path()  # of one that has never run, Tune's results would ask in vain
                tune_controller.stop_trial(trial)
        self.run.close()


def _nodes() -> list[dict[str, Any]]:
    """What Ray says of its nodes; values differ by key."""
    return cast("list[dict[str, Any]]", ray.nodes())  # type: ignore[no-untyped-call]  # ray's


def _known_mode(mode: str | None) -> str | None:
    if mode is not None and mode not in DIRECTIONS:
        raise InputError(f"mode is {mode!r}, but must be min or max")
    return mode
