from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from elastune.experiments.contracts.policies import check_policy, plain_world, worlds
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import Stage, percentile
from elastune.policies.sizing.list_scheduling import (
    Load,
    best_cluster,
    largest_number,
    promotion_load,
    stopping_load,
)
from elastune.policies.tuners.asha import asha_elastic
from elastune.policies.tuners.asha_stopping import StoppingRule, asha_stopping_fixed
from elastune.policies.tuners.elasticflow import elasticflow, spread_spare
from elastune.policies.tuners.hyperband import bracket_sizes, bracket_stages, hyperband_fixed
from elastune.policies.tuners.hypersched import hypersched_fixed
from elastune.policies.tuners.hypersched_rungs import PausingRungs, SmoothedLosses, Stopwatch, fair_shares
from elastune.policies.tuners.one_cut import one_cut
from elastune.policies.tuners.oracle import best_point, oracle
from elastune.policies.tuners.pasha import PashaRule, pasha_fixed
from elastune.policies.tuners.random_search import random_fixed
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.job import TuningJob
from elastune.sim.model.scaling import TableScaling
from elastune.sim.model.streams import Streams

PLAIN = plain_world()
TERMS = Terms.of(PLAIN.job, PLAIN.profile, PLAIN.price_book)


def job(**changes):
    return msgspec.structs.replace(PLAIN.job, **changes)


def build(policy, changed=PLAIN.job, **parameters):
    return policy(changed, PLAIN.profile, PLAIN.price_book, np.random.default_rng(0), **parameters)


# Sizes.


def test_the_largest_number_that_is_kept():
    for kept in range(12):
        assert largest_number(11, lambda number, kept=kept: number <= kept) == kept


def test_hyperbands_brackets_at_r_81():
    # Five rungs, so ceil(5 x 3^s / (s + 1)) configurations for s = 4 .. 0.
    wide = TuningJob(trials=200, min_iterations=1, max_iterations=81, reduction_factor=3)
    assert bracket_sizes(wide) == (81, 34, 15, 8, 5)
    assert bracket_stages(wide, 1, 34) == (
        Stage(34, 3, 3),
        Stage(11, 6, 9),
        Stage(3, 18, 27),
        Stage(1, 54, 81),
    )
    assert bracket_stages(wide, 4, 5) == (Stage(5, 81, 81),)
    assert bracket_stages(wide, 0, 1) == (Stage(1, 81, 81),)


def test_where_r_is_no_power_of_eta_the_last_rung_is_still_r():
    odd = TuningJob(trials=32, min_iterations=1, max_iterations=50, reduction_factor=3)
    assert [stage.until_iteration for stage in bracket_stages(odd, 0, 81)] == [1, 3, 9, 27, 50]


def test_expected_loads_of_rules_without_barriers():
    # Plain world: 60 s an iteration, launch 10 s, checkpoint 5 s, resume 10 s; rungs at 1, 3 and 9.
    promoting = promotion_load(PLAIN.job, TERMS)
    assert promoting.work_s == pytest.approx(75 + (15 + 120) / 3 + (15 + 360) / 9)
    assert promoting.chain_s == 75 + 135 + 375
    stopping = stopping_load(PLAIN.job, TERMS)
    assert stopping.work_s == pytest.approx(15 + 60 * (1 + 2 / 3 + 6 / 9))
    assert stopping.chain_s == 15 + 540


def test_the_best_cluster_is_the_cheapest_that_finishes_the_most():
    # n = 12 at 100 s each and 300 s at most, start-up 60 s, machines of 4 GPUs at 12 USD/h, T = 500:
    # one machine: 60 + 12 x 100/4 + 3/4 x 300 = 585 s, so n = 8; two: 60 + 150 + 7/8 x 300 = 472.5 s.
    terms = replace(TERMS, deadline_s=500.0)
    found = best_cluster("rule", PLAIN.job, terms, Load(1, 100.0, 300.0))
    assert (found.trials, found.instances) == (12, 2)
    one = best_cluster("rule", PLAIN.job, replace(terms, budget_usd=2.0), Load(1, 100.0, 300.0))
    # 2 USD pay one machine for 600 s, and two for 300 s, 40 s of them for booting: too few even for one configuration.
    assert (one.trials, one.instances) == (8, 1)
    grown = best_cluster("rule", PLAIN.job, terms, Load(1, 100.0, 300.0), grows_gangs=True)
    assert (grown.trials, grown.instances) == (12, 8)


def test_exact_asks_for_all_configurations():
    terms = replace(TERMS, deadline_s=585.0)
    assert best_cluster("rule", job(exact=True), terms, Load(1, 100.0, 300.0)).trials == 12
    with pytest.raises(InfeasibleJobError, match="trains 12 configurations to 9 iterations within"):
        best_cluster("rule", job(exact=True), replace(terms, deadline_s=300.0), Load(1, 100.0, 300.0))


