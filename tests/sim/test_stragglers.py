"""How iterations vary: shapes, their moments, and equal luck for every policy."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo
from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import CloudTruth, GroundTruth, Stragglers
from elastune.sim.model.scaling import LinearScaling
from elastune.sim.model.spread import LOG_NORMAL, EmpiricalTail, ParetoTail, slowest_mean
from elastune.sim.model.streams import Streams
from elastune.sim.simulated.truth import Draws

PARETO = ParetoTail()


def draws(stragglers, trials=600, iterations=200, seed=0):
    truth = GroundTruth(np.ones((trials, iterations)), np.ones(trials), LinearScaling(), stragglers=stragglers)
    return Draws(truth, CloudTruth(), Streams(seed))


def drawn(tail, cv, size=400_000):
    return tail.draw(np.random.default_rng(1), cv, (1, size))[0]


@pytest.mark.parametrize("cv", [0.05, 0.3, 1.0])
def test_log_normal_factors_have_mean_1_and_the_spread_that_was_asked_for(cv):
    factors = drawn(LOG_NORMAL, cv)
    assert factors.mean() == pytest.approx(1.0, abs=5 * cv / math.sqrt(400_000))
    assert factors.std() == pytest.approx(cv, rel=0.03)


@pytest.mark.parametrize("cv", [0.05, 0.3, 1.0])
def test_pareto_factors_have_mean_1_and_the_exponent_that_gives_the_spread(cv):
    # Mean 1 and variance cv^2 = 1 / (a (a - 2)), so a = 1 + sqrt(1 + 1 / cv^2); the least factor is (a - 1) / a.
    exponent = 1 + math.sqrt(1 + 1 / cv**2)
    assert 1 / (exponent * (exponent - 2)) == pytest.approx(cv**2)
    factors = drawn(PARETO, cv)
    assert factors.min() == pytest.approx((exponent - 1) / exponent, rel=1e-4)
    assert factors.mean() == pytest.approx(1.0, abs=0.01)
    # P(X > x) = (least / x)^a: one in 1,000 is above least * 1000^(1/a).
    beyond = (exponent - 1) / exponent * 1000 ** (1 / exponent)
    assert (factors > beyond).mean() == pytest.approx(0.001, rel=0.2)


def test_at_equal_spread_a_pareto_tail_is_rarer_and_longer():
    log_normal, pareto = drawn(LOG_NORMAL, 0.5), drawn(PARETO, 0.5)
    assert np.quantile(pareto, 0.5) < np.quantile(log_normal, 0.5)
    assert np.quantile(pareto, 0.95) < np.quantile(log_normal, 0.95)
    assert np.quantile(pareto, 0.9999) > np.quantile(log_normal, 0.9999)


def test_samples_are_drawn_equally_often_over_their_mean():
    tail = EmpiricalTail.of_samples((30.0, 10.0, 10.0, 10.0))
    assert (tail.mean, tail.values) == (15.0, (10 / 15, 10 / 15, 10 / 15, 2.0))
    assert tail.cv == pytest.approx(np.std([30, 10, 10, 10]) / 15)
    values, counts = np.unique(drawn(tail, tail.cv).round(9), return_counts=True)
    assert values.tolist() == pytest.approx([10 / 15, 2.0])
    assert counts[1] / counts.sum() == pytest.approx(0.25, abs=0.005)


def test_quantiles_are_linear_in_between():
    # Uniform on [1, 3]: mean 2, variance 4 / 12, and from 3 to 7 for the upper half: see the second one.
    tail = EmpiricalTail.of_quantiles((1.0, 3.0))
    assert (tail.mean, tail.values) == (2.0, (0.5, 1.5))
    assert tail.cv == pytest.approx(math.sqrt(4 / 12) / 2)
    bent = EmpiricalTail.of_quantiles((1.0, 3.0, 7.0), (0.0, 0.8, 1.0))
    assert bent.mean == pytest.approx(0.8 * 2 + 0.2 * 5)
    assert drawn(bent, bent.cv).mean() == pytest.approx(1.0, abs=0.003)
    assert drawn(bent, bent.cv).std() == pytest.approx(bent.cv, rel=0.01)
    assert np.quantile(drawn(bent, bent.cv), 0.8) == pytest.approx(3.0 / bent.mean, rel=0.01)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30))
def test_whatever_was_measured_has_mean_1_afterwards(seconds):
    for tail in (EmpiricalTail.of_samples(tuple(seconds)), EmpiricalTail.of_quantiles((*sorted(seconds), 1e4))):
        grid = 1 - (np.arange(20_000) + 0.5) / 20_000
        assert tail.exceeded_by(grid, tail.cv).mean() == pytest.approx(1.0, rel=0.02)
        assert tail.mean * min(tail.values) == pytest.approx(min(seconds))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EmpiricalTail.of_samples(()), "samples are .*, but must be at least 1 positive number$"),
        (lambda: EmpiricalTail.of_samples((1.0, 0.0)), "samples are .*, but must be at least 1 positive number$"),
        (lambda: EmpiricalTail.of_quantiles((1.0,)), "quantiles are .*, but must be at least 2 positive numbers$"),
        (lambda: EmpiricalTail.of_quantiles((2.0, 1.0)), "quantiles are .*, but must not fall$"),
        (lambda: EmpiricalTail.of_quantiles((1.0, 2.0), (0.1, 1.0)), "must rise from 0 to 1, one per quantile$"),
        (lambda: Stragglers(0.0, 0.3, EmpiricalTail.of_quantiles((1.0, 3.0))), "per_iteration_cv is 0.3, but what was"),
    ],
)
def test_what_is_no_distribution_is_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


# The slowest of several workers.


@pytest.mark.parametrize("cv", [0.1, 0.5, 1.43])
def test_the_slowest_of_two_log_normal_workers_is_as_its_closed_form_says(cv):
    # E max(X, Y) = 2 Phi(sigma / sqrt 2) for two independent log-normals of mean 1.
    sigma = math.sqrt(math.log1p(cv**2))
    assert slowest_mean(LOG_NORMAL, cv, 2) == pytest.approx(2 * NormalDist().cdf(sigma / math.sqrt(2)), rel=1e-3)


@pytest.mark.parametrize("workers", [2, 8, 64])
@pytest.mark.parametrize("cv", [0.1, 1.0])
def test_the_slowest_of_several_pareto_workers_is_as_its_closed_form_says(cv, workers):
    # E max = least * n * B(n, 1 - 1/a).
    exponent = 1 + math.sqrt(1 + 1 / cv**2)
    least = (exponent - 1) / exponent
    inverse = 1 - 1 / exponent
    log_beta = math.lgamma(workers) + math.lgamma(inverse) - math.lgamma(workers + inverse)
    assert slowest_mean(PARETO, cv, workers) == pytest.approx(least * workers * math.exp(log_beta), rel=2e-3)


def test_the_slowest_of_uniform_workers_is_as_its_closed_form_says():
    # Uniform on [0.5, 1.5]: 0.5 + n / (n + 1).
    tail = EmpiricalTail.of_quantiles((1.0, 3.0))
    assert slowest_mean(tail, tail.cv, 4) == pytest.approx(0.5 + 4 / 5, rel=1e-4)


@pytest.mark.parametrize("tail", [LOG_NORMAL, PARETO])
def test_gangs_that_wait_for_their_slowest_worker_take_as_long_on_average_as_expected(tail):
    stragglers = Stragglers(per_iteration_cv=0.4, tail=tail, is_per_worker=True)
    factors = draws(stragglers)
    seen = np.mean([factors.slowness(trial, 8).mean() for trial in range(600)])
    assert seen == pytest.approx(stragglers.gang_factor(8), rel=0.01)
    assert Stragglers(per_iteration_cv=0.4, tail=tail).gang_factor(8) == 1.0


# Equal luck.


@settings(max_examples=examples(50))
@given(
    st.lists(st.tuples(st.integers(0, 599), st.sampled_from([1, 2, 8])), min_size=1, max_size=9),
    st.booleans(),
    st.sampled_from([LOG_NORMAL, PARETO]),
)
def test_an_iteration_is_equally_slow_whatever_was_asked_before(asked, is_per_worker, tail):
    stragglers = Stragglers(0.3, 0.2, tail, is_per_worker=is_per_worker)
    first, other = draws(stragglers, iterations=9), draws(stragglers, iterations=9)
    expected = {one: first.slowness(*one).tolist() for one in asked}
    for one in reversed(asked):
        assert other.slowness(*one).tolist() == expected[one]


def test_a_larger_gang_waits_for_the_same_workers_and_more():
    factors = draws(Stragglers(0.3, 0.5, is_per_worker=True))
    alone = draws(Stragglers(0.3, 0.5))
    for trial in (0, 255, 256, 599):
        one, two, eight = (factors.slowness(trial, gpus) for gpus in (1, 2, 8))
        assert one.tolist() == alone.slowness(trial, 8).tolist()
        assert (one <= two).all()
        assert (two <= eight).all()
        assert (two < eight).any()


def test_the_tail_of_an_iteration_is_what_the_world_pays_for(simulate):
    # Every iteration takes 1/2 or 3/2 of 10 s: 100 of them are a multiple of 10 s, between 500 and 1,500.
    tail = EmpiricalTail.of_samples((1.0, 3.0))
    story = simulate(
        {"start": [ScaleTo(1), RunTrial(0, 1, 100)], "ended 0": [FinishRun(0)]},
        iterations=100,
        stragglers=Stragglers(0.0, tail.cv, tail),
    )
    assert story.makespan_s % 10.0 == pytest.approx(0.0, abs=1e-6)
    assert story.makespan_s == pytest.approx(1000, abs=200)
