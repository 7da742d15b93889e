import json

import numpy as np
import pytest

from elastune.policies.rules.halving import Stage, rungs
from elastune.policies.sizing.curve_prior import (
    FAILED_REGRET,
    PRIORS_FILE,
    CurveModel,
    CurvePrior,
    family_key,
    prior_for,
)
from elastune.sim.model.job import TuningJob

MODEL = CurveModel(churn=0.1, rarity=1.0, failed=0.0, gap=0.1, gap_power=1.0)
FAMILIES = ("deepobs", "digits-mlp", "mnist5k-cnn", "taskset-imdb-rnn")


def halving(trials, first=1, last=81):
    return rungs(TuningJob(trials=trials, min_iterations=first, max_iterations=last))


def simulated_regret(model, stages, last, runs=4000):
    """The same model by sampling, with survivors that depend on each other as they really do."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    ranks = rng.standard_normal((runs, stages[0].trials))
    levels = [*(stage.until_iteration for stage in stages), last]
    survivors = [*(stage.trials for stage in stages[1:]), 1]
    for level, later, kept in zip(levels, levels[1:], survivors, strict=False):
        ranks = -np.sort(-ranks, axis=1)[:, :kept]
        kinship = (level / later) ** model.churn
        ranks = kinship * ranks + np.sqrt(1 - kinship**2) * rng.standard_normal(ranks.shape)
    better = norm.sf(ranks[:, 0])
    regret = np.where(better > 1 - model.failed, FAILED_REGRET, np.minimum(2 * better, 1) ** model.rarity)
    return regret.mean()


@pytest.mark.parametrize("trials", [9, 40, 200])
def test_the_best_of_n_trained_to_the_end_has_the_regret_of_the_least_of_n_uniform_numbers(trials):
    # The mean of the least of n uniform numbers is 1 / (n + 1); regret is twice that while it is below one half.
    assert MODEL.expected_regret([Stage(trials, 81, 81)], 81) == pytest.approx(2 / (trials + 1), rel=0.02)


@pytest.mark.parametrize("churn", [0.05, 0.13, 0.5])
def test_ranks_correlate_by_a_power_of_the_ratio_of_iterations(churn):
    model = CurveModel(churn, 1.0, 0.0, 0.0, 1.0)

    assert model.mean_rank_of_best(27, 1 / 9) == pytest.approx(model.mean_rank_of_best(27, 1) * 9**-churn, rel=1e-3)


@pytest.mark.parametrize("trials", [3, 8, 27, 100])
@pytest.mark.parametrize("rarity", [0.3, 1.0])
def test_survivors_taken_as_independent_give_nearly_what_sampling_gives(trials, rarity):
    model = CurveModel(churn=0.1, rarity=rarity, failed=0.1, gap=0.0, gap_power=1.0)
    stages = halving(trials)

    assert model.expected_regret(stages, 81) == pytest.approx(simulated_regret(model, stages, 81), abs=0.02)


@pytest.mark.many(fast=3)
@pytest.mark.parametrize("family", ["", *FAMILIES])
@pytest.mark.parametrize(("first", "last"), [(1, 81), (9, 81), (1, 27)])
def test_more_configurations_in_the_same_rungs_are_never_worse(family, first, last):
    prior = prior_for(family)
    # 512 survivors are counted exactly and 513 are not: sizes around 1,537 cover the seam.
    sizes = [*range(2, 200), *range(200, 1530, 19), *range(1530, 1545)]
    regrets = [prior.expected_regret(halving(trials, first, last), 81) for trials in sizes]

    assert np.diff(regrets).max() < 0


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_more_survivors_is_better(family):
    prior = prior_for(family)
    regrets = [prior.expected_regret([Stage(64, 3, 3), Stage(kept, 78, 81)], 81) for kept in range(1, 65)]

    # The grid of ranks is worth some 1e-6 where the survivors added are all but hopeless.
    assert np.diff(regrets).max() < 1e-5
    assert regrets[-1] < 0.8 * regrets[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_training_the_survivors_longer_is_better(family):
    prior = prior_for(family)
    regrets = [
        prior.expected_regret([Stage(27, 1, 1), Stage(9, 8, 9), Stage(3, last - 9, last)], 81) for last in range(10, 82)
    ]

    assert np.diff(regrets).max() < 0


def test_iterations_beyond_r_count_as_r():
    assert MODEL.expected_regret([Stage(9, 100, 100)], 81) == MODEL.expected_regret([Stage(9, 81, 81)], 81)


def test_regret_is_at_most_that_of_a_failed_run():
    hopeless = CurveModel(churn=0.1, rarity=1.0, failed=0.4, gap=5.0, gap_power=2.0)

    assert hopeless.expected_regret([Stage(1, 1, 1)], 1000) == FAILED_REGRET


def test_one_configuration_has_the_mean_regret():
    model = CurveModel(churn=0.1, rarity=1.0, failed=0.2, gap=0.0, gap_power=1.0)

    # Half of them have 1/2 on average, 0.3 have 1 and 0.2 have 2.
    assert model.expected_regret([Stage(1, 81, 81)], 81) == pytest.approx(0.95, abs=0.02)


def test_a_prior_is_the_mean_of_what_its_models_predict():
    other = CurveModel(churn=0.2, rarity=0.4, failed=0.1, gap=0.0, gap_power=1.0)
    alone = [model.expected_regret(halving(27), 81) for model in (MODEL, other)]

    assert CurvePrior((MODEL, other)).expected_regret(halving(27), 81) == pytest.approx(sum(alone) / 2)


def test_a_family_is_left_out_of_its_own_prior():
    shipped = json.loads(PRIORS_FILE.read_text(encoding="utf-8"))["families"]
    models = {name: CurveModel(**entry["model"]) for name, entry in shipped.items()}

    assert tuple(sorted(models)) == FAMILIES
    for left_out in FAMILIES:
        assert prior_for(left_out).models == tuple(model for name, model in models.items() if name != left_out)


@pytest.mark.parametrize("family", ["", "  ", "resnet50-imagenet"])
def test_no_family_is_left_out_for_an_unknown_workload(family):
    assert len(prior_for(family).models) == len(FAMILIES)


def test_what_follows_the_first_word_of_a_family_is_a_remark():
    assert family_key("deepobs (36 learning rates x 3 optimizers, pool of 108)") == "deepobs"
    assert prior_for("deepobs (36 learning rates)") == prior_for("deepobs")


def test_every_shipped_model_says_what_it_was_fitted_on():
    shipped = json.loads(PRIORS_FILE.read_text(encoding="utf-8"))["families"]

    for entry in shipped.values():
        assert entry["bundles"].keys() == entry["held_out"].keys()
        for bundle in entry["bundles"].values():
            assert bundle.keys() == {"source", "licence", "sha256"}
