"""Plans on thousands of machines: as many numbers of machines are weighed as trials can use, and what is left out is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_jobs import AS_USED, assert_same_curve

from elastune import RunSpec, compare, execute
from elastune.experiments.cli.compare import _print as print_comparison
from elastune.experiments.formats import percent
from elastune.policies.planning.bound import Bound, Paid
from elastune.policies.planning.choices import choices
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.frontier import frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.program import MOST_COUNTS, Program
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.model.billing import Bill
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import TableScaling

STAGES = explicit_stages([(24, 1), (8, 3), (2, 9)])
GANGS = TableScaling({1: 1.0, 2: 1.7, 4: 2.55, 8: 3.1})


def terms(machines, startup_cv=0.0):
    startup = Startup(Delay(5.0), Delay(60.0, startup_cv))
    profile = Profile(60.0, GANGS, Timings(5.0, 1.0, 5.0), startup, Stragglers(0.1, 0.1), 2.0)
    return Terms(profile, PriceBook((InstanceType("m", 1, {"on-demand": 3.06}),), AS_USED, machines))


class EveryNumber(Program):
    """Holds any number of machines."""

    def _counts(self):
        return range(1, self._terms.price_book.max_instances + 1)


def test_more_machines_than_trials_can_use_change_nothing():
    useful = 24 * 8
    assert frontier(STAGES, terms(useful)) == frontier(STAGES, terms(100_000))


def test_only_numbers_on_which_some_stage_trains_are_held_and_that_is_exact():
    of_stages = [choices(stage, terms(60), "wide", is_first=number == 0) for number, stage in enumerate(STAGES)]
    needed = {held for stage in of_stages for held in stage.instances.tolist()}
    program = Program(of_stages, terms(60), "wide", 3)
    assert {held for stage in program.options() for held in stage} <= needed | {3}
    every = EveryNumber(of_stages, terms(60), "wide", 3)
    state = {"live_instances": 3, "is_resumed": False}
    priced = [[estimate(STAGES, one, terms(60), **state) for one in each.solve()] for each in (program, every)]
    assert len(needed) < 40
    assert_same_curve(*priced)


def test_percentiles_on_too_many_machines_say_what_they_may_lose():
    few = frontier(STAGES, terms(MOST_COUNTS, 0.3), makespan="p95")
    known = terms(MOST_COUNTS + 1, 0.3)
    many = frontier(STAGES, known, makespan="p95")
    assert {plan.search_gap for plan in few} == {0.0}
    bound = Bound(STAGES, known)
    for plan in many:
        assert plan.search_gap == pytest.approx(1 - bound.usd(plan.promised_s) / plan.cost_usd)
        assert all(
            other.cost_usd >= plan.cost_usd * (1 - plan.search_gap)
            for other in few
            if other.promised_s <= plan.promised_s
        )
    assert {plan.left_out for plan in few} == {""}
    assert {plan.left_out for plan in many} == {
        "with more than 256 machines, 12 allocations of each stage were weighed"
    }


def test_where_machines_are_held_or_given_back_what_percentiles_may_lose_is_measured_from_what_is_paid():
    for state, gives_back in (({"live_instances": 2, "is_resumed": True}, False), ({}, True)):
        known = replace(terms(MOST_COUNTS + 1, 0.3), gives_back=gives_back)
        bound = Paid(STAGES, known, **state)
        plans = frontier(STAGES, known, makespan="p95", **state)
        assert [plan.search_gap for plan in plans] == [
            pytest.approx(1 - bound.usd(plan.promised_s) / plan.cost_usd) for plan in plans
        ]
        assert 0 < min(plan.search_gap for plan in plans) < 0.9


def test_a_run_and_a_comparison_say_what_plans_may_lose(capsys):
    spec = {
        "job": {"trials": 24, "max_iterations": 9, "deadline_s": 36000, "budget_usd": 500},
        "workload": {"bundle": "digits-mlp", "scaling": "bert-a100", "iteration_s": 900},
        "cloud": {"instance_type": "p3.2xlarge", "startup": "fast", "max_instances": MOST_COUNTS + 1},
        "policy": "seer",
    }
    lost = execute(RunSpec.of(**spec)).plan_search_gap
    assert lost > 0
    comparison = compare(RunSpec.of(**spec), ["seer", "asha-fixed"], seeds=1, jobs=1)
    assert list(comparison.results["plan_search_gap"]) == [lost, 0.0]
    assert list(comparison.summary["plan_search_gap"]) == [lost, 0.0]
    print_comparison(comparison, None)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "not all plans were searched" in line]
    assert said.startswith("seer: ")
    assert f"up to {percent(lost)} cheaper" in said
    assert "of stages of more than 12 trials" in said
    assert list(comparison.results["plan_left_out"].isna()) == [False, True]
    spec["cloud"]["max_instances"] = 64
    cut = execute(RunSpec.of(**spec)).to_json()
    assert cut["plan_search_gap"] == 0
    assert cut["plan_left_out"].startswith("of stages of more than 12 trials, for each number of waves only the fewest")
    spec["job"]["trials"] = 12
    assert execute(RunSpec.of(**spec)).to_json()["plan_left_out"] is None
    assert execute(RunSpec.of(**spec | {"policy": "asha-fixed"})).plan_search_gap in (None, 0)


def test_a_budget_that_outlasts_the_deadline_is_not_searched():
    bill = Bill(BillingRule(1, 60))
    for key in range(5):
        bill.ask(key, 3600.0)
        bill.start(key, 10.0 * key)
    bill.give_back(4, 100.0)
    until_s = bill.committed_until_s(5000.0, 100.0)
    assert bill.committed_until_s(5000.0, 100.0, latest_s=until_s - 50) == until_s - 50
    assert bill.committed_until_s(5000.0, 100.0, latest_s=until_s + 50) == until_s
    assert bill.committed_until_s(5000.0, 100.0, latest_s=1.0) == 100.0
