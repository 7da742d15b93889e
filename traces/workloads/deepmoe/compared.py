"""Which networks claims D1 and D2 compare, and what is measured of each training. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from elastune.traces.workloads.deepmoe.network import Gating


class ComparedNetwork(NamedTuple):
    """One of the networks that are compared.

    Attributes:
        name: of its curve.
        gating: whether it is a mixture.
        width: factor on the channels.
        sparsity: lambda.
        stage_2_fraction: of the epochs.
    """

    name: str
    gating: Gating
    width: float
    sparsity: float = 0.0
    stage_2_fraction: float = 0.25


STANDARD, RATE_DROPPED = "standard", "standard, rate dropped"
"""The second has the learning rates of a mixture: a fifth of the first one in the epochs that are its stage 2."""
NETWORKS = (
    *(ComparedNetwork(STANDARD, "none", width, stage_2_fraction=0.0) for width in (0.5, 0.75, 1.0, 1.5, 2.0)),
    *(ComparedNetwork(RATE_DROPPED, "none", width) for width in (0.5, 1.0, 2.0)),
    *(ComparedNetwork("wide DeepMoE", "mixture", 2.0, sparsity) for sparsity in (0.0, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3)),
    *(ComparedNetwork("DeepMoE", "mixture", 1.0, sparsity) for sparsity in (5e-4, 1e-3)),
    ComparedNetwork("wide DeepMoE, no stage 2", "mixture", 2.0, 1e-3, stage_2_fraction=0.0),
)
"""What claims D1 and D2 compare; standard at width 2 is the paper's wide network."""
FEW_NETWORKS = tuple(
    one
    for one in NETWORKS
    if (one.gating == "none" and one.width in (0.5, 1.0, 2.0))
    or (one.name == "wide DeepMoE" and one.sparsity in (2e-4, 5e-4, 1e-3))
)
"""The nine of them that decide the claims, for data and bodies that would take too long with all."""


class TrainedNetwork(NamedTuple):
    """One training.

    Attributes:
        flops: multiply-adds of an image at inference, mean over the validation images, embedding included.
        dense_flops: where every channel is active.
        validation: accuracy at the end; `test` alike.
        stage_1_validation: where stage 1 ended; equal where there is no stage 2.
        whole_cpu_s: processor seconds of inference on the test images in batches of 250, every channel computed.
        skipping_cpu_s: without the channels that no image of a batch uses; `grouped_cpu_s` with like images in a batch.
        active: share of channels that are active, by gated layer, separated by spaces; empty for a standard network.
        routed: share of channels that some images use and others do not.
    """

    data: str
    network: str
    body: str
    width: float
    sparsity: float
    seed: int
    epochs: int
    flops: float
    dense_flops: float
    validation: float
    test: float
    stage_1_validation: float
    stage_1_test: float
    whole_cpu_s: float
    skipping_cpu_s: float
    grouped_cpu_s: float
    active: str
    routed: float

    @property
    def key(self) -> tuple[str, ...]:
        """What was trained."""
        return tuple(map(str, self[:7]))
