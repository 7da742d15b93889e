import numpy as np
import pytest

from elastune.traces.bundles.bundle import bundle_names, load_bundle
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
    assert 0 < np.isnan(bundle.scores[:, -1]).mean() < 0.1


@pytest.mark.slow
def test_a_recorded_curve_is_what_training_gives():
    pytest.importorskip("torch", reason="the bridge extra is not installed")
    pytest.importorskip("sklearn", reason="the bridge extra is not installed")
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
