"""Ray Tune's loop on a clock of its own: what a scheduler is called for, in Tune's order, without workers or waiting."""

import heapq
import itertools
from types import SimpleNamespace

from elastune.sim.bridge.tune import scheduler as ray_tune

STEP_S = 0.1
"""As long as Tune's own loop waits for something to happen."""


class Clock:
    """Stands in for the time module of the scheduler."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


class FakeTrial:
    """The part of `ray.tune.experiment.Trial` that schedulers touch."""

    def __init__(self, number, config):
        self.trial_id = f"t{number}"
        self.number = number
        self.config = config
        self.status = "PENDING"
        self.last_result = {}
        self.latest_checkpoint_result = None
        self.placement_group_factory = None
        self.trainable = None

    def set_status(self, status):
        self.status = status

    def update_resources(self, factory):
        assert self.status != "RUNNING"
        self.placement_group_factory = factory

    def get_trainable_cls(self):
        return self.trainable

    def init_local_path(self):
        pass

    @property
    def gpus(self):
        return round(sum(bundle["CPU"] for bundle in self.placement_group_factory.bundles))


class FakeTune:
    """A cluster of so many CPUs, on which trials train at a pace that is known.

    Args:
        scheduler: what is tried.
        curves: loss of each trial by iteration.
        iteration_s: of one CPU; a gang is as many times faster as it has CPUs.
        retries: how often Tune starts a trial again that has failed.
        fails: (trial, iteration) at which the worker dies, once each.
        saves: whether checkpoints are handed over, and gone on from.
        ends_after: iterations after which the trainable ends by itself.
    """

    def __init__(
        self,
        scheduler,
        curves,
        *,
        monkeypatch,
        cpus=2,
        iteration_s=1.0,
        launch_s=0.5,
        save_s=0.25,
        retries=0,
        fails=(),
        saves=True,
        restores=True,
        ends_after=None,
    ):
        self.scheduler = scheduler
        self.curves = curves
        self.free = cpus
        self.iteration_s, self.launch_s, self.save_s = iteration_s, launch_s, save_s
        self.retries = retries
        self.fails = set(fails)
        self.saves, self.restores = saves, restores
        self.ends_after = ends_after
        self.clock = Clock()
        self.log = []
        self.trials = [FakeTrial(number, {"lr": number / 10}) for number in range(len(curves))]
        self._events, self._order = [], itertools.count()
        self._generation = dict.fromkeys(self.trials, 0)
        self._iteration = dict.fromkeys(self.trials, 0)
        self._failures = dict.fromkeys(self.trials, 0)
        monkeypatch.setattr(ray_tune, "time", self.clock)
        node = {"Alive": True, "Resources": {"CPU": float(cpus)}}
        monkeypatch.setattr(ray_tune, "ray", SimpleNamespace(nodes=lambda: [node]))

    def fit(self, metric="loss", mode="min", **spec):
        assert self.scheduler.set_search_properties(metric, mode, **spec)
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)
        while not all(trial.status in ("TERMINATED", "ERROR") for trial in self.trials):
            self.scheduler.choose_trial_to_run(self)
            self._start_pending()
            self._next_event()
            assert self.clock.now_s < 10_000, "the run does not come to its end"
        return self.scheduler.best

    # What schedulers may call.

    def _set_trial_status(self, trial, status):
        trial.status = status

    def _schedule_trial_save(self, trial, result):
        self.log.append(("save", trial.number, result["epoch"]))
        self._save(trial, result)

    def stop_trial(self, trial):
        if trial.status == "RUNNING":
            self._leave(trial, "TERMINATED")
            self.scheduler.on_trial_complete(self, trial, trial.last_result)
        else:
            self.scheduler.on_trial_remove(self, trial)
            trial.status = "TERMINATED"

    # The world.

    def _at(self, delay_s, trial, happen):
        generation = self._generation[trial]

        def unless_gone():
            if self._generation[trial] == generation:
                happen(trial)

        heapq.heappush(self._events, (self.clock.now_s + delay_s, next(self._order), unless_gone))

    def _next_event(self):
        if self._events and self._events[0][0] <= self.clock.now_s + STEP_S:
            at_s, _, happen = heapq.heappop(self._events)
            self.clock.now_s = max(at_s, self.clock.now_s)
            happen()
        else:
            self.clock.now_s += STEP_S

    def _start_pending(self):
        for trial in self.trials:
            if trial.status == "PENDING" and trial.gpus <= self.free:
                self.free -= trial.gpus
                trial.status = "STARTING"
                self.log.append(("start", trial.number, trial.gpus))
                self._at(self.launch_s, trial, self._started)

    def _started(self, trial):
        trial.status = "RUNNING"
        saved = trial.latest_checkpoint_result
        self._iteration[trial] = saved.metrics["epoch"] if saved and self.restores else 0
        self._train(trial)

    def _train(self, trial):
        self._at(self.iteration_s / trial.gpus, trial, self._trained)

    def _trained(self, trial):
        if self._iteration[trial] == self.ends_after:
            # A function that returns: Tune repeats its last result, as done, and does not ask.
            self._leave(trial, "RUNNING")
            self.scheduler.on_trial_complete(self, trial, trial.last_result)
            trial.status = "TERMINATED"
            return
        iteration = self._iteration[trial] + 1
        if (trial.number, iteration) in self.fails:
            self.fails.remove((trial.number, iteration))
            self._fail(trial)
            return
        self._iteration[trial] = iteration
        result = {
            "loss": self.curves[trial.number][iteration - 1],
            "epoch": iteration,
            "time_this_iter_s": self.iteration_s / trial.gpus,
        }
        decision = self.scheduler.on_trial_result(self, trial, result)
        trial.last_result = result
        self.log.append((decision, trial.number, iteration))
        if decision == "PAUSE":
            self._at(self.save_s, trial, self._paused)
        else:
            self._train(trial)

    def _paused(self, trial):
        self._save(trial, trial.last_result)
        self._leave(trial, "PAUSED")

    def _save(self, trial, metrics):
        if self.saves:
            trial.latest_checkpoint_result = SimpleNamespace(metrics=dict(metrics), checkpoint="a checkpoint")

    def _leave(self, trial, status):
        self._generation[trial] += 1
        self.free += trial.gpus
        trial.status = status

    def _fail(self, trial):
        self._failures[trial] += 1
        is_final = self._failures[trial] > self.retries
        self._leave(trial, "ERROR")
        self.scheduler.on_trial_error(self, trial)
        self.log.append(("fail", trial.number, self._iteration[trial]))
        if not is_final:
            trial.status = "PENDING"
            self.scheduler.on_trial_add(self, trial)
