from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from examples import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.estimate import estimate, expected_s, expected_stretch
from elastune.policies.planning.frontier import cheapest_by, frontier
from elastune.policies.planning.greedy import greedy_plan
from elastune.policies.planning.plan import Allocation, Terms
from elastune.policies.planning.rubberband_search import rubberband_plan
from elastune.policies.planning.spaces import fair_levels, lower_hull, stage_options, tried
from elastune.policies.planning.static import cluster_sizes, plan_on_cluster, static_plan
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import AmdahlScaling, LinearScaling, PowerScaling, TableScaling


@st.composite
def jobs(draw):
    """(stages, terms) of a small job: two to four shrinking stages, any cloud, nothing random, no limits."""
    trials, stages = draw(st.integers(1, 9)), []
    for _ in range(draw(st.integers(1, 4))):
        stages.append((trials, draw(st.integers(1, 4))))
        trials = max(1, trials // draw(st.integers(2, 3)))
    checkpoint_s = draw(st.sampled_from([0.0, 1.5]))
    profile = Profile(
        draw(st.sampled_from([3.0, 10.0])),
        draw(
            st.sampled_from(
                [LinearScaling(16), PowerScaling(0.7, 16), AmdahlScaling(0.1, 16), TableScaling({1: 1.0, 8: 4.0})]
            )
        ),
        Timings(draw(st.sampled_from([0.0, 2.0])), checkpoint_s, checkpoint_s + draw(st.sampled_from([0.0, 3.0]))),
        Startup(Delay(draw(st.sampled_from([0.0, 7.0]))), Delay(draw(st.sampled_from([0.0, 20.0])))),
        sync_s=draw(st.sampled_from([0.0, 2.0])),
    )
    billing = BillingRule(
        granularity_s=draw(st.sampled_from([0.0, 1.0])),
        minimum_s=draw(st.sampled_from([0.0, 60.0])),
        bills_startup=draw(st.booleans()),
        model=draw(st.sampled_from(["per-instance", "per-instance", "per-function"])),
    )
    machine = InstanceType("m", draw(st.sampled_from([1, 2, 4])), {"on-demand": 3600.0})
    release_s = 0.0 if billing.model == "per-function" else draw(st.sampled_from([0.0, 5.0]))
    book = PriceBook((machine,), billing, draw(st.integers(1, 8)), release_s)
    return explicit_stages(stages), Terms(profile, book)


def executed(plan, terms, world, play):
    """Makespan and bill of a plan that is carried out in a world which is as believed."""
    profile, book = terms.profile, terms.price_book
    pairs = tuple((stage.trials, stage.iterations) for stage in plan.stages)
    job = TuningJob(trials=pairs[0][0], min_iterations=1, max_iterations=1, stages=pairs)
    tiny = world(trials=pairs[0][0], iterations=plan.stages[-1].until_iteration, tau=profile.iteration_s)
    tiny.job, tiny.book, tiny.profile = job, book, profile
    tiny.truth = replace(tiny.truth, scaling=profile.scaling, timings=profile.timings)
    tiny.cloud = replace(tiny.cloud, startup=profile.startup, release_s=book.release_s)
    story = play(run_plan(plan, job, profile, book), tiny)
    return story.makespan_s, story.bill_usd


KINDS = ["static, fair", "static, wide", "rubberband, fair", "rubberband, wide", "any"]


def planned(kind, stages, terms, random):
    """A plan of the kind, or None where there is none."""
    planner, _, space = kind.partition(", ")
    if planner == "static":
        return static_plan(stages, terms, space=space)
    if planner == "rubberband":
        return rubberband_plan(stages, terms, space=space)
    allocations = []
    for stage in stages:
        size = random.choice(terms.gang_sizes)
        machines = random.randint(math.ceil(size / terms.gpus_per_instance), terms.price_book.max_instances)
        gpus = machines * terms.gpus_per_instance
        allocations.append(Allocation(stage.trials, gpus, size, terms.gpus_per_instance))
    return estimate(stages, allocations, terms)


@settings(max_examples=examples(200))
@given(jobs(), st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_an_estimate_is_what_happens_where_nothing_is_random(world, play, job, kind, random):
    stages, terms = job
    plan = planned(kind, stages, terms, random)
    assume(plan is not None)
    makespan_s, bill_usd = executed(plan, terms, world, play)
    if any(after.instances > before.instances for before, after in pairwise(plan.allocations)):
        # The trials do not wait for the machines that are still to come. Growth at the quota waits for those that leave.
        assert terms.price_book.release_s or makespan_s <= plan.makespan_s + 1e-6
        return
    assert makespan_s == pytest.approx(plan.makespan_s)
    assert bill_usd == pytest.approx(plan.cost_usd)


def test_an_estimate_by_hand():
    # 4 trials x 3 s on 2 machines of one GPU: 5 queue + 20 init + 2 waves x (2 + 3 + 1) = 37 s, barrier 4 s, then 2 trials on
    # both: 3 + 6 + 1 = 10 s: 51 s. Machines are billed from 5 s on: 46 s, at least 60 s each.
    profile = Profile(3.0, LinearScaling(), Timings(2, 1, 4), Startup(Delay(5), Delay(20)), sync_s=4.0)
    book = PriceBook((InstanceType("m", 1, {"on-demand": 3600.0}),), BillingRule(0, 60))
    plan = plan_on_cluster(explicit_stages([(4, 1), (2, 2)]), 2, Terms(profile, book))
    assert plan.stage_s == pytest.approx((41, 10))
    assert (plan.makespan_s, plan.cost_usd) == (51, 120)
    billed_when_ready = PriceBook(book.instance_types, BillingRule(0, 0, bills_startup=False), release_s=10.0)
    plan = plan_on_cluster(explicit_stages([(4, 1), (2, 2)]), 2, Terms(profile, billed_when_ready))
    assert plan.cost_usd == 2 * (51 - 25 + 10)


def timed(job, random):
    """The terms with a deadline somewhere around the fastest and slowest constant cluster."""
    stages, terms = job
    spans = [plan_on_cluster(stages, count, terms).makespan_s for count in range(1, terms.price_book.max_instances + 1)]
    return stages, replace(terms, deadline_s=random.uniform(0.8 * min(spans), 1.2 * max(spans)))


def test_all_of_a_few_hundred_clusters_are_tried_and_of_more_those_in_steps_of_a_hundredth():
    assert list(tried(range(2, 258))) == list(range(2, 258))
    many = tried(range(1, 10_001))
    assert list(many[:256]) == list(range(1, 257))
    assert many[-1] == 10_000
    assert all(before < after <= math.ceil(before * 1.01) for before, after in pairwise(many))
    assert len(many) < 640


@settings(max_examples=examples(30))
@given(jobs(), st.randoms(use_true_random=False))
def test_ten_thousand_machines_are_planned_like_as_many_as_can_be_used(job, random):
    stages, terms = job
    useful = max(stage.trials for stage in stages) * terms.profile.scaling.max_gpus
    hurry, plans = random.uniform(1.0, 3.0), []
    for quota in (useful, 10_000):
        book = msgspec.structs.replace(terms.price_book, max_instances=quota)
        within = replace(terms, price_book=book)
        deadline_s = min(plan_on_cluster(stages, count, within).makespan_s for count in cluster_sizes(stages, within))
        assert len(cluster_sizes(stages, within)) <= useful
        within = replace(within, deadline_s=deadline_s * hurry)
        plans.append([greedy_plan(stages, within), static_plan(stages, within)])
    assert plans[0] == plans[1]


@given(jobs(), st.randoms(use_true_random=False))
def test_the_static_plan_is_the_cheapest_constant_cluster_that_is_on_time(job, random):
    stages, terms = timed(job, random)
    plans = [plan_on_cluster(stages, count, terms) for count in range(1, terms.price_book.max_instances + 1)]
    costs = [plan.cost_usd for plan in plans if plan.makespan_s <= terms.deadline_s]
    plan = static_plan(stages, terms)
    assert (plan.cost_usd == min(costs)) if costs else plan is None


@given(jobs(), st.randoms(use_true_random=False))
def test_the_fair_static_plan_is_the_cheapest_cluster_that_every_stage_shares_equally(job, random):
    stages, terms = timed(job, random)
    found = []
    for machines in terms.cluster_sizes:
        held = []
        for index, stage in enumerate(stages):
            levels = [x for x in fair_levels(stage.trials, terms) if x.gpus <= machines * terms.gpus_per_instance]
            times_s = [expected_s(stage, level, terms, is_first=index == 0) for level in levels]
            if levels:
                fastest = levels[times_s.index(min(times_s))]
                held.append(replace(fastest, spare_instances=machines - fastest.needed_instances))
        if len(held) == len(stages):
            found.append(estimate(stages, held, terms))
    costs = [plan.cost_usd for plan in found if plan.makespan_s <= terms.deadline_s]
    plan = static_plan(stages, terms, space="fair")
    assert (plan.cost_usd == min(costs)) if costs else plan is None
    if plan is not None:
        assert len(set(plan.instances_per_stage)) == 1


@given(
    jobs(),
    st.randoms(use_true_random=False),
    st.sampled_from(["next", "all"]),
    st.sampled_from(["fair", "wide"]),
    st.sampled_from(["mean", "p95"]),
    st.integers(0, 3),
)
def test_rubberband_is_never_dearer_than_the_static_plan_of_its_space(job, random, steps, space, makespan, live):
    stages, terms = timed(job, random)
    held = {"space": space, "makespan": makespan, "live_instances": min(live, terms.price_book.max_instances)}
    static, plan = static_plan(stages, terms, **held), rubberband_plan(stages, terms, steps=steps, **held)
    if static is not None:
        assert plan.cost_usd <= static.cost_usd
    if plan is not None:
        assert plan.promised_s <= terms.deadline_s


@given(jobs(), st.randoms(use_true_random=False), st.sampled_from(["next", "all"]))
def test_the_wide_frontier_is_below_wide_rubberband(job, random, steps):
    stages, terms = timed(job, random)
    # Exact up to the rounding of leases.
    assume(terms.is_per_instance and terms.price_book.billing.granularity_s == 0)
    plan = rubberband_plan(stages, terms, space="wide", steps=steps)
    if plan is not None:
        best = cheapest_by(frontier(stages, terms, space="wide"), terms.deadline_s)
        assert best.cost_usd <= plan.cost_usd + 1e-9


@given(jobs(), st.randoms(use_true_random=False), st.sampled_from(["next", "all"]))
def test_rubberband_is_on_time_and_no_dearer_than_any_constant_fair_plan(job, random, steps):
    stages, terms = timed(job, random)
    levels = [fair_levels(stage.trials, terms) for stage in stages]
    constant = []
    for gpus in {level.gpus for choices in levels for level in choices}:
        # What a stage cannot use of these GPUs fairly, it leaves.
        chosen = [
            max((x for x in choices if x.gpus <= gpus), key=lambda x: x.gpus, default=choices[0]) for choices in levels
        ]
        constant.append(estimate(stages, chosen, terms))
    on_time = [plan.cost_usd for plan in constant if plan.makespan_s <= terms.deadline_s]
    plan = rubberband_plan(stages, terms, steps=steps)
    if not on_time:
        # A cluster that idles through a stage may still be on time, as it does not wait for machines again.
        static = static_plan(stages, terms, space="fair")
        assert (plan is None) == (static is None)
        return
    assert plan.makespan_s <= terms.deadline_s
    assert plan.cost_usd <= min(on_time) + 1e-9


@given(jobs(), st.randoms(use_true_random=False))
def test_the_greedy_plan_is_on_time_and_no_dearer_than_the_fastest(job, random):
    stages, terms = timed(job, random)
    terms = replace(terms, budget_usd=1e9)
    plan = greedy_plan(stages, terms)
    fastest = greedy_plan(stages, replace(terms, deadline_s=1e9, budget_usd=math.inf))
    if plan is None:
        assert fastest.makespan_s > terms.deadline_s
        return
    assert plan.makespan_s <= terms.deadline_s
    assert fastest.makespan_s <= plan.makespan_s + 1e-9
    if fastest.makespan_s <= terms.deadline_s:
        assert plan.cost_usd <= fastest.cost_usd + 1e-9


@given(jobs())
def test_the_options_of_a_stage_are_on_a_convex_hull(job):
    stages, terms = job
    for stage in stages:
        hull = lower_hull(stage_options(stage, terms, is_first=True))
        assert hull
        for slow, fast in pairwise(hull):
            assert fast.seconds < slow.seconds
            assert fast.usd > slow.usd
        steps = [(fast.usd - slow.usd) / (slow.seconds - fast.seconds) for slow, fast in pairwise(hull)]
        assert steps == sorted(steps)
        for choice in hull:
            assert choice.allocation.instances <= terms.price_book.max_instances
            assert choice.allocation.gpus % terms.gpus_per_instance == 0


def test_gangs_fill_or_divide_machines_and_end_at_the_peak_of_the_scaling():
    book = PriceBook((InstanceType("m", 4, {"on-demand": 1.0}),), max_instances=4)
    peaked = TableScaling({1: 1.0, 2: 1.9, 4: 3.0, 8: 2.8, 12: 3.5, 16: 3.4})
    assert Terms(Profile(1.0, peaked), book).gang_sizes == (1, 2, 4, 12)
    assert Terms(Profile(1.0, LinearScaling(6)), book).gang_sizes == (1, 2, 4)


@pytest.mark.parametrize("persistent_cv", [0.0, 0.3, 0.55])
@pytest.mark.parametrize("gangs", [1, 4, 32])
def test_the_expected_slowest_gang_is_near_what_sampling_gives(persistent_cv, gangs):
    # Persistent factors are drawn once per trial, the others per iteration; Blom's formula is off by a few percent.
    stragglers = Stragglers(persistent_cv, 0.2)
    rng = np.random.default_rng(0)

    def factors(cv, shape):
        variance = math.log1p(cv**2)
        return rng.lognormal(-variance / 2, math.sqrt(variance), shape)

    seconds = factors(persistent_cv, (4000, gangs)) * factors(0.2, (4000, gangs, 9)).mean(axis=2)
    expected = expected_stretch(stragglers, 9, Allocation(gangs, gangs, 1, 1))
    assert expected == pytest.approx(seconds.max(axis=1).mean(), rel=0.06)
