"""Where the configurations of a real run come from: the bundle's table, a workload's search space, or an Optuna sampler.

Imports sim, traces and the run spec; optuna, here only, when a sampler is built.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from elastune.experiments.own_training import own_workload
from elastune.experiments.spec.space import search_space_of
from elastune.experiments.spec.workload import CONFIGURATIONS
from elastune.sim.model.errors import InputError
from elastune.sim.model.streams import Streams
from elastune.traces.workloads import (
    WORKLOAD_NAMES,
    Categorical,
    Dimension,
    Integer,
    LogUniform,
    SearchSpace,
    Uniform,
    Workload,
    workload_named,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

    from elastune.experiments.spec.run import RunSpec
    from elastune.sim.model.ids import TrialId
    from elastune.sim.model.job import Direction, TuningJob
    from elastune.sim.model.protocols import Configuration, ConfigurationSource, Hyperparameter
    from elastune.traces import Bundle

SAMPLERS = ("random", "tpe", "gp")
"""Those of Optuna."""


def configuration_source(spec: RunSpec, bundle: Bundle, job: TuningJob) -> ConfigurationSource:
    """What `workload.configurations` asks for.

    Raises:
        InputError: the bundle is of no workload whose search space is known, it has fewer configurations than the job has
            trials, or the sampler is not installed.
    """
    kind = spec.workload.configurations or CONFIGURATIONS[0]
    if kind == "bundle":
        return Drawn(bundle.drawn_configurations(job.trials, spec.seed))
    workload = own_workload_of(spec, job.direction) or workload_of(f"workload.configurations is {kind}", bundle)
    if kind == "search-space":
        return DrawnAnew(workload, spec.seed)
    return Sampled(
        kind, workload.search_space, seed=spec.seed, direction=job.direction, max_iterations=job.max_iterations
    )


def own_workload_of(spec: RunSpec, direction: Direction | None) -> Workload | None:
    """The workload of the user's own training code, which this imports; None where the spec names none.

    Raises:
        InputError: it cannot be imported, is no training code, or came with a record and was not named.
    """
    section = spec.workload
    if section.trainable is None or section.space is None:
        return None
    if section.code is None:
        raise InputError(
            f"trainable {section.trainable} is code that came with a record; it is run only where you name it"
        )
    space = search_space_of(section.space)
    return own_workload(section.code, space, direction, spec.job.tuning_job("minimize").max_iterations)


def workload_of(who: str, bundle: Bundle) -> Workload:
    """The workload that a bundle was recorded of.

    Args:
        who: needs it, for the error, such as `policy pbt`.
        bundle: of the run.

    Raises:
        InputError: it is none of those that can be trained here.
    """
    name = next((name for name in (bundle.name, bundle.family) if name in WORKLOAD_NAMES), None)
    if name is None:
        raise InputError(
            f"{who}, but nothing is known of the search space of bundle {bundle.name}; known are those of the workloads"
            f" {', '.join(WORKLOAD_NAMES)}"
        )
    return workload_named(name)


def adaptable_hyperparameters(policy: str, bundle: Bundle) -> Mapping[str, Hyperparameter]:
    """What a policy may change while a trial trains, by name.

    Raises:
        InputError: the bundle is of no workload whose search space is known.
    """
    workload = workload_of(f"policy {policy} changes configurations", bundle)
    return {name: workload.search_space.dimensions[name] for name in workload.adaptable}


class Drawn:
    """Configurations from a list, by the number of the trial; a `ConfigurationSource` that learns nothing."""

    def __init__(self, configurations: Sequence[Configuration]) -> None:
        self._configurations = configurations

    def configuration_of(self, trial: TrialId) -> Configuration:
        """The one at this place."""
        return self._configurations[trial]

    def remember(self, trial: TrialId, configuration: Configuration) -> None:
        """It is in the list."""

    def hear(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """Results change nothing."""


class DrawnAnew:
    """The workload's own draw, as `elastune profile` makes it; a `ConfigurationSource` that learns nothing."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._workload, self._seed = workload, seed

    def configuration_of(self, trial: TrialId) -> Configuration:
        """That of the trial's own random stream."""
        return self._workload.configuration_of(self._seed, trial)

    def remember(self, trial: TrialId, configuration: Configuration) -> None:
        """It would be drawn again."""

    def hear(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """Results change nothing."""


class Sampled:
    """An Optuna sampler that is told of every result; a `ConfigurationSource`.

    A proposal depends on the seed, the number of the trial, and what was proposed and reported so far, but not on how often the
    sampler was asked. So the study is made anew for each: Optuna takes a result as final once it is told, whereas a trial
    that is paused here may go on.

    What the sampler is shown of a trial: one at `max_iterations` is complete; any other that has reported is pruned where it
    is now, which TPE ranks by how far it came, then by its score. Gaussian processes know complete ones only, so they are shown
    the score that each has now. A trial that diverged was pruned, without a score, at its first iteration, and is the worst of
    all. A trial without results is running.

    Args:
        sampler: one of `SAMPLERS`.
        space: what is searched.
        seed: of the run.
        direction: of the scores.
        max_iterations: iterations that count as trained.

    Raises:
        InputError: optuna, or what the sampler stands on, is not installed.
    """

    def __init__(
        self, sampler: str, space: SearchSpace, *, seed: int, direction: Direction, max_iterations: int
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise InputError(f"workload.configurations is {sampler}: pip install 'elastune[bridge]'") from error
        self._optuna = optuna
        self._sampler, self._streams = sampler, Streams(seed)
        self._direction, self._max_iterations = direction, max_iterations
        self._distributions = {name: _distribution(one) for name, one in space.dimensions.items()}
        self._space = space
        self._configurations: dict[int, dict[str, Any]] = {}  # values as Optuna gave them
        self._scores: dict[int, dict[int, float]] = {}
        self._new_sampler(0)

    def configuration_of(self, trial: TrialId) -> Configuration:
        """What the sampler proposes now; the same again where the trial has got one."""
        if trial not in self._configurations:
            with _quiet():
                study = self._optuna.create_study(sampler=self._new_sampler(trial), direction=self._direction)
                if self._sampler != "random":
                    study.add_trials([self._shown(other) for other in sorted(self._configurations)])
                self._configurations[trial] = dict(study.ask(self._distributions).params)
        return dict(self._configurations[trial])

    def remember(self, trial: TrialId, configuration: Configuration) -> None:
        """A resumed run: the trial has got this configuration before.

        Raises:
            InputError: it is not of this search space.
        """
        self._space.require(configuration)
        before = self._configurations.get(trial)
        self._configurations[trial] = dict(configuration)
        try:
            self._shown(trial)
        except ValueError as error:
            del self._configurations[trial]
            if before is not None:
                self._configurations[trial] = before
            raise InputError(f"trial {trial} has a configuration outside the search space: {error}") from error

    def hear(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """A result; that of an iteration which was done again replaces the one before."""
        if trial in self._configurations and iteration:
            self._scores.setdefault(trial, {})[iteration] = math.nan if score is None else score

    def _new_sampler(self, trial: int) -> BaseSampler:
        from optuna import samplers

        seed = int(self._streams.rng("sampler", trial).integers(2**31))
        if self._sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self._sampler == "tpe":
            # Trials that run count as bad, so that those which start together do not all try the same place.
            return samplers.TPESampler(seed=seed, constant_liar=True)
        try:
            import scipy  # noqa: F401  what Optuna's Gaussian processes stand on, and imports only when asked
            import torch  # noqa: F401
        except ImportError as error:
            raise InputError(f"workload.configurations is gp, which needs {error.name}: pip install it") from error
        return samplers.GPSampler(seed=seed, deterministic_objective=False)

    def _shown(self, trial: int) -> FrozenTrial:
        """One trial as the sampler is to see it."""
        states, scores = self._optuna.trial.TrialState, self._scores.get(trial)
        if not scores:
            return self._frozen(trial, states.RUNNING, None, {})
        last = max(scores)
        if not math.isfinite(scores[last]):
            return self._frozen(trial, states.PRUNED, None, {1: math.nan})
        is_complete = last >= self._max_iterations or self._sampler == "gp"
        state = states.COMPLETE if is_complete else states.PRUNED
        return self._frozen(trial, state, scores[last], dict(sorted(scores.items())))

    def _frozen(self, trial: int, state: TrialState, score: float | None, scores: dict[int, float]) -> FrozenTrial:
        return self._optuna.trial.create_trial(
            state=state,
            value=score,
            params=self._configurations[trial],
            distributions=self._distributions,
            intermediate_values=scores,
        )


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match dimension:
        case Uniform(low, high):
            return FloatDistribution(low, high)
        case LogUniform(low, high):
            return FloatDistribution(low, high, log=True)
        case Integer(low, high, log):
            return IntDistribution(low, high, log=log)
        case Categorical(choices):
            return CategoricalDistribution(choices)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study that is made, and of what would make it faster; here one is made for each proposal."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
