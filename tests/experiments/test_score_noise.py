"""Noise on top of the recorded scores: policies are told noisy scores, and answers are judged without the noise."""

import numpy as np
import pytest

from elastune import RunSpec, execute
from elastune.experiments.runs.regret import scale_of
from elastune.experiments.runs.world import World, noisy_scores
from elastune.sim.model.errors import InputError
from elastune.traces import synthetic_bundle

BUNDLE = synthetic_bundle(200, 9, seed=2, diverged_share=0.1)


def spec(noise=None, *, policy="sha-fixed", seed=0, trials=40):
    return RunSpec.of(
        job={"trials": trials, "max_iterations": 9, "exact": True},
        workload={"scaling": {1: 1, 2: 1.7}, "iteration_s": 60} | ({} if noise is None else {"score_noise": noise}),
        cloud={"price_usd_per_hour": 3, "gpus_per_instance": 2, "max_instances": 4},
        policy=policy,
        seed=seed,
    )


def test_noise_has_the_spread_that_was_asked_for_and_leaves_diverged_scores_alone():
    scores = BUNDLE.scores
    noisy = noisy_scores(scores, 0.25, BUNDLE, seed=3)
    finite = np.isfinite(scores)
    assert np.array_equal(np.isfinite(noisy), finite)
    added = (noisy - scores)[finite] / scale_of(scores[:, -1], BUNDLE.direction)
    assert added.std() == pytest.approx(0.25, rel=0.05)
    assert added.mean() == pytest.approx(0.0, abs=0.02)


def test_the_noise_of_a_trial_is_the_same_in_a_smaller_job_and_under_another_policy():
    many = World.of(spec(0.3), BUNDLE).truth.scores
    few = World.of(spec(0.3, policy="seer", trials=10), BUNDLE).truth.scores
    assert np.array_equal(many[:10], few, equal_nan=True)


def test_no_noise_said_aloud_changes_nothing_but_the_digest():
    plain, silent = (execute(spec(noise), bundle=BUNDLE).to_json() for noise in (None, 0))
    assert plain.pop("digest") != silent.pop("digest")
    assert plain == silent


def test_answers_are_judged_by_what_was_recorded():
    result = execute(spec(5.0), bundle=BUNDLE)
    world = World.of(spec(5.0), BUNDLE)
    at = (result.best_trial, result.best_iteration - 1)
    assert result.score == world.recorded_scores[at] != world.truth.scores[at]
    assert result.regret == pytest.approx(
        (result.score - np.nanmin(world.recorded_scores[:, -1])) / scale_of(BUNDLE.scores[:, -1], BUNDLE.direction)
    )


def test_more_noise_finds_worse_configurations():
    mean = {
        noise: np.mean([execute(spec(noise, seed=seed), bundle=BUNDLE).regret for seed in range(30)])
        for noise in (0, 1, 100)
    }
    assert mean[0] < mean[1] < mean[100]


def test_an_oracle_is_told_the_scores_without_noise():
    noisy, plain = (execute(spec(noise, policy="oracle"), bundle=BUNDLE) for noise in (100.0, None))
    assert (noisy.best_trial, noisy.score) == (plain.best_trial, plain.score)


def test_a_bundle_whose_scores_are_all_alike_has_no_unit_for_noise():
    alike = synthetic_bundle(8, 9, seed=2)
    object.__setattr__(alike, "scores", np.ones_like(alike.scores))
    with pytest.raises(InputError, match=r"^workload\.score_noise is 0\.1 times .* all alike or all diverged"):
        World.of(spec(0.1, trials=4), alike)
    silent = World.of(spec(0, trials=4), alike)
    assert np.array_equal(silent.truth.scores, silent.recorded_scores)


def test_noise_below_zero_is_refused():
    with pytest.raises(InputError, match=r"^workload\.score_noise is -1, but must be a number from 0 up to 1e6$"):
        spec(-1)
