"""Timing profiles on real workers: what is known to be emulated is found, a real workload is timed, nothing is left behind."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass

import pytest
from packages import needs
from ray import cloudpickle

from elastune.experiments.plans.plan_spec import planning_profile
from elastune.experiments.profiling.estimates import ALONE, timing_of
from elastune.experiments.profiling.records import GangShape
from elastune.experiments.profiling.timing import surroundings_part, time_workload, timed
from elastune.experiments.profiling.timing_plan import TimingEffort, TimingPlan
from elastune.experiments.profiling.work_folder import WorkFolder
from elastune.experiments.spec.run import RunSpec
from elastune.sim.bridge.workers import emulated, measured, worker
from elastune.sim.bridge.workers.worker import WorkerSettings
from elastune.sim.model.errors import WorkerError
from elastune.traces import bundle_folder, load_bundle, tiny_bundle
from tests.bridge.command import terminal
from tests.bridge.conftest import Borrowed, Emulated

needs("torch", "sklearn")

pytestmark = pytest.mark.slow
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests
TWO_NODES = GangShape(2, 2)
SHAPES = (ALONE, GangShape(2, 1), TWO_NODES)
# Two torch workers on busy cores wait for each other: that is then what is measured.
SLOWER = pytest.mark.filterwarnings("ignore:scaling .* is slower than the next smaller one")
needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there are fewer than two CPU cores")


class WaitsOnly:
    """A clock on which waits take as long as they were to, and all else takes no time: other work does not change it."""

    def __init__(self):
        self._now_s = time.monotonic()

    def monotonic(self):
        return self._now_s

    def sleep(self, seconds):
        time.sleep(seconds)
        self._now_s += seconds


@dataclass(frozen=True)
class OnItsOwnClock(Emulated):
    """Trials whose workers measure everything by such a clock."""

    def __call__(self, assignment, device):
        emulated.time = worker.time = measured.time = WaitsOnly()
        return super().__call__(assignment, device)


@pytest.fixture
def shell():
    with terminal() as there:
        yield there


@pytest.fixture
def measure(cluster, tmp_path):
    """Times an emulated workload on nodes of the cluster that is there."""

    def call(trainables, checkpoints, shapes=SHAPES):
        effort = TimingEffort(configurations=1, rounds=1, seconds=0.6, node_starts=0)
        plan = TimingPlan(shapes=shapes, effort=effort)
        folder = WorkFolder(tmp_path / "mine")
        folder.open(plan.asked(), bundle_folder("digits-mlp"))
        bundle = tiny_bundle([[0.5, 0.4], [0.6, 0.3]])
        settings = WorkerSettings(build=timed(trainables), checkpoints=checkpoints)
        connect = lambda _plan: Borrowed(cluster, 700_000)  # noqa: E731
        return time_workload(plan, bundle, settings, folder, connect=connect), folder

    return call


@needs_two_cores
def test_the_seconds_of_an_emulated_workload_are_found(measure, tmp_path):
    series, folder = measure(
        OnItsOwnClock(iteration_s=0.1, start_s=0.5, checkpoint_s=0.2), str(tmp_path / "checkpoints")
    )
    timing = timing_of(series, {0: 1.0, 1: 1.0})

    assert [[(r.gpus, r.nodes, r.is_fresh) for r in records] for records in series] == [
        [(1, 1, True), (2, 1, False)],
        [(2, 2, True), (2, 2, False)],
    ]
    assert timing.iteration_s.value == pytest.approx(0.1)
    assert timing.speedups[GangShape(2, 1)].value == pytest.approx(2.0)
    assert timing.speedups[TWO_NODES].value == pytest.approx(2.0)
    assert timing.launch_s.value > 0.5
    assert timing.checkpoint_s.value == pytest.approx(0.2)
    assert timing.rescale_s.value > timing.checkpoint_s.value + 0.5
    [found] = surroundings_part(folder).read()
    assert len(found.nodes) == 1
    assert found.nodes[0].init_s > 0.1
    assert {"cpu", "torch", "ray"} <= set(found.measured_on)


def test_checkpoints_that_do_not_reach_the_next_worker_group_are_an_error(measure):
    with pytest.raises(WorkerError, match="this machine and every node reach"):
        measure(Emulated(iteration_s=0.1), "memory://of-each-process-alone", shapes=(ALONE,))


@needs_two_cores
@SLOWER
def test_a_real_workload_is_timed_and_planned_with(tmp_path, shell):
    out = tmp_path / "mine"
    asked = ["profile", "digits-mlp", "--gpus", "1,2", "--configurations", "1", "--rounds", "1", "--seconds", "0.2"]
    done = shell.elastune(*asked, "-o", str(out), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(one["gpus"], one["samples"]) for one in told["scaling"]] == [(1, 1), (2, 1)]
    bundle = load_bundle(out)
    assert bundle.iteration_s == pytest.approx(told["iteration_s"]["value"], rel=1e-5)
    assert 0 < bundle.evaluate_s < bundle.iteration_s
    assert bundle.timings.launch_s > 0.3  # torch was imported
    assert bundle.checkpoint_bytes > 1000
    assert bundle.provenance["scaling"].startswith("measured on Ray workers, each on a CPU slot of")
    spec = RunSpec.of(
        job={"trials": 9, "max_iterations": 9, "deadline_s": 3600, "budget_usd": 50},
        workload={"bundle": str(out)},
        cloud={"instance_type": {"name": "slot", "price_usd_per_hour": 3, "gpus_per_instance": 2}, "max_instances": 1},
        policy="rubberband",
    )
    assert planning_profile(spec).scaling.speedup(2) > 0
    assert shell.is_clean()


@pytest.mark.gpu
def test_a_device_is_timed(tmp_path, shell):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    groups = ",".join(str(count) for count in (1, 2, 4, 8) if count <= torch.cuda.device_count())
    asked = ["profile", "digits-mlp", "--gpus", groups, "--device", "cuda", "--configurations", "1", "--rounds", "1"]
    done = shell.elastune(*asked, "-o", str(tmp_path / "mine"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"gpu", "cuda", "nccl"} <= set(told["measured_on"])
    assert (
        load_bundle(tmp_path / "mine")
        .provenance["scaling"]
        .startswith("measured on Ray workers, each on a CUDA device")
    )
