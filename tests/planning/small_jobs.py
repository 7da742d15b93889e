"""Random small jobs, and brute force over a plan space: every plan is priced."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.frontier import cheapest_by, efficient_plans, frontier
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.planning.spaces import fair_levels
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import TableScaling

AS_USED = BillingRule(granularity_s=0.0, minimum_s=0.0)


def random_job(rng, *, billing=AS_USED, most_trials=5, stages=(1, 2, 3), quota=(1, 2, 3), with_stragglers=True):
    """Stages and terms with nothing round in them, so that no two sums tie by chance."""
    trials = np.sort(rng.integers(1, most_trials + 1, rng.choice(stages)))[::-1]
    gpus = int(rng.choice([1, 2, 3, 4]))
    points = np.cumsum([1.0, *rng.uniform(-0.1, 1.0, 7)])
    profile = Profile(
        float(rng.uniform(5, 60)),
        TableScaling({k + 1: max(float(s), 0.2) for k, s in enumerate(points)}),
        Timings(float(rng.uniform(0, 9)), 0.5, 0.5 + float(rng.uniform(0, 9))),
        Startup(Delay(float(rng.uniform(0, 20))), Delay(float(rng.uniform(0, 90)))),
        Stragglers(float(rng.choice([0.0, 0.4])), float(rng.choice([0.0, 0.4]))) if with_stragglers else Stragglers(),
        float(rng.choice([0.0, 3.0])),
    )
    book = PriceBook(
        (InstanceType("m", gpus, {"on-demand": 3600.0}),),
        replaced(billing, bills_startup=bool(rng.integers(2))),
        int(rng.choice(quota)),
        float(rng.choice([0.0, 7.0])),
        data_gb=2.0,
        ingress_usd_per_gb=float(rng.choice([0.0, 3.0])),
    )
    pairs = [(int(n), int(w)) for n, w in zip(trials, rng.integers(1, 6, len(trials)), strict=True)]
    return explicit_stages(pairs), Terms(profile, book)


def replaced(rule, **changes):
    fields = {"granularity_s": rule.granularity_s, "minimum_s": rule.minimum_s, "model": rule.model}
    return BillingRule(**(fields | changes))


def fair_space(stage, index, terms):  # noqa: ARG001  the same for every stage
    return fair_levels(stage.trials, terms)


def wide_space(stage, index, terms):
    """Written out again: every gang that tiles machines, every number of gangs, every number held, early or not."""
    whole, quota = terms.gpus_per_instance, terms.price_book.max_instances
    for size in range(1, min(terms.profile.scaling.max_gpus, terms.max_gpus) + 1):
        rest = size % whole
        if rest and whole % rest:
            continue
        for gangs in range(1, min(stage.trials, quota * whole // size) + 1):
            need = math.ceil(gangs * size / whole)
            for held, is_early in itertools.product(range(need, quota + 1), (False, True)[: 1 + (index > 0)]):
                yield Allocation(stage.trials, gangs * size, size, whole, held - need, is_early)


def brute_force(space, stages, terms, *, price=estimate, **state):
    per_stage = [list(space(stage, index, terms)) for index, stage in enumerate(stages)]
    if not all(per_stage):
        return []
    plans = (price(stages, plan, terms, **state) for plan in itertools.product(*per_stage))
    return efficient_plans(plan for plan in plans if terms.are_kept_by(plan))


def assert_same_curve(found, expected):
    """Equal costs at every deadline at which either changes; a hair before and after, because sums differ by rounding."""
    for plan in (*found, *expected):
        for deadline_s in (plan.promised_s - 1e-5, plan.promised_s + 1e-5):
            costs = [getattr(cheapest_by(plans, deadline_s), "cost_usd", math.inf) for plans in (found, expected)]
            assert costs[0] == pytest.approx(costs[1], rel=1e-9, abs=1e-9), deadline_s


def limited(stages, terms, rng, makespan="mean"):
    """The same with a deadline and a budget somewhere on the frontier."""
    plans = frontier(stages, terms, space="fair", makespan=makespan)
    deadline_s = plans[rng.integers(len(plans))].promised_s * 1.1 if len(plans) else math.inf
    budget_usd = plans[rng.integers(len(plans))].cost_usd * 1.1 if len(plans) else math.inf
    return replace(terms, deadline_s=deadline_s, budget_usd=budget_usd)
