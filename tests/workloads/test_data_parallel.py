import hashlib
import math

import pytest
from packages import needs
from worker_groups import run_group

from elastune.sim.bridge.workers.process_group import form_group, listen
from elastune.sim.model.errors import InputError, WorkerError
from elastune.traces.workloads import Seat, workload_named

needs("torch", "sklearn", "mlxtend")

MLP = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 64,
    "hidden_layers": 2,
    "width": 32,
    "dropout": 0.0,
    "init_scale": 1.0,
}
CNN = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 64,
    "channels": 4,
    "width": 16,
    "dropout": 0.0,
    "init_scale": 1.0,
}
MIXTURE = {
    "learning_rate": 0.02,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 250,
    "lambda": 1e-4,
    "mu": 0.3,
    "width": 1,
    "embedding_size": 32,
    "stage_2_fraction": 26 / 27,
}
CASES = {
    "plain": ("digits-mlp", MLP, "global", 8),
    "dropout": ("digits-mlp", {**MLP, "dropout": 0.5}, "global", 8),
    "adam": ("digits-mlp", {**MLP, "optimizer": "adam", "learning_rate": 0.003, "dropout": 0.3}, "global", 8),
    "a last batch of one example": ("digits-mlp", {**MLP, "batch_size": 599, "dropout": 0.5}, "global", 4),
    "every batch smaller than the gang": ("digits-mlp", {**MLP, "batch_size": 1, "learning_rate": 0.001}, "global", 1),
    "convolutions": ("mnist5k-cnn", {**CNN, "dropout": 0.3}, "global", 2),
    "convolutions on an empty part": ("mnist5k-cnn", {**CNN, "batch_size": 2499}, "global", 2),
    "experts, an epoch of each stage": ("deepmoe-mnist5k", MIXTURE, "global", 2),
    "experts on an empty part": ("deepmoe-mnist5k", {**MIXTURE, "batch_size": 1249}, "global", 1),
    "a batch of each worker": ("digits-mlp", {**MLP, "batch_size": 32}, "per-worker", 8),
    "diverging": ("digits-mlp", {**MLP, "learning_rate": 1e12, "init_scale": 10.0}, "global", 3),
}


def curve(trainable, iterations, *, evaluates=True):
    points = []
    for _ in range(iterations):
        trainable.train_iteration()
        points.append((trainable.training_loss, trainable.evaluate() if evaluates else None))
    return points


def digest(trainable):
    parts = [tensor.numpy().tobytes() for tensor in trainable._network.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def train_cases(meeting):
    listening = listen("127.0.0.1") if meeting.rank == 0 else None
    address = meeting.at(listening and f"127.0.0.1:{listening.getsockname()[1]}")
    found = {}
    with form_group(meeting.rank, meeting.size, "cpu", address, listening):
        for name, (workload, configuration, batch, iterations) in CASES.items():
            seat = Seat(meeting.rank, meeting.size, batch)
            trainable = workload_named(workload).build(configuration, 5, seat)
            found[name] = (curve(trainable, iterations, evaluates=meeting.rank == 0), digest(trainable))
    return found


@pytest.fixture(scope="module")
def group():
    return run_group(2, train_cases)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_workers_have_the_curve_of_one_at_the_same_global_batch(group, case):
    workload, configuration, batch, iterations = CASES[case]
    if batch == "per-worker":
        configuration = {**configuration, "batch_size": 2 * configuration["batch_size"]}
    alone = curve(workload_named(workload).build(configuration, 5), iterations)
    together, weights = group[0][case]

    # Sums in another order differ by some 1e-7; one dropped unit or one example weighted wrongly, by more than 1e-4.
    assert [loss for loss, _ in together] == pytest.approx([loss for loss, _ in alone], rel=1e-5, nan_ok=True)
    one_image = 1 / 600 if workload == "digits-mlp" else 1 / 1250
    assert [score for _, score in together] == pytest.approx([score for _, score in alone], abs=one_image, nan_ok=True)
    assert group[1][case][1] == weights
    assert all(math.isnan(loss) for loss, _ in together) == (case == "diverging")


@pytest.mark.slow
def test_the_tolerance_tells_other_masks_other_batches_and_other_orders_apart(group):
    first_losses = {name: group[0][name][0][0][0] for name in ("plain", "dropout", "a batch of each worker")}
    other_command = curve(workload_named("digits-mlp").build(MLP, 6), 1)[0][0]
    half_the_batch = curve(workload_named("digits-mlp").build({**MLP, "batch_size": 32}, 5), 1)[0][0]

    assert first_losses["a batch of each worker"] == pytest.approx(first_losses["plain"], rel=1e-5)
    for other in (first_losses["dropout"], other_command, half_the_batch):
        assert other != pytest.approx(first_losses["plain"], rel=1e-3)


def test_a_member_without_its_gang_is_refused():
    with pytest.raises(WorkerError, match=r"rank 1 of 2 is to train, but the process group is None"):
        workload_named("digits-mlp").build(MLP, 5, Seat(1, 2))


def test_a_seat_beyond_its_gang_is_refused():
    with pytest.raises(InputError, match="rank is 2, but must be from 0 to 1 in a gang of 2"):
        Seat(2, 2)
