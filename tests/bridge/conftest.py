"""Real backends for tests: an embedded Ray cluster on loopback, and an emulated workload that waits out a few moments."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from ray import cloudpickle

pytest.importorskip("psutil", reason="real workers need the bridge extra")

from elastune.sim.bridge.backend import RayBackend
from elastune.sim.bridge.machines.clock import Clock
from elastune.sim.bridge.machines.embedded import EmbeddedNodes
from elastune.sim.bridge.workers.emulated import EmulatedTrial, Emulation
from elastune.sim.bridge.workers.worker import WorkerSettings

TRIALS, ITERATIONS = 4, 200
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests
_SERIES = itertools.count(1)


class Table:
    """Configurations by number, or the same one for all."""

    def __init__(self, configuration=None):
        self.heard = []
        self._configuration = configuration

    def configuration_of(self, trial):
        return self._configuration or {"number": int(trial)}

    def remember(self, trial, configuration):
        pass

    def hear(self, trial, iteration, score):
        self.heard.append((trial, iteration, score))


@dataclass(frozen=True)
class Emulated:
    """Trials whose scores are trial + 1 / iteration; the members of a worker group share the seconds of an iteration."""

    iteration_s: float = 0.3
    start_s: float = 0.0
    checkpoint_s: float = 0.0
    needs_process_group: bool = False

    def __call__(self, assignment, device):
        del device
        seconds = np.full(ITERATIONS, self.iteration_s / assignment.size)
        scores = assignment.trial + 1 / np.arange(1, ITERATIONS + 1)
        return EmulatedTrial(Emulation(seconds, scores, self.start_s, self.checkpoint_s))


class Borrowed:
    """A cluster that several backends use one after the other: closing gives back their nodes only."""

    def __init__(self, cluster, first):
        self.cluster, self._first = cluster, first
        self._ours = set()

    @property
    def folder(self):
        return self.cluster.folder

    def acquire(self, instance, gpus, *, launched, is_cancelled):
        self._ours.add(instance)
        return self.cluster.acquire(self._first + instance, gpus, launched=launched, is_cancelled=is_cancelled)

    def raylet_pid(self, instance):
        return self.cluster.raylet_pid(self._first + instance)

    def release(self, instance):
        self.cluster.release(self._first + instance)

    def dead(self):
        return [number - self._first for number in self.cluster.dead() if number - self._first in self._ours]

    def adopt(self, _leased):
        return {}

    def close(self):
        for instance in self._ours:
            self.release(instance)


@pytest.fixture(scope="module")
def cluster():
    """One for all tests of a file: starting one takes seconds, and a process that has one open cannot start a run."""
    nodes = EmbeddedNodes()
    yield nodes
    nodes.close()


@pytest.fixture
def runs_share(cluster, monkeypatch):
    """Whole runs in this process take their nodes from the cluster of the file, instead of starting one each."""
    monkeypatch.setattr(
        "elastune.sim.bridge.machines.embedded.EmbeddedNodes", lambda _device: Borrowed(cluster, 1000 * next(_SERIES))
    )


@pytest.fixture
def real(cluster, tmp_path):
    """Builds real backends; closes those that a test left open."""
    built = []

    def build(trainables=None, configuration=None, clock=None, **keywords):
        settings = WorkerSettings(
            build=trainables or Emulated(), checkpoints=str(tmp_path / f"checkpoints-{len(built)}"), device="cpu"
        )
        nodes = Borrowed(cluster, 1000 * next(_SERIES))
        backend = RayBackend(
            nodes, settings, gpus_of={"m": 2}, configurations=Table(configuration), clock=clock or Clock(), **keywords
        )
        backend.nodes = nodes  # to break it
        built.append(backend)
        return backend

    yield build
    for backend in built:
        backend.close()
