"""Population based training: who does badly goes on from who does well, with changed hyperparameters."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from elastune.policies.execution.asynchronous import AsynchronousPolicy, Task
from elastune.policies.execution.limits import Limits
from elastune.policies.planning.plan import Terms
from elastune.policies.sizing.constant import check_gang
from elastune.policies.sizing.list_scheduling import Load, best_cluster
from elastune.sim.model.actions import Action, CloneTrial
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import Event, TrialSampled
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import TuningJob, loss_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import Configuration, Hyperparameter, RunView, Value

FACTORS = (0.8, 1.2)
"""What a perturbed hyperparameter is multiplied with, one or the other; as in the paper's experiments and Ray Tune."""


def pbt(  # noqa: PLR0913  the keywords are its parameters
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,
    *,
    hyperparameters: Mapping[str, Hyperparameter],
    gpus_per_trial: int = 1,
    interval: int = 0,
    quantile: float = 0.25,
    resample_probability: float = 0.25,
) -> PbtPolicy:
    """Population based training (Jaderberg et al., arXiv 1711.09846, 2017), asynchronous, on the best fixed cluster.

    Each member of the population trains for an interval at a time, to R. Before it goes on it is compared with the others as
    they were last seen. One of the lowest quantile takes over checkpoint and configuration of one of the highest (truncation
    selection), and changes the hyperparameters that may change: each is drawn anew with `resample_probability`, and
    otherwise multiplied with 0.8 or 1.2. A population larger than the cluster takes turns, who has trained least first.

    Args:
        job: the tuning job.
        profile: what was measured.
        price_book: the cloud's terms.
        rng: draws whom to take over, and the changes.
        hyperparameters: those that may change while a trial trains, by name; handed in by whoever knows the search space.
        gpus_per_trial: size of every gang.
        interval: iterations between two comparisons; 0 for the job's `min_iterations`.
        quantile: share of the population that is replaced, and that it is replaced by.
        resample_probability: of drawing a hyperparameter anew.

    Raises:
        InputError: a parameter is out of range, nothing may change, or the gang is larger than the scaling is known for, or the
            quota.
        InfeasibleJobError: not one configuration is trained to R by T and B at this size.

    Deviations:
        The paper has neither machines nor limits: the size of the population and the cluster are those on which the most
        members are trained to R by the list-scheduling bound, and `Limits` keeps T and B [ours].
        Each interval is a segment of its own, since a checkpoint is known to be durable when its segment has ended. So a member
        that goes on unchanged pays for a launch as well.
        As in Ray Tune, a quantile is a quarter (a fifth in the paper's experiments), rounded up, but at most half of the
        members; who takes over a checkpoint stands at its iteration, and keeps its old rank until it has trained; members at R
        are compared no more.
        Nobody takes over from a member that has diverged, or has taken over itself and not trained since [ours].
        Perturbed values are kept within the search space; integers move by one at least, choices that are numbers to the
        next one, and others do not move [ours].
    """
    interval = interval or job.min_iterations
    _check(job, hyperparameters, interval, quantile, resample_probability)
    terms = Terms.of(job, profile, price_book)
    check_gang("pbt", gpus_per_trial, terms)
    cluster = best_cluster("pbt", job, terms, _load(job, terms, interval, gpus_per_trial))

    def explore(configuration: Configuration) -> dict[str, Value]:
        return explored(configuration, hyperparameters, resample_probability, rng)

    rule = Population(job, cluster.trials, interval, quantile, explore, rng)
    runner = AsynchronousPolicy(
        rule,
        Limits(job, profile, price_book),
        instances=cluster.instances,
        gpus_per_trial=gpus_per_trial,
        min_gpus=profile.min_gpus,
        gpus_per_instance=terms.gpus_per_instance,
    )
    return PbtPolicy(rule, runner)


def _check(
    job: TuningJob,
    hyperparameters: Mapping[str, Hyperparameter],
    interval: int,
    quantile: float,
    resample_probability: float,
) -> None:
    if not hyperparameters:
        raise InputError("pbt: no hyperparameter may change while a trial trains, so there is nothing to explore")
    if not 1 <= interval <= job.max_iterations:
        raise InputError(
            f"pbt: interval is {interval}, but must be between 1 and job.max_iterations ({job.max_iterations})"
        )
    if not 0 < quantile <= 0.5:
        raise InputError(f"pbt: quantile is {quantile}, but must be above 0 and at most 0.5")
    if not 0 <= resample_probability <= 1:
        raise InputError(f"pbt: resample_probability is {resample_probability}, but must be between 0 and 1")


def _load(job: TuningJob, terms: Terms, interval: int, gpus: int) -> Load:
    """What one member takes: a segment per interval, to R."""
    ends = [*range(interval, job.max_iterations, interval), job.max_iterations]
    steps = [end - before for end, before in zip(ends, (0, *ends), strict=False)]
    seconds = math.fsum(terms.segment_s(step, gpus, is_first=place == 0) for place, step in enumerate(steps))
    return Load(gpus, seconds, seconds)