ALL = (
    random_fixed,
    hyperband_fixed,
    pasha_fixed,
    asha_stopping_fixed,
    asha_elastic,
    hypersched_fixed,
    one_cut,
    elasticflow,
)


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.__name__)
def test_what_cannot_be_done_says_what_can(policy):
    message = (
        r"within a deadline of 70 s and a budget of 20 USD; the fastest takes \d+ s \(for \d+\.\d\d USD\), the cheapest"
    )
    with pytest.raises(InfeasibleJobError, match=message):
        build(policy, job(deadline_s=70.0))


@pytest.mark.parametrize(
    ("policy", "parameters", "message"),
    [
        (one_cut, {"iterations": 9}, "one-cut: iterations is 9, but must be between 1 and 8"),
        (asha_elastic, {"gpus_per_trial": 9}, "asha-elastic: gpus_per_trial is 9, but must be between 1 and 8"),
        (pasha_fixed, {"noise_percentile": 101}, "noise_percentile is 101, but must be between 0 and 100"),
        (oracle, {}, "oracle: it must be handed the true curves of all 12 trials up to 9 iterations; given: none"),
        (oracle, {"scores": np.zeros((3, 9))}, "given: 3 of 9 iterations"),
    ],
)
def test_wrong_parameters_are_refused(policy, parameters, message):
    with pytest.raises(InputError, match=message):
        build(policy, **parameters)


# Contracts that the registry's own suite does not cover.


@pytest.mark.parametrize("world", worlds(), ids=lambda world: world.name)
def test_the_oracle_keeps_every_promise(world):
    findings = check_policy("oracle", partial(oracle, scores=world.truth.scores), where=[world])
    assert [finding for finding in findings if finding.status != "kept"] == []


VARIANTS = ((asha_elastic, {"gpus_per_trial": 2}), (asha_elastic, {"gpus_per_trial": 4}), (one_cut, {"iterations": 4}))


@pytest.mark.many(fast=1)
@pytest.mark.parametrize(("policy", "parameters"), VARIANTS, ids=lambda part: getattr(part, "__name__", str(part)))
def test_variants_keep_every_promise(policy, parameters):
    findings = check_policy("variant", partial(policy, **parameters))
    assert [finding for finding in findings if finding.status == "broken"] == []


def test_the_oracle_is_an_upper_bound(play):
    """Nothing random, all beliefs right: no policy ends with a better score."""

    def score_of(policy, **parameters):
        world = SimpleNamespace(
            job=PLAIN.job, truth=PLAIN.truth, cloud=PLAIN.cloud, book=PLAIN.price_book, placement="on"
        )
        story = play(build(policy, **parameters), world, Streams(0))
        return PLAIN.truth.scores[story.best, story.state.trials[story.best].checkpoint_iteration - 1]

    bound = score_of(oracle, scores=PLAIN.truth.scores)
    assert bound == PLAIN.truth.scores.min()
    assert all(score_of(policy) >= bound for policy in ALL)


def test_the_best_point_is_the_earliest_of_the_best():
    scores = np.array([[0.3, np.nan, 0.2], [0.4, 0.2, 0.5], [0.9, 0.2, 0.1]])
    assert best_point(scores, job()) == (2, 3)
    assert best_point(scores[:, :2], job()) == (1, 2)
    assert best_point(scores, job(direction="maximize")) == (2, 1)


# Rules.


def test_stopping_rungs_ignore_what_is_reported_again_and_stop_what_has_diverged():
    rule = StoppingRule(job(), 12)
    assert rule.reported(0, 1, 0.5)
    assert rule.reported(0, 1, 0.5)  # once more, after a failure
    assert rule.reported(1, 1, 0.6) is False  # the second of two: ceil(2 / 3) = 1 goes on
    assert rule.reported(2, 2, 0.9)  # no rung
    assert rule.reported(3, 1, None) is False
    assert rule.reported(4, 1, 0.55)  # the second of four: ceil(4 / 3) = 2 go on


def task(rule):
    """Who trains next, and until when."""
    found = rule.next_task()
    return found.trial, found.until_iteration


def test_pashas_epsilon_is_the_distance_of_curves_that_cross_twice():
    rule = PashaRule(job(), 12, noise_percentile=100.0)
    for _ in range(12):
        rule.next_task()
    curves = {0: (0.50, 0.40, 0.30), 1: (0.52, 0.38, 0.31), 2: (0.9, 0.8, 0.7), 3: (0.91, 0.81, 0.29)}
    for trial, curve in curves.items():
        rule.reached(trial, 1, curve[0])
    assert task(rule) == (0, 3)
    rule.reported(0, 2, 0.40)
    rule.reached(0, 3, 0.30)
    assert (rule.epsilon, rule.top) == (0.0, 1)
    for trial in (4, 5):
        rule.reached(trial, 1, 0.95)
    assert task(rule) == (1, 3)
    rule.reported(1, 2, 0.38)
    rule.reached(1, 3, 0.31)
    # Trial 1 was behind trial 0, then ahead, then behind again: they are .01 apart, and still in order.
    assert rule.epsilon == pytest.approx(0.01)
    assert rule.top == 1
    for trial in (6, 7, 8):
        rule.reached(trial, 1, 0.95)
    assert task(rule) == (2, 3)
    rule.reported(2, 2, 0.8)
    rule.reached(2, 3, 0.05)
    # Trial 2 was .4 behind both at iteration 1 and is ahead of them now: that is no noise.
    assert rule.top == 2


