"""The search for the best constant cluster leaves out only what cannot be the best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_jobs import AS_USED, random_job

from elastune.policies.planning.static import cluster_sizes, constant_plans, plan_on_cluster
from elastune.policies.seer.mechanisms import Mechanisms
from elastune.sim.model.prices import BillingRule

RULES = [AS_USED, BillingRule(600.0, 0.0), BillingRule(1.0, 60.0), BillingRule(model="per-function")]


@pytest.mark.parametrize("rule", RULES)
def test_the_best_constant_cluster_is_that_of_all_clusters(rule):
    rng = np.random.default_rng(13)
    for _ in range(60):
        stages, terms = random_job(rng, billing=rule, most_trials=9, quota=(3, 8, 20))
        state = {"is_resumed": bool(rng.integers(2))}
        plans = [plan_on_cluster(stages, count, terms, **state) for count in cluster_sizes(stages, terms)]
        middle = plans[rng.integers(len(plans))]
        within = replace(terms, deadline_s=middle.promised_s * 1.1, budget_usd=middle.needed_usd * 1.1)
        best = min((plan.cost_usd, plan.promised_s) for plan in plans if within.are_kept_by(plan))
        kept = constant_plans(stages, within, within.are_kept_by, most_usd=within.budget_usd, **state)
        assert min((plan.cost_usd, plan.promised_s) for plan in kept) == best
        constant = Mechanisms(elastic=False).plan(stages, within, **state)
        assert (constant.cost_usd, constant.promised_s) == best
