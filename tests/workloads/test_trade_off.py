"""Accuracy against FLOPs: the script that measures it, on images of the shape of CIFAR-10, and the folders it reads."""

import csv
import gzip
import time

import numpy as np
import pytest
from packages import needs

from elastune.experiments.profiling.trade_off import main
from elastune.sim.model.errors import InputError
from elastune.traces.training import image_folders

needs("torch")

from elastune.traces.workloads.deepmoe import trade_off  # noqa: E402
from elastune.traces.workloads.deepmoe.compared import ComparedNetwork, TrainedNetwork  # noqa: E402

FEW = (
    ComparedNetwork("standard", "none", 0.5, stage_2_fraction=0.0),
    ComparedNetwork("DeepMoE", "mixture", 0.5, 1e-3, 0.5),
)


def cifar(folder, records=12):
    """Five files of the shape of CIFAR-10's binary version."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(1, 6):
        labels = rng.integers(0, 10, (records, 1), dtype=np.uint8)
        content = np.hstack([labels, rng.integers(0, 256, (records, 3072), dtype=np.uint8)])
        (folder / f"data_batch_{number}.bin").write_bytes(content.tobytes())
    return folder


def fashion(folder, images=30):
    rng = np.random.default_rng(0)
    folder.mkdir()
    pixels = bytes(16) + rng.integers(0, 256, images * 784, dtype=np.uint8).tobytes()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
    labels = bytes(8) + rng.integers(0, 10, images, dtype=np.uint8).tobytes()
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def table(path):
    with path.open(newline="") as file:
        return [TrainedNetwork(*row.values()) for row in csv.DictReader(file)]


def test_networks_are_trained_and_measured_on_images_of_the_shape_of_cifar10(tmp_path):
    splits = image_folders.cifar10(cifar(tmp_path / "cifar"), train=40, validation=10, test=10)
    out = tmp_path / "rows.csv"
    found = list(
        trade_off.measure(
            out, splits, "cifar10", networks=FEW, body="resnet", seeds=2, epochs=2, clock=time.process_time
        )
    )

    assert [(row.network, row.seed) for row in found] == [
        ("standard", 0), ("DeepMoE", 0), ("standard", 1), ("DeepMoE", 1),
    ]  # fmt: skip
    standard, mixture = found[:2]
    assert splits.train.images.shape == (40, 3, 32, 32)
    assert standard.flops == standard.dense_flops < mixture.dense_flops
    assert (standard.active, len(mixture.active.split())) == ("", 2)  # the inner convolution of each block
    assert np.isnan(standard.stage_1_test) or standard.stage_1_test == standard.test
    assert min(mixture.whole_cpu_s, mixture.skipping_cpu_s, mixture.grouped_cpu_s) > 0
    assert [row.key for row in table(out)] == [row.key for row in found]


def test_what_is_in_the_table_is_not_trained_again(tmp_path):
    splits = image_folders.cifar10(cifar(tmp_path / "cifar"), train=40, validation=10, test=10)
    out = tmp_path / "rows.csv"
    list(trade_off.measure(out, splits, "cifar10", networks=FEW[:1], seeds=1, epochs=1, clock=time.process_time))
    again = list(trade_off.measure(out, splits, "cifar10", networks=FEW, seeds=1, epochs=1, clock=time.process_time))
    assert [row.network for row in again] == ["DeepMoE"]
    assert len(table(out)) == 2


def test_a_table_of_another_kind_is_left_alone(tmp_path):
    out = tmp_path / "rows.csv"
    out.write_text("a,b\n")
    splits = image_folders.cifar10(cifar(tmp_path / "cifar"), train=40, validation=10, test=10)
    with pytest.raises(InputError, match="is no table of trade-offs"):
        next(trade_off.measure(out, splits, "cifar10", networks=FEW, seeds=1, epochs=1, clock=time.process_time))
    assert out.read_text() == "a,b\n"


def test_fashion_mnist_is_read_as_debian_installs_it(tmp_path):
    splits = image_folders.fashion_mnist(fashion(tmp_path / "fashion"), train=10, validation=10, test=10)
    assert splits.train.images.shape == (10, 1, 28, 28)
    assert 0 <= splits.train.images.min() < splits.train.images.max() <= 1
    assert image_folders.fashion_mnist_small.__doc__


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def gone(path):
    path.unlink()


@pytest.mark.parametrize(
    ("read", "made", "name", "damage", "message"),
    [
        (
            image_folders.cifar10,
            cifar,
            "data_batch_3.bin",
            gone,
            "data_batch_3.bin is missing: the data set is not downl",
        ),
        (
            image_folders.cifar10,
            cifar,
            "data_batch_3.bin",
            cut,
            "data_batch_3.bin has 36871 bytes, but must hold whole",
        ),
        (
            image_folders.cifar10,
            cifar,
            "data_batch_1.bin",
            lambda _: None,
            "has 60 images .* but must have at least 50000",
        ),
        (image_folders.fashion_mnist, fashion, "train-images-idx3-ubyte.gz", cut, "is not readable"),
        (image_folders.fashion_mnist, fashion, "train-labels-idx1-ubyte.gz", gone, "dataset-fashion-mnist"),
    ],
)
def test_data_that_are_missing_or_damaged_are_named_before_training(tmp_path, read, made, name, damage, message):
    folder = made(tmp_path / "data")
    damage(folder / name)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_the_command_names_missing_data_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    assert main([str(out), "--data", "cifar10", "--folder", str(tmp_path / "none")]) == 2
    assert main([str(out), "--data", "cifar10"]) == 2
    told = capsys.readouterr().err
    assert "data_batch_1.bin is missing" in told
    assert "--data cifar10 needs --folder" in told
    assert not out.exists()
