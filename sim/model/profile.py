"""Belief and truth about a workload and a cloud, as different types. Imports only the standard library and numpy.

A policy or planner only ever gets the `Profile`. The `GroundTruth` and the `CloudTruth` are read by the simulated backend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError
from elastune.sim.model.spread import LOG_NORMAL, EmpiricalTail, Tail, slowest_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from elastune.sim.model.capacity import Steps
    from elastune.sim.model.prices import BillingRule, Pool
    from elastune.sim.model.reclaim import ReclaimProcess
    from elastune.sim.model.scaling import Scaling


def _require_seconds(**named_s: float) -> None:
    for name, seconds in named_s.items():
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InputError(f"{name} is {seconds}, but must be a number >= 0")


MOST_CV = 1e6
"""The largest coefficient of variation [ours]: its square must not overflow, and n recorded numbers have at most sqrt(n)."""


def _require_cv(**named: float) -> None:
    for name, cv in named.items():
        if not 0 <= cv <= MOST_CV:
            raise InputError(f"{name} is {cv}, but must be between 0 and {MOST_CV:g}")


@dataclass(frozen=True)
class Timings:
    """Seconds around the training of a trial.

    Attributes:
        launch_s: starting the workers of a trial that has not run before.
        checkpoint_s: writing one durable checkpoint.
        rescale_s: checkpoint and launch together when a trial goes on elsewhere; at least `checkpoint_s`.
    """

    launch_s: float = 0.0
    checkpoint_s: float = 0.0
    rescale_s: float = 0.0

    def __post_init__(self) -> None:
        _require_seconds(launch_s=self.launch_s, checkpoint_s=self.checkpoint_s, rescale_s=self.rescale_s)
        if self.rescale_s < self.checkpoint_s:
            raise InputError(
                f"rescale_s is {self.rescale_s}, but it contains the checkpoint and so must be at least {self.checkpoint_s}"
            )

    @property
    def resume_s(self) -> float:
        """Seconds from the start of a resumed segment to its first iteration."""
        return self.rescale_s - self.checkpoint_s


@dataclass(frozen=True)
class Delay:
    """A waiting time: log-normal with this mean and coefficient of variation (constant where that is 0), or as recorded.

    Attributes:
        quantiles_s: of a recorded distribution at evenly spaced probabilities from 0 to 1, linear in between; empty for a
            log-normal one. `mean_s` and `cv` then describe the recording, and planners treat it as log-normal.
    """

    mean_s: float
    cv: float = 0.0
    quantiles_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require_seconds(mean_s=self.mean_s)
        _require_cv(cv=self.cv)

    @classmethod
    def recorded(cls, waits_s: Sequence[float]) -> Delay:
        """The distribution of at least two waiting times that were recorded.

        Raises:
            InputError: there are fewer, or one is negative or not finite.
        """
        if len(waits_s) < 2:
            raise InputError("names fewer than two waiting times")
        for wait_s in waits_s:
            _require_seconds(a_waiting_time=wait_s)
        steps = sorted(waits_s)
        # Between two of them the distribution is uniform, which has these moments.
        pairs = list(pairwise(steps))
        mean_s = math.fsum((low + high) / 2 for low, high in pairs) / len(pairs)
        square = math.fsum((low * low + low * high + high * high) / 3 for low, high in pairs) / len(pairs)
        cv = math.sqrt(max(square - mean_s**2, 0.0)) / mean_s if mean_s else 0.0
        return cls(mean_s, cv, tuple(steps))

    def plus(self, seconds: float) -> Delay:
        """The same delay that many seconds later; its mean and standard deviation are exact, its kind stays the same."""
        mean_s = self.mean_s + seconds
        cv = self.cv * self.mean_s / mean_s if mean_s else 0.0
        return Delay(mean_s, cv, tuple(quantile_s + seconds for quantile_s in self.quantiles_s))

    def draw_s(self, rng: np.random.Generator) -> float:
        """One waiting time in seconds."""
        if self.quantiles_s:
            at = float(rng.random()) * (len(self.quantiles_s) - 1)
            low = math.floor(at)
            return self.quantiles_s[low] + (at - low) * (self.quantiles_s[low + 1] - self.quantiles_s[low])
        if self.cv == 0 or self.mean_s == 0:
            return self.mean_s
        variance = math.log1p(self.cv**2)
        return float(rng.lognormal(math.log(self.mean_s) - variance / 2, math.sqrt(variance)))


@dataclass(frozen=True)
class Startup:
    """How a machine comes up.

    Attributes:
        queue: from request to launch, at the provider.
        init: the boot, from launch on; includes the set-up where that is not given separately.
        setup: from the end of the boot to readiness.
    """

    queue: Delay = Delay(0.0)
    init: Delay = Delay(0.0)
    setup: Delay = Delay(0.0)

    @property
    def mean_s(self) -> float:
        """Mean seconds from request to readiness."""
        return self.queue.mean_s + self.init.mean_s + self.setup.mean_s

    def unbilled(self, rule: BillingRule) -> tuple[Delay, ...]:
        """The phases before the bill begins."""
        phases = (
            (self.queue, rule.bills_queue),
            (self.init, rule.bills_startup),
            (self.setup, rule.is_setup_billed),
        )
        return tuple(delay for delay, is_billed in phases if not is_billed)

    def billed_mean_s(self, rule: BillingRule) -> float:
        """Mean seconds that are billed before readiness."""
        unbilled = self.unbilled(rule)
        return sum(delay.mean_s for delay in (self.queue, self.init, self.setup)[len(unbilled) :])


@dataclass(frozen=True)
class Stragglers:
    """Spread of an iteration's duration, as coefficients of variation of two factors with mean 1.

    Attributes:
        persistent_cv: of a log-normal factor that stays with a trial.
        per_iteration_cv: of a factor drawn for each iteration. An empirical tail brings its own.
        tail: shape of the factor drawn for each iteration.
        is_per_worker: the factor is drawn for each GPU of a gang, and the slowest GPU ends the iteration. Otherwise it is
            drawn for the gang as a whole, because a scaling measured on gangs already contains the wait for the slowest.
    """

    persistent_cv: float = 0.0
    per_iteration_cv: float = 0.0
    tail: Tail = LOG_NORMAL
    is_per_worker: bool = False

    def __post_init__(self) -> None:
        _require_cv(persistent_cv=self.persistent_cv, per_iteration_cv=self.per_iteration_cv)
        if isinstance(self.tail, EmpiricalTail) and self.per_iteration_cv != self.tail.cv:
            raise InputError(
                f"per_iteration_cv is {self.per_iteration_cv}, but what was measured has {self.tail.cv}: leave one out"
            )

    @property
    def any(self) -> bool:
        """Whether durations vary at all."""
        return self.persistent_cv > 0 or self.per_iteration_cv > 0

    def gang_factor(self, gpus: int) -> float:
        """Mean factor on an iteration of a gang of this size: above 1 where it waits for the slowest of its workers."""
        return slowest_mean(self.tail, self.per_iteration_cv, gpus) if self.is_per_worker else 1.0


@dataclass(frozen=True)
class Faults:
    """What breaks, as rates per hour of life (exponential waiting times).

    Attributes:
        instance_loss_per_hour: of an instance, from its launch.
        segment_failure_per_hour: of a running segment's workers.
    """

    instance_loss_per_hour: float = 0.0
    segment_failure_per_hour: float = 0.0

    def __post_init__(self) -> None:
        _require_seconds(
            instance_loss_per_hour=self.instance_loss_per_hour, segment_failure_per_hour=self.segment_failure_per_hour
        )


@dataclass(frozen=True)
class SlowNodes:
    """Machines that train slower than others all their life. A gang runs at the pace of its slowest node [ours].

    Attributes:
        share: share of slow machines among all.
        slowdown: factor on the duration of an iteration on a slow machine, at least 1.
        cv: coefficient of variation of a further log-normal factor with mean 1, drawn for every machine.
    """

    share: float = 0.0
    slowdown: float = 1.0
    cv: float = 0.0

    def __post_init__(self) -> None:
        _require_cv(**{"slow_nodes.cv": self.cv})
        if not 0 <= self.share <= 1:
            raise InputError(f"slow_nodes.share is {self.share}, but must be between 0 and 1")
        if not (math.isfinite(self.slowdown) and self.slowdown >= 1):
            raise InputError(f"slow_nodes.slowdown is {self.slowdown}, but must be a number >= 1")

    @property
    def any(self) -> bool:
        """Whether machines differ at all."""
        return self.cv > 0 or (self.share > 0 and self.slowdown > 1)


@dataclass(frozen=True)
class Contention:
    """How gangs on one node, and checkpoints on one store, slow each other. Linear; a model of ours, not measured [ours].

    Attributes:
        per_gang: each other gang on a node lengthens launch and training by this share (processor, loader, disk). A gang on
            several nodes runs at the pace of the fullest node.
        store_writers: checkpoints that the store can take at full speed at the same time. More of them share its bandwidth
            equally. None for any number.
    """

    per_gang: float = 0.0
    store_writers: float | None = None

    def __post_init__(self) -> None:
        _require_seconds(interference=self.per_gang)
        if self.store_writers is not None and not (math.isfinite(self.store_writers) and self.store_writers > 0):
            raise InputError(f"store_writers is {self.store_writers}, but must be a positive number")

    @property
    def any(self) -> bool:
        """Whether anything is slowed at all."""
        return self.per_gang > 0 or self.store_writers is not None


@dataclass(frozen=True)
class Profile:
    """What an operator could have measured. Policies and planners know nothing else of workload and cloud.

    Attributes:
        iteration_s: mean seconds per iteration on one GPU (tau in the papers), evaluation included.
        scaling: believed speed-up of a whole iteration (lambda), evaluation and waiting for the slowest worker included.
        sync_s: seconds a barrier between stages takes (collecting and ranking).
        mtbf_s: mean seconds from the grant of a spot machine until it is taken back; infinite where that never happens or is
            unknown.
        family: name of the workload's family; a curve model that was fitted on the same family is not used. Empty for none.
        is_prefix_schedule: whether a shorter run follows the same curve (a constant learning rate), so that R may be lowered.
        min_gpus: the smallest gang whose memory holds every configuration.
    """

    iteration_s: float
    scaling: Scaling
    timings: Timings = Timings()
    startup: Startup = Startup()
    stragglers: Stragglers = Stragglers()
    sync_s: float = 0.0
    family: str = ""
    is_prefix_schedule: bool = False
    mtbf_s: float = math.inf
    min_gpus: int = 1

    def __post_init__(self) -> None:
        if self.min_gpus < 1:
            raise InputError(f"min_gpus is {self.min_gpus}, but must be at least 1")
        if not (math.isfinite(self.iteration_s) and self.iteration_s > 0):
            raise InputError(f"iteration_s is {self.iteration_s}, but must be a positive number")
        if not self.mtbf_s > 0:
            raise InputError(f"mtbf_s is {self.mtbf_s}, but must be positive")
        _require_seconds(sync_s=self.sync_s)


@dataclass(frozen=True)
class GroundTruth:
    """What really happens when a drawn configuration trains.

    Attributes:
        scores: (trials, iterations) float; `scores[t, k]` after k + 1 iterations, not finite where the run diverged.
        iteration_s: (trials,) float; mean seconds per iteration on one GPU, evaluation included.
        scaling: true speed-up of a whole iteration, evaluation included.
        min_gpus: (trials,) int; the smallest gang whose memory holds each trial. None where one GPU holds any.
    """

    scores: np.ndarray
    iteration_s: np.ndarray
    scaling: Scaling
    timings: Timings = Timings()
    stragglers: Stragglers = Stragglers()
    min_gpus: np.ndarray | None = None


@dataclass(frozen=True)
class Spot:
    """What really happens to spot machines.

    Attributes:
        notice_s: how long before the end of a machine its provider says so; 0 for no notice.
    """

    reclaims: ReclaimProcess
    notice_s: float = 120.0

    def __post_init__(self) -> None:
        _require_seconds(notice_s=self.notice_s)


@dataclass(frozen=True)
class CloudTruth:
    """What really happens when a machine is rented.

    Attributes:
        capacity: how many machines of a pool the provider can give at once, over time; no limit for the others.
        release_s: seconds from giving an instance back to the end of its bill.
        quota: how many machines the account may hold at once over time, all pools together. Requests beyond it wait. None for
            no limit below the price book's.
        waits: whether a request waits while there is no capacity; otherwise it is refused at once.
        spot: how spot machines are taken back; None where they never are.
        slow_nodes: how machines differ in speed.
        contention: how gangs and checkpoints slow each other.
    """

    startup: Startup = Startup()
    faults: Faults = field(default_factory=Faults)
    capacity: Mapping[Pool, Steps] = field(default_factory=dict)
    release_s: float = 0.0
    quota: Steps | None = None
    waits: bool = False
    spot: Spot | None = None
    slow_nodes: SlowNodes = SlowNodes()
    contention: Contention = Contention()
