import pickle
from dataclasses import replace

import numpy as np
import pytest
from packages import needs

from elastune.experiments.real.trainables import EmulatedTrainables, WorkloadTrainables
from elastune.experiments.runs.world import World
from elastune.experiments.spec.run import RunSpec
from elastune.sim.bridge.workers.worker import Assignment
from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import CloudTruth
from elastune.sim.model.streams import Streams
from elastune.sim.simulated.truth import Draws
from elastune.traces.bundles.loading import load_bundle
from elastune.traces.workloads import training_seed, workload_named


def assignment(trial=0, **changes):
    asked = {
        "segment": 0,
        "from_iteration": 0,
        "until_iteration": 3,
        "report_every": 0,
        "checkpoint_every": 0,
        "restore_from": None,
        "configuration": {},
        "rank": 0,
        "nodes": 1,
        "size": 1,
    }
    return Assignment(trial, **{**asked, **changes})


def test_a_drawn_trial_is_trained_with_the_seed_and_the_number_it_was_profiled_with():
    bundle = load_bundle("digits-mlp")
    factory = WorkloadTrainables.of_bundle(bundle, trials=5, seed=11)

    assert factory.numbers == tuple(bundle.draw(5, 11))
    assert factory.seed == bundle.notes["seed"] == 0
    assert factory.numbers != tuple(range(5))
    assert factory.needs_process_group


@pytest.mark.slow
def test_a_drawn_trial_has_the_curve_of_the_profile():
    needs("torch", "sklearn")
    bundle = load_bundle("digits-mlp")
    factory = WorkloadTrainables.of_bundle(bundle, trials=3, seed=11)
    for trial, row in enumerate(bundle.draw(3, 11)):
        configuration = bundle.drawn_configurations(3, 11)[trial]
        trained = factory(assignment(trial, configuration=configuration), "cpu")
        profiled = workload_named("digits-mlp").build(bundle.configurations[row], training_seed(0, int(row)))
        for iteration in range(2):
            for trainable in (trained, profiled):
                trainable.train_iteration()
            assert trained.evaluate() == profiled.evaluate()
            # Another processor rounds differently.
            assert trained.evaluate() == pytest.approx(bundle.scores[row, iteration], abs=0.05, nan_ok=True)


def test_a_bundle_that_is_no_profile_of_a_workload_cannot_be_trained():
    bundle = load_bundle("digits-mlp")
    for other in (replace(bundle, name="lcbench-fmnist"), replace(bundle, notes={})):
        with pytest.raises(
            InputError, match=rf"bundle {other.name} cannot be trained for real: it is no profile of one of"
        ):
            WorkloadTrainables.of_bundle(other, trials=2, seed=0)


@pytest.fixture
def world():
    workload = {
        "bundle": "mnist5k-cnn",
        "scaling": {1: 1, 2: 1.7, 4: 2.55, 8: 3.1},
        "straggler_cv": {"persistent": 0.2, "per_iteration": 0.3},
    }
    job = {"trials": 4, "max_iterations": 6, "deadline_s": 3600, "budget_usd": 100}
    cloud = {"instance_type": "p3.8xlarge", "max_instances": 2, "rescale_s": 20}
    return World.of(RunSpec.of(seed=5, job=job, workload=workload, cloud=cloud, policy="sha-fixed"))


def test_an_emulated_trial_lasts_and_scores_as_in_the_simulated_world_of_the_same_seed(world, monkeypatch, tmp_path):
    waits = []
    monkeypatch.setattr(
        "elastune.sim.bridge.workers.emulated.EmulatedTrial._wait", lambda _self, seconds: waits.append(seconds)
    )
    trial = EmulatedTrainables(world.truth, seed=5, speed=30.0)(assignment(2, size=4, nodes=2), "cpu")
    scores = []
    for _ in range(3):
        trial.train_iteration()
        scores.append(trial.evaluate())
    trial.save(tmp_path / "checkpoint")

    draws = Draws(world.truth, CloudTruth(), Streams(5))
    expected = draws.iteration_s(2, 4, 2) * draws.slowness(2, 4)[:3]
    timings = world.truth.timings
    assert waits == pytest.approx([timings.launch_s, *expected, timings.checkpoint_s])
    assert len(set(expected)) == 3
    assert scores == pytest.approx(world.truth.scores[2, :3], nan_ok=True)
    assert trial._emulation.speed == 30.0


def test_an_emulated_trial_that_goes_on_waits_as_long_as_a_resumed_one(world, monkeypatch):
    waits = []
    monkeypatch.setattr(
        "elastune.sim.bridge.workers.emulated.EmulatedTrial._wait", lambda _self, seconds: waits.append(seconds)
    )
    EmulatedTrainables(world.truth, seed=5)(assignment(1, restore_from=1, from_iteration=2), "cpu")

    assert waits == [world.truth.timings.resume_s] != [world.truth.timings.launch_s]


def test_both_factories_travel(world):
    real = WorkloadTrainables("digits-mlp", 3, (4, 5), "per-worker")
    assert pickle.loads(pickle.dumps(real)) == real
    emulated = pickle.loads(pickle.dumps(EmulatedTrainables(world.truth, 5, 60.0)))
    assert np.array_equal(emulated.truth.scores, world.truth.scores, equal_nan=True)
    assert not emulated.needs_process_group
