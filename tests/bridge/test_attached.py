"""Nodes of a cluster that runs already are leased, given back, and taken over by the driver that comes after one that died."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import ray
import yaml

from elastune.experiments.real.probes import open_cluster
from elastune.sim.bridge.machines import attached
from elastune.sim.bridge.machines.nodes import Node, NoNodeError
from elastune.sim.control.journal import read_entries
from elastune.sim.model.commands import ProvisionInstance
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.events import InstanceGone, Outcome, SegmentEnded
from tests.bridge.chaos import ELASTUNE, Run, wait_for
from tests.bridge.record import job


@pytest.fixture
def two_nodes(cluster):
    """Two nodes of one slot, and the address of their cluster."""
    for number in (1, 2):
        cluster.acquire(number, 1, launched=lambda: None, is_cancelled=lambda: False)
    yield cluster
    for number in (1, 2):
        cluster.release(number)


def spec(iterations=3):
    document = job("random-fixed", "digits-mlp", 40_000)
    document["job"] |= {"trials": 4, "max_iterations": iterations, "budget_usd": 100, "exact": True}
    document["workload"] |= {"iteration_s": 10}
    return document


def test_nodes_are_leased_and_given_back(two_nodes, tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec()))
    how = ["--on", "ray", "--ray", two_nodes.address, "--emulate", "20", "-o", str(tmp_path / "out"), "--json"]
    done = subprocess.run([*ELASTUNE, "run", str(file), *how], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["iterations_trained"] == 12
    assert not two_nodes.dead(), "the cluster is not ours to end"
    leased = [json.loads(line) for line in (tmp_path / "out" / "nodes.jsonl").read_text().splitlines()]
    assert {note["gpus"] for note in leased} == {1}
    assert len({note["node_id"] for note in leased}) == len(leased)


def test_another_driver_takes_the_nodes_over(two_nodes, tmp_path):
    run = Run(tmp_path / "run", spec(9), "--ray", two_nodes.address, "--emulate", "30")
    wait_for(lambda: sum(isinstance(entry.event, SegmentEnded) for entry in run.entries()) >= 1)
    wait_for(run.open_segments)
    time.sleep(1.0)
    run.driver.send_signal(signal.SIGKILL)
    run.driver.wait()
    run.resume()
    assert run.driver.wait(1200) == 0, run.log()
    entries = list(read_entries(run.journal))
    outcomes = [entry.event.outcome for entry in entries if isinstance(entry.event, SegmentEnded)]
    assert Outcome.FAILED in outcomes, "its workers died with the driver"
    assert Outcome.INSTANCE_GONE not in outcomes
    assert not [entry for entry in entries if isinstance(entry.event, InstanceGone) and entry.event.cause == "lost"]
    rented = [one for entry in entries for one in entry.commands if isinstance(one, ProvisionInstance)]
    assert len(rented) <= 2, "the machines were kept"


ANOTHER_DRIVER = """
import sys, time
from elastune.sim.bridge.machines.attached import AttachedNodes
from elastune.sim.bridge.machines.nodes import NoNodeError

nodes = AttachedNodes(sys.argv[1])
first = nodes.acquire(1, 1, launched=lambda: None, is_cancelled=lambda: False)
tries = iter(range(3))
try:
    second = nodes.acquire(2, 1, launched=lambda: None, is_cancelled=lambda: next(tries, None) is None).node_id
except NoNodeError:
    second = "none"
print(first.node_id, second, flush=True)
time.sleep(600)
"""


def test_a_node_is_leased_to_one_driver_at_a_time_and_free_when_that_dies(two_nodes, monkeypatch):
    monkeypatch.setattr(attached, "connect", lambda _: None)  # this process is a driver of the cluster already
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    ours = attached.AttachedNodes(two_nodes.address)

    def lease(number, nodes=ours):
        return nodes.acquire(number, 1, launched=lambda: None, is_cancelled=lambda: False)

    first = lease(1)
    command = [sys.executable, "-c", ANOTHER_DRIVER, two_nodes.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            theirs, none = other.stdout.readline().split()
            assert theirs in attached.alive_nodes()
            assert theirs != first.node_id
            assert none == "none", "a node of ours was leased a second time"
            with pytest.raises(NoNodeError, match="no free node with 1 slots"):
                lease(2, attached.AttachedNodes(two_nodes.address, patience_s=0.0))
            with pytest.raises(WorkerError, match="all nodes are leased"), open_cluster("cpu", "there"):
                pass
        finally:
            other.kill()
    taken_over = {3: Node(theirs, first.host, 1)}
    assert ours.adopt(taken_over) == taken_over
    ours.release(1)
    assert lease(4) == first, "it is given back"
    ours.close()


def test_an_address_at_which_nothing_answers_is_told(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec()))
    how = ["--on", "ray", "--ray", "127.0.0.1:1", "--emulate", "20", "-o", str(tmp_path / "out")]
    done = subprocess.run([*ELASTUNE, "run", str(file), *how], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 2
    assert "no Ray cluster answers there" in done.stderr
