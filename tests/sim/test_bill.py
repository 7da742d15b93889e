from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer
from elastune.sim.model.billing import Bill, ExactSum, metered_usd
from elastune.sim.model.errors import InputError
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook

PER_SECOND = 3600.0  # USD per hour: one dollar a second


@pytest.mark.parametrize(
    ("granularity_s", "minimum_s", "used_s", "billed_s"),
    [
        (0, 0, 12.5, 12.5),
        (1, 60, 12.5, 60),
        (1, 60, 60.2, 61),
        (60, 0, 0.0, 0),
        (60, 0, 0.1, 60),
        (60, 60, 60.0, 60),
        (60, 60, 60.000000001, 60),  # a sum of floats is not another minute
        (60, 90, 10, 120),
        (3600, 60, 3601, 7200),
    ],
)
def test_use_is_rounded_up_and_no_less_than_the_minimum(granularity_s, minimum_s, used_s, billed_s):
    assert BillingRule(granularity_s, minimum_s).billed_s(used_s) == billed_s
    assert metered_usd(BillingRule(granularity_s, minimum_s), PER_SECOND, used_s) == billed_s


@pytest.mark.parametrize(
    ("billing", "usd"),
    [
        # One trial: 5 s queue, 20 s init, 30 s of training on one of 4 GPUs. From launch to end 50 s.
        (BillingRule(0, 0), 50),
        (BillingRule(1, 60), 60),
        (BillingRule(40, 0), 80),
        (BillingRule(3600, 60), 3600),
        (BillingRule(0, 0, bills_startup=False), 30),
        (BillingRule(0, 60, bills_startup=False), 60),
        (BillingRule(0, 0, bills_queue=True), 55),
        # A quarter of the machine for 30 s.
        (BillingRule(0, 0, model="per-function"), 7.5),
        (BillingRule(20, 0, model="per-function"), 10),
    ],
)
def test_the_same_run_under_different_billing_rules(simulate, billing, usd):
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [FinishRun(0)]}, startup=(5, 20), billing=billing
    )
    assert story.makespan_s == 55
    assert story.bill_usd == pytest.approx(usd)


@pytest.mark.parametrize(
    ("billing", "from_s"),
    [
        (BillingRule(0, 0, bills_queue=True), 0),
        (BillingRule(0, 0), 5),
        (BillingRule(0, 0, bills_startup=False, bills_setup=True), 25),
        (BillingRule(0, 0, bills_startup=False), 35),
    ],
)
def test_queue_boot_and_set_up_are_billed_or_not(simulate, billing, from_s):
    # 5 s of queue, 20 s of boot, 10 s of set-up, 30 s of training.
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [FinishRun(0)]}, startup=(5, 20, 10), billing=billing
    )
    assert story.log[1:4] == ["5 launched 0", "25 booted 0", "35 ready 0 -> s0: t0 0..3 on i0x1"]
    assert (story.makespan_s, story.bill_usd) == (65, pytest.approx(65 - from_s))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"bills_queue": True, "bills_startup": False},
            "billing.bills_queue is true and billing.bills_startup is false",
        ),
        ({"bills_setup": False}, "billing.bills_startup is true and billing.bills_setup is false"),
        ({"free_if_reclaimed_within_s": -1.0}, "billing.free_if_reclaimed_within_s is -1.0, but must be a number >= 0"),
    ],
)
def test_a_bill_without_beginning_or_with_gaps_is_refused(keys, message):
    with pytest.raises(InputError, match=message):
        BillingRule(**keys)


def test_a_request_that_is_refused_costs_nothing_whatever_queueing_costs():
    bill = Bill(BillingRule(1, 60, bills_queue=True), ingress_usd=2.0)
    bill.requested(0, PER_SECOND, 10.0)
    assert (bill.spent_usd(80.0), bill.committed_usd(80.0)) == (70, 72)
    bill.refused(0)
    assert (bill.spent_usd(90.0), bill.committed_usd(90.0)) == (0, 0)


