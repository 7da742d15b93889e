"""Simulates the world of a real run: from its profile, with noise, or with the seconds that were measured in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.fidelity.draws import MeasuredDraws, Noise, NoisyDraws, measured_truth
from elastune.experiments.fidelity.trainings import trained_again
from elastune.experiments.runs.fold import Tables
from elastune.sim.control.runner import run
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.sim.simulated.truth import Draws

if TYPE_CHECKING:
    from elastune.experiments.runs.world import World
    from elastune.sim.model.profile import CloudTruth, GroundTruth


def _played(world: World, truth: GroundTruth, cloud: CloudTruth, draws: Draws) -> Tables:
    tables = Tables(world.price_book)
    run(world.controller(tables), SimulatedBackend(truth, cloud, draws.streams, draws=draws))
    return tables


def _cloud(world: World) -> CloudTruth:
    return world.spec.cloud.truth(world.bundle.data_bytes)


def from_profile(world: World) -> Tables:
    """The run as `elastune run` simulates it."""
    cloud = _cloud(world)
    return _played(world, world.truth, cloud, Draws(world.truth, cloud, Streams(world.spec.seed)))


def with_noise(world: World, noise: Noise, number: int) -> Tables:
    """One of many runs that could happen: the same configurations, other seconds, and another training of each.

    Args:
        world: of the run.
        noise: of its profile.
        number: of the draw.
    """
    cloud = _cloud(world)
    # The run itself has the stream of its own seed, from which no prediction may know anything.
    streams = Streams(int(Streams(world.spec.seed).rng("fidelity", number).integers(2**62)))
    truth = trained_again(world, noise.trainings, streams.rng("fidelity-trainings"))
    return _played(world, truth, cloud, NoisyDraws(noise, truth, cloud, streams))


def with_measured_seconds(world: World, real: Tables) -> Tables:
    """The run again, with the seconds and scores of a real one.

    Args:
        world: of the run.
        real: its tables.
    """
    truth, cloud = measured_truth(real, world.truth, _cloud(world))
    return _played(world, truth, cloud, MeasuredDraws(real, truth, cloud, Streams(world.spec.seed)))
