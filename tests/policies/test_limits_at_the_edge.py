"""Budgets below one quantum, prices that rise after the deadline, and limits that refusals name."""

from __future__ import annotations

import msgspec
import pytest

from elastune.policies.registry import POLICIES, factory
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import BillingRule, InstanceType


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("billing", [BillingRule(3600.0, 0.0), BillingRule(0.0, 3600.0)])
def test_a_budget_below_the_least_bill_of_one_machine_is_refused_before_the_run(world, name, billing):
    # One machine is billed for an hour at least: 3,600 USD. Training to R takes 90 s.
    tiny = world(trials=4, iterations=9, quota=2, billing=billing, deadline_s=1000.0, budget_usd=3000.0)
    with pytest.raises(InfeasibleJobError, match=r"3[,0-9]*(600|602|610)\.\d\d USD|budget"):
        factory(name)(tiny.job, tiny.profile, tiny.book, None)


@pytest.mark.parametrize("name", POLICIES)
def test_a_price_that_rises_after_the_deadline_changes_nothing(world, play, name):
    def log(price):
        tiny = world(trials=4, iterations=9, quota=2, startup=(5.0, 20.0), deadline_s=400.0, budget_usd=1500.0)
        machine = InstanceType("m", 4, {"on-demand": price})
        tiny.book = msgspec.structs.replace(tiny.book, instance_types=(machine,))
        return play(factory(name)(tiny.job, tiny.profile, tiny.book, None), tiny).log

    assert log(PriceSeries((0.0, 7200.0), (3600.0, 1e6))) == log(3600.0)


def test_a_price_that_rises_before_the_deadline_counts(world):
    tiny = world(trials=4, iterations=9, quota=2, startup=(5.0, 20.0), deadline_s=400.0, budget_usd=1500.0)
    machine = InstanceType("m", 4, {"on-demand": PriceSeries((0.0, 300.0), (3600.0, 1e6))})
    tiny.book = msgspec.structs.replace(tiny.book, instance_types=(machine,))
    with pytest.raises(InfeasibleJobError):
        factory("seer")(tiny.job, tiny.profile, tiny.book, None)
