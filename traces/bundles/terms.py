"""The numbers of a workload apart from its curves, and the errors of beliefs about them.

Imports sim.model and the standard library. A `WorkloadTerms` is resolved once, from the bundle and what the run
overrides, and both truth and belief are built from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import Scaling, check_gang

LEAST_SPEEDUP = 0.01
"""The smallest speed-up that is ever believed, so that durations stay finite."""


@dataclass(frozen=True)
class Overrides:
    """What a run sets instead of the bundle's own numbers; None leaves the bundle's.

    Attributes:
        iteration_s: seconds per iteration on one GPU of a configuration whose relative cost is 1.
        evaluate_s: the part of it that one GPU evaluates, whatever the gang; None takes the bundle's share.
        scaling: speed-up of training by gang.
        launch_s: starting the workers of a trial that has not run before.
        checkpoint_s: writing one durable checkpoint.
        rescale_s: checkpoint and launch together. Given alone, for a bundle without timings, all of it is the launch.
        stragglers: spread of an iteration's duration.
        min_gpus: the smallest gang that holds a configuration in its memory, for all of them.
    """

    iteration_s: float | None = None
    scaling: Scaling | None = None
    launch_s: float | None = None
    checkpoint_s: float | None = None
    rescale_s: float | None = None
    stragglers: Stragglers | None = None
    evaluate_s: float | None = None
    min_gpus: int | None = None

    def timings(self, own: Timings | None) -> Timings | None:
        """The timings that result; None where neither this nor the bundle has any."""
        if self.launch_s is None and self.checkpoint_s is None and self.rescale_s is None:
            return own
        checkpoint_s = _first(self.checkpoint_s, own.checkpoint_s if own else None, 0.0)
        # A rescale shorter than its checkpoint is refused by Timings below, in its own words.
        resume_s = max(self.rescale_s - checkpoint_s, 0.0) if self.rescale_s is not None else None
        launch_s = _first(self.launch_s, own.launch_s if own else None, resume_s, 0.0)
        own_resume_s = own.resume_s if own and self.launch_s is None else launch_s
        return Timings(launch_s, checkpoint_s, _first(self.rescale_s, checkpoint_s + own_resume_s))


def _first(*choices: float | None) -> float:
    return next(choice for choice in choices if choice is not None)


@dataclass(frozen=True)
class WorkloadTerms:
    """All numbers of a workload that its curves do not hold.

    Attributes:
        iteration_s: seconds per iteration on one GPU of a configuration whose relative cost is 1.
        scaling: true speed-up of training by gang.
        sync_s: seconds a barrier between stages takes.
        provenance: for iteration_s, scaling, timings and stragglers, and for evaluate_s and min_gpus where there are any:
            `measured`, `published`, `assumed` or `unstated`, then free text.
        evaluate_s: the part of iteration_s that one GPU evaluates while the rest of the gang waits.
        min_gpus: the smallest gang that holds any configuration in its memory; None for what the bundle says of each.
    """

    iteration_s: float
    scaling: Scaling
    timings: Timings = field(default_factory=Timings)
    stragglers: Stragglers = field(default_factory=Stragglers)
    sync_s: float = 0.0
    provenance: Mapping[str, str] = field(default_factory=dict)
    evaluate_s: float = 0.0
    min_gpus: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.iteration_s) and self.iteration_s > 0):
            raise InputError(f"workload.iteration_s is {self.iteration_s}, but must be a positive number")
        if not 0 <= self.evaluate_s < self.iteration_s:
            raise InputError(
                f"workload.evaluate_s is {self.evaluate_s}, but it is a part of the iteration, and so must be at least 0 and"
                f" less than {self.iteration_s}"
            )

    def of_iteration(self, scaling: Scaling) -> Scaling:
        """The speed-up of a whole iteration where this is that of training."""
        return EvaluatedScaling(scaling, self.evaluate_s / self.iteration_s) if self.evaluate_s else scaling

    def profile(
        self, startup: Startup | None = None, errors: ProfileErrors | None = None, *, mean_cost: float = 1.0
    ) -> Profile:
        """What policies believe of configurations with this mean relative cost, with these errors."""
        errors = errors or ProfileErrors()
        scaling = self.of_iteration(errors.scaling_believed(self.scaling))
        return Profile(
            iteration_s=self.iteration_s * mean_cost * (1.0 + errors.iteration_s_error),
            scaling=WaitingScaling(scaling, self.stragglers) if self.stragglers.is_per_worker else scaling,
            timings=self.timings,
            startup=startup or Startup(),
            stragglers=self.stragglers,
            sync_s=self.sync_s,
            min_gpus=self.min_gpus or 1,
        )


@dataclass(frozen=True)
class ProfileErrors:
    """Errors of the beliefs of policies and planners, relative, above -1.

    Attributes:
        iteration_s_error: of the seconds per iteration; 0.2 believes iterations 20 % longer than they are.
        scaling_error: of the speed-up beyond the first GPU; -0.5 believes only half of it.
        scaling: believed instead of the true one, whatever that is; None believes the true one, with its error.
    """

    iteration_s_error: float = 0.0
    scaling_error: float = 0.0
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        for name, error in (("iteration_s_error", self.iteration_s_error), ("scaling_error", self.scaling_error)):
            if not (math.isfinite(error) and error > -1):
                raise InputError(f"workload.profile.{name} is {error}, but must be a number above -1")
        if self.scaling is not None and self.scaling_error:
            raise InputError(
                f"workload.profile.scaling says what is believed, and so does workload.profile.scaling_error"
                f" {self.scaling_error:g} of the true one: leave one of them out"
            )

    def scaling_believed(self, scaling: Scaling) -> Scaling:
        """The speed-ups that are believed where these are true."""
        if self.scaling is not None:
            return AssumedScaling(self.scaling, scaling)
        return MisjudgedScaling(scaling, self.scaling_error) if self.scaling_error else scaling


@dataclass(frozen=True)
class MisjudgedScaling:
    """A speed-up believed to be 1 + (true - 1) * (1 + error), at least `LEAST_SPEEDUP`."""

    true: Scaling
    error: float

    @property
    def max_gpus(self) -> int:
        """The largest gang the true one is known for."""
        return self.true.max_gpus

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; see `sim.model.scaling.Scaling`."""
        return max(1.0 + (self.true.speedup(gpus, nodes) - 1.0) * (1.0 + self.error), LEAST_SPEEDUP)


