"""Kills workers, nodes and drivers of an emulated run at random moments, and checks that nothing is lost and nothing is left.

`python -m tests.bridge.chaos worker|node|driver --kills 20 [--seed 0] [-o DIR]` does it from the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
import yaml

from elastune.sim.control.journal import read_entries
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.events import InstanceGone, Outcome, SegmentEnded

ELASTUNE = [sys.executable, "-c", "from elastune.experiments.cli.app import main; main()"]
HOW = ("--emulate", "20")
PATIENCE_S = 120.0
"""What takes longer hangs. It says nothing about how fast a machine must be."""
_ENDS_WITHIN_S = 1200.0


def spec_of(kills):
    """Every configuration is trained to the end, with a checkpoint after each iteration, for as long as the kills take."""
    return {
        "job": {
            "trials": 2 + 2 * kills,
            "min_iterations": 1,
            "max_iterations": 9,
            "deadline_s": 40_000,
            "checkpoint_every": 1,
            "exact": True,
        },
        "workload": {"bundle": "digits-mlp", "iteration_s": 10, "scaling": {1: 1, 2: 1.8}},
        "cloud": {
            "instance_type": {"name": "slot", "price_usd_per_hour": 3.06, "gpus_per_instance": 2},
            "billing": {"granularity_s": 1, "minimum_s": 60, "bills_startup": True},
            "startup": {"queue_s": 0, "init_s": 10},
            "sync_s": 1,
            "rescale_s": 5,
            "max_instances": 2,
        },
        "policy": "random-fixed",
        "seed": 0,
    }


@dataclass
class Report:
    """What came of it."""

    kind: str
    kills: int = 0
    noticed_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    result: dict | None = None

    def __str__(self):
        slowest = f", noticed within {max(self.noticed_s):.2f} s" if self.noticed_s else ""
        return f"{self.kills} x {self.kind} killed{slowest}; {self.seconds:.0f} s"


class Run:
    """A run in a folder, and the process that drives it."""

    def __init__(self, folder, spec, *how):
        self.folder = folder
        # What lies outside of the folder is named again to go on.
        places = [(option, place) for option, place in pairwise(how) if option in ("--ray", "--checkpoints")]
        self._outside = [part for named in places for part in named]
        self.journal = folder / "journal.jsonl"
        file = folder.parent / f"{folder.name}.yaml"
        file.write_text(yaml.safe_dump(spec))
        self.driver = self._start(str(file), "--on", "ray", *how, "-o", str(folder))

    def _start(self, *arguments):
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            command = [*ELASTUNE, "run", *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def resume(self):
        self.driver = self._start("--resume", str(self.folder), *self._outside)

    def log(self):
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def entries(self):
        """What is in the journal now, a line that is being written apart."""
        if not self.journal.is_file() or not self.journal.read_bytes().count(b"\n"):
            return []
        copy = self.folder / "journal.copy"
        text = self.journal.read_bytes()
        copy.write_bytes(text[: text.rfind(b"\n") + 1])
        return list(read_entries(copy))

    def open_segments(self):
        """Those that have not ended: their commands, by number."""
        under_way = {}
        for entry in self.entries():
            if isinstance(entry.event, SegmentEnded):
                under_way.pop(entry.event.segment, None)
            under_way |= {command.segment: command for command in entry.commands if isinstance(command, StartSegment)}
        return under_way

    def session(self):
        """Folder of the Ray cluster."""
        return json.loads((self.folder / "cluster.json").read_text())["folder"]

    def raylets(self):
        """Processes of the nodes that have slots."""
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "raylet"
            and any(self.session() in part for part in process.info["cmdline"] or ())
            and any("CPU," in part and "CPU,0" not in part for part in process.info["cmdline"] or ())
        ]

    def workers(self):
        """Processes in which an actor lives."""
        found = []
        for raylet in self.raylets():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just died, with its workers
                found += raylet.children(recursive=True)
        return [child for child in found if _title(child).startswith("ray::SegmentWorker")]

    def leftovers(self):
        """Processes of the cluster that live."""
        return [
            one
            for one in psutil.process_iter(["cmdline"])
            if any(self.session() in part for part in one.info["cmdline"] or ())
        ]


def _title(process):
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def wait_for(holds, within_s=PATIENCE_S):
    """What `holds` says once it says something; fails where it hangs."""
    until = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < until, f"waited {within_s} s in vain"
        time.sleep(0.02)
    return found


def ends_told(run, outcomes):
    """How many segments ended so."""
    return sum(isinstance(entry.event, SegmentEnded) and entry.event.outcome in outcomes for entry in run.entries())


def kill_worker(run, rng):
    """A worker that trains dies; its segment is told to have failed."""
    failed = ends_told(run, (Outcome.FAILED,))
    while True:
        ended = ends_told(run, tuple(Outcome))
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(wait_for(lambda: [one for one in run.workers() if ".train" in _title(one)])).kill()
        killed_s = time.monotonic()
        wait_for(lambda: ends_told(run, tuple(Outcome)) > ended)  # noqa: B023  called before the next round
        if ends_told(run, (Outcome.FAILED,)) > failed:  # else it was about to end by itself, and another one has to die
            return time.monotonic() - killed_s


def kill_node(run, rng):
    """A machine dies with all that runs on it; it is told to be lost, after the ends of its worker groups."""

    def lost():
        return sum(isinstance(entry.event, InstanceGone) and entry.event.cause == "lost" for entry in run.entries())

    before = lost()
    wait_for(run.workers)
    rng.choice(wait_for(run.raylets)).send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    wait_for(lambda: lost() > before)
    return time.monotonic() - killed_s


def kill_driver(run, rng):
    """The driver dies; nothing of its cluster lives on, and another driver goes on."""
    del rng
    wait_for(run.open_segments)
    run.driver.send_signal(signal.SIGKILL)
    run.driver.wait()
    wait_for(lambda: not run.leftovers())
    run.resume()


KILLS = {"worker": kill_worker, "node": kill_node, "driver": kill_driver}


def strike(kind, kills, folder, seed=0):
    """Run, kill so many times at random moments, and check what comes of it; returns a report.

    What must hold: the run ends with an answer, every configuration reaches its last iteration, no segment starts below what
    was durable before, the ledger adds up, the journal replays, and no process is left.
    """
    rng, run, report, began_s = random.Random(seed), Run(folder, spec_of(kills), *HOW), Report(kind), time.monotonic()
    try:
        for _ in range(kills):
            wait_for(run.open_segments)
            time.sleep(rng.uniform(0.0, 0.8))  # an iteration takes less
            assert run.driver.poll() is None, f"the run ended after {report.kills} of {kills} kills:\n{run.log()}"
            noticed_s = KILLS[kind](run, rng)
            report.kills += 1
            if noticed_s is not None:
                report.noticed_s.append(noticed_s)
        assert run.driver.wait(_ENDS_WITHIN_S) == 0, run.log()
    finally:
        run.driver.kill()
        run.driver.wait()
    report.seconds = time.monotonic() - began_s
    report.result = json.loads((folder / "result.json").read_text())
    check(run, report, kills)
    return report


def check(run, report, kills):
    """What must hold of a run that has ended."""
    trials, durable, reached = spec_of(kills)["job"]["trials"], {}, {}
    for entry in run.entries():
        if isinstance(entry.event, SegmentEnded):
            end = entry.event
            assert end.checkpoint_iteration >= durable.get(end.trial, 0), f"what was durable is lost: {end}"
            assert end.score is not None or end.outcome is not Outcome.COMPLETED, f"its trial was given up: {end}"
            durable[end.trial] = end.checkpoint_iteration
            reached[end.trial] = max(reached.get(end.trial, 0), end.iteration)
        for command in entry.commands:
            if isinstance(command, StartSegment):
                assert command.from_iteration == durable.get(command.trial, 0), f"not from its checkpoint: {command}"
    assert reached == dict.fromkeys(range(trials), 9), f"not all were trained to the end: {reached}"
    assert report.result["best_trial"] is not None
    assert math.isclose(math.fsum(report.result["ledger_usd"].values()), report.result["cost_usd"], rel_tol=1e-9)
    replayed = subprocess.run([*ELASTUNE, "replay", str(run.journal)], capture_output=True, text=True, check=False)
    assert replayed.returncode == 0, replayed.stderr
    wait_for(lambda: not run.leftovers())


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KILLS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{strike(given.kind, given.kills, out / given.kind, given.seed)}\n")


if __name__ == "__main__":
    main()
