"""Mixtures of channel experts: what a gate of 0 means, what images cost, and both stages of training."""

import copy
import itertools
import math

import numpy as np
import pytest
from packages import needs

from elastune.sim.model.errors import InputError
from elastune.traces.training.datasets import Split, Splits
from elastune.traces.workloads import workload_named

torch = pytest.importorskip("torch", reason="the bridge extra is not installed")
needs("mlxtend")

from elastune.traces.training.classifier import Classifier  # noqa: E402
from elastune.traces.workloads.deepmoe import cost, training  # noqa: E402
from elastune.traces.workloads.deepmoe.network import Architecture, DeepMoe, Shape  # noqa: E402

CONFIGURATION = {
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 32,
    "lambda": 1e-5,
    "mu": 0.3,
    "width": 1,
    "embedding_size": 32,
    "stage_2_fraction": 0.5,
}
SMALL = Shape(1, 8)


def network(body="vgg", *, seed=0, **options):
    torch.manual_seed(seed)
    return DeepMoe(Architecture(body=body, shape=SMALL, **options))


def images(count, seed=1, shape=SMALL):
    return torch.rand(count, shape.channels, shape.side, shape.side, generator=torch.Generator().manual_seed(seed))


def striped(count=128, seed=3):
    """Four textures: rows, columns, a chequerboard, and none; a network learns them in seconds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    row, column = np.indices((8, 8))
    textures = np.stack([row % 2, column % 2, (row + column) % 2, np.full((8, 8), 0.5)])
    pictures = textures[labels][:, None] + rng.normal(0, 0.3, (count, 1, 8, 8))
    return Split(pictures.astype(np.float32), labels.astype(np.int64))


def trial(body="vgg", *, penalties=training.NO_PENALTIES, iterations=6, fraction=0.0, seed=5, **options):
    split = striped()
    configuration = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1, "weight_decay": 0.0, "batch_size": 16}
    objective = training.TwoStages.of(
        penalties, iterations=iterations, stage_2_fraction=fraction, learning_rate=configuration["learning_rate"]
    )
    architecture = Architecture(body=body, shape=SMALL, **options)
    return Classifier(
        lambda _: DeepMoe(architecture),
        Splits(split, split, split),
        configuration,
        seed,
        score="accuracy",
        objective=objective,
    )


def trained(one, iterations=6):
    losses = []
    for _ in range(iterations):
        one.train_iteration()
        losses.append(one.training_loss)
    return losses


def integral(one):
    """The network in float64 with small whole weights and no normalisation: sums are exact in whatever order."""
    one = one.double().eval()
    for convolution in itertools.chain([one.stem], *([block.inner, block.outer] for block in one.blocks)):
        convolution.normalisation = torch.nn.Identity()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.copy_(
                torch.randint(-2, 3, parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
            )
    return one


@pytest.mark.parametrize("body", ["vgg", "resnet"])
def test_a_gate_of_zero_is_as_if_its_channel_were_not_there(body):
    one = integral(network(body))
    pictures = (images(4) * 4).round().double()
    layers = one.gated_layers
    gates = [torch.ones(4, layer.convolution.out_channels, dtype=torch.float64) for layer in layers]
    for number, layer in enumerate(layers):
        closed = [gate.clone() for gate in gates]
        closed[number][:, 1] = 0
        changed = copy.deepcopy(one)
        # Whatever made the channel may be anything: nothing of it arrives.
        with torch.no_grad():
            changed.gated_layers[number].convolution.weight[1] = 7
        with torch.inference_mode():
            assert torch.equal(one._classified(pictures, closed), changed._classified(pictures, closed))
            assert not torch.equal(one._classified(pictures, gates), changed._classified(pictures, gates))
        assert layer.convolution.out_channels > 1


@pytest.mark.parametrize("body", ["vgg", "resnet"])
def test_skipping_gives_the_logits_of_the_whole_network(body):
    one = network(body).double().eval()
    with torch.no_grad():
        for head in one.heads:
            head.weight[::2] = -1  # half of the experts are never used
    pictures = images(6).double()
    with torch.inference_mode():
        torch.testing.assert_close(cost.skipping(one, pictures), one(pictures), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("body", ["vgg", "resnet"])
@pytest.mark.parametrize("closed", [0, 1, -1])
def test_skipping_also_skips_layers_that_no_image_uses(body, closed):
    one = network(body).double().eval()
    with torch.no_grad():
        one.heads[closed].weight.fill_(-1.0)
    pictures = images(6).double()
    with torch.inference_mode():
        torch.testing.assert_close(cost.skipping(one, pictures), one(pictures), rtol=1e-12, atol=1e-12)


def test_multiply_adds_of_a_small_network_are_those_counted_by_hand():
    # Width 1/4: 2, 4 and 8 channels on images of 8 x 8; embedding convolutions 1-2-4-8 with stride 2, then 8 -> 3.
    one = network(width=0.25, embedding_size=3)
    with torch.no_grad():
        for head in one.heads:
            head.weight.fill_(1.0)
        one.heads[1].weight[0] = -1.0  # the first block's inner convolution: 3 of 4
        one.heads[4].weight[:5] = -1.0  # the last convolution: 3 of 8
    stem = 9 * 64 * 1 * 2
    first = 9 * 16 * (2 * 3 + 3 * 4)
    second = 9 * 4 * (4 * 8 + 8 * 3)
    embedding = 9 * (16 * 1 * 2 + 4 * 2 * 4 + 1 * 4 * 8) + 8 * 3 + 3 * (2 + 4 + 4 + 8 + 8)
    assert cost.multiply_adds(one, images(2)).tolist() == [stem + first + second + 3 * 10 + embedding] * 2
    dense = stem + 9 * 16 * (2 * 4 + 4 * 4) + 9 * 4 * (4 * 8 + 8 * 8) + 8 * 10 + embedding
    assert cost.dense_multiply_adds(one) == dense
    assert cost.dense_multiply_adds(network(width=0.25, gating="none")) == dense - embedding


def test_in_a_resnet_only_inner_convolutions_are_gated_and_shortcuts_are_counted():
    one = network("resnet", width=0.25, embedding_size=3)
    assert [layer.convolution.out_channels for layer in one.gated_layers] == [4, 8]
    with torch.no_grad():
        one.heads[0].weight.fill_(1.0)
        one.heads[0].weight[0] = -1.0
        one.heads[1].weight.fill_(1.0)
    blocks = 9 * 16 * (2 * 3 + 3 * 4) + 16 * 2 * 4 + 9 * 4 * (4 * 8 + 8 * 8) + 4 * 4 * 8
    embedding = 9 * (16 * 1 * 2 + 4 * 2 * 4 + 1 * 4 * 8) + 8 * 3 + 3 * (4 + 8)
    assert cost.multiply_adds(one, images(1)).item() == 9 * 64 * 2 + blocks + 8 * 10 + embedding


@pytest.mark.parametrize("body", ["vgg", "resnet"])
@pytest.mark.parametrize("gating", ["none", "mixture"])
def test_the_loss_falls(body, gating):
    losses = trained(trial(body, gating=gating, penalties=training.Penalties(1e-5, 0.3)), 16)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("body", ["vgg", "resnet"])
def test_gates_become_sparser_as_lambda_rises(body):
    def active(sparsity):
        one = trial(body, penalties=training.Penalties(sparsity, 0.3))
        trained(one, 10)
        return cost.multiply_adds(one._network, images(32)).mean().item()

    costs = [active(sparsity) for sparsity in (0.0, 1e-3, 1e-1)]
    assert costs[0] > costs[1] > costs[2]


def test_images_are_routed_to_different_experts_without_a_degenerate_choice():
    one = trial(penalties=training.Penalties(1e-3, 0.3))
    trained(one, 25)
    with torch.inference_mode():
        gates = one._network.gated(torch.from_numpy(striped().images)).gates
    used = [gate > 0 for gate in gates]
    assert any((layer.any(0) & ~layer.all(0)).any() for layer in used)  # some expert serves some images only
    assert all(layer.any(1).float().mean() > 0.9 for layer in used)  # no layer is closed
    assert one.evaluate() > 0.6


def test_gates_are_trained_though_the_choice_is_a_step():
    one = trial()
    before = [head.weight.detach().clone() for head in one._network.heads]
    one.train_iteration()
    assert all(not torch.equal(old, head.weight) for old, head in zip(before, one._network.heads, strict=True))


@pytest.mark.parametrize("body", ["vgg", "resnet"])
def test_embedding_and_gates_stay_frozen_in_stage_2_and_the_rest_goes_on(body):
    one = trial(body, penalties=training.Penalties(1e-4, 0.3), iterations=4, fraction=0.5)
    trained(one, 2)
    moe = one._network
    frozen = {name for name, _ in moe.named_parameters() if name.startswith(("embed", "heads"))}
    before = {name: parameter.detach().clone() for name, parameter in moe.named_parameters()}
    trained(one, 2)
    same = {name for name, parameter in moe.named_parameters() if torch.equal(parameter, before[name])}
    assert same == frozen
    assert [group["lr"] for group in one._optimizer.param_groups] == [0.1 * training.STAGE_2_RATE]


def test_a_standard_network_has_the_learning_rates_of_both_stages_and_nothing_frozen():
    one = trial(gating="none", iterations=2, fraction=0.5)
    trained(one, 1)
    before = [parameter.detach().clone() for parameter in one._network.parameters()]
    assert [group["lr"] for group in one._optimizer.param_groups] == [0.1]
    trained(one, 1)
    assert not any(torch.equal(old, new) for old, new in zip(before, one._network.parameters(), strict=True))
    assert [group["lr"] for group in one._optimizer.param_groups] == [0.1 * training.STAGE_2_RATE]


def test_a_trial_that_goes_on_in_stage_2_is_as_one_that_was_never_interrupted(tmp_path):
    whole, first, second = (
        trial(iterations=4, fraction=0.5, penalties=training.Penalties(1e-4, 0.3)) for _ in range(3)
    )
    losses = trained(whole, 4)
    trained(first, 3)
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    assert trained(second, 1) == losses[3:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.1}, r"width 0\.1 leaves a convolution without a channel: it must be at least 0\.125"),
        ({"embedding_size": 0}, "embedding_size is 0, but must be at least 1"),
        ({"lambda": -1e-3}, r"lambda is -0\.001, but must be at least 0"),
        ({"mu": math.nan}, "mu is nan, but must be at least 0"),
        ({"stage_2_fraction": 1.0}, "stage_2_fraction is 1, but must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_trained_is_named_before_training(options, message):
    with pytest.raises(InputError, match=message):
        workload_named("deepmoe-mnist5k").build({**CONFIGURATION, **options}, seed=1)