@pytest.mark.parametrize(("gone_at_s", "usd"), [(3599.0, 2.0), (3600.0, 3602.0)])
def test_a_machine_that_is_reclaimed_in_its_first_hour_is_free_but_for_its_data(gone_at_s, usd):
    bill = Bill(BillingRule(1, 60, free_if_reclaimed_within_s=3600.0), ingress_usd=2.0)
    bill.requested(0, PER_SECOND, 0.0)
    bill.launched(0, 0.0)
    assert bill.spent_usd(gone_at_s) == gone_at_s + 2.0
    bill.gone(0, gone_at_s, is_reclaimed=True)
    assert bill.spent_usd(gone_at_s) == usd


def test_a_machine_that_is_lost_or_given_back_in_its_first_hour_is_not_free():
    bill = Bill(BillingRule(1, 60, free_if_reclaimed_within_s=3600.0))
    bill.requested(0, PER_SECOND, 0.0)
    bill.launched(0, 0.0)
    bill.gone(0, 100.0)
    assert bill.spent_usd(100.0) == 100.0


def test_head_node_storage_and_data_are_billed_and_committed():
    # 36 USD/h for the head node: 1 cent a second; 100 GB at 0.5 USD each per machine; 100 GB at 26.28 USD/month: 3.6 USD/h.
    terms = {
        "data_gb": 100.0,
        "ingress_usd_per_gb": 0.5,
        "storage_usd_per_gb_month": 26.28,
        "head_node_usd_per_hour": 36.0,
    }
    book = PriceBook((InstanceType("m", 4, {"on-demand": 0.0}),), **terms)
    assert (book.ingress_usd, book.standing_usd_per_hour) == (50.0, pytest.approx(39.6))
    bill = Bill.of(book)
    bill.requested(0, 0.0, 0.0)
    bill.requested(1, 0.0, 0.0)
    bill.launched(0, 5.0)
    assert bill.spent_usd(100.0) == pytest.approx(50 + 1.1)
    assert bill.committed_usd(100.0) == pytest.approx(100 + 1.1)
    bill.gone(1, 100.0)  # given back before it was launched
    assert bill.committed_usd(100.0) == pytest.approx(50 + 1.1)
    assert bill.committed_until_s(52.2, 100.0) == pytest.approx(200.0)


def test_functions_are_billed_each_with_launch_and_checkpoint(simulate):
    # Trial 0: 2 + 20 + 1 = 23 s on one GPU; trial 1 on 2 GPUs is cut at its safe point: 2 + 5 + 1 = 8 s, billed as 10 s.
    story = simulate(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 2), RunTrial(1, 2, 9), SetTimer("pause", 4)],
            "timer pause": [PauseTrial(1)],
            "ended 0": [FinishRun(0)],
        },
        timings=(2, 1, 3),
        billing=BillingRule(0, 10, model="per-function"),
    )
    assert story.bill_usd == pytest.approx(23 / 4 + 10 / 2)


def test_what_was_asked_for_and_never_launched_costs_nothing():
    bill = Bill(BillingRule(1, 60))
    bill.ask(0, PER_SECOND)
    assert (bill.spent_usd(10.0), bill.committed_usd(10.0)) == (0, 60)
    bill.stop(0, 20.0)
    assert (bill.spent_usd(20.0), bill.committed_usd(20.0)) == (0, 0)


def test_the_committed_bill_holds_minimum_quantum_and_release_latency():
    bill = Bill(BillingRule(granularity_s=10, minimum_s=30), release_s=15.0)
    bill.ask(0, PER_SECOND)
    bill.start(0, 100.0)
    # Given back at 104 s, gone at 119 s: 30 s at least. At 123 s it is gone at 138 s: 38 s, rounded up to 40.
    assert (bill.committed_usd(104.0), bill.committed_usd(123.0)) == (30, 40)
    assert (bill.spent_usd(104.0), bill.spent_usd(123.0)) == (30, 30)


