import numpy as np
import pytest
from packages import needs

from elastune.experiments.plans.bundle_summary import describe
from elastune.traces.bundles.loading import bundle_names, load_bundle
from elastune.traces.workloads import training_seed, workload_named


@pytest.mark.parametrize("name", bundle_names())
def test_a_shipped_bundle_is_of_the_workload_as_it_is_today(name):
    workload, bundle = workload_named(name), load_bundle(name)
    drawn = [workload.configuration_of(bundle.notes["seed"], trial) for trial in range(bundle.trials)]

    assert [dict(configuration) for configuration in bundle.configurations] == drawn
    assert (bundle.direction, bundle.max_iterations) == (workload.direction, workload.max_iterations)
    assert (bundle.schedule, bundle.scaling) == (workload.schedule, None)


@pytest.mark.parametrize("name", bundle_names())
def test_in_a_shipped_bundle_the_choice_of_a_configuration_matters_and_early_ranks_mislead(name):
    bundle = load_bundle(name)
    losses = np.where(np.isnan(bundle.scores), np.inf, bundle.scores)
    losses = losses if bundle.direction == "minimize" else np.where(np.isinf(losses), np.inf, 1 - losses)
    final = np.sort(losses[:, -1])

    assert final[len(final) // 20] < 0.05
    assert final[len(final) // 2] > 0.1
    assert final[0] < final[5] < final[20]
    assert losses[losses[:, 0].argmin(), -1] > final[0]
    # A mixture whose gates all closed gives one class to every image instead of diverging.
    is_mixture = bundle.family == "deepmoe"
    assert (0 if is_mixture else 1e-9) <= np.isnan(bundle.scores[:, -1]).mean() < 0.1
    assert ((final > 0.8).mean() > 0.2) or not is_mixture


@pytest.mark.parametrize(("name", "several"), [("digits-mlp", 256), ("mnist5k-cnn", 64)])
def test_configurations_were_trained_three_times_and_noise_is_small_beside_their_differences(name, several):
    bundle = load_bundle(name)
    assert np.bincount(bundle.replicates.trial).tolist() == [3] * several + [1] * (bundle.trials - several)
    finals = bundle.replicates.scores[bundle.replicates.trial < several, -1].reshape(several, 3)
    assert not np.array_equal(finals[:, 0], finals[:, 1], equal_nan=True)
    noise = describe(bundle)["replicates"]
    assert 0 < noise["spread_over_replicates"] < 0.1 * noise["spread_over_configurations"]
    assert noise["rank_correlation"] > 0.8
    # Only the first trainings are timed; the others take as long.
    assert set(bundle.replicates.slowness.tolist()) == {1.0}


def test_the_mixtures_have_flops_that_grow_with_width_and_fall_with_lambda():
    bundle = load_bundle("deepmoe-mnist5k")
    flops, configurations = bundle.measured["flops"][:, -1], bundle.configurations
    width, sparsity = (np.array([one[name] for one in configurations], dtype=float) for name in ("width", "lambda"))
    open_, closed = sparsity < 1e-4, sparsity > 1e-2

    assert (bundle.trials, bundle.max_iterations) == (96, 27)
    assert np.bincount(bundle.replicates.trial).tolist() == [2] * 32 + [1] * 64
    assert bundle.test_scores is not None
    assert [np.median(flops[open_ & (width == one)]) for one in (1, 1.5, 2)] == pytest.approx(
        [3.1e5, 7e5, 1.2e6], rel=0.1
    )
    assert flops[closed].max() < 0.1 * np.median(flops[open_])
    assert bundle.relative_cost[width == 1].mean() < bundle.relative_cost[width == 2].mean()


@pytest.mark.slow
def test_a_recorded_curve_is_what_training_gives():
    needs("torch", "sklearn")
    workload, bundle = workload_named("digits-mlp"), load_bundle("digits-mlp")
    seed = bundle.notes["seed"]
    trial = int(np.nanargmin(bundle.scores[:, -1]))
    trainable = workload.build(bundle.configurations[trial], training_seed(seed, trial))
    scores = []
    for _ in range(5):
        trainable.train_iteration()
        scores.append(trainable.evaluate())

    # Another processor rounds differently: a few epochs stay within 30 images of 600, not equal.
    assert scores == pytest.approx(bundle.scores[trial, :5], abs=0.05)