def test_a_paused_trial_comes_back_when_the_cutoff_has_moved():
    rungs = PausingRungs([1, 2], 2)
    losses = {0: 0.5, 1: 0.3}
    assert not any(rungs.pauses(trial, 1, loss) for trial, loss in losses.items())
    assert rungs.pauses(2, 1, 0.45)  # the median of {.3, .5} is .4
    assert rungs.promote(lambda _: False) is None  # still ending
    assert rungs.promote(lambda _: True) == 2  # now the median is .45, and it meets that
    assert rungs.promote(lambda _: True) is None
    assert rungs.pauses(0, 2, 0.1)  # recorded with .5 in the first rung, whose median has fallen to .45
    assert rungs.promote(lambda _: True) is None
    assert rungs.promote(lambda _: True, whatever_the_cutoff=True) == 0
    assert rungs.pauses(3, 1, math.inf)
    assert rungs.pauses(0, 2, 0.1)
    assert rungs.clear() == [3, 0]


def test_percentiles_of_losses_that_may_be_infinite():
    assert percentile([1.0, 2.0, 4.0], 75.0) == 3.0
    assert percentile([1.0], 90.0) == 1.0
    assert percentile([1.0, math.inf], 0.0) == 1.0
    assert percentile([1.0, math.inf, math.inf], 75.0) == math.inf
    assert percentile([math.inf, math.inf], 50.0) == math.inf


def test_spare_gpus_go_round_robin_from_the_best_trial():
    assert fair_shares([4, 2, 7], 8, most=8) == {4: 3, 2: 3, 7: 2}
    assert fair_shares([4, 2, 7], 2, most=8) == {4: 1, 2: 1, 7: 1}
    assert fair_shares([4, 2], 8, most=2) == {4: 2, 2: 2}
    assert fair_shares([], 8, most=2) == {}
    # Whatever the ranks, if there are no more GPUs than trials: they are not asked for then.
    assert all(set(fair_shares(range(3), gpus, most=8).values()) == {1} for gpus in range(4))


def test_a_diverged_trial_is_not_promoted_though_the_cutoff_is_infinite():
    rungs = PausingRungs([1], 3)
    for trial in range(3):
        assert rungs.pauses(trial, 1, math.inf)
    assert rungs.promote(lambda _: True) is None
    assert rungs.promote(lambda _: True, whatever_the_cutoff=True) == 0


def test_a_smoothed_loss_is_the_mean_of_the_last_five_results():
    losses = SmoothedLosses()
    assert losses.last(0) == math.inf
    assert [losses.note(0, k, float(k)) for k in range(1, 8)] == [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0]
    # A failure sends it back to iteration 5: 6 and 7 are forgotten, and so are the two that they had pushed out.
    assert losses.note(0, 6, 9.0) == pytest.approx((3 + 4 + 5 + 9) / 4)
    assert losses.last(0) == pytest.approx((3 + 4 + 5 + 9) / 4)


def test_the_time_a_new_trial_must_have():
    watch = Stopwatch(believed_startup_s=5.0)
    watch.start(0, 100.0)
    assert watch.fair_s(2, 10) == -10.0  # nothing is known, everything may start
    watch.note(0, 115.0, 1)
    watch.note(0, 127.0, 2)
    # The longest trial took 10 + 12 s; an iteration on one GPU takes 10 s.
    assert watch.fair_s(2, 10) == 2 * (22 - 5)
    assert watch.fair_s(8, 10) == 10 * 10.0
    for launch_s in (2.0, 4.0, 3.0):
        watch.end(0, launch_s)
    assert watch.startup_s == pytest.approx(3.8)


def test_spare_gpus_go_where_the_speed_up_rises_most():
    # Gangs of 1, 2 and 4: a second GPU is worth .8, the third and fourth .6 each.
    profile = replace(PLAIN.profile, scaling=TableScaling({1: 1.0, 2: 1.8, 4: 3.0}))
    terms = replace(TERMS, profile=profile)
    assert spread_spare([1, 1, 1], 1, terms) == [2, 1, 1]
    assert spread_spare([1, 1, 1], 3, terms) == [2, 2, 2]
    assert spread_spare([1, 1, 1], 5, terms) == [4, 2, 2]
    assert spread_spare([2, 2], 3, terms) == [4, 2]
    assert spread_spare([4], 4, terms) == [4]