def test_paid_time_reaches_to_the_end_of_the_quantum():
    bill = Bill(BillingRule(granularity_s=3600, minimum_s=60))
    bill.ask(0, PER_SECOND)
    assert bill.paid_until_s(0, 50.0) == 50.0
    bill.start(0, 100.0)
    assert (bill.paid_until_s(0, 200.0), bill.paid_until_s(0, 3800.0)) == (3700.0, 7300.0)


def test_without_leases_a_budget_lasts_for_ever():
    bill = Bill(BillingRule())
    assert bill.committed_until_s(5.0, 10.0) == math.inf
    bill.ask(0, 0.0)
    assert bill.committed_until_s(5.0, 10.0) == math.inf


def test_a_budget_that_is_spent_already_lasts_until_now():
    bill = Bill(BillingRule(1, 60))
    bill.ask(0, PER_SECOND)
    assert bill.committed_until_s(59.0, 10.0) == 10.0


rules = st.builds(
    BillingRule,
    granularity_s=st.sampled_from([0.0, 1.0, 60.0, 3600.0]),
    minimum_s=st.sampled_from([0.0, 60.0, 600.0]),
)
leases = st.lists(
    st.tuples(st.floats(0.1, 50), st.one_of(st.none(), st.floats(0, 5000)), st.one_of(st.none(), st.floats(0, 5000))),
    min_size=1,
    max_size=5,
)


@given(rules, leases, st.sampled_from([0.0, 45.0]), st.floats(0.0, 200.0))
def test_the_time_a_budget_lasts_is_tight(rule, leases, release_s, more_usd):
    bill, now_s = Bill(rule, release_s), 5000.0
    for key, (usd_per_hour, started_s, stopped_s) in enumerate(leases):
        bill.ask(key, usd_per_hour)
        if started_s is not None:
            bill.start(key, started_s)
            if stopped_s is not None:
                bill.stop(key, max(started_s, stopped_s))
    assert bill.committed_usd(now_s) >= bill.spent_usd(now_s) - 1e-9
    budget_usd = bill.committed_usd(now_s) + more_usd
    until_s = bill.committed_until_s(budget_usd, now_s)
    if math.isinf(until_s):
        return
    # What has been asked for may launch this very moment and is billed from then on.
    for key, (_, started_s, _) in enumerate(leases):
        if started_s is None:
            bill.start(key, now_s)
    assert bill.committed_usd(until_s) <= budget_usd + 1e-9
    assert bill.committed_usd(until_s + 1e-4) > budget_usd - 1e-9 or rule.granularity_s == 0


@given(rules, st.lists(st.tuples(st.floats(0.1, 50), st.floats(0, 5000)), min_size=2, max_size=6), st.randoms())
def test_the_bill_does_not_depend_on_the_order_of_the_closings(rule, leases, random):
    def total_usd(order):
        bill = Bill(rule)
        for key, (usd_per_hour, _) in enumerate(leases):
            bill.ask(key, usd_per_hour)
            bill.start(key, 0.0)
        for key in order:
            bill.stop(key, leases[key][1])
        return bill.spent_usd(5000.0)

    order = list(range(len(leases)))
    random.shuffle(order)
    assert total_usd(order) == total_usd(range(len(leases)))


@given(st.lists(st.floats(-1e12, 1e12), max_size=40))
def test_a_sum_that_is_told_its_terms_one_by_one_is_that_of_all_rounded_once(terms):
    kept = ExactSum()
    for number, term in enumerate(terms, start=1):
        kept.add(term)
        assert kept.total() == math.fsum(terms[:number])


def test_what_a_sum_keeps_does_not_grow_with_its_terms():
    kept = ExactSum()
    for number in range(1, 5000):
        kept.add(number / 7.0)
    assert len(kept._parts) < 8
