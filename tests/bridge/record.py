"""Runs the jobs whose journals the tests replay: real training on two CPU slots, over Ray nodes that come and go.

`python -m tests.bridge.record [NAME...]` writes tests/bridge/journals/NAME.jsonl anew, as is needed when a policy changes.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from elastune.sim.model.events import SegmentEnded
from tests.bridge.chaos import Run, kill_driver, kill_node, wait_for

JOURNALS = Path(__file__).parent / "journals"
LAST = 1200.0


def job(policy, bundle, deadline_s, **slots):
    """SHA(9, 1, 9, 3) on slots at the price of a V100."""
    return {
        "job": {"trials": 9, "min_iterations": 1, "max_iterations": 9, "deadline_s": deadline_s, "budget_usd": 2,
                "checkpoint_every": 1},
        "workload": {"bundle": bundle, "scaling": {1: 1, 2: 1.8}},
        "cloud": {
            "instance_type": {"name": "slots", "price_usd_per_hour": 3.06, "gpus_per_instance": 1} | slots,
            "billing": {"granularity_s": 1, "minimum_s": 10, "bills_startup": True},
            "startup": {"queue_s": 0, "init_s": 2},
            "sync_s": 0.1,
            "rescale_s": 6,
            "max_instances": 2 // slots.get("gpus_per_instance", 1),
        },
        "policy": policy,
        "seed": 0,
    }  # fmt: skip


# With a reserve, so that the recorded decisions contain timers of cuts.
SEER = {"name": "seer", "reserve": True, "fill": False}
JOBS = {
    "seer-digits-mlp": (job(SEER, "digits-mlp", 240), None),
    "rubberband-digits-mlp-node-killed": (job("rubberband", "digits-mlp", 150), kill_node),
    "seer-mnist5k-cnn-resumed": (job(SEER, "mnist5k-cnn", 300), kill_driver),
    "rubberband-mnist5k-cnn-gangs-of-two": (job("rubberband", "mnist5k-cnn", 240, gpus_per_instance=2), None),
    "sha-elastic-digits-mlp-gangs-of-two": (
        job("sha-elastic:gpus_per_trial=2", "digits-mlp", 240, gpus_per_instance=2),
        None,
    ),
}


def record(name):
    """One job, its accident included."""
    spec, accident = JOBS[name]
    folder = Path(tempfile.mkdtemp()) / name
    run = Run(folder, spec, "--device", "cpu")
    if accident is not None:
        wait_for(lambda: sum(isinstance(entry.event, SegmentEnded) for entry in run.entries()) >= 3, 300)
        accident(run, random.Random(0))
    assert run.driver.wait(LAST) == 0, run.log()
    JOURNALS.mkdir(exist_ok=True)
    shutil.copyfile(run.journal, JOURNALS / f"{name}.jsonl")
    result = json.loads((folder / "result.json").read_text())
    told = {
        key: result[key]
        for key in ("score", "test_score", "cost_usd", "makespan_s", "deadline_met", "trials_started", "real")
    }
    sys.stdout.write(f"{name}: {told}\n")


if __name__ == "__main__":
    for asked in sys.argv[1:] or JOBS:
        record(asked)
