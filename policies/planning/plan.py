"""What a plan is, and the terms it is made under. Pure; imports only `sim.model` and the halving arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.halving import Stage
    from sim.model.job import TuningJob
    from sim.model.prices import PriceBook
    from sim.model.profile import Profile

MARGIN_S = 1e-3
"""Runs end this long before their limit: what is scheduled for the same instant must not depend on who came first."""


@dataclass(frozen=True)
class Allocation:
    """What one stage gets.

    Attributes:
        trials: how many train in it.
        gpus: GPUs that train, all trials together.
        gpus_per_trial: size of each gang.
        gpus_per_instance: GPUs of the machines they are on.
    """

    trials: int
    gpus: int
    gpus_per_trial: int
    gpus_per_instance: int

    @property
    def gangs(self) -> int:
        """How many trials train at once."""
        return min(self.gpus // self.gpus_per_trial, self.trials)

    @property
    def instances(self) -> int:
        """Whole machines that hold the GPUs."""
        return math.ceil(self.gpus / self.gpus_per_instance)

    @property
    def waves(self) -> int:
        """How many times the gangs must run to train all trials."""
        return math.ceil(self.trials / self.gangs)


@dataclass(frozen=True)
class Terms:
    """What planners know: the profile, the prices and the job's limits; one instance type.

    Attributes:
        deadline_s: plans end by it; infinite for none.
        budget_usd: infinite for none.
    """

    profile: Profile
    price_book: PriceBook
    deadline_s: float = math.inf
    budget_usd: float = math.inf

    @classmethod
    def of(cls, job: TuningJob, profile: Profile, price_book: PriceBook) -> Terms:
        """The terms of a job; absent limits are infinite, and a plan ends a moment before the run must."""
        deadline_s = math.inf if job.deadline_s is None else job.deadline_s - 2 * MARGIN_S
        return cls(profile, price_book, deadline_s, job.budget_usd or math.inf)

    def are_kept_by(self, plan: Plan) -> bool:
        """Whether a plan keeps deadline and budget."""
        return plan.makespan_s <= self.deadline_s and plan.cost_usd <= self.budget_usd * (1 + 1e-12)

    @property
    def gpus_per_instance(self) -> int:
        """GPUs of the machines that are rented."""
        return self.price_book.default_type.gpus_per_instance

    @property
    def usd_per_hour(self) -> float:
        """Price of one machine."""
        return self.price_book.usd_per_hour()

    @property
    def max_gpus(self) -> int:
        """GPUs of the whole quota."""
        return self.price_book.max_instances * self.gpus_per_instance

    @cached_property
    def gang_sizes(self) -> tuple[int, ...]:
        """Gangs worth planning: they fill whole machines or divide one, and each is faster than all smaller ones.

        Measured speed-ups fall in places; beyond its peak a gang only costs more.
        """
        scaling, whole = self.profile.scaling, self.gpus_per_instance
        sizes: list[int] = []
        fastest = 0.0
        for gpus in range(1, min(scaling.max_gpus, self.max_gpus) + 1):
            speedup = scaling.speedup(gpus, math.ceil(gpus / whole))
            if (whole % gpus == 0 or gpus % whole == 0) and speedup > fastest:
                sizes.append(gpus)
                fastest = speedup
        return tuple(sizes)

    def segment_s(self, iterations: int, gpus_per_trial: int, *, is_first: bool) -> float:
        """Mean seconds of one segment: launch or resume, training, checkpoint."""
        profile = self.profile
        nodes = math.ceil(gpus_per_trial / self.gpus_per_instance)
        iteration_s = profile.iteration_s / profile.scaling.speedup(gpus_per_trial, nodes)
        launch_s = profile.timings.launch_s if is_first else profile.timings.resume_s
        return launch_s + iterations * iteration_s + profile.timings.checkpoint_s


@dataclass(frozen=True)
class Plan:
    """An allocation for each stage, and what it is expected to take.

    Attributes:
        stage_s: (stages,) expected seconds of each stage, growth and barrier included.
    """

    stages: tuple[Stage, ...]
    allocations: tuple[Allocation, ...]
    stage_s: tuple[float, ...]
    makespan_s: float
    cost_usd: float