@dataclass(frozen=True)
class AssumedScaling:
    """A speed-up that is believed in place of the true one, for gangs that both are known for."""

    assumed: Scaling
    true: Scaling

    @property
    def max_gpus(self) -> int:
        """The largest gang that both are known for."""
        return min(self.assumed.max_gpus, self.true.max_gpus)

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; see `sim.model.scaling.Scaling`.

        Raises:
            InputError: the gang is larger than `max_gpus`.
        """
        check_gang(self, gpus, self.max_gpus)
        return self.assumed.speedup(gpus, nodes)


@dataclass(frozen=True)
class EvaluatedScaling:
    """The speed-up of an iteration of which a share, the evaluation, runs on one GPU while the others wait."""

    training: Scaling
    evaluated_share: float

    @property
    def max_gpus(self) -> int:
        """The largest gang the speed-up of training is known for."""
        return self.training.max_gpus

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; see `sim.model.scaling.Scaling`."""
        share = self.evaluated_share
        return 1.0 / ((1.0 - share) / self.training.speedup(gpus, nodes) + share)


@dataclass(frozen=True)
class WaitingScaling:
    """The mean speed-up where each iteration waits for the slowest of the gang's workers."""

    scaling: Scaling
    stragglers: Stragglers

    @property
    def max_gpus(self) -> int:
        """The largest gang it is known for."""
        return self.scaling.max_gpus

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; see `sim.model.scaling.Scaling`."""
        return self.scaling.speedup(gpus, nodes) / self.stragglers.gang_factor(gpus)