def explored(
    configuration: Configuration,
    hyperparameters: Mapping[str, Hyperparameter],
    resample_probability: float,
    rng: np.random.Generator,
) -> dict[str, Value]:
    """The configuration with each of the hyperparameters drawn anew or perturbed.

    Raises:
        InputError: the configuration lacks one of them, or its value cannot be one.
    """
    changed = dict(configuration)
    for name, hyperparameter in hyperparameters.items():
        if name not in configuration:
            raise InputError(f"pbt: {name} may change, but the configuration {dict(configuration)} has none")
        if rng.random() < resample_probability:
            changed[name] = hyperparameter.sample(rng)
        else:
            changed[name] = hyperparameter.scaled(configuration[name], FACTORS[int(rng.integers(len(FACTORS)))])
    return changed


class PbtPolicy:
    """A population at work; it is told what its members train with."""

    def __init__(self, population: Population, runner: AsynchronousPolicy) -> None:
        self._population = population
        self._runner = runner

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """See `sim.model.protocols.Policy`."""
        if isinstance(event, TrialSampled):
            self._population.sampled(event.trial, event.configuration)
        return self._runner.on_event(event, view)


class Population:
    """Who trains on, and from where; a `policies.execution.asynchronous.Rule`.

    Args:
        job: the tuning job.
        members: trials of the population.
        interval: iterations between two comparisons.
        quantile: share of the population that is replaced, and that it is replaced by.
        explore: changes a configuration.
        rng: draws whom to take over.
    """

    def __init__(
        self,
        job: TuningJob,
        members: int,
        interval: int,
        quantile: float,
        explore: Callable[[Configuration], dict[str, Value]],
        rng: np.random.Generator,
    ) -> None:
        self._direction, self._last = job.direction, job.max_iterations
        self._interval, self._quantile = interval, quantile
        self._explore, self._rng = explore, rng
        # (iterations, trial) of those that do not train now.
        self._idle = [(0, TrialId(number)) for number in range(members)]
        # As last seen, of those that are compared: they have trained for an interval, and are not at R.
        self._losses: dict[TrialId, float] = {}
        self._iterations: dict[TrialId, int] = {}
        self._configurations: dict[TrialId, Configuration] = {}
        # By member that has taken over and not trained since: from whom.
        self._lenders: dict[TrialId, TrialId] = {}

    def sampled(self, trial: TrialId, configuration: Configuration) -> None:
        """A member has got its first configuration."""
        self._configurations[trial] = configuration

    def next_task(self) -> Task | None:
        """Another interval for the member that has trained least, from its own checkpoint or from a better one."""
        if not self._idle:
            return None
        iteration, trial = heapq.heappop(self._idle)
        source = self._taken_over_by(trial)
        if source is None:
            return Task(trial, self._milestone(iteration))
        self._lenders[trial] = source
        self._configurations[trial] = self._explore(self._configuration_of(source))
        clone = CloneTrial(source, trial, dict(self._configurations[trial]))
        return Task(trial, self._milestone(self._iterations[source]), clone=clone)

    def last_resort(self) -> Task | None:
        """When nobody has anything left to do, all have trained to R."""
        return None

    def reached(self, trial: TrialId, iteration: int, score: float | None) -> None:
        """A member has trained for its interval."""
        self._lenders.pop(trial, None)
        self._iterations[trial] = iteration
        if iteration >= self._last:
            self._losses.pop(trial, None)
            return
        self._losses[trial] = loss_of(score, self._direction)
        heapq.heappush(self._idle, (iteration, trial))

    def reported(self, trial: TrialId, iteration: int, score: float | None) -> bool:  # noqa: ARG002  only ends count
        """Members are compared when they end."""
        return True

    def _milestone(self, iteration: int) -> int:
        """Where a member that stands here is compared next: intervals count from 0, wherever the limits have paused it."""
        return min((iteration // self._interval + 1) * self._interval, self._last)

    def _taken_over_by(self, trial: TrialId) -> TrialId | None:
        """Whose checkpoint the member goes on from; None for its own."""
        # What a lender has saved is given up when it takes over itself, so it waits until its borrowers have saved.
        if trial not in self._losses or trial in self._lenders.values():
            return None
        ranked = sorted(self._losses, key=lambda member: (self._losses[member], member))
        count = min(math.ceil(len(ranked) * self._quantile), len(ranked) // 2)
        if trial not in ranked[len(ranked) - count :]:
            return None
        best = [m for m in ranked[:count] if math.isfinite(self._losses[m]) and m not in self._lenders]
        return best[int(self._rng.integers(len(best)))] if best else None

    def _configuration_of(self, trial: TrialId) -> Configuration:
        if trial not in self._configurations:
            raise InputError(
                f"pbt: trial {trial} has trained, but nobody has told with which configuration (TrialSampled); a population"
                " needs real workers"
            )
        return self._configurations[trial]
