"""Prices that change: bills by hand, and what is committed before they change."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo
from elastune.sim.model.billing import Bill, lease_usd, use_usd
from elastune.sim.model.errors import InputError
from elastune.sim.model.price_series import PriceSeries, combined, highest, price_at
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook

# 1 dollar a second, 3 from 100 s on, nothing from 250 s on.
STEPS = PriceSeries((0.0, 100.0, 250.0), (3600.0, 10800.0, 0.0))


@pytest.mark.parametrize(
    ("rule", "from_s", "until_s", "usd"),
    [
        # As used: 40 s at 1, 150 s at 3, 50 s at nothing.
        (BillingRule(0, 0), 60.0, 300.0, 40 + 450),
        (BillingRule(0, 0), 0.0, 100.0, 100),
        (BillingRule(0, 0), 260.0, 400.0, 0),
        # By the minute, each at the price when it begins: those at 50 and, dearer, 110, 170 and 230; the one at 290 is free.
        (BillingRule(60, 0), 50.0, 300.0, 60 * 1 + 3 * 60 * 3),
        # A minute that began at 50 s stays cheap beyond 100 s.
        (BillingRule(60, 0), 50.0, 105.0, 60),
        # One that begins just when the price changes is dear.
        (BillingRule(50, 0), 50.0, 101.0, 50 + 150),
        # The minimum goes on after the end: from 90 s 10 s at 1 and 50 s at 3.
        (BillingRule(0, 60), 90.0, 91.0, 10 + 150),
        (BillingRule(1, 60), 90.0, 91.0, 10 + 150),
        # An hour that began at 50 s, at its price.
        (BillingRule(3600, 60), 50.0, 3000.0, 3600),
    ],
)
def test_a_lease_under_a_price_series(rule, from_s, until_s, usd):
    assert lease_usd(rule, STEPS, from_s, until_s) == pytest.approx(usd)


def test_a_run_under_a_price_series(play, world):
    # Queue 5 s, boot 20 s, 9 iterations of 10 s: the bill runs from 5 s to 115 s.
    tiny = world(startup=(5, 20))
    tiny.book = PriceBook((InstanceType("m", 4, {"on-demand": STEPS}),), BillingRule(0, 0))
    script = {"start": [ScaleTo(1), RunTrial(0, 1, 9)], "ended 0": [FinishRun(0)]}
    assert play(script, tiny).bill_usd == pytest.approx(95 + 15 * 3)
    by_the_half_minute = BillingRule(30, 0)
    tiny.book = PriceBook((InstanceType("m", 4, {"on-demand": STEPS}),), by_the_half_minute)
    # Half minutes from 5, 35, 65 and 95 s on: all of them began while it was cheap.
    assert play(script, tiny).bill_usd == pytest.approx(120)


def test_a_function_under_a_price_series_pays_its_share_of_the_machine(play, world):
    tiny = world(startup=(0, 55))
    tiny.book = PriceBook((InstanceType("m", 4, {"on-demand": STEPS}),), BillingRule(0, 0, model="per-function"))
    # A quarter of the machine from 55 s to 145 s.
    script = {"start": [ScaleTo(1), RunTrial(0, 1, 9)], "ended 0": [FinishRun(0)]}
    assert play(script, tiny).bill_usd == pytest.approx((45 + 45 * 3) / 4)


def test_what_is_asked_for_commits_the_highest_price_to_come():
    bill = Bill(BillingRule(0, 10))
    bill.requested(0, STEPS, 0.0)
    assert bill.committed_usd(0.0) == 10 * 3  # it may be launched when it is dearest
    bill.launched(0, 0.0)
    assert bill.committed_usd(0.0) == 10
    # 100 s at 1, then at 3: 130 dollars last until 110 s, 550 for ever, as nothing costs anything after 250 s.
    assert bill.committed_until_s(130.0, 0.0) == pytest.approx(110.0)
    assert bill.committed_until_s(549.0, 0.0) == pytest.approx(100 + 449 / 3)
    assert bill.committed_until_s(551.0, 0.0) == math.inf


def test_prices_are_added_and_scaled_as_series():
    both = combined([(STEPS, 0.5), (2.0, 3.0), (PriceSeries((0.0, 50.0), (0.0, 10.0)), 1.0)])
    assert both == PriceSeries((0.0, 50.0, 100.0, 250.0), (1806.0, 1816.0, 5416.0, 16.0))
    assert combined([(2.0, 3.0), (1.0, 0.5)]) == 6.5
    assert [price_at(STEPS, at_s) for at_s in (0.0, 99.9, 100.0, 1e9)] == [3600, 3600, 10800, 0]
    assert (highest(STEPS), highest(STEPS, 0.0, 100.0), highest(STEPS, 250.0), highest(5.0)) == (10800, 3600, 0, 5)


def test_planners_see_the_highest_price_by_the_deadline():
    book = PriceBook((InstanceType("m", 4, {"on-demand": STEPS, "spot": 7.0}),))
    assert book.usd_per_hour(at_s=120.0) == 10800
    assert book.at_highest(100.0).default_type.usd_per_hour == {"on-demand": 3600, "spot": 7.0}
    assert book.at_highest().usd_per_hour() == 10800
    constant = PriceBook((InstanceType("m", 4, {"on-demand": 7.0}),))
    assert constant.at_highest(100.0) is constant


@pytest.mark.parametrize(
    ("start_s", "usd_per_hour", "message"),
    [
        ((), (), "0 times and 0 prices"),
        ((0.0, 1.0), (1.0,), "2 times and 1 prices"),
        ((5.0,), (1.0,), "begins at 5 s, but must say what holds from 0 s on"),
        ((0.0, 60.0, 30.0), (1.0, 1.0, 1.0), "goes from 60 s to 30 s, but must go forward in time"),
        ((0.0, 0.0), (1.0, 2.0), "must go forward"),
        ((0.0, math.inf), (1.0, 2.0), "must go forward"),
        ((0.0, 60.0), (1.0, -2.0), "the price is -2.0 USD/h, but must be >= 0"),
        ((0.0, 60.0), (1.0, math.nan), "the price is nan USD/h"),
    ],
)
def test_a_malformed_series_is_refused(start_s, usd_per_hour, message):
    with pytest.raises(InputError, match=message):
        PriceSeries(start_s, usd_per_hour)


series = st.lists(st.tuples(st.floats(1, 3000), st.floats(0, 50)), max_size=5).map(
    lambda steps: PriceSeries(
        (0.0, *(sum(step for step, _ in steps[: n + 1]) for n in range(len(steps)))), (7.0, *(usd for _, usd in steps))
    )
)
rules = st.builds(BillingRule, st.sampled_from([0.0, 1.0, 60.0, 3600.0]), st.sampled_from([0.0, 60.0, 600.0]))


@given(rules, st.floats(0.1, 50), st.floats(0, 5000), st.floats(0, 5000))
def test_a_series_that_never_changes_is_a_constant_price(rule, usd_per_hour, from_s, used_s):
    flat = PriceSeries((0.0, 1000.0), (usd_per_hour, usd_per_hour))
    constant = lease_usd(rule, usd_per_hour, from_s, from_s + used_s)
    assert lease_usd(rule, flat, from_s, from_s + used_s) == pytest.approx(constant, rel=1e-6, abs=1e-9)


@given(rules, series, st.floats(0, 5000), st.floats(0, 5000), st.floats(0, 5000))
def test_a_lease_never_becomes_cheaper_by_lasting_longer(rule, price, from_s, used_s, more_s):
    usd = lease_usd(rule, price, from_s, from_s + used_s)
    assert lease_usd(rule, price, from_s, from_s + used_s + more_s) >= usd - 1e-9
    assert use_usd(price, from_s, from_s + used_s) <= highest(price, from_s) * used_s / 3600 + 1e-9


@given(
    rules,
    st.lists(st.tuples(series, st.one_of(st.none(), st.floats(0, 5000))), min_size=1, max_size=4),
    st.floats(0.0, 200.0),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 30.0]),
)
def test_a_budget_is_kept_until_the_time_it_lasts_however_prices_rise(rule, leases, more_usd, standing, release_s):
    now_s = 5000.0
    bill = Bill(rule, release_s, standing_usd_per_hour=standing, ingress_usd=0.5)
    for key, (price, started_s) in enumerate(leases):
        bill.requested(key, price, 0.0)
        if started_s is not None:
            bill.launched(key, started_s)
    budget_usd = bill.committed_usd(now_s) + more_usd
    until_s = bill.committed_until_s(budget_usd, now_s)
    # What is asked for may be launched this very moment, or when it is dearest.
    for key, (_, started_s) in enumerate(leases):
        if started_s is None:
            bill.launched(key, now_s)
    if math.isinf(until_s):
        assert bill.committed_usd(1e7) <= budget_usd + 1e-6
        return
    assert bill.committed_usd(until_s) <= budget_usd + 1e-6
    if all(started_s is not None for _, started_s in leases):
        assert bill.committed_usd(until_s + 1e-3) > budget_usd - 1e-6 or rule.granularity_s == 0
