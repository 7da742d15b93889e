"""Sittings of fidelity whose real runs are simulated ones with other luck, so that what must come out is known."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from elastune.experiments.fidelity.draws import Noise, NoisyDraws
from elastune.experiments.fidelity.prediction import predict, sha256_of
from elastune.experiments.fidelity.sitting import (
    Began,
    Calibration,
    Ended,
    JobAsked,
    Sitting,
    SittingAsked,
    profile_in,
    write_note,
)
from elastune.experiments.profiling.work_folder import copy_bundle
from elastune.experiments.runs.world import World
from elastune.sim.control.journal import JournalWriter
from elastune.sim.control.runner import run
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.traces import bundle_folder

SPEC = {
    "job": {"trials": 6, "min_iterations": 1, "max_iterations": 9, "deadline_s": 400, "budget_usd": 5},
    "workload": {"bundle": "digits-mlp", "iteration_s": 2.0, "scaling": {1: 1, 2: 1.7}},
    "cloud": {
        "instance_type": {"name": "slot", "price_usd_per_hour": 3.06, "gpus_per_instance": 1},
        "billing": {"granularity_s": 1, "minimum_s": 10, "bills_startup": True},
        "startup": {"queue_s": 1, "init_s": {"mean_s": 3, "cv": 0.3}},
        "max_instances": 2,
    },
    "policy": "sha-fixed",
}
NOISE = Noise(launches={1: ((3.0, 0.01), (4.5, 0.02))}, resumes={1: ((2.0, 0.01), (2.6, 0.03))}, paces=(0.9, 1.0, 1.1))


def sitting_in(
    folder,
    *,
    repeats=1,
    policies=("sha-fixed",),
    pace=1.0,
    draws=20,
    own_pace=False,
    noise=NOISE,
    better_by=0.0,
    injects=False,
):
    """A sitting whose runs came at this pace of the profile, with this noise.

    Each configuration was trained once, so that no noise of training is known beforehand.

    `own_pace`: an iteration is as long as the bundle says, and the spec does not say otherwise.
    `better_by`: how much higher all scores of the real runs are than the recorded ones.
    """
    copy_bundle(bundle_folder("digits-mlp"), folder / "bundles" / "digits-mlp")
    _keep_first_trainings(folder / "bundles" / "digits-mlp" / "curves.parquet")
    workload = {key: value for key, value in SPEC["workload"].items() if key != "iteration_s" or not own_pace}
    spec = SPEC | {"workload": workload | {"bundle": str(folder / "bundles" / "digits-mlp")}}
    sitting = Sitting.begin(
        folder, SittingAsked([JobAsked("small", spec, "digits-mlp")], list(policies), repeats, injects=injects)
    )
    for number, unit in enumerate(sitting.units()):
        (unit.folder / "run").mkdir(parents=True)
        write_note(unit.folder / "prediction.json", predict(unit, 100.0 + number, [], draws))
        profiled = Calibration(0.010, 2.0, 0.5)
        write_note(unit.folder / "began.json", Began(200.0 + number, sha256_of(unit), profiled, profiled))
        _run(unit, pace, number, noise, better_by)
        write_note(unit.folder / "ended.json", Ended(300.0 + number, Calibration(0.012, 2.0, 0.5)))
    return sitting


def _keep_first_trainings(curves):
    table = pd.read_parquet(curves)
    table[table["replicate"] == 0].drop(columns="replicate").to_parquet(curves, index=False)


def _run(unit, pace, number, noise, better_by):
    bundle, _ = profile_in(unit.bundle)
    world = World.of(unit.spec, bundle)
    cloud = unit.spec.cloud.truth(bundle.data_bytes)
    truth = replace(world.truth, scores=world.truth.scores + better_by)
    draws = NoisyDraws(noise, truth, cloud, Streams(1000 + number))
    draws._train *= pace
    with unit.journal.open("wb") as stream:
        writer = JournalWriter(stream, world.header())
        run(world.controller(writer), SimulatedBackend(truth, cloud, draws.streams, draws=draws))
