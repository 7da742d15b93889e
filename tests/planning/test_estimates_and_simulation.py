"""What planners predict against what the simulated world does with the same plan, on random jobs and random plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from monte_carlo import list_schedule_s, sample

from elastune.policies.execution.planned import run_plan
from elastune.policies.planning.bound import Bound
from elastune.policies.planning.estimate import estimate
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.spaces import allocations
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.control.controller import Controller
from elastune.sim.control.runner import run
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import CloudTruth, Delay, GroundTruth, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import TableScaling
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend

RULES = (
    BillingRule(0.0, 0.0),
    BillingRule(1.0, 60.0),
    BillingRule(300.0, 400.0, bills_startup=False),
    BillingRule(1.0, 30.0, model="per-function"),
)


def outcome(plan, terms, seed, *, stragglers, startup):
    """(makespan, bill) of the plan in the simulated world, where survivors have nothing to do with speed."""
    profile = terms.profile
    trials, iterations = plan.stages[0].trials, plan.stages[-1].until_iteration
    scores = np.random.default_rng([seed, 7]).random((trials, iterations))
    truth = GroundTruth(scores, np.full(trials, profile.iteration_s), profile.scaling, profile.timings, stragglers)
    job = TuningJob(trials, 1, iterations)
    controller = Controller(run_plan(plan, job, profile, terms.price_book), job, terms.price_book, name="plan")
    run(controller, SimulatedBackend(truth, CloudTruth(startup, release_s=terms.price_book.release_s), Streams(seed)))
    return controller.finished_at_s, controller.state.bill.spent_usd(controller.finished_at_s)


def random_terms(rng, *, spread=False):
    points = np.maximum(np.cumsum([1.0, *rng.uniform(0.0, 1.0, 7)]), 0.2)
    delays = Startup(
        Delay(float(rng.uniform(0, 20)), float(rng.choice([0.0, 0.8])) if spread else 0.0),
        Delay(float(rng.uniform(0, 90)), float(rng.choice([0.0, 0.5])) if spread else 0.0),
    )
    stragglers = Stragglers(*map(float, rng.choice([0.0, 0.1, 0.5], 2))) if spread else Stragglers()
    profile = Profile(
        float(rng.uniform(5, 150 if spread else 60)),
        TableScaling({k + 1: float(s) for k, s in enumerate(points)}),
        Timings(float(rng.uniform(0, 9)), 1.5, 1.5 + float(rng.uniform(0, 9))),
        delays,
        stragglers,
        float(rng.choice([0.0, 3.0])),
    )
    machine = InstanceType("m", int(rng.choice([1, 2, 4])), {"on-demand": 36.0})
    book = PriceBook(
        (machine,), RULES[rng.integers(len(RULES))], int(rng.choice([2, 5, 12])), float(rng.choice([0.0, 7.0]))
    )
    return Terms(profile, book)


def random_plan(rng, terms, *, waves=True):
    trials = np.sort(rng.integers(1, 17, rng.integers(1, 5)))[::-1]
    stages = explicit_stages([(int(n), int(rng.integers(1, 9))) for n in trials])
    picked = []
    for index, stage in enumerate(stages):
        found = [a for a in allocations(stage, terms, "wide") if waves or a.waves == 1]
        if not found:
            return None
        choice = found[rng.integers(len(found))]
        spare = int(rng.integers(0, terms.price_book.max_instances - choice.needed_instances + 1)) * int(
            rng.integers(2)
        )
        picked.append(replace(choice, spare_instances=spare, is_prefetched=bool(index and rng.integers(2))))
    return estimate(stages, picked, terms)


def may_start_early(plan, terms):
    """Whether a later stage need not wait for all its new machines: there the closed form is too long."""
    held = plan.instances_per_stage
    for index, (stage, allocation) in enumerate(zip(plan.stages, plan.allocations, strict=True)):
        segment_s = terms.segment_s(stage.iterations, allocation.gpus_per_trial, is_first=index == 0)
        sync_s = terms.profile.sync_s if index < len(plan.stages) - 1 else 0.0
        wait_s = plan.stage_s[index] - allocation.waves * segment_s - sync_s
        needs_none = index > 0 and allocation.needed_instances <= held[index - 1]
        if index and wait_s > 1e-6 and (allocation.waves > 1 or segment_s < wait_s or needs_none):
            return True
    return False


def waits_for_a_release(plan, terms):
    """Whether the quota is full of machines on their way out when new ones are asked for; planners do not know this."""
    held, quota = plan.instances_per_stage, terms.price_book.max_instances
    return terms.price_book.release_s > 0 and any(
        before > now and before + later - now > quota
        for before, now, later in zip(held, held[1:], held[2:], strict=False)
    )


def test_without_randomness_estimate_sample_and_simulation_agree():
    rng = np.random.default_rng(0)
    early = 0
    for seed in range(400):
        terms = random_terms(rng)
        plan = random_plan(rng, terms)
        if waits_for_a_release(plan, terms):
            continue
        makespan_s, usd = outcome(plan, terms, seed, stragglers=Stragglers(), startup=terms.profile.startup)
        sampled = sample(plan, terms, 2, rng)
        assert sampled.makespan_s == pytest.approx(makespan_s, rel=1e-9)
        assert sampled.cost_usd == pytest.approx(usd, rel=1e-7)
        assert sampled.stage_s.sum(axis=1) == pytest.approx(makespan_s, rel=1e-9)
        if may_start_early(plan, terms):
            early += 1
            assert makespan_s <= plan.makespan_s * (1 + 1e-9)
        else:
            assert (makespan_s, usd) == pytest.approx((plan.makespan_s, plan.cost_usd), rel=1e-7)
        bound = Bound(plan.stages, terms)
        assert makespan_s >= bound.least_s
        assert usd >= bound.usd(makespan_s)
    assert 20 < early < 200


def z_scores(rng, jobs, runs, *, waves):
    """(jobs, 2) how many standard errors the simulation's mean time and bill are from those of `sample`."""
    scores = []
    while len(scores) < jobs:
        terms = random_terms(rng, spread=True)
        plan = random_plan(rng, terms, waves=waves)
        if plan is None or waits_for_a_release(plan, terms):
            continue
        profile = terms.profile
        truth = {"stragglers": profile.stragglers, "startup": profile.startup}
        # Seeds of its own for each job: with common ones their errors would add up.
        played = np.array([outcome(plan, terms, 10_000 * len(scores) + run, **truth) for run in range(runs)])
        sampled = np.stack(sample(plan, terms, 4000, rng)[:2], axis=1)
        # The spread of many samples for both: bills in coarse quanta are often equal in all of few runs.
        error = np.sqrt(sampled.var(axis=0) * (1 / runs + 1 / len(sampled)))
        difference = played.mean(axis=0) - sampled.mean(axis=0)
        scores.append(difference / np.maximum(error, 1e-4 * sampled.mean(axis=0)))
    return np.array(scores)


@pytest.mark.slow
@pytest.mark.parametrize("waves", [True, False])
def test_sampled_means_are_within_the_interval_of_many_simulations(waves):
    z = z_scores(np.random.default_rng(10 + waves), 150, 60, waves=waves)
    # 95 % of them, less what 150 draws allow; means of few skewed runs stray a little further than normal ones.
    assert (np.abs(z) < 1.96).mean(axis=0).min() >= 0.92
    assert np.abs(z.mean(axis=0)).max() < 0.25


def test_trials_take_the_gang_that_is_free_first():
    starts_s = np.array([[0.0, 5.0]])
    trial_s = np.array([[2.0, 3.0, 4.0, 10.0]])
    # Gang 0: 2, then 3 (to 5); gang 1 from 5 takes 4 or gang 0 does: to 9; the last starts at 5 and ends at 15.
    assert list_schedule_s(starts_s, trial_s).tolist() == [15.0]
    # A gang that comes too late for any trial does not lengthen the stage.
    assert list_schedule_s(np.array([[0.0, 99.0]]), np.array([[2.0, 3.0, 4.0]])).tolist() == [9.0]


def test_trials_that_overtake_each_other_end_as_if_each_were_followed(rng):
    """As many gangs as trials, of which many are late: a queue of free gangs, one trial after the other."""
    for _ in range(200):
        rows, trials = int(rng.integers(1, 6)), int(rng.integers(1, 12))
        starts_s = np.sort(rng.uniform(0, 100, (rows, trials)), axis=1)
        trial_s = rng.exponential(rng.choice([5.0, 50.0]), (rows, trials)) + 1e-3
        expected = []
        for free, lengths in zip(starts_s.tolist(), trial_s.tolist(), strict=True):
            ends = []
            for length in lengths:
                began = min(free)
                free.remove(began)
                free.append(began + length)
                ends.append(began + length)
            expected.append(max(ends))
        assert list_schedule_s(starts_s, trial_s) == pytest.approx(expected)


def test_stragglers_stretch_iterations_and_not_what_is_around_them():
    profile = Profile(10.0, TableScaling({1: 1.0}), Timings(100.0, 20.0, 40.0), stragglers=Stragglers(0.5))
    terms = Terms(profile, PriceBook((InstanceType("m", 1, {"on-demand": 36.0}),), BillingRule(0.0, 0.0), 16))
    stages = explicit_stages([(16, 2)])
    plan = estimate(stages, [allocations(stages[0], terms, "wide")[0]], terms)
    assert plan.allocations[0].gangs == 16
    sampled_s = sample(plan, terms, 20_000, np.random.default_rng(0)).makespan_s.mean()
    # 120 s of launch and checkpoint, and 20 s times about 2.1 for the slowest of 16.
    assert plan.makespan_s == pytest.approx(sampled_s, rel=0.02)
    assert 155 < plan.makespan_s < 170
